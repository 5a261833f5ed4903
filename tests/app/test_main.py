"""The ``socksd`` command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import bcrypt
import pytest

import socksd
from socksd.app import main as command
from socksd.app.main import main
from socksd.conformance.case import Case, Result
from socksd.conformance.kit import CASES
from tests.conformance.fake import PASSWORD, USER, Fake


def test_check_takes_the_road_of_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "socksd.toml"
    config.write_text('[resolver]\nvia = "carrier pigeon"\n')
    with pytest.raises(SystemExit) as caught:
        main(["check", str(config)])
    assert "resolver.via" in str(caught.value.code)
    config.write_text("")
    main(["check", str(config)])
    assert "good" in capsys.readouterr().out


def test_run_is_twistd_in_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(sys, "argv", ["socksd", "run", "--port", "1"])
    monkeypatch.setattr("twisted.scripts.twistd.run", lambda: seen.append(sys.argv[1:]))
    main()
    assert seen == [["--nodaemon", "--pidfile=", "socks5", "--port", "1"]]


def test_passwd_reads_the_password_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    main(["passwd", str(tmp_path / "users"), "alice"])
    user, hashed = (tmp_path / "users").read_bytes().rstrip().split(b":")
    assert user == b"alice"
    assert hashed.startswith(b"$2y$")
    assert bcrypt.checkpw(b"correct horse", hashed)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("second", "kept"), [("secret", True), ("sceret", False)])
def test_passwd_asks_twice_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, kept: bool
) -> None:
    answers = ["secret", second]
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(command, "getpass", lambda prompt: answers.pop(0))
    if kept:
        main(["passwd", str(tmp_path / "users"), "alice"])
    else:
        with pytest.raises(SystemExit, match="differ"):
            main(["passwd", str(tmp_path / "users"), "alice"])
    assert (tmp_path / "users").exists() is kept


@pytest.mark.parametrize(("file", "user"), [("users", "a:b"), ("no/such/folder/users", "alice")])
def test_passwd_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, user: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    with pytest.raises(SystemExit, match=r"^socksd: "):
        main(["passwd", str(tmp_path / file), user])


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"socksd {socksd.__version__}\n"


def test_without_a_command_the_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def conformance(*words: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(["conformance", *words])
    return caught.value.code


def test_conformance_says_by_its_status_whether_there_were_failures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = ("--only", "method-00", "bound-port")
    with Fake() as fake:
        assert conformance(f"localhost:{fake.port}", *cases) == 0
    assert capsys.readouterr().out.endswith("2 pass, 0 fail, 0 not offered, 0 skipped\n")
    with Fake("bound zero") as fake:
        assert conformance(f"[127.0.0.1]:{fake.port}", *cases) == 1
    assert "BND.PORT is 0" in capsys.readouterr().out


def test_conformance_logs_in_and_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    login = ("--user", USER.decode(), "--pass", PASSWORD.decode())
    with Fake(login=True) as fake:
        address = f"127.0.0.1:{fake.port}"
        assert conformance(address, *login, "--json", "--only", "login-right") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["server"] == address
    assert [case["verdict"] for case in document["cases"]] == ["pass"]


def test_conformance_runs_slow_cases_only_if_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def run(server: object, cases: Sequence[Case], pace: object) -> Iterator[Result]:
        seen.append({case.id for case in cases})
        return iter(())

    monkeypatch.setattr("socksd.conformance.kit.run", run)
    with Fake() as fake:
        for more in ((), ("--slow",), ("--only", "silent-client")):
            assert conformance(f"127.0.0.1:{fake.port}", *more) == 0
    quick, slow, only = seen
    assert slow - quick == {case.id for case in CASES if case.slow}
    assert only == {"silent-client"}


def test_conformance_that_cannot_run_has_a_status_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Fake("denies") as fake:
        assert conformance(f"127.0.0.1:{fake.port}") == 2
    assert capsys.readouterr().err.startswith("socksd: a plain CONNECT to 127.0.0.1")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "HOST:PORT"),
        (["127.0.0.1"], "HOST:PORT"),
        (["127.0.0.1:socks"], "HOST:PORT"),
        (["127.0.0.1:65536"], "HOST:PORT"),
        (["127.0.0.1:1", "--user", "alice"], "go together"),
        (["127.0.0.1:1", "--user", "", "--pass", "x"], "1 to 255 octets"),
        (["127.0.0.1:1", "--user", "alice", "--pass", "x" * 256], "1 to 255 octets"),
        (["127.0.0.1:1", "--only", "methd-00"], "did you mean 'method-00'?"),
    ],
)
def test_conformance_says_what_is_wrong_with_its_command_line(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance(*words) == 2
    assert problem in capsys.readouterr().err


def test_conformance_lists_its_cases_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    main(["conformance", "--list"])
    listed = capsys.readouterr().out
    assert all(case.id in listed for case in CASES)
    main(["conformance", "--list", "--only", "noise"])
    assert capsys.readouterr().out.startswith("noise\n")
