"""The ``socksd`` command."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import bcrypt
import pytest

import socksd
from socksd.app import main as command
from socksd.app.main import main


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
