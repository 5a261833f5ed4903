"""What the system says of this process, by the names that every Prometheus client uses."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from socksd.observe.metrics import Family, Kind, Together

_PAGE = os.sysconf("SC_PAGE_SIZE")


def process() -> Iterator[Family]:
    """
    Say what this process takes; for a thread, as it lists all descriptors.

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
        together=Together.APART,
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
        yield Family(Kind.GAUGE, name, what, {(): value}, together=Together.APART)
