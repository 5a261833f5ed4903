from __future__ import annotations

import errno
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.names import dns
from zope.interface.verify import verifyObject

from socksd.codes import ReplyCode
from socksd.egress.lookup import Answer, ILookup, NoSuchName
from socksd.egress.names import HALF_TTL, MOST_ALIASES, RESOLUTION_DELAY, DNSResolver
from socksd.egress.nameservers import NameServer, NameServers
from socksd.errors import Refused, TimedOut
from tests.egress.fakes import FakeReactor, Reply, a, aaaa, cname, reply_to
from tests.fakes import outcome

SERVER = "192.0.2.53"
TIMEOUT = 8.0
V4, V6 = a(b"web", "192.0.2.1", ttl=100), aaaa(b"web", "2001:db8::1", ttl=200)
EMPTY: tuple[dns.RRHeader, ...] = ()


class Zone:
    """
    A name server with these records, as it was told to answer.

    It gives all records whose owner is asked for or led to by its own aliases
    (``follows``), after so many seconds by type; None is never.
    """

    def __init__(self, *records: dns.RRHeader, follows: bool = True) -> None:
        self.records = records
        self.follows = follows
        self.seconds: dict[int, float | None] = {}
        self.codes: dict[int, int] = {}
        self.soa = False
        self.asked: list[tuple[bytes, int]] = []

    def __call__(self, question: dns.Message) -> Reply:
        (query,) = question.queries
        self.asked.append((query.name.name, query.type))
        seconds = self.seconds.get(query.type, 0.01)
        if seconds is None:
            return None
        owners, said = {query.name.name.lower()}, []
        for record in self.records:
            if record.name.name.lower() in owners and record.type in (query.type, dns.CNAME):
                said.append(record)
                if self.follows and record.type == dns.CNAME:
                    owners.add(record.payload.name.name.lower())  # type: ignore[union-attr]  # of a known type
        message = reply_to(question, *said, code=self.codes.get(query.type, dns.OK))
        if self.soa:
            message.authority = [dns.RRHeader(b"", dns.SOA, payload=dns.Record_SOA())]
        return seconds, message


def resolver(reactor: FakeReactor, servers: Sequence[NameServer]) -> DNSResolver:
    asked = NameServers(servers, reactor, reactor.make_socket)  # type: ignore[arg-type]  # a fake reactor
    return DNSResolver(asked, reactor, TIMEOUT)


def resolving(zone: Zone, name: str = "web") -> tuple[FakeReactor, Deferred[Answer]]:
    reactor = FakeReactor()
    reactor.servers[SERVER, 53] = zone
    servers = [NameServer(ip_address(SERVER))]
    return reactor, resolver(reactor, servers).lookup(name)


def found(looked_up: Deferred[Answer]) -> list[str]:
    return list(map(str, outcome(looked_up).addresses))


def refusal_of(looked_up: Deferred[Answer]) -> Refused:
    with pytest.raises(Refused) as raised:
        outcome(looked_up)
    assert raised.value.reply is ReplyCode.HOST_UNREACHABLE
    return raised.value


def test_it_is_a_lookup() -> None:
    of_names = resolver(FakeReactor(), [NameServer(ip_address(SERVER))])
    assert verifyObject(ILookup, of_names)
    of_names.stop()


def test_both_families_are_asked_at_once_and_ipv6_comes_first() -> None:
    zone = Zone(V4, V6)
    reactor, looked_up = resolving(zone)
    assert sorted(zone.asked) == [(b"web", dns.A), (b"web", dns.AAAA)]
    reactor.advance(0.01)
    assert outcome(looked_up) == Answer([ip_address("2001:db8::1"), ip_address("192.0.2.1")], 100)
    assert not reactor.left


@pytest.mark.parametrize("name", ["under_score", "-dash", "xn--bcher-kva.example"])
def test_a_name_is_asked_as_it_stands(name: str) -> None:
    reactor, looked_up = resolving(Zone(a(name.encode(), "192.0.2.1")), name)
    reactor.advance(0.01)
    assert found(looked_up) == ["192.0.2.1"]


@pytest.mark.parametrize("name", ["localhost", "web.localhost"])
def test_localhost_is_answered_here(name: str) -> None:
    """RFC 6761 section 6.3; a name server could send it anywhere."""
    zone = Zone(a(name.encode(), "192.0.2.1"))
    _, looked_up = resolving(zone, name)
    assert found(looked_up) == ["127.0.0.1", "::1"]
    assert not zone.asked


@pytest.mark.parametrize("record", [V4, V6], ids=["IPv4", "IPv6"])
def test_one_family_is_enough_and_good_for_its_ttl(record: dns.RRHeader) -> None:
    reactor, looked_up = resolving(Zone(record))
    reactor.advance(0.01)
    answer = outcome(looked_up)
    assert len(answer.addresses) == 1
    assert answer.ttl == record.ttl


