"""
Load a gateway with everything at once, for long, and see whether it stays as it was.

    python -m benchmarks.soak --minutes 10

Slice by slice run side by side: connections that come and go, bulk both ways
with every octet compared, tunnels that chat, and clients that hardly read.
Between two slices nothing is open, and what the gateway then holds must be the
same over the second half of the soak. The exit status is 1 when it is not, or
when an octet is wrong or missing.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from benchmarks.load import Load, LoadError, Report, built, report
from benchmarks.processes import Usage, usage
from benchmarks.servers import SERVERS, MissingError, NotStartedError, Running, given, started

MIB = 1024 * 1024
STREAM = 64 * MIB  # octets of one stream of bulk, each way

# Flat is what rises, over the second half of a soak, by less than the smallest
# thing that each connection could leave behind: a place in a list, 8 octets. Or
# by less than one arena of CPython's allocator, which comes or goes as a whole.
# In the first half allocators, caches and pools find their level.
LEFT_BEHIND = 8
ARENA = MIB
SPARE_DESCRIPTORS = 4  # a look-up thread's or a log's, which come and go


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice has carried, and what the gateway held."""

    second: float  # since the beginning, at its end
    rss_busy: int  # octets, the most while it ran
    descriptors_busy: int
    rss: int  # octets at rest, behind it
    descriptors: int
    cpu: float  # seconds
    connections: int
    octets: int
    p99_ms: float  # of the chatting tunnels
    wrong: int
    missing: int
    failed: int


def soak(running: Running, program: Path, seconds: float, slice_seconds: float) -> list[Slice]:
    """
    Load *running* for *seconds*, in slices; prints a line for each.

    Raises:
        LoadError: A generator gave no report.
    """
    load = Load(program, running.address)
    began = time.monotonic()
    slices: list[Slice] = []
    print(HEADER, flush=True)
    while time.monotonic() - began < seconds:
        slices.append(_slice(load, running, began, slice_seconds))
        print(_line(slices[-1]), flush=True)
    return slices


def _slice(load: Load, running: Running, began: float, seconds: float) -> Slice:
    before = usage(running.pids)
    runs = [
        load.start("cps", seconds=seconds, streams=8),
        # By count, not by time: whatever does not arrive is missing.
        load.start(
            "bulk", seconds=seconds + 30, streams=4, direction="both", octets=STREAM, full=True
        ),
        load.start("rr", seconds=seconds, streams=16),
        load.start("stall", seconds=seconds, streams=20, trickle=20_000),
    ]
    busy = [before]
    try:
        while any(run.poll() is None for run in runs):
            busy.append(usage(running.pids))
            time.sleep(0.5)
        reports = [report(run, seconds) for run in runs]
    finally:
        for run in runs:
            if run.poll() is None:
                run.kill()
                run.communicate()
    churn, bulk, chat, _ = reports
    rest = at_rest(running.pids, before.descriptors)

    def total(key: str) -> int:
        return sum(one[key] for one in reports)

    return Slice(
        second=time.monotonic() - began,
        rss_busy=max(one.rss for one in busy),
        descriptors_busy=max(one.descriptors for one in busy),
        rss=rest.rss,
        descriptors=rest.descriptors,
        cpu=rest.cpu - before.cpu,
        connections=churn["connections"],
        octets=bulk["octets"],
        p99_ms=_p99_ms(chat),
        wrong=total("wrong"),
        missing=total("missing"),
        failed=total("failed"),
    )


def _p99_ms(chat: Report) -> float:
    return float(chat["p99_us"]) / 1e3


def at_rest(pids: Sequence[int], descriptors: int) -> Usage:
    """Give what is held once the last connections are gone, or after five seconds."""
    for _ in range(50):
        time.sleep(0.1)
        found = usage(pids)
        if found.descriptors <= descriptors:
            break
    return found


HEADER = (
    "seconds  at rest: MiB   fds  busy: MiB   fds  CPU s  connections      GB"
    "   p99 ms  wrong  missing  failed"
)


