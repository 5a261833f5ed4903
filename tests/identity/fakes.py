"""Threads that run when the test says so, and checkers that answer as told."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, cast

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from socksd.identity.threads import LoginThreads

ALICE, BOB = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SECRET = b"correct horse"


def hashed(password: bytes = SECRET, cost: int = 4, prefix: bytes = b"$2y$") -> bytes:
    return prefix + bcrypt.hashpw(password, bcrypt.gensalt(cost))[4:]


class ThisThread:
    """A reactor that is always in the right thread."""

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)


class FakePool:
    """A thread pool whose work is done when the test asks."""

    def __init__(self) -> None:
        self.begun: list[tuple[Callable[..., object], Callable[[], object]]] = []
        self.state = "new"
        self.arguments: dict[str, Any] = {}

    def __call__(self, **arguments: Any) -> ThreadPool:
        self.arguments = arguments
        return cast("ThreadPool", self)

    def start(self) -> None:
        self.state = "started"

    def stop(self) -> None:
        self.state = "stopped"

    def callInThreadWithCallback(
        self, on_result: Callable[..., object], work: Callable[[], object]
    ) -> None:
        self.begun.append((on_result, work))

    def finish(self, index: int = 0) -> None:
        """Do one piece of the work in hand."""
        on_result, work = self.begun.pop(index)
        try:
            result = work()
        except Exception:  # noqa: BLE001 - as the real pool does
            on_result(False, Failure())
        else:
            on_result(True, result)

    def finish_all(self) -> int:
        """Do all work, also what begins meanwhile; give how much it was."""
        done = 0
        while self.begun:
            self.finish()
            done += 1
        return done


def started(pool: FakePool, threads: int = 2) -> LoginThreads:
    made = LoginThreads(cast("Any", ThisThread()), threads, pool=pool)
    made.start()
    return made


@implementer(ICredentialsChecker)
class Answers:
    """A checker that gives what *answer* gives, or raises, and remembers who asked."""

    credentialInterfaces: Any = (IUsernamePassword,)

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        return self.answer(credentials)


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        raise error

    return answer
