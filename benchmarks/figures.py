"""What is measured, in which unit, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Samples = dict[str, list[float]]  # of each figure, one for each round
Results = dict[str, dict[str, Samples]]  # of each server, for each case as "bulk:8"


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of a table."""

    key: str
    title: str
    more_is_better: bool = False


# The first of each mode is the one that the mode is about.
FIGURES: Mapping[str, Sequence[Figure]] = {
    "bulk": (
        Figure("gb_per_second", "GB/s", more_is_better=True),
        Figure("cpu_s_per_gb", "CPU s/GB"),
    ),
    "cps": (
        Figure("per_second", "connections/s", more_is_better=True),
        Figure("cpu_ms_per_connection", "CPU ms each"),
        Figure("p99_us", "p99 us"),
    ),
    "rr": (
        Figure("per_second", "round trips/s", more_is_better=True),
        Figure("p50_us", "p50 us"),
        Figure("p99_us", "p99 us"),
        Figure("cpu_us_per_operation", "CPU us each"),
    ),
    "idle": (
        Figure("pss_kib_per_tunnel", "KiB/tunnel (PSS)"),
        Figure("rss_kib_per_tunnel", "KiB/tunnel (RSS)"),
        Figure("descriptors_per_tunnel", "descriptors/tunnel"),
    ),
    "stall": (
        Figure("growth_mib", "growth MiB"),
        Figure("p50_ms", "chat p50 ms"),
        Figure("p99_ms", "chat p99 ms"),
    ),
    "udp": (
        Figure("per_second", "echoes/s", more_is_better=True),
        Figure("cpu_us_per_operation", "CPU us each"),
        Figure("p99_us", "p99 us"),
        Figure("lost", "lost"),
    ),
}
_WHAT = {
    "bulk": "bulk, {streams} at a time",
    "cps": "connections, {streams} at a time",
    "rr": "64 octets to and fro, {streams} tunnels",
    "idle": "{streams} idle tunnels",
    "stall": "{streams} readers that do not read, beside one tunnel that chats",
    "udp": "UDP, 64 octets echoed; associations: {streams}",
}


def described(case: str) -> str:
    """Give a case's name for people."""
    mode, _, streams = case.partition(":")
    return _WHAT[mode].format(streams=streams)


def medians(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Give the medians of all rounds."""
    return {
        server: {
            case: {key: median(values) for key, values in samples.items() if values}
            for case, samples in cases.items()
        }
        for server, cases in results.items()
    }


def ratios(found: Mapping[str, Any], baseline: str) -> dict[str, dict[str, dict[str, float]]]:
    """Give every median as a multiple of the baseline's; what it lacks or has as 0 has none."""
    base = found.get(baseline, {})
    return {
        server: {
            case: {
                key: value / base[case][key]
                for key, value in values.items()
                if base.get(case, {}).get(key)
            }
            for case, values in cases.items()
        }
        for server, cases in found.items()
    }


def short(value: float) -> str:
    """Write a figure with three digits that count, thousands in full."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def tables(document: Mapping[str, Any]) -> str:
    """
    Write a table for each case.

    They are simple tables of reStructuredText, which people can read as well.

    Args:
        document: As run.py writes it with ``--json``.
    """
    baseline, found = document["baseline"], document["medians"]
    lines: list[str] = []
    for case in document["cases"]:
        figures = FIGURES[case.partition(":")[0]]
        rows = [["", *(figure.title for figure in figures)]]
        for server, cases in found.items():
            if case not in cases:
                continue
            cells = []
            for figure in figures:
                value = cases[case].get(figure.key)
                ratio = document["ratios"][server][case].get(figure.key)
                cell = "\\-" if value is None else short(value)
                cells.append(cell if ratio is None else f"{cell} ({ratio:.2f}x)")
            rows.append([f"**{server}**" if server.startswith("socksd") else server, *cells])
        if len(rows) == 1:
            continue
        title = described(case)
        lines += ["", title, "." * len(title), "", *_simple_table(rows), ""]
    if baseline in found:
        lines.append(f"In parentheses: as a multiple of {baseline}'s, in the same run.")
    return "\n".join(lines).strip() + "\n"


def _simple_table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    rule = "  ".join("=" * max(width, 2) for width in widths)
    written = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    written[0] = written[0] if rows[0][0] else "\\ " + written[0][2:]
    return [rule, written[0], rule, *written[1:], rule]
