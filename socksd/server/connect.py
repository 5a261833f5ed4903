"""CONNECT (RFC 1928 sections 4 and 6): ask, resolve, ask, connect, reply, relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory

from socksd.address import Destination, IPAddress, parsed
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import Connected, ConnectFailed, Resolved, ResolveFailed
from socksd.facts import Decision, Facts, Verdict
from socksd.server.ends import End
from socksd.server.states import State
from socksd.server.why import DESTINATION as WHY
from socksd.server.why import why
from socksd.wire.socks5 import Request

if TYPE_CHECKING:
    from socksd.server.runtime import Runtime
    from socksd.server.session import Session


class _Targets(Factory[End]):
    """Makes the target's end; quiet, for Twisted would log each connection twice."""

    protocol = End
    noisy = False


_TARGETS = _Targets()
_LISTED = 16  # addresses of one name that the log has, at most


async def connect(session: Session, request: Request) -> None:
    """
    Carry out CONNECT.

    Raises:
        Refused: With what the client is to be told.
    """
    host = request.destination.host
    if isinstance(host, str) and request.destination == WHY:
        why(session)
        return
    facts = session.facts.asking(Command.CONNECT, request.destination)
    decision = session.ask(facts)  # before any lookup: a denied name is never looked up
    if decision.verdict is Verdict.DENY:
        raise denied(decision)
    if facts.address is not None:
        permitted = {facts.address: decision}
    else:
        permitted = await resolve(session, facts, str(request.destination.host))
    target = await _dial(session, request.destination, permitted)
    try:
        session.relay(target, Destination(*address_of(target.transport.getHost())))
    except Exception:
        target.transport.abortConnection()
        raise


async def resolve(session: Session, facts: Facts, name: str) -> dict[IPAddress, Decision]:
    """
    Give the addresses of *name* that the policy permits, in order, with what permits each.

    Raises:
        Refused: There is none.
    """
    session.enter(State.RESOLVING)
    started = session.runtime.clock.seconds()
    try:
        found: Sequence[IPAddress] = await session.outcome_of(
            session.runtime.resolver.resolve(name)
        )
    except Refused as refused:
        seconds = session.runtime.clock.seconds() - started
        session.tell(ResolveFailed(session.number, refused.reason, seconds))
        raise
    if Resolved in session.runtime.hears:
        seconds = session.runtime.clock.seconds() - started
        session.tell(Resolved(session.number, tuple(found), seconds))
    answers = {}
    for candidate in (facts.at(address) for address in found):
        assert candidate.address is not None  # at() has set it
        answers[candidate.address] = session.ask(candidate)
    permitted = {a: d for a, d in answers.items() if d.verdict is Verdict.ALLOW}
    # What stands is the word on the first permitted address, or on the first of all.
    session.decision = next(iter((permitted or answers).values()))
    # Of too many the log has those by which the decision can be found again.
    listed = answers if len(answers) <= _LISTED else permitted or answers
    session.judged = tuple(islice(listed, _LISTED))
    session.unlisted = len(answers) - len(session.judged)
    if not permitted:
        raise denied(session.decision)
    return permitted


async def _dial(
    session: Session, destination: Destination, permitted: Mapping[IPAddress, Decision]
) -> End:
    """
    Connect to one of the *permitted* addresses, and to no other.

    Raises:
        RuntimeError: The egress has dialled anything else.
    """
    session.enter(State.CONNECTING)
    clock = session.runtime.clock
    started = clock.seconds()
    try:
        target: End = await session.outcome_of(_connected(session.runtime, destination, permitted))
    except Refused as refused:
        seconds = clock.seconds() - started
        session.tell(ConnectFailed(session.number, refused.reply, refused.reason, seconds))
        raise
    address, _ = address_of(target.transport.getPeer())
    decision = permitted.get(address)
    if decision is None:
        target.transport.abortConnection()
        raise RuntimeError(f"dialled {address}, which was not judged")
    session.address, session.decision = address, decision
    if Connected in session.runtime.hears:
        session.tell(Connected(session.number, address, clock.seconds() - started))
    return target


def _connected(
    runtime: Runtime, destination: Destination, permitted: Mapping[IPAddress, Decision]
) -> Deferred[IProtocol]:
    if not runtime.routes:
        return runtime.egress.connect(destination, tuple(permitted), _TARGETS)
    return Deferred.fromCoroutine(_by_routes(runtime, destination, permitted))


async def _by_routes(
    runtime: Runtime, destination: Destination, permitted: Mapping[IPAddress, Decision]
) -> IProtocol:
    """
    Connect to each address by the route that its rule names.

    One route after the other, as the addresses come: which is one route only,
    unless different rules permit different addresses of a name.

    Raises:
        Refused: As the first route has refused.
    """
    routes: dict[str, list[IPAddress]] = {}
    for address, decision in permitted.items():
        routes.setdefault(decision.route, []).append(address)
    refusals = []
    for route, addresses in routes.items():
        egress = runtime.routes.get(route, runtime.egress)
        try:
            return await egress.connect(destination, addresses, _TARGETS)
        except Refused as refused:
            refusals.append(refused)
    raise refusals[0]


def denied(decision: Decision) -> Refused:
    """Make what refuses a request that the policy has denied."""
    detail = f" ({decision.detail})" if decision.detail else ""
    return Refused(ReplyCode.NOT_ALLOWED, f"rule {decision.rule}{detail}")


def address_of(peer: IAddress) -> tuple[IPAddress, int]:
    """Give address and port of a TCP transport's side."""
    host: str = peer.host  # type: ignore[attr-defined]  # IPv4Address and IPv6Address have it
    port: int = peer.port  # type: ignore[attr-defined]  # and this
    return parsed(host), port