@pytest.mark.parametrize(("of_alias", "of_address"), [(50, 70), (70, 50)])
def test_the_shortest_ttl_of_the_chain_counts(of_alias: int, of_address: int) -> None:
    zone = Zone(
        cname(b"web", b"cdn", ttl=of_alias),
        a(b"cdn", "192.0.2.1", ttl=90),
        a(b"cdn", "192.0.2.2", ttl=of_address),
    )
    zone.soa = True
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert outcome(looked_up).ttl == 50


@pytest.mark.parametrize(("ttl", "kept"), [(0, 1), (2**32 - 1, 3600)])
def test_a_ttl_is_kept_within_bounds(ttl: int, kept: int) -> None:
    """A page full of pictures is one lookup; a host that moves is found within the hour."""
    reactor, looked_up = resolving(Zone(a(b"web", "192.0.2.1", ttl=ttl)))
    reactor.advance(0.01)
    assert outcome(looked_up).ttl == kept


# -- one family late or failing -------------------------------------------------


@pytest.mark.parametrize("late", [dns.A, dns.AAAA])
def test_a_late_family_is_waited_for_a_moment(late: int) -> None:
    zone = Zone(V4, V6)
    zone.seconds[late] = 0.01 + RESOLUTION_DELAY - 0.001
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert not looked_up.called
    reactor.advance(RESOLUTION_DELAY - 0.001)
    assert outcome(looked_up) == Answer([ip_address("2001:db8::1"), ip_address("192.0.2.1")], 100)
    assert not reactor.left


@pytest.mark.parametrize("late", [dns.A, dns.AAAA])
def test_a_family_that_never_comes_is_not_waited_for(late: int) -> None:
    """And half an answer is not kept for long: the other half may be there next time."""
    zone = Zone(V4, V6)
    zone.seconds[late] = None
    reactor, looked_up = resolving(zone)
    reactor.pump([0.01, RESOLUTION_DELAY])
    answer = outcome(looked_up)
    assert list(map(str, answer.addresses)) == ["192.0.2.1" if late == dns.AAAA else "2001:db8::1"]
    assert answer.ttl == HALF_TTL
    assert not reactor.left


def test_a_family_that_fails_leaves_the_other() -> None:
    zone = Zone(V4, V6)
    zone.codes[dns.AAAA] = dns.ESERVER
    zone.seconds[dns.A] = 0.5
    reactor, looked_up = resolving(zone)
    reactor.pump([0.01, 0.49])
    assert outcome(looked_up) == Answer([ip_address("192.0.2.1")], HALF_TTL)


def test_an_empty_family_is_no_reason_to_hurry_the_other() -> None:
    zone = Zone(V4)
    zone.seconds[dns.A] = 0.9
    reactor, looked_up = resolving(zone)
    reactor.pump([0.01, 0.5, 0.39])
    assert outcome(looked_up) == Answer([ip_address("192.0.2.1")], 100)


# -- nowhere --------------------------------------------------------------------


def test_a_name_that_does_not_exist() -> None:
    zone = Zone()
    zone.codes = {dns.A: dns.ENAME, dns.AAAA: dns.ENAME}
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert isinstance(refusal_of(looked_up), NoSuchName)


@pytest.mark.parametrize("failing", [dns.A, dns.AAAA])
def test_certainty_speaks_before_failure(failing: int) -> None:
    zone = Zone()
    zone.codes = {dns.A: dns.ENAME, dns.AAAA: dns.ENAME} | {failing: dns.ESERVER}
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert isinstance(refusal_of(looked_up), NoSuchName)


@pytest.mark.parametrize("failing", [dns.A, dns.AAAA])
def test_failure_speaks_before_emptiness(failing: int) -> None:
    zone = Zone()
    zone.codes = {failing: dns.EREFUSED}
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert refusal_of(looked_up).reason == "name server failure (REFUSED)"


def test_a_name_without_addresses() -> None:
    reactor, looked_up = resolving(Zone())
    reactor.advance(0.01)
    assert refusal_of(looked_up).reason == "the name has no address"


def test_silence_ends_within_the_timeout() -> None:
    zone = Zone()
    zone.seconds = {dns.A: None, dns.AAAA: None}
    reactor, looked_up = resolving(zone)
    reactor.pump([1, 2, 4])
    assert refusal_of(looked_up).reason == "no name server answered"
    assert not reactor.left


def test_however_many_servers_are_silent() -> None:
    reactor = FakeReactor()
    servers = [NameServer(ip_address(f"192.0.2.{number}")) for number in range(9)]
    reactor.servers.update({(str(s.address), 53): lambda _: None for s in servers})
    looked_up = resolver(reactor, servers).lookup("web")
    reactor.pump([0.5] * 16)
    refused = refusal_of(looked_up)
    assert refused.reason == "no name server answered within 8 s"
    assert isinstance(refused, TimedOut)
    assert not reactor.left


