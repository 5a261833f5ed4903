"""
Measure socksd beside its peers, in alternating rounds.

    python -m benchmarks.run --modes cps:16 rr:1,64 --servers socksd dante --rounds 3

README.rst in this folder says how it measures, and why so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES, Results, medians, ratios, short, tables
from benchmarks.load import Load, LoadError, Report, built
from benchmarks.processes import settled_cpu, usage
from benchmarks.servers import (
    SERVERS,
    MissingError,
    NotStartedError,
    Running,
    Server,
    given,
    started,
)

STREAMS = {
    "bulk": (1, 8, 64),
    "cps": (16,),
    "rr": (1, 64),
    "idle": (3000,),
    "stall": (100,),
    "udp": (1,),
}
KIB, MIB = 1024, 1024 * 1024
_CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
NO_UDP = "left out: does not do UDP ASSOCIATE"


@dataclass(frozen=True, slots=True)
class Case:
    """A mode of load.c with a number of streams."""

    mode: str
    streams: int

    def __str__(self) -> str:
        return f"{self.mode}:{self.streams}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run against one server gave."""

    figures: dict[str, float]
    trouble: str = ""  # what makes the figures worthless; then there are none


def measure(server: Server, case: Case, program: Path, seconds: float) -> Measured:
    """
    Start *server*, measure one case, and end it again.

    A fresh server for each: memory that an earlier run has left behind would
    make idle tunnels look free, and no server is there while another is measured.

    Raises:
        MissingError: It is not here.
    """
    try:
        with started(server) as running:
            load = Load(program, running.address)
            load.run("cps", seconds=0.3, streams=4)  # what is imported or forked only once
            measured = _held if case.mode in ("idle", "stall") else _timed
            return measured(load, running, case, seconds)
    except (LoadError, NotStartedError) as error:
        return Measured({}, str(error).strip())


def _timed(load: Load, running: Running, case: Case, seconds: float) -> Measured:
    before = settled_cpu(running.pids)
    report = load.run(case.mode, seconds=seconds, streams=case.streams)
    cpu = settled_cpu(running.pids) - before
    trouble = _trouble(report)
    if trouble:
        return Measured({}, trouble)
    figures = {f.key: report[f.key] for f in FIGURES[case.mode] if f.key in report}
    if running.pids:
        if case.mode == "bulk":
            figures["cpu_s_per_gb"] = cpu / report["octets"] * 1e9
        elif case.mode == "cps":
            figures["cpu_ms_per_connection"] = cpu / report["connections"] * 1e3
        else:
            figures["cpu_us_per_operation"] = cpu / report["operations"] * 1e6
    return Measured(figures)


def _held(load: Load, running: Running, case: Case, seconds: float) -> Measured:
    before = usage(running.pids, pss=True)
    most = before.pss
    with load.held(case.mode, seconds=seconds + 30, streams=case.streams) as end:
        until = time.monotonic() + seconds
        while time.monotonic() < until:  # of readers that stall, the worst moment counts
            time.sleep(0.25)
            most = max(most, usage(running.pids, pss=True).pss)
        loaded = usage(running.pids, pss=True)
        report = end()
    trouble = _trouble(report)
    if trouble:
        return Measured({}, trouble)
    figures: dict[str, float] = {}
    if case.mode == "stall":
        figures |= {"p50_ms": report["p50_us"] / 1e3, "p99_ms": report["p99_us"] / 1e3}
        if running.pids:
            figures["growth_mib"] = (most - before.pss) / MIB
    elif running.pids:
        tunnels = report["opened"]
        figures["pss_kib_per_tunnel"] = (loaded.pss - before.pss) / KIB / tunnels
        figures["rss_kib_per_tunnel"] = (loaded.rss - before.rss) / KIB / tunnels
        figures["descriptors_per_tunnel"] = (loaded.descriptors - before.descriptors) / tunnels
    return Measured(figures)


def _trouble(report: Report) -> str:
    """Say why a report is no measurement."""
    if not report["opened"]:
        return "nothing could be opened" if report["mode"] != "udp" else NO_UDP
    for key in ("wrong", "missing", "failed"):
        if report[key]:
            return f"{report[key]} {key}"
    if not report.get("operations", 1) or not report.get("connections", 1):
        return "nothing came back"
    return ""


