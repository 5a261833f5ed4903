"""Security contexts without a mechanism."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from socksd.codes import Protection
from socksd.errors import LoginFailed, ProtocolError
from socksd.facts import Principal
from socksd.interfaces import Accepted, ISecurityContext

_HEADER = 5
_INVERTED = bytes(range(255, -1, -1))


@implementer(ISecurityContext)
class FakeContext:
    """
    One side of a security context; the other side is another one.

    A token is a number, whether it is confidential, and the octets, which are
    inverted where it is. Whose number is not the next one is refused.

    Attributes:
        answers: What becomes of the client's tokens, in order.
        asked: The tokens.
        expired: Whether it is of no more use.
    """

    def __init__(
        self, *answers: Accepted | LoginFailed | Deferred[Accepted], size: int = 1000
    ) -> None:
        self.answers = list(answers) or [Accepted(b"hello alice", Principal("alice"))]
        self.asked: list[bytes] = []
        self.protections = {Protection.INTEGRITY, Protection.CONFIDENTIALITY}
        self.expired = False
        self._size = size
        self._made = self._taken = 0

    def accept(self, token: bytes) -> Deferred[Accepted]:
        self.asked.append(token)
        answer = self.answers.pop(0)
        if isinstance(answer, LoginFailed):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def agree(self, asked: int) -> Protection:
        return Protection(asked) if asked in self.protections else max(self.protections)

    def wrap(self, octets: bytes, confidential: bool) -> bytes:
        assert len(octets) <= self._size
        if self.expired:
            raise ProtocolError("no GSS-API token can be made: expired")
        self._made += 1
        held = octets.translate(_INVERTED) if confidential else octets
        return self._made.to_bytes(4, "big") + bytes((confidential,)) + held

    def unwrap(self, token: bytes) -> tuple[bytes, bool]:
        self._taken += 1
        if int.from_bytes(token[:4], "big") != self._taken:
            raise ProtocolError("a bad GSS-API token: not the next one")
        held, confidential = token[_HEADER:], token[4] == 1
        return (held.translate(_INVERTED) if confidential else held), confidential

    def longest(self, confidential: bool) -> int:
        return self._size


class Held(NamedTuple):
    """What python-gssapi gives for wrap() and unwrap(), in one."""

    message: bytes
    encrypted: bool


class FarContext(Protocol):
    """A client's side of a security context, as python-gssapi has it."""

    def wrap(self, message: bytes, encrypt: bool) -> Any:
        """Give a Held, or what looks like one."""

    def unwrap(self, message: bytes) -> Any:
        """Give a Held, or what looks like one."""


class FakeFarContext:
    """The client's side of a FakeContext."""

    def __init__(self) -> None:
        self._context = FakeContext(size=1 << 16)

    def wrap(self, message: bytes, encrypt: bool) -> Held:
        return Held(self._context.wrap(message, encrypt), encrypt)

    def unwrap(self, message: bytes) -> Held:
        return Held(*self._context.unwrap(message))