def test_cancelling_leaves_nothing() -> None:
    reactor, looked_up = resolving(Zone(V4, V6))
    looked_up.cancel()
    with pytest.raises(CancelledError):
        outcome(looked_up)
    assert not reactor.left


def test_cancelling_during_the_resolution_delay_leaves_nothing() -> None:
    zone = Zone(V4, V6)
    zone.seconds[dns.AAAA] = None
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    looked_up.cancel()
    with pytest.raises(CancelledError):
        outcome(looked_up)
    assert not reactor.left


def test_a_bug_is_not_taken_for_a_name_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(*_: object) -> dns.Message:
        raise LookupError

    monkeypatch.setattr("socksd.egress.nameservers.NameServers.ask", bug)
    _, looked_up = resolving(Zone())
    with pytest.raises(LookupError):
        outcome(looked_up)


def test_without_a_socket_it_is_our_trouble() -> None:
    """Also when it is known before the second family is asked."""
    reactor = FakeReactor()
    reactor.no_sockets = OSError(errno.EMFILE, "")
    of_names = resolver(reactor, [NameServer(ip_address(SERVER))])
    with pytest.raises(Refused) as raised:
        outcome(of_names.lookup("web"))
    assert raised.value.reply is ReplyCode.GENERAL_FAILURE
    assert not reactor.left


# -- aliases --------------------------------------------------------------------


def test_an_alias_is_followed_within_the_answer() -> None:
    """Whatever the case in which it is written."""
    zone = Zone(cname(b"WEB", b"Cdn.Example"), V4, a(b"cdn.example", "192.0.2.2"))
    zone.soa = True
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert found(looked_up) == ["192.0.2.2"]
    assert len(zone.asked) == 2


def test_an_alias_that_the_server_does_not_follow_is_asked_for() -> None:
    zone = Zone(cname(b"web", b"one"), cname(b"one", b"two"), a(b"two", "192.0.2.2"), follows=False)
    reactor, looked_up = resolving(zone)
    reactor.pump([0.01] * 3)
    assert found(looked_up) == ["192.0.2.2"]
    assert [name for name, kind in zone.asked if kind == dns.A] == [b"web", b"one", b"two"]


def chain(links: int, *, follows: bool) -> Zone:
    aliases = (cname(b"n%d" % i, b"n%d" % (i + 1)) for i in range(links))
    return Zone(*aliases, a(b"n%d" % links, "192.0.2.2"), follows=follows)


@pytest.mark.parametrize("follows", [True, False])
def test_as_many_aliases_as_anybody_needs_are_followed(follows: bool) -> None:
    reactor, looked_up = resolving(chain(MOST_ALIASES, follows=follows), "n0")
    reactor.pump([0.01] * 20)
    assert found(looked_up) == ["192.0.2.2"]


@pytest.mark.parametrize("follows", [True, False])
def test_aliases_have_an_end(follows: bool) -> None:
    zone = chain(MOST_ALIASES + 1, follows=follows)
    reactor, looked_up = resolving(zone, "n0")
    reactor.pump([0.01] * 20)
    assert refusal_of(looked_up).reason == "an alias that leads nowhere"
    assert len(zone.asked) <= 2 * (MOST_ALIASES + 1)


def test_an_alias_of_itself_ends_at_once() -> None:
    zone = Zone(cname(b"web", b"web"))
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    refusal_of(looked_up)
    assert len(zone.asked) == 2


def test_an_alias_longer_than_a_name_may_be_is_not_asked_for() -> None:
    longer = b".".join([b"x" * 63] * 4)
    zone = Zone(cname(b"web", longer))
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    refusal_of(looked_up)
    assert len(zone.asked) == 2


def test_an_alias_of_a_name_that_does_not_exist() -> None:
    """The RCODE is about the end of the chain (RFC 6604 section 3)."""
    zone = Zone(cname(b"web", b"gone"))
    zone.codes = {dns.A: dns.ENAME, dns.AAAA: dns.ENAME}
    reactor, looked_up = resolving(zone)
    reactor.advance(0.01)
    assert isinstance(refusal_of(looked_up), NoSuchName)


def test_records_of_other_names_and_classes_are_nobodys_business() -> None:
    def liar(question: dns.Message) -> Reply:
        chaos = dns.RRHeader(b"web", dns.A, dns.CH, payload=dns.Record_A("192.0.2.9"))
        return 0.01, reply_to(question, a(b"bank.example", "192.0.2.8"), chaos)

    zone = Zone()
    reactor = FakeReactor()
    reactor.servers[SERVER, 53] = liar
    servers = [NameServer(ip_address(SERVER))]
    looked_up = resolver(reactor, servers).lookup("web")
    reactor.advance(0.01)
    assert refusal_of(looked_up).reason == "the name has no address"
    assert not zone.asked
