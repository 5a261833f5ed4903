"""
Metrics as Prometheus reads them. Needs prometheus-client.

All of this is for a thread: three thousand numbers take some 60 ms to write.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from socksd.observe.metrics import BOUNDS, Distribution, Family, Kind, Labels

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_EDGES = (*map(str, BOUNDS), "+Inf")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def render(families: Iterable[Family]) -> bytes:
    """Write *families*, and what the system says of this process, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected((*families, *process())))
    return generate_latest(registry)


def process() -> Iterator[Family]:
    """
    Say what this process takes, by the names that every Prometheus client uses.

    Not by prometheus-client's own collector: that wants /proc/stat, which
    ``ProcSubset=pid`` of our systemd unit hides.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm", "rb") as statm:
        resident = int(statm.read().split()[1]) * _PAGE
    yield Family(
        Kind.COUNTER,
        "process_cpu_seconds",
        "Processor time, of user and system, in seconds.",
        {(): used.ru_utime + used.ru_stime},
    )
    gauges = {
        "process_resident_memory_bytes": ("Resident memory in octets.", resident),
        "process_open_fds": ("Descriptors in use.", len(os.listdir("/proc/self/fd"))),
        "process_max_fds": (
            "The limit on descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ),
    }
    for name, (what, value) in gauges.items():
        yield Family(Kind.GAUGE, name, what, {(): value})


class _Collected(Collector):
    """Families of ours as those of prometheus-client."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Make all of them."""
        for family in self._families:
            if family.kind is Kind.HISTOGRAM:
                yield _histogram(family)
            else:
                yield _numbers(family)


def _numbers(family: Family) -> Metric:
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    made = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.values.items():
        made.add_metric(labels, value)  # type: ignore[arg-type]  # only histograms have others
    return made


def _histogram(family: Family) -> Metric:
    made = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    values: Mapping[Labels, Distribution] = family.values  # type: ignore[assignment]  # as above
    for labels, found in values.items():
        cumulative = accumulate(found.counts)
        made.add_metric(labels, list(zip(_EDGES, cumulative, strict=True)), found.sum)
    return made
