"""
What a failed attempt to connect says to the client, and to the log.

By errno and by class, never by text. TTL_EXPIRED is never said: it is the
ICMP message "time exceeded", which Linux reports as EHOSTUNREACH; who waits
in vain has not been told that a TTL expired.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from enum import Enum

from twisted.internet import error as tx
from twisted.internet.error import ConnectError

from socksd.address import IPAddress
from socksd.codes import ReplyCode
from socksd.errors import Refused, TimedOut


class _Cause(Enum):
    """
    Why an attempt failed: REP and a clause for the log; the most telling first.

    What the destination itself has said tells most, then what a firewall or a
    router on the way has, then silence. A network we have no way to tells
    least: where there is no IPv6, every name with an AAAA has such an address
    too, and it must not hide that the IPv4 one did not answer.
    """

    REFUSED = (ReplyCode.CONNECTION_REFUSED, "connection refused by {}")
    # By a firewall of this host, SELinux, or systemd's IPAddressDeny: a
    # ruleset, if not ours, and trying again will not help.
    FORBIDDEN = (ReplyCode.NOT_ALLOWED, "this host does not permit connecting to {}")
    UNREACHABLE = (ReplyCode.HOST_UNREACHABLE, "host unreachable: {}")
    SILENT = (ReplyCode.HOST_UNREACHABLE, "no answer in time from {}")
    NO_SOURCE = (
        ReplyCode.GENERAL_FAILURE,
        "the source address for {} is none of this host's (EADDRNOTAVAIL)",
    )
    NO_PORT = (ReplyCode.GENERAL_FAILURE, "no port is left to connect to {} from (EADDRNOTAVAIL)")
    OURS = (ReplyCode.GENERAL_FAILURE, "cannot connect to {}")
    NO_ROUTE = (ReplyCode.NETWORK_UNREACHABLE, "network unreachable: {}")

    def __init__(self, reply: ReplyCode, clause: str) -> None:
        self.reply = reply
        self.clause = clause


_TELLING = list(_Cause)

_CAUSES = {
    errno.ECONNREFUSED: _Cause.REFUSED,
    errno.EACCES: _Cause.FORBIDDEN,
    errno.EPERM: _Cause.FORBIDDEN,
    errno.EHOSTUNREACH: _Cause.UNREACHABLE,
    errno.EHOSTDOWN: _Cause.UNREACHABLE,
    errno.ETIMEDOUT: _Cause.SILENT,
    errno.ENETUNREACH: _Cause.NO_ROUTE,
    errno.ENETDOWN: _Cause.NO_ROUTE,
    errno.EAFNOSUPPORT: _Cause.NO_ROUTE,  # a kernel without IPv6
}


def refusal(failures: Sequence[tuple[IPAddress, BaseException]]) -> Refused:
    """
    Say why no connection came about.

    Args:
        failures: The addresses that were tried, at least one, each with the
            exception it ended in.

    Returns:
        What the most telling of them says; of equals, the first.
    """
    address, error = min(failures, key=lambda failure: _TELLING.index(_cause(failure[1])))
    cause = _cause(error)
    reason = cause.clause.format(address)
    if cause is _Cause.OURS:
        reason += f": {_name(error)}"
    if len(failures) > 1:
        reason += f" ({len(failures)} addresses tried)"
    return TimedOut(reason) if cause is _Cause.SILENT else Refused(cause.reply, reason)


def _cause(error: BaseException) -> _Cause:
    if isinstance(error, tx.TimeoutError):  # our own deadline: it has no errno
        return _Cause.SILENT
    number = _errno(error)
    if number == errno.EADDRNOTAVAIL:
        return _Cause.NO_SOURCE if isinstance(error, tx.ConnectBindError) else _Cause.NO_PORT
    return _Cause.OURS if number is None else _CAUSES.get(number, _Cause.OURS)


def _errno(error: BaseException) -> int | None:
    # By osError, for Twisted has no class for EHOSTUNREACH.
    if isinstance(error, ConnectError):
        number: int | None = error.osError
        return number
    return error.errno if isinstance(error, OSError) else None


def _name(error: BaseException) -> str:
    """Give EMFILE rather than 24, and a class where there is no errno."""
    number = _errno(error)
    return type(error).__name__ if number is None else errno.errorcode.get(number, str(number))
