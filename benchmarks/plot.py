"""
Draw what run.py has measured, as one SVG file.

    python -m benchmarks.plot RUN.json PLOT.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.figures import FIGURES, Figure, described, short

PANEL = 430  # width of a panel, in pixels; two stand side by side
LABEL = 150  # of which the servers' names take so much
BAR = 18  # height of a bar and its gap
HEAD = 42  # height of a panel's title

# One hue for ours and greys for the others, which print well and can be told
# apart by everybody; text takes the colour of the page around it where it can.
OURS, PEERS, LIMIT, TEXT = "#0b6e99", "#9aa5ad", "#d5dadd", "#333"

# Of each mode, what to draw.
DRAWN = {
    "bulk": ("gb_per_second", "cpu_s_per_gb"),
    "cps": ("per_second", "cpu_ms_per_connection"),
    "rr": ("per_second", "p50_us"),
    "idle": ("pss_kib_per_tunnel",),
    "stall": ("growth_mib",),
    "udp": ("per_second",),
}


def panels(document: Mapping[str, Any]) -> list[tuple[str, Figure, dict[str, float]]]:
    """Give case, figure and values by server, of every panel that has any."""
    found = []
    for case in document["cases"]:
        mode = case.partition(":")[0]
        for figure in FIGURES[mode]:
            values = {
                server: cases[case][figure.key]
                for server, cases in document["medians"].items()
                if figure.key in cases.get(case, {})
            }
            if figure.key in DRAWN[mode] and values:
                found.append((case, figure, values))
    return found


def panel(
    case: str, figure: Figure, values: Mapping[str, float], x: int, y: int
) -> tuple[str, int]:
    """Draw one panel with its left upper corner at *x*, *y*; gives its height, too."""
    better = "more is better" if figure.more_is_better else "less is better"
    lines = [
        f'<text x="{x}" y="{y + 14}" class="title">{escape(described(case))}</text>',
        f'<text x="{x}" y="{y + 30}" class="unit">{escape(figure.title)} ({better})</text>',
    ]
    # "direct" is no server: the scale is that of the servers, and it may go beyond.
    most = max((v for name, v in values.items() if name != "direct"), default=1.0) or 1.0
    room = PANEL - LABEL - 70
    top = y + HEAD
    for name, value in sorted(
        values.items(), key=lambda item: item[1], reverse=figure.more_is_better
    ):
        colour = LIMIT if name == "direct" else OURS if name.startswith("socksd") else PEERS
        width = max(1.0, min(value / most, 1.0) * room)
        beyond = " &#187;" if value > most else ""
        lines += [
            f'<text x="{x + LABEL - 6}" y="{top + 12}" class="name">{escape(name)}</text>',
            (
                f'<rect x="{x + LABEL}" y="{top + 2}" width="{width:.1f}" height="{BAR - 5}"'
                f' fill="{colour}"/>'
            ),
            (
                f'<text x="{x + LABEL + width + 4:.1f}" y="{top + 12}" class="value">'
                f"{short(value)}{beyond}</text>"
            ),
        ]
        top += BAR
    return "\n".join(lines), top - y + 14


def drawing(document: Mapping[str, Any]) -> str:
    """Give the SVG text of all panels, in two columns."""
    bottoms = [10, 10]
    drawn = []
    for case, figure, values in panels(document):
        column = bottoms.index(min(bottoms))
        text, height = panel(case, figure, values, 10 + column * (PANEL + 20), bottoms[column])
        drawn.append(text)
        bottoms[column] += height
    width, height = 2 * PANEL + 40, max(bottoms)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img">\n'
        f"<title>socksd and its peers, {escape(document['when'][:10])}</title>\n"
        f"<style>text {{ font: 12px sans-serif; fill: {TEXT} }} .title {{ font-weight: bold }}"
        " .name { text-anchor: end } .unit, .value { font-size: 11px }</style>\n"
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot")
    parser.add_argument("json", type=Path, help="as run.py writes it with --json")
    parser.add_argument("svg", type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    options.svg.write_text(drawing(json.loads(options.json.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
