"""Not to wait for ever for what may never come back, as a file system that has gone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

_hanging: dict[str, Thread] = {}  # by what they have been given up for


class GivenUp(Exception):
    """It takes too long, or whoever was given up before is still at it."""


def within(seconds: float, what: str, work: Callable[[], T]) -> T:
    """
    Give what *work* does, in a thread of its own; blocks for so many *seconds* at most.

    Nobody can end a thread that hangs in the kernel. It is left alone, nor
    does the process wait for it at its end; while it hangs no second one is
    begun for *what*, so there is one of each however often that is tried.

    Raises:
        GivenUp: As it says.
        BaseException: What *work* raises.
    """
    left = _hanging.pop(what, None)
    if left is not None and left.is_alive():
        _hanging[what] = left
        raise GivenUp
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is raised below
            done.set_exception(error)

    thread = Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _hanging[what] = thread
        raise GivenUp
    return done.result()
