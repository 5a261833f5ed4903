"""The tutorial tells the truth: its listings run, its commands print what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "docs" / "tutorial.rst"
PATIENCE = 20.0  # seconds for one line or command; a slow machine, not a slow program
PROGRAMS = ("nc", "od", "curl", "printf")

ECHO = "python docs/tutorial/echo.py"


@dataclass
class Trial:
    """Commands to type, what they print, and what the server's terminal then shows."""

    server: str
    commands: list[tuple[str, str]]
    log: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.server.split('/')[-1].split()[0]}: {self.commands[0][0]}"


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The console and text blocks of a page: (language, lines)."""
    for match in re.finditer(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", text, re.MULTILINE):
        yield match[1], [line[3:] for line in match[2].rstrip().splitlines()]


def commands(lines: list[str]) -> list[tuple[str, str]]:
    """A console block as pairs of command and output."""
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, output = found[-1]
            found[-1] = command, output + line + "\n"
    return found


def trials(text: str) -> list[Trial]:
    found: list[Trial] = []
    server = ""
    for language, lines in blocks(text):
        if language == "text":
            found[-1].log = lines
        elif lines[0].startswith(("$ python ", "$ twistd ")):
            server = lines[0][2:]
        else:
            found.append(Trial(server, commands(lines)))
    return found


TRIALS = trials(TUTORIAL.read_text())


def pattern(shown: str) -> re.Pattern[str]:
    """Match what the page shows: ``...`` is anything, a port is any port."""
    parts = re.split(r"(\.\.\.|\b(?:7007|1080|40312)\b)", shown)
    return re.compile(
        "".join(
            re.escape(part) if index % 2 == 0 else ".*" if part == "..." else r"\d+"
            for index, part in enumerate(parts)
        )
    )


class Terminal:
    """A server as a process, and the lines it shows."""

    def __init__(self, command: str) -> None:
        program, *arguments = command.split()
        if program == "twistd":
            program = str(Path(sys.executable).parent / "twistd")
            arguments = ["--pidfile=", *[a.replace("1080", "0") for a in arguments]]
            whole = [program, *arguments]
        else:
            whole = [sys.executable, *arguments, "0"]
        self.process = subprocess.Popen(
            whole,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},  # this tree, installed or not
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: Queue[str | None] = Queue()  # None: the process has ended
        self.seen: list[str] = []
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_for(self, matches: Callable[[str], re.Match[str] | None]) -> re.Match[str]:
        """The first line, after those seen before, that matches."""
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE)
            except Empty:
                line = None
            if line is None:
                pytest.fail("not shown; seen so far:\n" + "\n".join(self.seen))
            self.seen.append(line)
            if match := matches(line):
                return match

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def started(command: str) -> Iterator[tuple[Terminal, str]]:
    """Give a running server and its port."""
    terminal = Terminal(command)
    try:
        yield terminal, terminal.wait_for(re.compile(r"listening.*?(\d+)$").search)[1]
    finally:
        terminal.close()


@pytest.mark.reactor_timeout(120)
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.id)
def test_commands_do_what_the_tutorial_shows(trial: Trial) -> None:
    for program in PROGRAMS:
        typed = re.compile(rf"(^|\| ){program} ")
        if any(typed.search(c) for c, _ in trial.commands) and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    with ExitStack() as stack:
        terminal, port = stack.enter_context(started(trial.server))
        ports = {"7007" if trial.server == ECHO else "1080": port}
        if "7007" not in ports and any("7007" in c for c, _ in trial.commands):
            ports["7007"] = stack.enter_context(started(ECHO))[1]
        for command, shown in trial.commands:
            for written, actual in ports.items():
                command = re.sub(rf"\b{written}\b", actual, command)
            done = subprocess.run(
                ["bash", "-c", command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},  # no proxy settings
            )
            assert pattern(shown).fullmatch(done.stdout), done.stdout
        for line in trial.log:
            terminal.wait_for(re.compile(pattern(line).pattern + r"$").search)


def test_every_listing_is_shown_and_tried() -> None:
    listings = {f"docs/tutorial/{path.name}" for path in (ROOT / "docs/tutorial").glob("*.py")}
    shown = re.findall(r"literalinclude:: (\S+)", TUTORIAL.read_text())
    assert {f"docs/{name}" for name in shown} == listings
    assert {trial.server.removeprefix("python ") for trial in TRIALS} >= listings


def test_every_trial_has_something_to_see() -> None:
    assert all(trial.log for trial in TRIALS)
