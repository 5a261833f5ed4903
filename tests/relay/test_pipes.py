from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from socksd.relay.pipes import SIZE, Pipe, Pipes, affordable


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def _warm() -> None:
    """The reactor's first turn brings descriptors that it keeps for good."""
    pytest_twisted.blockon(deferLater(reactor, 0, lambda: None))


@pytest.fixture(autouse=True)
def _none_is_left(_warm: None) -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def lent(pipes: Pipes, count: int) -> list[Pipe]:
    taken = [pipes.take() for _ in range(count)]
    return [pipe for pipe in taken if pipe is not None]


def test_a_pipe_takes_a_mebibyte_and_never_waits() -> None:
    pipes = Pipes(1)
    (pipe,) = lent(pipes, 1)
    assert fcntl.fcntl(pipe.into, fcntl.F_GETPIPE_SZ) == SIZE
    with pytest.raises(BlockingIOError):
        os.read(pipe.out, 1)
    assert not os.get_inheritable(pipe.into)
    pipes.give(pipe)
    pipes.close()


def test_there_are_no_more_than_said() -> None:
    pipes = Pipes(2)
    first, second = lent(pipes, 3)
    pipes.give(first)
    assert lent(pipes, 2) == [first]
    pipes.give(first)
    pipes.discard(second)
    again = lent(pipes, 3)
    assert len(again) == 2
    for pipe in again:
        pipes.discard(pipe)


def test_few_are_kept_that_nobody_uses() -> None:
    pipes = Pipes(20)
    before = descriptors()
    for pipe in lent(pipes, 20):
        pipes.give(pipe)
    assert descriptors() == before + 2 * 8
    pipes.close()


def test_closed_it_lends_none_and_keeps_none() -> None:
    pipes = Pipes(2)
    (pipe,) = lent(pipes, 1)
    pipes.close()
    assert pipes.take() is None
    pipes.give(pipe)
    assert pipes.take() is None


def test_without_descriptors_there_is_none() -> None:
    pipes = Pipes(4)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    null = os.open(os.devnull, os.O_RDONLY)
    os.close(null)
    resource.setrlimit(resource.RLIMIT_NOFILE, (null, hard))
    try:
        assert pipes.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pipe = pipes.take()
    assert pipe is not None
    pipes.discard(pipe)


def test_a_pipe_that_the_kernel_will_not_enlarge_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM, for an unprivileged user who has too many: 8 KiB would be slower than a copy."""

    def fcntl_(*_: object) -> int:
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(fcntl, "fcntl", fcntl_)
    pipes = Pipes(1)
    assert [pipes.take(), pipes.take()] == [None, None]
    monkeypatch.undo()
    pipe = pipes.take()
    assert pipe is not None
    pipes.discard(pipe)


@pytest.mark.parametrize(
    ("pages", "descriptors", "most"),
    [
        pytest.param("16384", 1 << 20, 48, id="Linux's own share"),
        pytest.param("1024", 1 << 20, 3, id="a small share"),
        pytest.param("0", 1 << 20, 64, id="no bound"),
        pytest.param("16384", 1024, 16, id="few descriptors"),
        pytest.param("16384", 256, 4, id="very few descriptors"),
        pytest.param(None, 1 << 20, 64, id="no /proc"),
        pytest.param("?", 1 << 20, 64, id="nonsense"),
    ],
)
def test_as_many_as_can_be_afforded(
    pages: str | None,
    descriptors: int,
    most: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "pages"
    if pages is not None:
        path.write_text(pages + "\n")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    monkeypatch.setattr(resource, "getpagesize", lambda: 4096)
    assert affordable(path) == most