def compare(
    servers: Sequence[Server], cases: Sequence[Case], program: Path, rounds: int, seconds: float
) -> tuple[Results, dict[str, list[str]]]:
    """
    Measure all *cases* of all *servers*, once in each round.

    Returns:
        The samples; and what went wrong, by server.
    """
    results: Results = {server.name: {} for server in servers}
    troubles: dict[str, list[str]] = {}
    missing: set[str] = set()
    for turn in range(rounds):
        for case in cases:
            # Each round begins with another one: nobody is always behind the same neighbour.
            first = turn % len(servers)
            for server in (*servers[first:], *servers[:first]):
                if server.name in missing:
                    continue
                _say(f"round {turn + 1}/{rounds}  {case!s:10} {server.name:22} ")
                try:
                    measured = measure(server, case, program, seconds)
                except MissingError as error:
                    missing.add(server.name)
                    measured = Measured({}, f"left out: {error}")
                if measured.trouble:
                    troubles.setdefault(server.name, []).append(f"{case}: {measured.trouble}")
                _say(measured.trouble or _brief(case, measured.figures), end="\n")
                samples = results[server.name].setdefault(str(case), {})
                for key, value in measured.figures.items():
                    samples.setdefault(key, []).append(value)
    kept = {name: {c: s for c, s in found.items() if s} for name, found in results.items()}
    return {name: found for name, found in kept.items() if found}, troubles


def _brief(case: Case, figures: dict[str, float]) -> str:
    return ", ".join(
        f"{short(figures[figure.key])} {figure.title}"
        for figure in FIGURES[case.mode]
        if figure.key in figures
    )


def _say(text: str, end: str = "") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def parsed_cases(texts: Sequence[str], streams: Sequence[int] | None) -> list[Case]:
    """
    Read ``bulk`` or ``bulk:1,8``; *streams* stands for what is not written.

    Raises:
        ValueError: There is no such mode, or that is no number.
    """
    cases = []
    for text in texts:
        mode, _, numbers = text.partition(":")
        if mode not in STREAMS:
            raise ValueError(f"{mode!r} is none of {', '.join(STREAMS)}")
        wanted = [int(n) for n in numbers.split(",")] if numbers else streams or STREAMS[mode]
        cases += [Case(mode, number) for number in wanted]
    return cases


def parsed_servers(texts: Sequence[str]) -> list[Server]:
    """
    Read names that SERVERS knows, and ``NAME=HOST:PORT[:PID]``.

    Raises:
        ValueError: It is neither.
    """
    servers = []
    for text in texts:
        server = SERVERS.get(text) or given(text)
        if server is None:
            raise ValueError(
                f"{text!r} is none of {', '.join(SERVERS)}, and no NAME=HOST:PORT[:PID]"
                " with an address of the loopback"
            )
        servers.append(server)
    return servers


def document(
    results: Results, cases: Sequence[Case], rounds: int, seconds: float, baseline: str
) -> dict[str, Any]:
    """Give all there is to keep of a run."""
    found = medians(results)
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "congestion_control": _CONGESTION_CONTROL.read_text().strip(),
            "python": platform.python_version(),
        },
        "rounds": rounds,
        "seconds": seconds,
        "cases": [str(case) for case in cases],
        "baseline": baseline,
        "medians": found,
        "ratios": ratios(found, baseline),
        "samples": results,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status is 1 when a server that is here has failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="default 5")
    add("--seconds", type=float, default=3.0, help="of each measurement; default 3")
    add("--modes", nargs="+", default=list(STREAMS), metavar="MODE[:N,...]", help="default all")
    add("--streams", help="N,... for all modes that name none")
    add("--servers", nargs="+", default=list(SERVERS), metavar="SERVER", help="default all")
    add("--baseline", default="dante", help="what ratios are of; default dante")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--rst", type=Path, metavar="FILE", help="measure nothing: the tables of such a FILE")
    options = parser.parse_args(arguments)
    if options.rst:
        print(tables(json.loads(options.rst.read_text())), end="")
        return 0
    try:
        streams = [int(n) for n in options.streams.split(",")] if options.streams else None
        cases = parsed_cases(options.modes, streams)
        servers = parsed_servers(options.servers)
    except ValueError as error:
        parser.error(str(error))
    try:
        program = built()
    except LoadError as error:
        parser.exit(1, f"{error}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends, too
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # servers inherit it
    results, troubles = compare(servers, cases, program, options.rounds, options.seconds)
    kept = document(results, cases, options.rounds, options.seconds, options.baseline)
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    print(tables(kept))
    for name, said in troubles.items():
        for line in dict.fromkeys(said):
            print(f"{name}: {line}")
    return any(": left out" not in line for lines in troubles.values() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
