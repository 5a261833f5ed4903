"""UDP ASSOCIATE (RFC 1928 sections 4, 6 and 7): ask, reply, then ask about each target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from zope.interface import implementer

from socksd.address import Destination, IPAddress
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import DatagramsDropped, DatagramTarget, Denied
from socksd.facts import DIRECT, Decision, Verdict
from socksd.interfaces import Drop, Granted, ITargets
from socksd.server.connect import denied
from socksd.server.states import State
from socksd.wire.socks5 import Request

if TYPE_CHECKING:
    from socksd.server.session import Session


_NO_ROUTE = "there is no UDP but by the direct route"


async def associate(session: Session, request: Request) -> None:
    """
    Carry out UDP ASSOCIATE.

    Raises:
        Refused: With what the client is to be told.
    """
    facts = session.facts.asking(Command.UDP_ASSOCIATE, None)
    decision = session.ask(facts)
    if decision.verdict is Verdict.DENY:
        raise denied(decision)
    session.enter(State.ASSOCIATING)
    advertised = await _advertised(session)
    # DST says where the datagrams will come from, if it is the client's own
    # address. Behind NAT it is another one, and then the port is, too.
    source = request.destination
    expected = source if source.host == facts.client else Destination(facts.client, 0)
    try:
        association = session.runtime.associate(session.end, expected, DatagramTargets(session))
    except OSError as error:
        reason = f"no port for datagrams: {error.strerror}"
        raise Refused(ReplyCode.GENERAL_FAILURE, reason) from error
    bound = association.bound
    # To where the client cannot send by its own family it is not told to send.
    like = (each for each in advertised if type(each) is type(bound.host))
    session.carry(association, Destination(next(like, bound.host), bound.port))


async def _advertised(session: Session) -> Sequence[IPAddress]:
    """Give the addresses that clients are told to send to; none: the one they know."""
    host = session.runtime.advertise
    if host is None:
        return ()
    if not isinstance(host, str):
        return (host,)
    try:
        found: Sequence[IPAddress] = await session.outcome_of(
            session.runtime.resolver.resolve(host)
        )
    except Refused as refused:
        reason = f"udp.advertise: {refused.reason}"
        raise Refused(ReplyCode.GENERAL_FAILURE, reason) from refused
    return found


@implementer(ITargets)
class DatagramTargets:
    """Judges the targets of one association, by the policy that its session began with."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(
        self, destination: Destination, reaches: Callable[[IPAddress], bool]
    ) -> Deferred[Granted | None]:
        """Judge a target; see :class:`~socksd.interfaces.ITargets`."""
        return Deferred.fromCoroutine(self._find(destination, reaches))

    def lets_in(self, source: Destination) -> Granted | None:
        """Judge a source as if it were a target; the rule that allows it has to say so as well."""
        facts = self._session.facts.asking(Command.UDP_ASSOCIATE, source)
        decision = self._session.runtime.policy.decide(facts)
        if decision.verdict is not Verdict.ALLOW or not decision.unasked:
            return None
        assert facts.address is not None  # a source is an address
        return self._granted(source, decision, facts.address)

    def ended(self, drops: Mapping[Drop, int]) -> None:
        """Tell what was dropped."""
        if drops:
            self._session.tell(DatagramsDropped(self._session.number, drops))

    async def _find(
        self, destination: Destination, reaches: Callable[[IPAddress], bool]
    ) -> Granted | None:
        decide = self._session.runtime.policy.decide
        facts = self._session.facts.asking(Command.UDP_ASSOCIATE, destination)
        decision = decide(facts)
        if decision.verdict is Verdict.DENY:  # before any lookup, as for CONNECT
            self._tell_denied(destination, decision)
            return None
        if facts.address is not None:
            return self._granted(destination, decision, facts.address)
        try:
            found = await self._resolve(str(destination.host))
        except Refused as refused:
            self._tell(destination, decision, reason=refused.reason)
            raise
        judged = [facts.at(address) for address in found]
        answers = {each.address: decide(each) for each in judged if each.address is not None}
        permitted = [each for each, answer in answers.items() if answer.verdict is Verdict.ALLOW]
        if not permitted:
            self._tell_denied(destination, next(iter(answers.values())))
            return None
        # There is no race as for CONNECT: a datagram that gets lost tells nobody.
        first = permitted[0]
        address = first if len(permitted) == 1 else next(filter(reaches, permitted), first)
        return self._granted(destination, answers[address], address)

    def _granted(
        self, destination: Destination, decision: Decision, address: IPAddress
    ) -> Granted | None:
        if decision.route != DIRECT:
            # To send from here would be a way around the one that the rule names.
            self._tell(destination, decision, reason=_NO_ROUTE)
            return None
        self._tell(destination, decision, address)
        session = self._session
        budget_of = session.runtime.budgets.get(decision.limits)
        return Granted(address, None if budget_of is None else budget_of(session.facts))

    async def _resolve(self, name: str) -> Sequence[IPAddress]:
        """
        Look a name up.

        Raises:
            Refused: It leads nowhere, or not in time.
        """
        runtime = self._session.runtime
        seconds = runtime.deadlines.resolve
        try:
            return await runtime.resolver.resolve(name).addTimeout(seconds, runtime.clock)
        except DeferredTimeoutError:
            reason = f"no answer within {seconds:g} s"
            raise Refused(ReplyCode.HOST_UNREACHABLE, reason) from None

    def _tell(
        self,
        destination: Destination,
        decision: Decision,
        address: IPAddress | None = None,
        reason: str = "",
    ) -> None:
        session = self._session
        session.tell(
            DatagramTarget(
                session.number,
                session.facts.client,
                session.client_port,
                self._user,
                destination,
                decision,
                address,
                reason,
            )
        )

    def _tell_denied(self, destination: Destination, decision: Decision) -> None:
        session = self._session
        session.tell(
            Denied(
                session.number,
                session.facts.time + session.runtime.clock.seconds() - session.begun,
                session.facts.client,
                session.client_port,
                self._user,
                Command.UDP_ASSOCIATE,
                destination,
                decision,
                datagram=True,
            )
        )

    @property
    def _user(self) -> str | None:
        principal = self._session.facts.principal
        return principal.name if principal else None
