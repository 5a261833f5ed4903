"""Shells complete what they should, the rules of a running server included."""

from __future__ import annotations

import os
import pty
import select
import signal
from pathlib import Path

import pytest

from tests.functional.conftest import Serve
from tests.functional.process import SCRIPTS, WAIT, needs, run, wait_for

COMPLETION = Path(__file__).parent.parent.parent / "etc" / "completion"
PATH = f"{SCRIPTS}:{os.environ.get('PATH', os.defpath)}"
RULES = (
    '[[rule]]\nid = "all-of-it"\naction = "allow"\nports = [1]\n'
    '[[rule]]\nid = "mail"\naction = "deny"\n'
)

# As readline calls a completion; prints what it would offer.
BASH = """
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
_socksd
printf '%s\\n' "${COMPREPLY[@]}"
"""


def by_bash(*words: str) -> list[str]:
    script = COMPLETION / "bash" / "socksd"
    done = run(needs("bash"), "-c", BASH, "bash", script, "socksd", *words, PATH=PATH)
    return done.stdout.split()


def by_fish(*words: str) -> list[str]:
    ask = f"source {COMPLETION}/fish/socksd.fish; complete -C 'socksd {' '.join(words)}'"
    done = run(needs("fish"), "-c", ask, PATH=PATH, HOME="/nonexistent")
    assert not done.stderr, done.stderr
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("complete", [by_bash, by_fish])
def test_commands_options_and_what_a_server_has(
    complete: type[list[str]], serve: Serve, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    serve(config=f'[control]\nsocket = "{path}"\n{RULES}')
    wait_for("the control socket", path.exists)
    assert complete("dra") == ["drain"]
    assert complete("drain", "--wi") == ["--within"]
    assert complete("sessions", "--socket", str(path), "--rule", "a") == ["all-of-it"]
    everything = complete("kill", "--socket", str(path), "--rule", "")
    assert {"all-of-it", "mail"} <= set(everything)
    assert complete("kill", "--listener", "", "--socket", "/nowhere") == []
    assert complete("completion", "f") == ["fish"]


def test_the_equals_sign_is_a_word_of_its_own_in_bash(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    serve(config=f'[control]\nsocket = "{path}"\n{RULES}')
    wait_for("the control socket", path.exists)
    words = ("kill", "--socket", str(path), "--rule", "=")
    assert by_bash(*words, "ma") == ["mail"]
    assert "mail" in by_bash(*words)


def test_zsh_completes_as_one_types(tmp_path: Path, serve: Serve) -> None:
    zsh, path = needs("zsh"), tmp_path / "s"
    serve(config=f'[control]\nsocket = "{path}"\n{RULES}')
    wait_for("the control socket", path.exists)
    (tmp_path / ".zshrc").write_text(
        f"fpath=({COMPLETION}/zsh $fpath); autoload -Uz compinit; compinit -u -D; PS1=READY"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="dumb", PATH=PATH, ZDOTDIR=str(tmp_path))
        os.execv(zsh, [zsh, "-i"])
    shown = bytearray()

    def shows(text: bytes) -> None:
        def probe() -> bool:
            while select.select([terminal], [], [], 0)[0]:
                shown.extend(os.read(terminal, 4096))
            return text in shown

        wait_for(f"{text!r} of {shown!r}", probe, WAIT)
        shown.clear()

    try:
        shows(b"READY")
        os.write(terminal, b"socksd dra\t")
        shows(b"socksd drain ")
        os.write(terminal, b"\x15socksd kill --socket " + os.fsencode(path) + b" --rule ma\t")
        shows(b"--rule mail ")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(pid, 0)


def test_the_script_for_bash_has_no_faults_that_can_be_found() -> None:
    done = run(needs("shellcheck"), "--shell=bash", COMPLETION / "bash" / "socksd")
    assert done.returncode == 0, done.stdout
