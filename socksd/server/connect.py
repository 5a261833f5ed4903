"""CONNECT (RFC 1928 sections 4 and 6): ask, resolve, ask, connect, reply, relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from socksd.address import Destination, IPAddress
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import Connected, ConnectFailed, Resolved, ResolveFailed
from socksd.facts import Decision, Facts, Verdict
from socksd.server.bare import BareEnd
from socksd.server.ends import End
from socksd.server.states import State
from socksd.server.why import DESTINATION as WHY
from socksd.server.why import why
from socksd.wire.socks5 import Request

if TYPE_CHECKING:
    from socksd.server.runtime import Runtime
    from socksd.server.session import Session


class _Targets(Factory[End]):
    """
    Makes the target's end; quiet, for Twisted would log each connection twice.

    Attributes:
        bare: Makes one of a socket alone, for who dials on a switchboard.
    """

    protocol = End
    noisy = False
    bare = BareEnd


_TARGETS = _Targets()
_LISTED = 16  # addresses of one name that the log has, at most


def connect(session: Session, request: Request) -> None:
    """
    Carry out CONNECT.

    Coroutines are for a name, where there is much to wait for; an address is
    asked about, dialled and joined without.

    Raises:
        Refused: With what the client is to be told.
    """
    destination = request.destination
    if isinstance(destination.host, str) and destination == WHY:
        why(session)
        return
    facts = session.facts.asking(Command.CONNECT, destination)
    decision = session.ask(facts)  # before any lookup: a denied name is never looked up
    if decision.verdict is Verdict.DENY:
        raise denied(decision)
    if facts.address is not None:
        _dial(session, destination, {facts.address: decision})
    else:
        session.run(_connect_by_name(session, facts, destination))


async def _connect_by_name(session: Session, facts: Facts, destination: Destination) -> None:
    permitted = await resolve(session, facts, str(destination.host))
    _dial(session, destination, permitted)


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


def _dial(
    session: Session, destination: Destination, permitted: Mapping[IPAddress, Decision]
) -> None:
    """Connect to one of the *permitted* addresses, and to no other; then relay."""
    session.enter(State.CONNECTING)
    started = session.runtime.clock.seconds()
    arguments = session, permitted, started
    session.wait_for(_connected(session.runtime, destination, permitted)).addCallbacks(
        _answered, _not_connected, callbackArgs=arguments, errbackArgs=arguments
    )


def _answered(
    target: End, session: Session, permitted: Mapping[IPAddress, Decision], started: float
) -> None:
    """Join the client with the target that has answered."""
    try:
        address, _ = target.far()
        decision = permitted.get(address)
        if decision is None:
            raise RuntimeError(f"dialled {address}, which was not judged")
        session.address, session.decision = address, decision
        runtime = session.runtime
        if Connected in runtime.hears:
            session.tell(Connected(session.number, address, runtime.clock.seconds() - started))
        session.relay(target, Destination(*target.near()))
    except Exception:  # noqa: BLE001 -- a bug ends one session
        target.abort()
        session.failed(Failure())


def _not_connected(failure: Failure, session: Session, _: object, started: float) -> None:
    """Tell why there is no connection, and end by that."""
    failure = session.refusal(failure)
    if failure.check(Refused):
        refused: Refused = failure.value  # type: ignore[assignment]  # checked above
        seconds = session.runtime.clock.seconds() - started
        session.tell(ConnectFailed(session.number, refused.reply, refused.reason, seconds))
    session.failed(failure)


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
