"""What people and programs are told."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from socksd.conformance import report
from socksd.conformance.case import Result, Verdict
from socksd.conformance.kit import CASES

CASE = CASES[0]
PASSED = Result(CASE, Verdict.PASS, "", (), 0.0125)
FAILED = Result(CASES[1], Verdict.FAIL, "FF is seen", ("client -> 05 01 02", "client <- 05 ff"), 5)


def test_a_pass_is_one_line() -> None:
    assert report.line(PASSED, colour=False).split(None, 2) == ["pass", CASE.id, CASE.promise]
    assert "\n" not in report.line(PASSED, colour=False)


def test_a_failure_shows_its_words_and_its_octets() -> None:
    text = report.line(FAILED, colour=False)
    assert "FF is seen" in text
    assert f'{FAILED.case.sentence.section}: "The server selects' in text
    assert text.endswith("        client -> 05 01 02\n        client <- 05 ff")


@pytest.mark.parametrize("result", [PASSED, FAILED])
def test_colour_is_for_terminals(result: Result) -> None:
    assert "\x1b" not in report.line(result, colour=False)
    assert report.line(result, colour=True).startswith("\x1b[3")


def test_the_summary_counts_every_verdict() -> None:
    expected = "1 pass, 2 fail, 0 not offered, 0 skipped"
    assert report.summary([PASSED, FAILED, FAILED]) == expected


def test_the_document_is_json() -> None:
    document = json.loads(json.dumps(report.document("127.0.0.1:1080", [PASSED, FAILED])))
    assert document["server"] == "127.0.0.1:1080"
    assert document["summary"] == {"pass": 1, "fail": 1, "not offered": 0, "skipped": 0}
    assert document["cases"][1] == {
        "id": FAILED.case.id,
        "section": FAILED.case.sentence.section,
        "sentence": FAILED.case.sentence.words,
        "promise": FAILED.case.promise,
        "verdict": "fail",
        "reason": "FF is seen",
        "transcript": ["client -> 05 01 02", "client <- 05 ff"],
        "seconds": 5,
    }


def test_the_list_has_every_case() -> None:
    shown = report.listing(CASES)
    for case in CASES:
        assert f"{case.id} (slow)\n" in shown if case.slow else f"{case.id}\n" in shown


def test_servers_are_compared_in_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, results in {"ours": [PASSED], "theirs": [PASSED, FAILED]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report.document("", results)))
    monkeypatch.setattr(
        sys, "argv", ["report", str(tmp_path / "ours.json"), str(tmp_path / "theirs.json")]
    )
    monkeypatch.delitem(sys.modules, report.__name__)
    runpy.run_module(report.__name__, run_name="__main__")
    rule, head, _, *rows, end = capsys.readouterr().out.splitlines()
    assert head.split() == ["Case", "ours", "theirs"]
    assert [row.split() for row in rows] == [
        [f"``{CASE.id}``", "pass", "pass"],
        [f"``{FAILED.case.id}``", "\\-", "**fail**"],
        ["failures", "0", "1"],
    ]
    assert rule == end