def _line(one: Slice) -> str:
    return (
        f"{one.second:7.0f} {one.rss / MIB:13.1f} {one.descriptors:5}"
        f" {one.rss_busy / MIB:10.1f} {one.descriptors_busy:5} {one.cpu:6.2f}"
        f" {one.connections:12,} {one.octets / 1e9:7.2f} {one.p99_ms:8.2f}"
        f" {one.wrong:6} {one.missing:8} {one.failed:7}"
    )


def verdicts(slices: Sequence[Slice], descriptors: int) -> list[tuple[bool, str]]:
    """
    Judge what a soak has shown.

    Args:
        slices: All of it.
        descriptors: What the gateway held before the first.

    Returns:
        Whether it is as it must be, and what was looked at.
    """
    middle = len(slices) // 2
    first, half = slices[:middle], slices[middle:]
    seconds = half[-1].second - half[0].second
    rise = _slope(half) * seconds
    connections = sum(one.connections for one in half[1:])
    allowed = max(ARENA, LEFT_BEHIND * connections)
    wrong, missing, failed = (
        sum(getattr(one, key) for one in slices) for key in ("wrong", "missing", "failed")
    )
    before, after = (max((one.descriptors for one in part), default=0) for part in (first, half))
    return [
        (
            len(half) >= 3 and rise <= allowed,
            (
                f"memory at rest over the second half: {rise / MIB:+.2f} MiB by its slope in"
                f" {seconds:.0f} s and {connections:,} connections ({allowed / MIB:.2f} allowed,"
                f" of {len(half)} slices; 3 are needed)"
            ),
        ),
        (
            after <= before + SPARE_DESCRIPTORS,
            (
                f"descriptors at rest: {descriptors} when it began, at most {before} in the first"
                f" half and {after} in the second"
            ),
        ),
        (wrong == 0, f"octets compared: {wrong} reads differ"),
        (missing == 0, f"octets missing: {missing}"),
        (failed == 0, f"tunnels that failed: {failed}"),
    ]


def _slope(slices: Sequence[Slice]) -> float:
    """Give the octets a second by which memory at rest rises (least squares)."""
    seconds, rss = [one.second for one in slices], [one.rss for one in slices]
    middle, level = mean(seconds), mean(rss)
    spread = sum((second - middle) ** 2 for second in seconds)
    if not spread:
        return 0.0
    return sum((s - middle) * (r - level) for s, r in zip(seconds, rss, strict=True)) / spread


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the verdicts; the exit status is 1 when one is bad."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="default 10")
    add("--slice", type=float, default=5.0, metavar="SECONDS", help="default 5")
    add("--server", default="socksd-policy", help="as for run.py; default socksd-policy")
    add("--json", type=Path, metavar="FILE", help="write all slices there")
    options = parser.parse_args(arguments)
    server = SERVERS.get(options.server) or given(options.server)
    if server is None or server.name == "direct":
        parser.error(f"{options.server!r} is no server with processes to look at")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends, too
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # servers inherit it
    try:
        program = built()
        with started(server) as running:
            if not running.pids:
                parser.error("its PID is needed: NAME=HOST:PORT:PID")
            # What is imported or opened only once is there before the first look.
            Load(program, running.address).run("cps", seconds=0.5, streams=8)
            descriptors = at_rest(running.pids, 0).descriptors
            slices = soak(running, program, options.minutes * 60, options.slice)
    except (LoadError, MissingError, NotStartedError) as error:
        print(f"{server.name}: {error}")
        return 1
    found = verdicts(slices, descriptors)
    if options.json:
        kept = {"descriptors": descriptors, "slices": [asdict(one) for one in slices]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    print()
    for good, text in found:
        print(f"{'good' if good else 'BAD '}  {text}")
    return not all(good for good, _ in found)


if __name__ == "__main__":
    sys.exit(main())
