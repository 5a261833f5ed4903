"""What a checker is given to judge, and what it may tell about itself."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from socksd.address import IPAddress
from socksd.identity.threads import LoginThreads

T = TypeVar("T")


class IThreadedUsernamePassword(IUsernamePassword):
    """A user name and a password that come with a thread to verify them in."""

    def in_thread(work: Callable[[], T]) -> Deferred[T]:  # noqa: N805 - an interface's method
        """
        Call *work* in a thread once it is this client's turn.

        Fails with what *work* raises, or with socksd.errors.LoginFailed when
        too many are waiting. Cancelling gives up the place in the queue.
        """


class IVersioned(Interface):
    """A checker that notices when what it knows has changed."""

    def version() -> int:
        """
        Give the number of the knowledge in force; asked at every login, so cheap.

        A login that was verified under another number is verified again.
        """


@implementer(IThreadedUsernamePassword)
@dataclass(frozen=True, slots=True)
class Login:
    """One login (RFC 1929 section 2) from one client."""

    username: bytes
    password: bytes = field(repr=False)
    client: IPAddress
    threads: LoginThreads = field(repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """Compare with the right *password*, which a checker of plain ones knows."""
        return hmac.compare_digest(self.password, password)

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Call *work* in a thread; see IThreadedUsernamePassword."""
        return self.threads.run(self.client, work)
