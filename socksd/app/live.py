"""The live sessions: shown, found and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest, nsmallest
from ipaddress import ip_network
from typing import Any, Final

from socksd.address import Destination
from socksd.admin.routes import BadBody, Body
from socksd.codes import COMMANDS
from socksd.errors import did_you_mean
from socksd.events import Denied
from socksd.facts import Verdict
from socksd.server.session import Session
from socksd.server.states import State

MOST: Final = 10_000  # rows of one answer
USUAL: Final = 1000
TALKERS: Final = 50
WITHOUT_LOGIN: Final = "@none"  # as rules call who has not logged in

Wanted = Callable[[Session], bool]
Row = dict[str, Any]


def row(session: Session, now: float) -> Row:
    """
    Say of a session what JSON can.

    Args:
        session: Any that is live.
        now: By the clock of the session's Runtime, in seconds.
    """
    facts, request, decision = session.facts, session.request, session.decision
    up, down = session.carried
    return {
        "session": session.number,
        "client": str(facts.client),
        "port": session.client_port,
        "listener": facts.listener,
        "user": facts.principal.name if facts.principal else None,
        "protocol": session.protocol,
        "state": session.state.name.lower(),
        "command": COMMANDS[request.command] if request else None,
        "destination": str(request.destination) if request else None,
        "address": str(session.address) if session.address else None,
        "rule": decision.rule if decision and decision.verdict is not Verdict.DEFER else None,
        "started": facts.time,
        "seconds": now - session.begun,
        "up": up,
        "down": down,
    }


# What the sessions can be put in order by, without making rows of all of them.
_ORDERS: dict[str, Callable[[Session], float]] = {
    "session": lambda session: session.number,
    "seconds": lambda session: -session.begun,
    "up": lambda session: session.carried[0],
    "down": lambda session: session.carried[1],
    "octets": lambda session: sum(session.carried),
}
ORDERS: Final = tuple(_ORDERS)


def listing(sessions: Iterable[Session], body: Body, now: float) -> dict[str, Any]:
    """
    Answer /v1/sessions.

    Args:
        sessions: All that are live.
        body: Which of them: see chosen(); ``sort``, one of ORDERS, with a
            ``-`` before it for the greatest first; ``limit``, how many.
        now: See row().

    Raises:
        BadBody: It does not say what it should.
    """
    order, limit = first(body)
    key = _ORDERS[order.removeprefix("-")]
    wanted = chosen({name: body[name] for name in body if name not in ("sort", "limit")})
    found = [session for session in sessions if wanted(session)]
    some = nlargest if order.startswith("-") else nsmallest
    return {
        "count": len(found),
        "sessions": [row(session, now) for session in some(limit, found, key)],
    }


def first(body: Body) -> tuple[str, int]:
    """
    Give in which order to list sessions, and how many.

    Raises:
        BadBody: There is no such order, or that is no number.
    """
    order = str(body.get("sort", "session"))
    if order.removeprefix("-") not in _ORDERS:
        raise BadBody(f"cannot sort by {order!r}; by {', '.join(ORDERS)}, or -{ORDERS[-1]}")
    return order, _limit(body.get("limit", USUAL))


def talkers(sessions: Iterable[Session], body: Body) -> list[Row]:
    """
    Say who talks to whom now, those first that have carried most.

    Args:
        sessions: All that are live.
        body: ``limit``, how many pairs.

    Raises:
        BadBody: That is no number.
    """
    limit = _limit(body.get("limit", TALKERS))
    pairs: dict[tuple[str, str | None, str], list[int]] = {}
    for session in sessions:
        if session.request is None or session.state is not State.RELAYING:
            continue
        facts = session.facts
        user = facts.principal.name if facts.principal else None
        pair = str(facts.client), user, str(session.request.destination.host)
        total = pairs.setdefault(pair, [0, 0, 0])
        for index, more in enumerate((1, *session.carried)):
            total[index] += more
    most = nlargest(limit, pairs.items(), lambda each: each[1][1] + each[1][2])
    return [
        {
            "client": client,
            "user": user,
            "host": host,
            "sessions": count,
            "up": up,
            "down": down,
        }
        for (client, user, host), (count, up, down) in most
    ]


def denial(event: Denied) -> Row:
    """Say of a refusal what JSON can."""
    return {
        "session": event.session,
        "time": event.started,
        "client": str(event.client),
        "user": event.user,
        "command": COMMANDS[event.command] if event.command else None,
        "destination": str(event.destination) if event.destination else None,
        "rule": event.decision.rule,
        "detail": event.decision.detail,
        "text": event.decision.text,
    }


def chosen(body: Body) -> Wanted:
    """
    Give the test for the sessions that *body* names; all of its keys must hold.

    ``session`` is a number or a list of them, ``client`` an address or a
    network, ``user`` a name or ``@none``; ``rule``, ``listener`` and ``state``
    are what a row says; ``to`` is a host that was asked for, a ``.suffix`` of
    it, or an address that was dialled.

    Raises:
        BadBody: A key is none of these, or has no such value.
    """
    tests = [_test(key, value) for key, value in body.items()]
    return lambda session: all(test(session) for test in tests)


def killed(sessions: Iterable[Session], body: Body) -> int:
    """
    End the sessions that *body* names, and give how many.

    Raises:
        BadBody: See chosen(); or it names none of their properties, which
            would be all of them.
    """
    if not body:
        raise BadBody(f"say which sessions: {', '.join(_TESTS)}")
    wanted = chosen(body)
    found = [session for session in sessions if wanted(session)]
    for session in found:
        session.stop("ended by hand")
    return len(found)


def _limit(value: object) -> int:
    try:
        limit = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        limit = 0
    if not 1 <= limit <= MOST:
        raise BadBody(f"limit is a number, 1 to {MOST}")
    return limit


def _by_number(value: object) -> Wanted:
    values = value if isinstance(value, list) else [value]
    try:
        numbers = {int(each) for each in values if isinstance(each, str | int)}
    except ValueError:
        numbers = set()
    if len(numbers) < len(values):
        raise BadBody("session is a number, or a list of them")
    return lambda session: session.number in numbers


def _by_client(value: object) -> Wanted:
    try:
        network = ip_network(_text("client", value))
    except ValueError:
        raise BadBody(f"client is an address or a network, not {value!r}") from None
    return lambda session: session.facts.client in network


def _by_user(value: object) -> Wanted:
    name = None if value == WITHOUT_LOGIN else _text("user", value)

    def test(session: Session) -> bool:
        principal = session.facts.principal
        return principal is not None and principal.name == name

    return test


def _by_rule(value: object) -> Wanted:
    rule = _text("rule", value)
    return lambda session: session.decision is not None and session.decision.rule == rule


def _by_listener(value: object) -> Wanted:
    listener = _text("listener", value)
    return lambda session: session.facts.listener == listener


def _by_state(value: object) -> Wanted:
    name = _text("state", value)
    states = {state.name.lower(): state for state in State}
    if name not in states:
        raise BadBody(f"there is no state {name!r}{did_you_mean(name, states)}")
    return lambda session: session.state is states[name]


def _by_destination(value: object) -> Wanted:
    text = _text("to", value)
    if text.startswith("."):
        return lambda session: any(f".{host}".endswith(text.lower()) for host in _hosts(session))
    try:
        host = str(Destination.named(text.strip("[]"), 0).host)
    except ValueError:
        raise BadBody(f"to is a host or a .suffix, not {value!r}") from None
    return lambda session: host in _hosts(session)


def _hosts(session: Session) -> Iterator[str]:
    if session.request is not None:
        yield str(session.request.destination.host)
    if session.address is not None:
        yield str(session.address)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadBody(f"{key} is a string")
    return value


_TESTS: dict[str, Callable[[object], Wanted]] = {
    "session": _by_number,
    "client": _by_client,
    "user": _by_user,
    "rule": _by_rule,
    "listener": _by_listener,
    "to": _by_destination,
    "state": _by_state,
}


def _test(key: str, value: object) -> Wanted:
    make = _TESTS.get(key)
    if make is None:
        raise BadBody(f"there is no {key!r}{did_you_mean(key, _TESTS)}")
    return make(value)
