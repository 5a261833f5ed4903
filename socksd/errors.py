"""Errors that know what to tell the peer, or the administrator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from socksd.codes import ReplyCode


class SocksdError(Exception):
    """Everything that socksd raises on purpose."""


class ProtocolError(SocksdError):
    """
    The peer broke the protocol.

    Attributes:
        reply: The REP octet that answers it, or ``None`` where RFC 1928 has
            no answer (before the request) and the connection just ends.
        answer: Octets in the language the peer seems to speak, sent before
            the end; empty where it is SOCKS5.
    """

    def __init__(self, message: str, reply: ReplyCode | None = None, answer: bytes = b"") -> None:
        super().__init__(message)
        self.reply = reply
        self.answer = answer


class AddressError(SocksdError, ValueError):
    """A host that has no normal form: not an address, and not a name to look up."""


class Refused(SocksdError):
    """
    A request that ends in a failure reply.

    Attributes:
        reply: The REP octet the client is to be told.
        reason: One short clause for the log; never shown to the client.
    """

    def __init__(self, reply: ReplyCode, reason: str) -> None:
        super().__init__(f"{reply.name}: {reason}")
        self.reply = reply
        self.reason = reason


class TimedOut(Refused):
    """Refused because nobody has answered in time; HOST_UNREACHABLE, as peers reply."""

    def __init__(self, reason: str) -> None:
        super().__init__(ReplyCode.HOST_UNREACHABLE, reason)


class LoginFailed(SocksdError):
    """
    A login that did not succeed.

    Attributes:
        reason: One short clause for the log; the peer learns only STATUS
            (RFC 1929 section 2), the same for every reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration."""

    path: str  # key path as one would write it: rule[3].to[1]
    message: str  # what is wrong, and what to write instead

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(SocksdError):
    """A configuration that cannot be used: all of its problems at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word, as a clause to put behind a message; else ''."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
