"""What the system says of this process."""

from __future__ import annotations

import os
from typing import Any

from socksd.observe.metrics import Kind, Together
from socksd.observe.process import process


def test_the_process_is_described_by_the_usual_names() -> None:
    found = {family.name: family for family in process()}
    value: dict[str, Any] = {name: family.values[()] for name, family in found.items()}
    assert value["process_open_fds"] == len(os.listdir("/proc/self/fd"))
    assert value["process_max_fds"] >= value["process_open_fds"]
    assert value["process_resident_memory_bytes"] > 1 << 20
    assert value["process_cpu_seconds"] > 0
    assert found["process_cpu_seconds"].kind is Kind.COUNTER


def test_processes_stand_apart() -> None:
    """The limit on descriptors is each one's own: a sum would hide the one that is full."""
    assert {family.together for family in process()} == {Together.APART}
