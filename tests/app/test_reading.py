from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from socksd.app import reading
from socksd.app.reading import Progress, lines_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def standard_input(tmp_path: Path) -> Iterator[Path]:
    """A file that is read as the standard input, once it is written."""
    path = tmp_path / "input"
    path.write_bytes(b"from\nhere\n")
    kept = os.dup(0)
    descriptor = os.open(path, os.O_RDONLY)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    yield path
    os.dup2(kept, 0)
    os.close(kept)


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(f"{name} 1\n{name} 2\n".encode())
    paths = [str(tmp_path / name) for name in ("b", "a")]
    assert list(lines_of(paths)) == ["b 1\n", "b 2\n", "a 1\n", "a 2\n"]


def test_a_dash_is_the_standard_input_and_stays_open(standard_input: Path) -> None:
    assert list(lines_of(["-"])) == ["from\n", "here\n"]
    os.fstat(0)


def test_whatever_octets_there_are_a_line_ends_with_its_newline(tmp_path: Path) -> None:
    """A torn line may hold anything, and must not take the next one with it."""
    octets = b"\xff\x00\x85\r\x0c\n{}\n\x1c"
    (tmp_path / "log").write_bytes(octets)
    lines = list(lines_of([str(tmp_path / "log")]))
    assert [line.encode("latin-1") for line in lines] == [b"\xff\x00\x85\r\x0c\n", b"{}\n", b"\x1c"]


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        list(lines_of([str(tmp_path / "none")]))
    assert caught.value.code == f"socksd: cannot read {tmp_path}/none: No such file or directory"


def test_the_bar_shows_how_much_of_the_octets_is_read() -> None:
    terminal, clock = Terminal(), Clock()
    mib = 1024 * 1024
    progress = Progress(terminal, 4 * mib, clock.seconds)

    def lines() -> Iterator[str]:
        for _ in range(4 * mib // 256):
            clock.advance(0.0001)
            yield "x" * 256

    assert sum(map(len, progress.through(lines()))) == 4 * mib
    drawn = terminal.getvalue().split("\r")[1:]
    assert drawn == [
        "[#######                       ]  25%  1 of 4 MiB\x1b[K",
        "[###############               ]  50%  2 of 4 MiB\x1b[K",
        "[######################        ]  75%  3 of 4 MiB\x1b[K",
        "[##############################] 100%  4 of 4 MiB\x1b[K",
    ]


def test_the_bar_is_drawn_ten_times_a_second_at_most() -> None:
    terminal, clock = Terminal(), Clock()
    progress = Progress(terminal, 10**9, clock.seconds)
    list(progress.through(["x\n"] * 100_000))
    assert terminal.getvalue() == ""


def test_a_log_that_grows_meanwhile_is_never_beyond_its_end() -> None:
    terminal, clock = Terminal(), Clock()
    progress = Progress(terminal, 10, clock.seconds)
    clock.advance(1)
    list(progress.through(["x\n"] * 4096))
    assert " 100% " in terminal.getvalue()


def test_a_long_log_has_a_bar_at_a_terminal_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(reading, "_MIB", 4)
    (tmp_path / "log").write_bytes(b"x\ny\n")
    assert list(lines_of([str(tmp_path / "log")])) == ["x\n", "y\n"]
    assert terminal.getvalue() == "\r\x1b[K"


@pytest.mark.parametrize(
    ("long", "error"),
    [
        pytest.param(4, io.StringIO(), id="no terminal"),
        pytest.param(5, Terminal(), id="a short log"),
    ],
)
def test_otherwise_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: int, error: io.StringIO
) -> None:
    monkeypatch.setattr("sys.stderr", error)
    monkeypatch.setattr(reading, "_MIB", long)
    (tmp_path / "log").write_bytes(b"x\ny\n")
    list(lines_of([str(tmp_path / "log")]))
    assert error.getvalue() == ""


def test_of_what_is_no_file_the_length_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, b"x\n")
    lines = lines_of([str(tmp_path / "fifo")])
    assert next(lines) == "x\n"
    os.close(writer)
    assert list(lines) == []
    assert terminal.getvalue() == ""
