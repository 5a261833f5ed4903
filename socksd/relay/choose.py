"""Which relay for which ends: by what the system and their transports can do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.tcp import Connection

from socksd.interfaces import IEnd, IRelay
from socksd.relay.pump import Pump, ThrottledPump
from socksd.relay.throttle import Budget

if TYPE_CHECKING:
    from socksd.relay.switchboard import IReactorSwitching

try:
    from socksd.relay.line import Line, ThrottledLine
    from socksd.relay.switchboard import Switchboard
except ImportError:  # pragma: no cover -- epoll(7) and splice(2) are Linux's
    _LINUX = False
else:
    _LINUX = True


def switchboard(reactor: IReactorTime) -> Switchboard | None:
    """Make the switchboard of a reactor; ``None`` where system or reactor do not do for one."""
    if _LINUX and IReactorFDSet.providedBy(reactor):
        return Switchboard(cast("IReactorSwitching", reactor))
    return None


def choose(
    client: IEnd,
    target: IEnd,
    *,
    board: Switchboard | None,
    clock: IReactorTime,
    idle: float,
    linger: float,
    budget: Budget | None = None,
    made: Counter[type[IRelay]] | None = None,
) -> IRelay:
    """
    Make the relay for two ends, throttled where there is a *budget*.

    A line where there is a *board* and both are plain sockets, else a pump:
    for TLS, which has to pass through Twisted, and for an end that is already
    closing. Unix sockets are plain: all that a line does works on them, too.
    What was made is counted, by its class, in *made*.
    """
    relay: IRelay
    if board is not None and _is_plain(client) and _is_plain(target):
        if budget is None:
            relay = Line(board, client, target, idle, linger)
        else:
            relay = ThrottledLine(board, client, target, idle, linger, budget)
    elif budget is None:
        relay = Pump(client, target, clock, idle, linger)
    else:
        relay = ThrottledPump(client, target, clock, idle, linger, budget)
    if made is not None:
        made[type(relay)] += 1
    return relay


def _is_plain(end: IEnd) -> bool:
    if end.bare:
        return True
    transport = end.transport
    return (
        isinstance(transport, Connection)
        and not transport.TLS
        and bool(transport.connected)
        and not transport.disconnecting
    )
