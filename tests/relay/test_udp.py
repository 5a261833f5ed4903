"""
Associations between real sockets, turned by hand.

On the loopback a datagram has arrived when sendto(2) returns, so nothing waits.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksd.address import Destination, IPAddress
from socksd.codes import ReplyCode
from socksd.errors import Refused
from socksd.interfaces import (
    Drop,
    EndedBy,
    Granted,
    IAssociation,
    ICarrier,
    ITargets,
    IWatched,
    Tally,
)
from socksd.relay import udp
from socksd.relay.readers import Readers
from socksd.relay.switchboard import Switchboard
from socksd.relay.throttle import Budget
from socksd.relay.udp import Association, Watching, associate
from socksd.server.ends import End
from socksd.wire.udp import MOST, REASSEMBLY_SECONDS, Header
from tests.fakes import FakeTransport
from tests.relay.hand import HandReactor

IDLE = 900.0
HERE = {4: "127.0.0.1", 6: "::1"}


class Far:
    """A socket of somebody else: the client's, a target's or a stranger's."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.sock.bind((host, port))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self.destination = Destination(ip_address(host), self.port)

    def taken(self) -> list[tuple[bytes, Any]]:
        """What has arrived, and from where."""
        found: list[tuple[bytes, Any]] = []
        while True:
            try:
                octets, source = self.sock.recvfrom(70000)
            except BlockingIOError:
                return found
            found.append((octets, source[:2]))

    def payloads(self) -> list[bytes]:
        return [octets for octets, _ in self.taken()]


@implementer(ITargets)
class Judge:
    """Lets everybody through, unless the test says otherwise."""

    def __init__(self) -> None:
        self.asked: list[Destination] = []
        self.answers: dict[object, Deferred[Any]] = {}
        self.ways: list[Callable[[IPAddress], bool]] = []
        self.dropped: list[dict[Drop, int]] = []
        self.open: set[Destination] = set()
        self.unasked: list[Destination] = []
        self.budget: Budget | None = None  # of all

    def find(
        self, destination: Destination, reaches: Callable[[IPAddress], bool]
    ) -> Deferred[Granted | None]:
        self.asked.append(destination)
        self.ways.append(reaches)
        host = destination.host
        if host in self.answers:
            return self.answers[host].addCallback(self.granted)
        assert not isinstance(host, str), "a name without an answer"
        return succeed(Granted(host, self.budget))

    def granted(self, address: IPAddress | None) -> Granted | None:
        return None if address is None else Granted(address, self.budget)

    def lets_in(self, source: Destination) -> Granted | None:
        self.unasked.append(source)
        assert not isinstance(source.host, str)
        return self.granted(source.host) if source in self.open else None

    def ended(self, drops: Mapping[Drop, int]) -> None:
        self.dropped.append(dict(drops))


class World:
    """An association, and what is around it."""

    def __init__(self, kind: str) -> None:
        self.reactor = HandReactor()
        self.watching: Watching
        if kind == "switchboard":
            self.watching = self.board = Switchboard(self.reactor)
            self.board.start()
        else:
            self.watching = Readers(self.reactor)
        self.kind = kind
        self.judge = Judge()
        self.end = End()
        self.fars: list[Far] = []
        self.results: list[Any] = []

    def begin(
        self,
        *,
        host: IAddress | None = None,
        expected: Destination | None = None,
        ports: range | None = None,
        reassemble: bool = True,
        unasked: bool = False,
        sources: Sequence[IPAddress] = (),
    ) -> Association:
        self.transport = FakeTransport(self.end, host=host or IPv4Address("TCP", "127.0.0.1", 1080))
        made = associate(
            self.end,
            expected or Destination(ip_address("127.0.0.1"), 0),
            self.judge,
            watching=self.watching,
            clock=self.reactor,
            idle=IDLE,
            ports=ports,
            reassemble=reassemble,
            unasked=unasked,
            sources=sources,
        )
        assert isinstance(made, Association)
        self.association = made
        made.join(b"", self.results.append)
        return made

    def far(self, host: str = "127.0.0.1", port: int = 0) -> Far:
        self.fars.append(Far(host, port))
        return self.fars[-1]

    def turn(self) -> None:
        """Tell of what there is to read, once."""
        for reader in select.select(list(self.reactor.readers), [], [], 0)[0]:
            reader.doRead()

    def settle(self) -> None:
        for _ in range(200):
            if not select.select(list(self.reactor.readers), [], [], 0)[0]:
                return
            self.turn()
        raise AssertionError("there is always something to read")

    def send(
        self, client: Far, to: Far | Destination, payload: bytes = b"x", fragment: int = 0
    ) -> None:
        """Send by the association, and let it be relayed."""
        destination = to.destination if isinstance(to, Far) else to
        self.raw(client, Header(destination, fragment).encode() + payload)

    def raw(self, client: Far, octets: bytes) -> None:
        bound = self.association.bound
        client.sock.sendto(octets, (str(bound.host), bound.port))
        self.settle()

    def answer(self, target: Far, payload: bytes, source: Any) -> None:
        target.sock.sendto(payload, source)
        self.settle()

    @property
    def tally(self) -> Tally:
        (tally,) = self.results
        assert isinstance(tally, Tally)
        return tally

    def drops(self) -> dict[Drop, int]:
        """End, and give what was dropped."""
        if not self.results:
            self.transport.receive_fin()
        (dropped,) = self.judge.dropped
        return dropped


