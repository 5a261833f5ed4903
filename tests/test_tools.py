"""docs/tools.rst and the manual pages say what the tools do, and all of it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from socksd.app import check, explain
from socksd.app.config import parse_config
from socksd.app.main import main
from socksd.policy.cases import failures
from socksd.policy.lint import Code
from tests.test_reference import REFERENCE, ROOT, section, tomls

TOOLS = (ROOT / "docs" / "tools.rst").read_text()
MANUAL = (ROOT / "docs" / "man" / "socksd.rst").read_text()
FORMAT = (ROOT / "docs" / "man" / "socksd.toml.rst").read_text()
POLICY = tomls(section(TOOLS, "Tests"))[0]


def options(command: str) -> set[str]:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    {"check": check, "explain": explain}[command].add_to(commands)
    known = commands.choices[command]._option_string_actions
    return {option for option in known if option.startswith("--")} - {"--help", "--config"}


@pytest.mark.parametrize("command", ["check", "explain"])
def test_every_option_is_documented_and_no_other(command: str) -> None:
    shown = re.findall(r"^``(--.*)``$", section(TOOLS, command), re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", " ".join(shown))) == options(command)
    manual = re.search(rf"^\*\*{command}\*\*.*?(?=^\*\*)", MANUAL, re.MULTILINE | re.DOTALL)
    assert manual is not None
    assert set(re.findall(r"--[a-z-]+", manual[0])) == options(command)


def test_every_warning_is_documented_and_no_other() -> None:
    shown = re.findall(r"^``([a-z-]+)``  ", section(TOOLS, "check"), re.MULTILINE)
    assert set(shown) == set(Code)


def test_the_example_holds_and_is_explained_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config(POLICY, "the page")
    assert len(config.test) == 2
    assert list(failures(config.policy(), config.test)) == []
    (tmp_path / "office.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    found = re.search(r"^   \$ socksd (explain .*\n.*)\n((?:   .*\n|\n)+)", TOOLS, re.MULTILINE)
    assert found is not None
    main(shlex.split(found[1].replace("\\\n", "")))
    assert (
        capsys.readouterr().out.strip() == re.sub(r"^   ", "", found[2], flags=re.MULTILINE).strip()
    )


def test_the_object_of_check_has_the_keys_that_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"code-block:: json\n\n((?:   .*\n)+)", TOOLS)
    assert found is not None
    shown = json.loads(found[1])
    (tmp_path / "x.toml").write_text('[[rule]]\nid = "x"\naction = "allow"\n')
    main(["check", "--json", str(tmp_path / "x.toml")])
    written = json.loads(capsys.readouterr().out)
    assert list(written) == list(shown)
    assert list(written["warnings"][0]) == list(shown["warnings"][0])


def test_the_keys_of_a_test_are_documented_and_no_other() -> None:
    written = section(REFERENCE, "``[[test]]``")
    for part in ("as", "expect"):
        text = re.search(rf"^``{part}``\n((?:    .*\n)+)", written, re.MULTILINE)
        assert text is not None
        keys = {*re.findall(r"``([a-z]+)``", text[1]), "no-such-key"}
        table = {"as": "", "expect": ""} | {
            part: " = 0, ".join(f'"{key}"' for key in keys) + " = 0"
        }
        toml = "[[test]]\n" + "\n".join(f"{key} = {{ {text} }}" for key, text in table.items())
        with pytest.raises(Exception, match="no-such-key: there is no such key") as caught:
            parse_config(toml, "x")
        assert str(caught.value).count("there is no such key") == 1
        assert keys == {
            "as": {"from", "user", "group", "listener", "connect", "bind", "udp", "at"},
            "expect": {"action", "rule", "reports"},
        }[part] | {"no-such-key"}


def test_every_table_of_the_configuration_is_in_its_manual_page() -> None:
    tables = set(re.findall(r"^``(\[+[a-z]+\]+)``$", REFERENCE, re.MULTILINE))
    assert set(re.findall(r"^\*\*(\[+[a-z]+\]+)\*\*", FORMAT, re.MULTILINE)) == tables
