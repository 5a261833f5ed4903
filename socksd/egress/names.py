"""Names by name servers of our own choice, asked without threads."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.codes import ReplyCode
from socksd.egress.lookup import Answer, ILookup, NoSuchName
from socksd.egress.nameservers import NameServers
from socksd.errors import Refused, TimedOut

RESOLUTION_DELAY = 0.05  # seconds; RFC 8305 section 3
MOST_ALIASES = 8
LONGEST_NAME = 253  # octets, as written; RFC 1035 section 2.3.4

# For how many seconds half an answer is good: one family was late, or failed.
# By its own TTL a lost datagram would make a host IPv4-only for an hour.
HALF_TTL = 5.0

# Seconds, whatever the answer's TTL: a page of fifty pictures is one lookup, and
# a host that has moved is found within the hour.
SHORTEST_TTL, LONGEST_TTL = 1.0, 3600.0

_LOOPBACK = Answer((IPv4Address("127.0.0.1"), IPv6Address("::1")), LONGEST_TTL)

_Outcome = Answer | Failure | None


@implementer(ILookup)
class DNSResolver:
    """
    Ask name servers for A and AAAA, both at once.

    IPv6 comes first, as RFC 8305 has it: where there is none, it costs nothing
    (see race), and one cannot know without trying.

    Args:
        timeout: Seconds for a lookup, with all its questions. Keep it below
            the deadline of those who ask, or they leave before they hear why.
    """

    def __init__(self, servers: NameServers, clock: IReactorTime, timeout: float) -> None:
        self._servers = servers
        self._clock = clock
        self._timeout = timeout

    def lookup(self, name: str) -> Deferred[Answer]:
        """Ask anew; see ILookup."""
        if name == "localhost" or name.endswith(".localhost"):
            return succeed(_LOOPBACK)  # never asked of others: RFC 6761 section 6.3
        return Deferred.fromCoroutine(self._lookup(name))

    def stop(self) -> None:
        """Nothing outlives a lookup."""

    async def _lookup(self, name: str) -> Answer:
        families = [
            Deferred.fromCoroutine(self._addresses(name, kind)) for kind in (dns.AAAA, dns.A)
        ]
        try:
            both = _Both(families, self._clock).outcomes
            outcomes = await both.addTimeout(self._timeout, self._clock)
        except defer.TimeoutError as error:
            reason = f"no name server answered within {self._timeout:g} s"
            raise TimedOut(reason) from error
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        addresses = [address for answer in answers for address in answer.addresses]
        if not addresses:
            raise _trouble([outcome for outcome in outcomes if isinstance(outcome, Failure)])
        ttls = [answer.ttl for answer in answers if answer.addresses]
        if len(answers) < len(families):
            ttls.append(HALF_TTL)
        return Answer(addresses, max(SHORTEST_TTL, min(ttls)))

    async def _addresses(self, name: str, kind: int) -> Answer:
        """
        Follow aliases to the addresses of one family (RFC 1034 section 3.6.2).

        Returns:
            An answer without addresses where the name has only other records.

        Raises:
            NoSuchName: The name, or what it is an alias of, does not exist.
            Refused: No server could tell, or it told of endless aliases.
        """
        owner, ttl, aliases = name.encode("ascii"), LONGEST_TTL, 0
        while True:
            asked = owner
            message = await self._servers.ask(asked, kind)
            while alias := _records(message, owner, dns.CNAME):
                owner = alias[0].payload.name.name.lower()
                ttl = min(ttl, alias[0].ttl)
                aliases += 1
                if aliases > MOST_ALIASES or len(owner) > LONGEST_NAME:
                    raise Refused(ReplyCode.HOST_UNREACHABLE, "an alias that leads nowhere")
            if message.rCode == dns.ENAME:  # of the last alias (RFC 6604 section 3)
                raise NoSuchName
            found = _records(message, owner, kind)
            # A SOA says that there is none (RFC 2308 section 2.2); without it the
            # server has just not followed the alias, and has to be asked again.
            if found or owner == asked or any(r.type == dns.SOA for r in message.authority):
                ttl = min([ttl, *(record.ttl for record in found)])
                return Answer([ip_address(record.payload.address) for record in found], ttl)


class _Both:
    """
    What came of questions asked at once, as far as it was worth waiting for.

    Attributes:
        outcomes: Fires with one for each, in their order: ``None`` for one
            that was still out RESOLUTION_DELAY after another had addresses.
    """

    def __init__(self, questions: Sequence[Deferred[Answer]], clock: IReactorTime) -> None:
        self.outcomes: Deferred[list[_Outcome]] = Deferred(lambda _: self._end())
        self._told: list[_Outcome] = [None] * len(questions)
        self._clock = clock
        self._delay: IDelayedCall | None = None
        self._over = False
        self._questions = questions
        for position, question in enumerate(questions):  # some may have been answered at once
            question.addBoth(self._settle, position)

    def _settle(self, outcome: Answer | Failure, position: int) -> None:
        if self._over:
            return
        self._told[position] = outcome
        if None not in self._told:
            self._finish()
        elif isinstance(outcome, Answer) and outcome.addresses:
            self._delay = self._clock.callLater(RESOLUTION_DELAY, self._finish)

    def _finish(self) -> None:
        self._end()
        self.outcomes.callback(self._told)

    def _end(self) -> None:
        self._over = True
        if self._delay is not None and self._delay.active():
            self._delay.cancel()
        for question in self._questions:
            question.cancel()


def _records(message: dns.Message, owner: bytes, kind: int) -> list[Any]:
    """Give the answers that are about *owner*: all others are nobody's business."""
    return [
        record
        for record in message.answers
        if (record.type, record.cls, record.name.name.lower()) == (kind, dns.IN, owner)
    ]


def _trouble(failures: Sequence[Failure]) -> BaseException:
    """Choose what to say when no family has led anywhere."""
    errors = [failure.value for failure in failures if failure.value is not None]
    bugs = [error for error in errors if not isinstance(error, Refused)]
    certain = [error for error in errors if isinstance(error, NoSuchName)]
    nothing = Refused(ReplyCode.HOST_UNREACHABLE, "the name has no address")
    return [*bugs, *certain, *errors, nothing][0]
