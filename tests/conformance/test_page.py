"""docs/conformance.rst says what the command does, and of every case."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from socksd.app.main import main
from socksd.conformance.kit import CASES

PAGE = (Path(__file__).parent.parent.parent / "docs" / "conformance.rst").read_text()


def test_the_table_has_every_case_and_no_other() -> None:
    _, _, rest = PAGE.partition(".. comparison begin\n")
    table, end, _ = rest.partition(".. comparison end\n")
    assert end, "the markers are gone"
    assert re.findall(r"^``([a-z0-9-]+)``", table, re.MULTILINE) == [case.id for case in CASES]


def test_every_option_is_documented_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["conformance", "--help"])
    known = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    terms = re.findall(r"^``--.*", PAGE.partition("Method\n")[0], re.MULTILINE)
    assert set(re.findall(r"(?<=``)--[a-z]+", "".join(terms))) == known


def test_cases_spoken_of_exist() -> None:
    spoken = re.findall(r"``([a-z]+(?:-[a-z0-9*]+)+)``", PAGE.partition("Comparison\n")[0])
    ids = [case.id for case in CASES]
    for name in spoken:
        pattern = re.compile(name.replace("*", ".*"))
        assert any(pattern.fullmatch(id_) for id_ in ids), name
