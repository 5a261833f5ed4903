"""
Metrics as Prometheus reads them. Needs prometheus-client.

All of this is for a thread: three thousand numbers take some 60 ms to write.
"""

from __future__ import annotations

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


def render(families: Iterable[Family]) -> bytes:
    """Write *families* in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(tuple(families)))
    return generate_latest(registry)


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