@pytest.fixture(params=["switchboard", "readers"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    yield made
    if not made.results and made.transport.gone is None:
        made.transport.receive_fin()
    if made.kind == "switchboard":
        made.board.stop()
    assert not made.reactor.readers
    assert not made.reactor.getDelayedCalls()
    for far in made.fars:
        far.sock.close()


def framed(target: Far, payload: bytes) -> bytes:
    return Header(target.destination).encode() + payload


# -- there and back ------------------------------------------------------------


def test_it_is_what_it_says(world: World) -> None:
    association = world.begin()
    assert verifyObject(IAssociation, association)
    assert verifyObject(ICarrier, association)
    assert verifyObject(IWatched, udp._Ear(association, lambda: None))


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_gets_there_and_its_answer_back(world: World, version: int) -> None:
    association = world.begin()
    client, target = world.far(), world.far(HERE[version])
    world.send(client, target, b"question")
    ((payload, source),) = target.taken()
    assert payload == b"question"
    world.answer(target, b"the answer", source)
    bound = association.bound
    assert client.taken() == [(framed(target, b"the answer"), (str(bound.host), bound.port))]
    assert (association.up, association.down) == (8, 10)


@pytest.mark.parametrize("payload", [b"", bytes(MOST - 22)], ids=["empty", "long"])
def test_a_datagram_of_any_length_is_one(world: World, payload: bytes) -> None:
    world.begin()
    client, target = world.far(), world.far()
    for _ in range(2):
        world.send(client, target, payload)
        ((arrived, source),) = target.taken()
        assert arrived == payload
        world.answer(target, payload, source)
        assert client.payloads() == [framed(target, payload)]


def test_targets_of_both_families_share_an_association(world: World) -> None:
    """And are asked about once each; all of one family see the same port."""
    world.begin()
    client = world.far()
    targets = [world.far(), world.far("::1"), world.far(), world.far("::1")]
    sources = []
    for _ in range(3):
        for target in targets:
            world.send(client, target)
            ((_, source),) = target.taken()
            sources.append(source)
    assert len(set(sources)) == 2
    assert world.judge.asked == [target.destination for target in targets]
    for target, source in zip(targets, sources, strict=False):
        world.answer(target, b"a", source)
        assert client.payloads() == [framed(target, b"a")]


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_leave_from_the_source_of_their_family(world: World, version: int) -> None:
    own = {4: "127.0.0.9", 6: "::1"}[version]
    world.begin(sources=[ip_address(own)])
    client, target = world.far(), world.far(HERE[version])
    world.send(client, target, b"question")
    ((payload, source),) = target.taken()
    assert (payload, source[0]) == (b"question", own)
    world.answer(target, b"the answer", source)
    assert client.payloads() == [framed(target, b"the answer")]


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_leaves_by_a_family_without_a_source(world: World, version: int) -> None:
    """Where others have one; and of a name's addresses one of such a family is not chosen."""
    world.begin(sources=[ip_address(HERE[10 - version])])
    client, target = world.far(), world.far(HERE[version])
    world.send(client, target, b"lost")
    assert target.taken() == []
    (reaches,) = world.judge.ways
    assert not reaches(ip_address(HERE[version]))
    assert reaches(ip_address(HERE[10 - version]))
    assert world.drops() == {Drop.UNSENT: 1}


def test_a_name_is_found_once_and_its_answers_come_from_an_address(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far("::1")
    world.judge.answers["example.com"] = succeed(ip_address("::1"))
    destination = Destination("example.com", target.port)
    for _ in range(3):
        world.send(client, destination, b"q")
        ((_, source),) = target.taken()
        world.answer(target, b"a", source)
        assert client.payloads() == [framed(target, b"a")]
    assert world.judge.asked == [destination]


def test_an_ipv4_compatible_address_is_spelled_as_the_system_does(world: World) -> None:
    """recvfrom(2) has ::1.2.3.4 where Python has ::102:304: answers would be nobody's."""
    association = world.begin()
    target = association._target(Granted(ip_address("::1.2.3.4")), 53)
    assert target.to == ("::1.2.3.4", 53, 0, 0)


# -- who may use it ---------------------------------------------------------------


def test_the_first_datagram_settles_the_port(world: World) -> None:
    world.begin()
    client, other, target = world.far(), world.far(), world.far()
    world.send(client, target, b"mine")
    world.send(other, target, b"injected")
    world.send(client, target, b"mine too")
    assert target.payloads() == [b"mine", b"mine too"]


def test_a_port_that_is_expected_is_the_only_one(world: World) -> None:
    client = world.far()
    world.begin(expected=client.destination)
    other, target = world.far(), world.far()
    world.send(other, target, b"injected")
    assert target.payloads() == []
    world.send(client, target, b"mine")
    assert target.payloads() == [b"mine"]


def test_what_strangers_have_sent_is_dropped(world: World) -> None:
    association = world.begin()
    client, target = world.far(), world.far()
    stranger, other = world.far("127.0.0.2"), world.far()
    world.send(stranger, target, b"injected")
    bound = (str(association.bound.host), association.bound.port)
    # All of it is there to be read when the port becomes known.
    for far, payload in ((client, b"mine"), (stranger, b"late"), (other, b"later")):
        far.sock.sendto(framed(target, payload), bound)
    world.settle()
    world.send(stranger, target, b"too late")
    assert target.payloads() == [b"mine"]
    assert world.drops() == {Drop.STRANGER: 3}


def test_a_datagram_without_a_port_to_answer_to_is_a_strangers(world: World) -> None:
    association = world.begin()
    association._meet(("127.0.0.1", 0), 50)
    assert association._peer is None
    assert world.drops() == {Drop.STRANGER: 1}


def test_a_client_to_whom_there_is_no_way_back_stays_unknown(world: World) -> None:
    association = world.begin()
    udp._OCTETS[:10] = framed(world.far(), b"")
    association._expected = ip_address("255.255.255.255")
    association._meet(("255.255.255.255", 9), 10)  # EACCES
    assert association._peer is None
    assert world.drops() == {Drop.UNSENT: 1}


def test_garbage_does_not_settle_the_port(world: World) -> None:
    world.begin()
    other, client, target = world.far(), world.far(), world.far()
    world.raw(other, b"\x00\x00\x00")
    world.send(client, target)
    assert target.payloads() == [b"x"]
    assert world.drops() == {Drop.MALFORMED: 1}


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00\x00\x00\x01\x7f\x00", id="short"),
        pytest.param(b"\x00\x00\x00\x05" + bytes(30), id="ATYP"),
        pytest.param(b"\x00\x01\x00\x01" + bytes(30), id="RSV"),
        pytest.param(b"\x00\x00\x00\x03\x03a b\x00\x35x", id="no name"),
    ],
)
def test_a_malformed_datagram_is_dropped_and_counted(world: World, octets: bytes) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    world.raw(client, octets)
    world.send(client, target)
    assert target.payloads() == [b"x", b"x"]
    assert world.judge.asked == [target.destination]
    assert world.drops() == {Drop.MALFORMED: 1}


def test_what_an_earlier_datagram_has_left_in_the_buffer_is_no_part_of_a_later_one(
    world: World,
) -> None:
    """Else a header that is cut off would lead where the last one did."""
    association = world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    bound = (str(association.bound.host), association.bound.port)
    whole = framed(target, b"x")
    for octets in (whole, whole[:9], whole, b"", whole):
        client.sock.sendto(octets, bound)
    world.turn()
    assert target.payloads() == [b"x"] * 4
    assert world.drops() == {Drop.MALFORMED: 2}


def test_who_is_denied_is_so_in_the_midst_of_others(world: World) -> None:
    association = world.begin()
    client, target, denied = world.far(), world.far(), world.far("127.0.0.2")
    world.judge.answers[denied.destination.host] = succeed(None)
    world.send(client, target, b"0")
    bound = (str(association.bound.host), association.bound.port)
    for number, to in enumerate((target, denied, denied, target, denied), 1):
        client.sock.sendto(framed(to, b"%d" % number), bound)
    world.turn()
    assert target.payloads() == [b"0", b"1", b"4"]
    assert denied.payloads() == []
    assert world.drops() == {Drop.DENIED: 3}


@pytest.mark.parametrize("others", [["127.0.0.1"], ["::1"], ["127.0.0.1", "::1", "127.0.0.1"]])
def test_those_that_come_in_one_turn_go_their_own_ways(world: World, others: list[str]) -> None:
    association = world.begin()
    client = world.far()
    targets = [world.far(host) for host in ("127.0.0.1", *others)]
    bound = (str(association.bound.host), association.bound.port)
    sources = {}
    for target in targets:
        world.send(client, target)
        ((_, sources[target]),) = target.taken()
    turns = [target for target in (*targets, *targets) for _ in range(2)]
    for number, target in enumerate(turns):
        client.sock.sendto(framed(target, bytes([number])), bound)
    world.turn()
    for target in targets:
        assert target.payloads() == [bytes([n]) for n, each in enumerate(turns) if each is target]
    for number, target in enumerate(turns):
        target.sock.sendto(bytes([number]), sources[target])
    world.turn()
    arrived = client.payloads()
    for target in targets:
        whole = [framed(target, bytes([n])) for n, each in enumerate(turns) if each is target]
        assert [octets for octets in arrived if octets in whole] == whole
    assert len(arrived) == len(turns)


def test_who_was_not_sent_to_is_not_heard(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    ((_, source),) = target.taken()
    for stranger in (world.far(), world.far("127.0.0.2", target.port)):
        world.answer(stranger, b"unasked", source)
    assert client.taken() == []
    assert world.judge.unasked == []
    assert world.drops() == {Drop.UNASKED: 2}


def test_who_is_let_in_is_a_target_from_then_on(world: World) -> None:
    world.begin(unasked=True)
    client, target, friend, foe = (world.far() for _ in range(4))
    world.send(client, target)
    ((_, source),) = target.taken()
    world.judge.open.add(friend.destination)
    for _ in range(2):
        world.answer(friend, b"hello", source)
        world.answer(foe, b"hello", source)
    assert client.payloads() == [framed(friend, b"hello")] * 2
    world.send(client, friend, b"hello to you")
    assert friend.payloads() == [b"hello to you"]
    assert world.judge.asked == [target.destination]
    assert world.judge.unasked == [friend.destination, foe.destination, foe.destination]
    assert world.drops() == {Drop.UNASKED: 2}


def test_who_could_not_be_answered_is_not_let_in(world: World) -> None:
    """A link-local address is one only with its link, which no header can name."""
    association = world.begin(unasked=True)
    assert association._let_in(("fe80::1", 53, 0, 2)) is None
    assert world.judge.unasked == []


# -- within what limit ---------------------------------------------------------------

KIB = bytes(1024)


def test_what_is_more_than_the_limit_is_dropped_each_way(world: World) -> None:
    """A quarter of a second's worth goes at once, and a second's worth in a second."""
    budget = world.judge.budget = Budget(20 * 1024, world.reactor)
    world.begin()
    client, target = world.far(), world.far()
    for _ in range(10):
        world.send(client, target, KIB)
    arrived = target.taken()
    assert len(arrived) == 4, "and what is left is less than a turn's worth"
    for _ in range(10):
        world.answer(target, KIB, arrived[0][1])
    assert len(client.taken()) == 4, "which the other way has nothing to do with"
    for _ in range(20):
        world.reactor.advance(0.1)
        for _ in range(3):
            world.send(client, target, KIB)
    assert len(target.taken()) == pytest.approx(40, abs=2)
    assert budget.relays == 1
    dropped = world.drops()
    assert dropped.keys() == {Drop.LIMITED}
    assert budget.relays == 0
    assert not world.reactor.getDelayedCalls()


def test_datagrams_share_a_limit_with_whoever_else_draws_on_it(world: World) -> None:
    budget = world.judge.budget = Budget(20 * 1024, world.reactor)
    assert budget.up.take(1 << 20) == 5 * 1024
    association = world.begin()
    client, targets = world.far(), [world.far(), world.far("::1")]
    for target in targets:
        world.send(client, target, KIB)
        assert target.taken() == []
    assert budget.relays == 1, "once for all targets"
    assert association.up == 0
    assert world.drops() == {Drop.LIMITED: 2}


def test_a_target_without_a_limit_pays_nothing(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    for _ in range(2):
        world.send(client, target, KIB)
    (remembered,) = world.association._targets.values()
    assert remembered is not None
    assert remembered.within is None
    assert remembered.send == world.association._sockets[socket.AF_INET].sendto


# -- where it may go -----------------------------------------------------------------


def test_a_denied_target_is_asked_about_once(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.judge.answers[ip_address("127.0.0.1")] = succeed(None)
    for _ in range(3):
        world.send(client, target)
    assert target.payloads() == []
    assert len(world.judge.asked) == 1
    assert world.drops() == {Drop.DENIED: 3}


def test_what_is_sent_to_a_name_waits_for_it_in_order(world: World) -> None:
    association = world.begin()
    client, target = world.far(), world.far()
    answer: Deferred[IPAddress | None] = Deferred()
    world.judge.answers["example.com"] = answer
    for payload in (b"one", b"two", b"three"):
        world.send(client, Destination("example.com", target.port), payload)
    assert len(world.judge.asked) == 1
    assert association._queued > 0
    answer.callback(ip_address("127.0.0.1"))
    assert target.payloads() == [b"one", b"two", b"three"]
    assert association._queued == 0


def test_a_name_that_leads_nowhere_may_lead_somewhere_later(world: World) -> None:
    association = world.begin()
    client, target = world.far(), world.far()
    answer: Deferred[IPAddress | None] = Deferred()
    world.judge.answers["example.com"] = answer
    for _ in range(2):
        world.send(client, Destination("example.com", target.port), b"lost")
    answer.errback(Refused(ReplyCode.HOST_UNREACHABLE, "no such name"))
    assert association._queued == 0
    world.judge.answers["example.com"] = succeed(ip_address("127.0.0.1"))
    world.send(client, Destination("example.com", target.port), b"found")
    assert target.payloads() == [b"found"]
    assert world.drops() == {Drop.NOT_FOUND: 2}


def test_what_waits_is_bounded_in_names_and_in_octets(world: World) -> None:
    association = world.begin()
    client = world.far()
    for number in range(udp._LOOKUPS + 3):
        world.judge.answers[f"n{number}.example"] = Deferred()
        world.send(client, Destination(f"n{number}.example", 53))
    assert len(world.judge.asked) == udp._LOOKUPS
    for _ in range(1000):  # empty ones take their place as well
        world.send(client, Destination("n0.example", 53), b"")
    for _ in range(10):
        world.send(client, Destination("n1.example", 53), bytes(60000))
    assert association._queued <= udp._QUEUE
    kept = sum(len(each.payloads) for each in association._waiting.values())
    assert kept <= udp._QUEUE // udp._EACH
    assert world.drops()[Drop.CROWDED] >= 3 + 10


def test_a_lookup_ends_with_its_association(world: World) -> None:
    world.begin()
    client = world.far()
    cancelled: list[object] = []
    world.judge.answers["example.com"] = Deferred(cancelled.append)
    world.send(client, Destination("example.com", 53))
    world.transport.receive_fin()
    assert len(cancelled) == 1
    assert world.tally.ended_by is EndedBy.BOTH


def test_a_bug_in_judging_ends_the_association(world: World) -> None:
    world.begin()
    client = world.far()
    answer: Deferred[IPAddress | None] = Deferred()
    world.judge.answers["example.com"] = answer
    world.send(client, Destination("example.com", 53))
    answer.errback(ZeroDivisionError())
    (failure,) = world.results
    assert failure.check(ZeroDivisionError)
    assert not [reader for reader in world.reactor.readers if not isinstance(reader, Switchboard)]
    world.association.fail(failure)  # once is enough
    assert len(world.results) == 1


def test_a_bug_in_relaying_ends_the_association(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin()
    client, target = world.far(), world.far()
    monkeypatch.setattr(udp, "header_end", lambda octets, count: 1 / 0)
    world.send(client, target)
    (failure,) = world.results
    assert failure.check(ZeroDivisionError)


def test_targets_are_bounded_and_the_one_used_least_recently_goes_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_TARGETS", 3)
    association = world.begin()
    client = world.far()
    a, b, c, d = (world.far() for _ in range(4))
    for target in (a, b, c, a, d):  # b goes
        world.send(client, target)
    assert len(association._targets) == len(association._sources) == 3
    ((_, source),) = d.taken()
    world.answer(b, b"forgotten", source)
    world.answer(a, b"remembered", source)
    assert client.payloads() == [framed(a, b"remembered")]
    world.send(client, b)  # c goes
    assert world.judge.asked == [each.destination for each in (a, b, c, d, b)]
    world.answer(b, b"again", source)
    assert client.payloads() == [framed(b, b"again")]


def test_a_target_that_gets_fragments_is_in_use(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_TARGETS", 2)
    world.begin()
    client = world.far()
    a, b, c = (world.far() for _ in range(3))
    for target in (a, b):
        world.send(client, target)
    world.send(client, a, b"alone", 0x81)
    world.send(client, c)  # b goes
    world.send(client, a)
    assert world.judge.asked == [each.destination for each in (a, b, c)]


def test_a_target_is_heard_as_long_as_one_of_its_names_is_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "_TARGETS", 2)
    association = world.begin()
    client, target = world.far(), world.far()
    here = ip_address("127.0.0.1")
    world.judge.answers |= {"a.example": succeed(here), "b.example": succeed(here)}
    world.send(client, Destination("a.example", target.port))
    world.send(client, Destination("b.example", target.port))
    assert len(association._sources) == 1
    denied = ip_address("192.0.2.1")
    world.judge.answers[denied] = succeed(None)
    world.send(client, Destination(denied, 53))  # a goes
    ((_, source), _) = target.taken()
    world.answer(target, b"heard", source)
    assert client.payloads() == [framed(target, b"heard")]
    world.send(client, Destination(denied, 54))  # b goes
    world.answer(target, b"not heard", source)
    assert client.payloads() == []
    world.send(client, Destination(denied, 55))  # a denied one goes
    assert len(association._targets) == 2


def test_what_the_system_does_not_take_is_dropped(world: World) -> None:
    """Too long, to a port that is none, to a broadcast address: and it goes on."""
    world.begin()
    client, target = world.far("127.0.0.1"), world.far()
    world.judge.answers["a.example"] = succeed(ip_address("127.0.0.1"))
    world.send(client, target)
    world.send(client, Destination(ip_address("127.0.0.1"), 0))
    world.send(client, Destination(ip_address("255.255.255.255"), 9))
    world.send(client, Destination(ip_address("255.255.255.255"), 9))
    world.send(client, target)
    ((_, source), _) = target.taken()
    world.answer(target, bytes(MOST), source)  # which leaves no room for a header
    world.answer(target, b"short", source)
    assert client.payloads() == [framed(target, b"short")]
    assert world.drops() == {Drop.UNSENT: 4}


def test_no_socket_for_a_target_drops_what_is_sent_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    association = world.begin()
    client, target = world.far(), world.far()

    def none_left(family: int) -> socket.socket:
        raise OSError(errno.EMFILE, "none left")

    with monkeypatch.context() as patch:
        patch.setattr(udp, "_opened", none_left)
        world.send(client, target)
    world.send(client, target, b"later")
    assert target.payloads() == [b"later"]
    assert association._queued == 0
    assert world.drops() == {Drop.UNSENT: 1}


def test_icmp_errors_end_nothing(world: World) -> None:
    """Neither a target's nor the client's port that is closed, and open again later."""
    association = world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    ((_, source),) = target.taken()
    port = client.port
    client.sock.close()
    for _ in range(3):  # ECONNREFUSED is told at the next send, or receive
        world.answer(target, b"nobody there", source)
    client = world.far(port=port)
    world.answer(target, b"back", source)
    assert client.payloads()[-1] == framed(target, b"back")
    nobody = world.far()
    nobody.sock.close()
    for _ in range(3):
        world.send(client, nobody.destination)
    world.send(client, target, b"still here")
    assert target.payloads() == [b"still here"]
    assert association.up == 1 + 3 + 10


def test_an_error_before_the_port_is_known_is_nothing_either(world: World) -> None:
    client = world.far()
    association = world.begin(expected=client.destination)
    client.sock.close()
    association._sock.send(b"x")  # has ICMP say that nobody is there
    world.settle()
    client = world.far(port=client.port)
    target = world.far()
    world.send(client, target)
    assert target.payloads() == [b"x"]


def test_an_error_at_a_targets_socket_is_nothing_either(world: World) -> None:
    association = world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    sock = association._sockets[socket.AF_INET]
    gone = Far()
    gone.sock.close()
    sock.connect(("127.0.0.1", gone.port))  # so that the kernel tells us
    sock.send(b"x")
    world.settle()
    sock.connect(("127.0.0.1", target.port))
    world.answer(target, b"a", sock.getsockname())
    assert client.payloads() == [framed(target, b"a")]


def test_there_is_a_way_to_an_address_or_not(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    (reaches,) = world.judge.ways
    assert reaches(ip_address("127.0.0.1"))
    assert reaches(ip_address("::1"))
    assert not reaches(ip_address("255.255.255.255"))  # EACCES: there is a route, but not for us


# -- fragments -------------------------------------------------------------------------


def test_fragments_are_put_together(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    for whole in (b"first", b"again"):  # asked about, then remembered
        world.send(client, target, whole[:2], 1)
        world.send(client, target, whole[2:4], 2)
        assert target.payloads() == []
        world.send(client, target, whole[4:], 0x83)
        assert target.payloads() == [whole]
    assert world.judge.asked == [target.destination]


@pytest.mark.parametrize("known", [False, True])
def test_a_datagram_that_stands_alone_ends_a_sequence(world: World, known: bool) -> None:
    """RFC 1928 section 7: its FRAG is less than the highest one."""
    world.begin()
    client, target, other = world.far(), world.far(), world.far()
    if known:
        world.send(client, other)
    world.send(client, target, b"one", 1)
    world.send(client, other)
    world.send(client, target, b"two", 0x82)
    world.send(client, other)
    assert target.payloads() == []
    assert world.drops() == {Drop.FRAGMENT: 2}


def test_the_reassembly_timer_is_the_clocks(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target, b"one", 1)
    world.reactor.advance(REASSEMBLY_SECONDS)
    world.send(client, target, b"two", 0x82)
    assert target.payloads() == []
    world.send(client, target, b"one", 1)  # what still waits at the end has been for nothing
    assert world.drops() == {Drop.FRAGMENT: 3}


def test_fragments_are_dropped_where_they_are_not_wanted(world: World) -> None:
    world.begin(reassemble=False)
    client, target = world.far(), world.far()
    world.send(client, target, b"one", 1)
    world.send(client, target, b"two", 0x82)
    world.send(client, target, b"alone", 0x81)
    world.send(client, target, b"whole")
    assert target.payloads() == [b"whole"]
    assert world.drops() == {Drop.FRAGMENT: 3}


# -- fairness --------------------------------------------------------------------------


def test_a_turn_has_a_bound_each_way(world: World) -> None:
    """Whatever has piled up, others get their turn in between."""
    association = world.begin()
    client, target = world.far(), world.far()
    bound = (str(association.bound.host), association.bound.port)
    for _ in range(100):
        client.sock.sendto(framed(target, b"x"), bound)
    world.turn()
    assert association.up == udp._TURN
    world.settle()
    assert association.up == 100
    ((_, source), *_) = target.taken()
    for _ in range(100):
        target.sock.sendto(b"x", source)
    world.turn()
    assert association.down == udp._TURN
    for _ in range(100):
        client.sock.sendto(framed(target, b"x"), bound)
    world.turn()
    assert association.up == 100 + udp._TURN


# -- where clients send to ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "bound"),
    [
        pytest.param(IPv4Address("TCP", "127.0.0.2", 1080), "127.0.0.2", id="IPv4"),
        pytest.param(IPv6Address("TCP", "::1", 1080), "::1", id="IPv6"),
        pytest.param(IPv6Address("TCP", "::ffff:127.0.0.2", 1080), "127.0.0.2", id="mapped"),
        pytest.param(UNIXAddress("/run/socksd.sock"), "127.0.0.1", id="unix"),
    ],
)
def test_it_is_bound_to_the_address_the_client_has_connected_to(
    world: World, host: IAddress, bound: str
) -> None:
    """Never to 0.0.0.0, which nobody can send to."""
    client = world.far(HERE[ip_address(bound).version])
    association = world.begin(host=host, expected=Destination(client.destination.host, 0))
    assert association.bound.host == ip_address(bound)
    assert association.bound.port
    target = world.far()
    world.send(client, target)
    assert target.payloads() == [b"x"]


# An address of the loopback that nobody else has in use.
ASIDE = Destination(ip_address("127.77.0.1"), 0)


def sock_of(ports: range | None) -> socket.socket:
    return udp._bound((socket.AF_INET, (str(ASIDE.host), 0)), ports)


def test_ports_are_those_of_the_range_until_all_are_in_use() -> None:
    ports = range(40000, 40003)
    taken = [sock_of(ports) for _ in ports]
    try:
        assert {sock.getsockname()[1] for sock in taken} == set(ports)
        with pytest.raises(OSError, match="40000 to 40002") as failed:
            sock_of(ports)
        assert failed.value.errno == errno.EADDRINUSE
    finally:
        for sock in taken:
            sock.close()


def test_where_nobody_can_listen_no_port_is_tried_twice() -> None:
    with pytest.raises(OSError) as failed:
        udp._bound((socket.AF_INET, ("192.0.2.1", 0)), range(40000, 65535))
    assert failed.value.errno == errno.EADDRNOTAVAIL


def test_an_association_that_cannot_be_made_leaves_no_socket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [sock_of(None)]

    def bound(*arguments: object) -> socket.socket:
        return made[0]

    monkeypatch.setattr(udp, "_bound", bound)
    with pytest.raises(PermissionError):  # to be connected to a broadcast address
        world.begin(expected=Destination(ip_address("255.255.255.255"), 9))
    assert made[0].fileno() == -1


# -- its life ----------------------------------------------------------------------------


def test_it_ends_with_its_tcp_connection(world: World) -> None:
    """RFC 1928 section 6; at once, and in order."""
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target, b"four")
    ((_, source),) = target.taken()
    world.transport.receive_fin()
    assert world.transport.gone == "closed"
    assert world.tally == Tally(4, 0, EndedBy.BOTH)
    world.judge.dropped.clear()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:  # the port is given back
        free.bind((str(world.association.bound.host), world.association.bound.port))
    target.sock.sendto(b"late", source)
    assert client.taken() == []


def test_it_ends_at_once_though_its_tcp_connection_takes_its_time(world: World) -> None:
    """A client that does not read, or TLS that waits for the other side."""
    world.begin()
    client, target = world.far(), world.far()
    world.send(client, target)
    ((_, source),) = target.taken()
    world.transport.stop_reading()
    world.transport.write(b"not read")
    world.transport.receive_fin()
    assert world.transport.gone is None
    target.sock.sendto(b"late", source)
    world.settle()
    assert client.taken() == []
    world.transport.start_reading()
    assert world.tally == Tally(1, 0, EndedBy.BOTH)


def test_a_reset_ends_it_too(world: World) -> None:
    world.begin()
    world.transport.receive_reset()
    assert world.tally == Tally(0, 0, EndedBy.CLIENT)
    assert world.drops() == {}


def test_it_can_be_aborted(world: World) -> None:
    world.begin().abort()
    assert world.transport.gone == "reset"
    assert world.tally.ended_by is EndedBy.US


def test_a_client_that_vanishes_is_found_out(world: World) -> None:
    """By the kernel, though a target that goes on sending keeps the association busy."""
    world.begin()
    assert world.transport.getTcpKeepAlive()


def test_octets_on_the_tcp_connection_are_ignored(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.transport.receive(bytes(100_000))
    world.send(client, target)
    assert target.payloads() == [b"x"]


def test_it_ends_when_nothing_was_relayed_for_the_idle_time(world: World) -> None:
    world.begin()
    client, target = world.far(), world.far()
    world.reactor.advance(IDLE - 1)
    world.send(client, target)
    ((_, source),) = target.taken()
    world.reactor.advance(IDLE - 1)
    world.answer(target, b"a", source)
    world.reactor.advance(IDLE - 1)
    assert not world.results
    world.send(world.far(), target)  # a stranger by now
    world.reactor.advance(1)
    assert world.tally == Tally(1, 1, EndedBy.IDLE)
    assert world.transport.gone == "reset"
    assert world.drops() == {}


def test_a_client_that_has_left_before_it_began_ends_it(world: World) -> None:
    world.transport = FakeTransport(world.end)
    world.transport.receive_reset()
    made = associate(
        world.end,
        Destination(ip_address("127.0.0.1"), 0),
        world.judge,
        watching=world.watching,
        clock=world.reactor,
        idle=IDLE,
        ports=None,
        reassemble=True,
        unasked=False,
    )
    made.join(b"", world.results.append)
    assert world.tally.ended_by is EndedBy.CLIENT
