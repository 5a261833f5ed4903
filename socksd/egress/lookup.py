"""The seam between asking for a name and remembering what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import Interface

from socksd.address import IPAddress
from socksd.codes import ReplyCode
from socksd.errors import Refused


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Where a name leads.

    Attributes:
        addresses: As they were found, in the order to try.
        ttl: For how many seconds it may be remembered.
    """

    addresses: Sequence[IPAddress]
    ttl: float


class ILookup(Interface):
    """One way to ask for a name, each question anew."""

    def lookup(name: str) -> Deferred[Answer]:  # noqa: N805  # zope: no self
        """
        Look a normalised name up: at least one address.

        Fails with Refused: HOST_UNREACHABLE tells of the name and may be
        remembered, anything else of us, now. May be cancelled.
        """

    def stop() -> None:
        """Let go of what lookups are made with; those under way may end."""


class NoSuchName(Refused):
    """The name does not exist, and somebody knows that."""

    def __init__(self) -> None:
        super().__init__(ReplyCode.HOST_UNREACHABLE, "no such name")
