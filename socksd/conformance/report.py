"""Results for people and for programs; ``python -m socksd.conformance.report`` compares servers."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from socksd.conformance.case import Case, Result, Verdict
from socksd.conformance.kit import CASES

_COLOURS = {
    Verdict.PASS: "32",
    Verdict.FAIL: "31;1",
    Verdict.NOT_OFFERED: "33",
    Verdict.SKIPPED: "2",
}
_WIDTH = max(len(case.id) for case in CASES)


def line(result: Result, *, colour: bool) -> str:
    """Give one line for a case; for one that has failed, what it rests on and what was seen."""
    verdict = f"{result.verdict.value:<11}"
    if colour:
        verdict = f"\x1b[{_COLOURS[result.verdict]}m{verdict}\x1b[0m"
    text = result.case.promise if result.verdict is Verdict.PASS else result.reason
    lines = [f"{verdict} {result.case.id:<{_WIDTH}}  {text}"]
    if result.verdict is Verdict.FAIL:
        lines += [f"    {part}" for part in (result.case.promise, *_sentence(result.case))]
        lines += [f"        {part}" for part in result.transcript]
    return "\n".join(lines)


def summary(results: Iterable[Result]) -> str:
    """Give the last line: how many of each."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)


def listing(cases: Iterable[Case]) -> str:
    """Give what each case tests, and the words that it rests on."""
    return "\n".join(
        "\n".join((f"{case.id}{' (slow)' if case.slow else ''}", *_indented(case)))
        for case in cases
    )


def document(server: str, results: Sequence[Result]) -> dict[str, Any]:
    """Give everything, as JSON has it."""
    return {
        "server": server,
        "summary": {
            verdict.value: sum(result.verdict is verdict for result in results)
            for verdict in Verdict
        },
        "cases": [
            {
                "id": result.case.id,
                "section": result.case.sentence.section,
                "sentence": result.case.sentence.words,
                "promise": result.case.promise,
                "verdict": result.verdict.value,
                "reason": result.reason,
                "transcript": list(result.transcript),
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def comparison(documents: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """
    Give an rst table of several servers' documents, by name.

    Failures are bold; a dash is a case that was skipped or not run.
    """
    verdicts = [
        {case["id"]: Verdict(case["verdict"]) for case in document["cases"]}
        for _, document in documents
    ]
    signs = {
        Verdict.PASS: "pass",
        Verdict.FAIL: "**fail**",
        Verdict.NOT_OFFERED: "not offered",
        Verdict.SKIPPED: "\\-",
    }
    rows = [("Case", *(name for name, _ in documents))]
    rows += [
        (f"``{case.id}``", *(signs[by_id.get(case.id, Verdict.SKIPPED)] for by_id in verdicts))
        for case in CASES
        if any(case.id in by_id for by_id in verdicts)
    ]
    failures = (list(by_id.values()).count(Verdict.FAIL) for by_id in verdicts)
    rows.append(("failures", *map(str, failures)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    body = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join((rule, body[0], rule, *body[1:], rule)) + "\n"


def _sentence(case: Case) -> list[str]:
    return wrap(f'{case.sentence.section}: "{case.sentence.words}"', 90)


def _indented(case: Case) -> list[str]:
    return [f"    {part}" for part in (*wrap(case.promise, 90), *_sentence(case))]


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    documents = [(path.stem, json.loads(path.read_text())) for path in paths]
    sys.stdout.write(comparison(documents))
