from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from socksd.address import Destination, Host, IPAddress
from socksd.codes import Command, ReplyCode
from socksd.errors import Refused
from socksd.events import (
    Asked,
    DatagramsDropped,
    DatagramTarget,
    Decided,
    Denied,
    Outcome,
    SessionClosed,
)
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.interfaces import Drop, EndedBy, Granted, IAssociation, IBudget, ITargets
from socksd.server.associate import DatagramTargets
from socksd.wire.socks5 import UNSPECIFIED, Reply, Request
from tests.fakes import FakeTransport, outcome
from tests.server.world import ALLOW, DEFER, DENY, FakeAssociation, World, addresses

CLIENT = ip_address("192.0.2.1")
TARGET = Destination(ip_address("198.51.100.7"), 53)
NAME = Destination("example.com", 53)


@pytest.fixture
def world() -> World:
    return World()


def advertising(world: World, host: Host) -> None:
    world.factory.runtime = replace(world.runtime, advertise=host)


def ask(world: World, destination: Destination = UNSPECIFIED, client: str = "192.0.2.1") -> Any:
    """Ask for an association, and give the client's transport, which has heard the method."""
    transport = world.connect(client)
    transport.receive(b"\x05\x01\x00")
    transport.receive(Request(Command.UDP_ASSOCIATE, destination).encode())
    assert transport.sent[:2] == b"\x05\x00"
    del transport.sent[:2]
    return transport


def replied(transport: FakeTransport) -> Reply:
    reply = Reply.take(transport.sent)
    assert reply is not None
    assert not transport.sent
    return reply


def associated(world: World) -> FakeAssociation:
    ask(world)
    (association,) = world.associations
    return association


def closed(world: World) -> SessionClosed:
    (event,) = world.events.of(SessionClosed)
    return event


# -- the request --------------------------------------------------------------------


def test_the_reply_says_where_to_send_to(world: World) -> None:
    transport = ask(world)
    (association,) = world.associations
    assert verifyObject(IAssociation, association)
    assert verifyObject(ITargets, association.targets)
    assert replied(transport) == Reply(ReplyCode.SUCCEEDED, association.bound)
    assert association.early == b""
    association.end(EndedBy.BOTH, up=7, down=9)
    event = closed(world)
    assert (event.outcome, event.reply) == (Outcome.SERVED, ReplyCode.SUCCEEDED)
    assert (event.up, event.down) == (7, 9)
    assert (event.command, event.rule, event.asked) == (
        Command.UDP_ASSOCIATE,
        "yes",
        Asked.REQUEST,
    )


def test_the_policy_is_asked_first_of_all_without_a_destination(world: World) -> None:
    ask(world, Destination(CLIENT, 40123))
    facts = world.policy.asked[-1]
    assert facts.command is Command.UDP_ASSOCIATE
    assert (facts.destination, facts.address) == (None, None)
    assert world.events.of(Decided)[-1].address is None


def test_what_is_denied_gets_no_port(world: World) -> None:
    world.policy.answer = lambda facts: DENY if facts.command else DEFER
    transport = ask(world)
    assert replied(transport).code is ReplyCode.NOT_ALLOWED
    assert world.associations == []
    transport.receive_fin()
    event = closed(world)
    assert (event.outcome, event.rule, event.asked) == (Outcome.DENIED, "no", Asked.REQUEST)


def test_what_depends_on_the_target_is_left_to_the_datagrams(world: World) -> None:
    world.policy.answer = lambda facts: DEFER
    assert replied(ask(world)).code is ReplyCode.SUCCEEDED
    world.associations[0].end(EndedBy.BOTH)
    assert closed(world).rule is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(Destination(CLIENT, 40123), Destination(CLIENT, 40123), id="its own"),
        pytest.param(Destination(CLIENT, 0), Destination(CLIENT, 0), id="its own address"),
        pytest.param(UNSPECIFIED, Destination(CLIENT, 0), id="not known"),
        pytest.param(
            Destination(ip_address("0.0.0.0"), 40123), Destination(CLIENT, 0), id="only a port"
        ),
        pytest.param(
            Destination(ip_address("10.0.0.1"), 40123), Destination(CLIENT, 0), id="behind NAT"
        ),
        pytest.param(Destination("client.example", 40123), Destination(CLIENT, 0), id="a name"),
    ],
)
def test_a_client_is_expected_where_it_says_only_if_that_is_where_it_is(
    world: World, source: Destination, expected: Destination
) -> None:
    ask(world, source)
    assert world.associations[0].expected == expected


def test_without_a_port_the_client_is_told_that_it_is_our_failure(world: World) -> None:
    world.no_ports = OSError(98, "all in use")
    transport = ask(world)
    assert replied(transport).code is ReplyCode.GENERAL_FAILURE
    transport.receive_fin()
    event = closed(world)
    assert event.outcome is Outcome.FAILED
    assert event.reason == "no port for datagrams: all in use"


# -- the advertised address -----------------------------------------------------------


@pytest.mark.parametrize(
    ("advertised", "told"),
    [
        pytest.param("203.0.113.5", "203.0.113.5", id="of the client's family"),
        pytest.param("2001:db8::5", "192.0.2.9", id="of another"),
    ],
)
def test_an_advertised_address_is_told_to_those_who_can_send_there(
    world: World, advertised: str, told: str
) -> None:
    advertising(world, ip_address(advertised))
    assert replied(ask(world)).bound == Destination(ip_address(told), 40123)


def test_an_advertised_name_is_told_by_its_address(world: World) -> None:
    """Few clients take a DOMAINNAME for BND.ADDR."""
    advertising(world, "gw.example")
    transport = ask(world)
    assert not transport.sent
    assert world.resolver.pending.calls == [("gw.example",)]
    world.resolver.pending.deferreds[0].callback(addresses("2001:db8::5", "203.0.113.5"))
    assert replied(transport).bound == Destination(ip_address("203.0.113.5"), 40123)


def test_an_advertised_name_that_leads_nowhere_is_our_failure(world: World) -> None:
    advertising(world, "gw.example")
    transport = ask(world)
    refused = Refused(ReplyCode.HOST_UNREACHABLE, "no such name")
    world.resolver.pending.deferreds[0].errback(refused)
    assert replied(transport).code is ReplyCode.GENERAL_FAILURE
    transport.receive_fin()
    assert closed(world).reason == "udp.advertise: no such name"
    assert world.associations == []


def test_a_client_that_leaves_meanwhile_leaves_no_port(world: World) -> None:
    advertising(world, "gw.example")
    transport = ask(world)
    transport.receive_fin()
    assert world.resolver.pending.cancelled == 1
    assert world.associations == []
    assert closed(world).outcome is Outcome.CLIENT_LEFT


def test_an_advertised_name_has_the_deadline_of_a_lookup(world: World) -> None:
    advertising(world, "gw.example")
    transport = ask(world)
    world.clock.advance(world.runtime.deadlines.resolve)
    assert replied(transport).code is ReplyCode.GENERAL_FAILURE
    transport.receive_fin()
    assert closed(world).reason == "udp.advertise: no answer within 10 s"


# -- its targets ----------------------------------------------------------------------


class Asking:
    """The targets of an association, and what they know of the ways."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.association = associated(world)
        self.reachable: Sequence[IPAddress] = ()
        self.tried: list[IPAddress] = []
        world.policy.asked.clear()

    def find(self, destination: Destination) -> Deferred[IPAddress | None]:
        found: Deferred[Granted | None] = self.association.targets.find(destination, self.reaches)
        return found.addCallback(lambda granted: granted and granted.address)

    def reaches(self, address: IPAddress) -> bool:
        self.tried.append(address)
        return address in self.reachable

    def told(self) -> DatagramTarget:
        (event,) = self.world.events.of(DatagramTarget)
        return event

    @property
    def began(self) -> float:
        """When the session did, in seconds since the epoch."""
        targets = self.association.targets
        assert isinstance(targets, DatagramTargets)
        return targets._session.facts.time

    def denied(self) -> Denied:
        (event,) = self.world.events.of(Denied)
        return event

    def resolve(self, *found: str) -> None:
        self.world.resolver.pending.deferreds[-1].callback(addresses(*found))


@pytest.fixture
def asking(world: World) -> Asking:
    return Asking(world)


def allowing(*texts: str) -> Any:
    """A policy that allows some addresses, and has to know which."""

    def answer(facts: Facts) -> Decision:
        if facts.address is None:
            return DEFER
        return ALLOW if facts.address in addresses(*texts) else DENY

    return answer


def test_an_address_is_judged_as_it_is(world: World, asking: Asking) -> None:
    assert outcome(asking.find(TARGET)) == TARGET.host
    (facts,) = world.policy.asked
    assert (facts.command, facts.destination) == (Command.UDP_ASSOCIATE, TARGET)
    assert facts.address == TARGET.host
    assert facts.principal == ANONYMOUS
    assert asking.told() == DatagramTarget(
        session=1,
        client=CLIENT,
        client_port=40000,
        user=None,
        destination=TARGET,
        decision=ALLOW,
        address=ip_address("198.51.100.7"),
        reason="",
    )
    assert world.resolver.pending.calls == []


def test_the_address_that_was_judged_is_the_one_that_is_sent_to(
    world: World, asking: Asking
) -> None:
    """The system takes 0.0.0.0 to the loopback."""
    found = outcome(asking.find(Destination(ip_address("0.0.0.0"), 53)))
    assert found == ip_address("127.0.0.1") == world.policy.asked[0].address


@pytest.mark.parametrize("destination", [TARGET, NAME], ids=["address", "name"])
def test_what_is_denied_is_told_and_not_looked_up(
    world: World, asking: Asking, destination: Destination
) -> None:
    world.policy.answer = lambda facts: DENY
    world.clock.advance(100)
    assert outcome(asking.find(destination)) is None
    assert world.resolver.pending.calls == []
    assert world.events.of(DatagramTarget) == []
    assert asking.denied() == Denied(
        session=1,
        started=pytest.approx(asking.began + 100, rel=0, abs=0.01),
        client=CLIENT,
        client_port=40000,
        user=None,
        command=Command.UDP_ASSOCIATE,
        destination=destination,
        decision=DENY,
        datagram=True,
    )


def test_each_address_of_a_name_is_judged(world: World, asking: Asking) -> None:
    world.policy.answer = allowing("203.0.113.2")
    found = asking.find(NAME)
    asking.resolve("203.0.113.1", "203.0.113.2")
    assert outcome(found) == ip_address("203.0.113.2")
    assert asking.told().address == ip_address("203.0.113.2")
    assert asking.tried == []  # there is no other
    assert [facts.destination for facts in world.policy.asked] == [NAME] * 3


def test_a_name_of_which_no_address_is_permitted_is_denied(world: World, asking: Asking) -> None:
    world.policy.answer = allowing()
    found = asking.find(NAME)
    asking.resolve("203.0.113.1", "203.0.113.2")
    assert outcome(found) is None
    assert (asking.denied().decision, asking.denied().destination) == (DENY, NAME)


@pytest.mark.parametrize(
    ("reachable", "chosen"),
    [
        pytest.param(["2001:db8::1", "203.0.113.1"], "2001:db8::1", id="all"),
        pytest.param(["203.0.113.1"], "203.0.113.1", id="one"),
        pytest.param([], "2001:db8::1", id="none"),
    ],
)
def test_of_several_addresses_it_is_the_first_that_there_is_a_way_to(
    asking: Asking, reachable: list[str], chosen: str
) -> None:
    """A name with an IPv6 address must not fail on a host without IPv6."""
    asking.reachable = addresses(*reachable)
    found = asking.find(NAME)
    asking.resolve("2001:db8::1", "203.0.113.1", "203.0.113.2")
    assert outcome(found) == asking.told().address == ip_address(chosen)


def test_a_name_that_leads_nowhere_is_told_with_the_reason(world: World, asking: Asking) -> None:
    world.policy.answer = allowing()
    found = asking.find(NAME)
    refused = Refused(ReplyCode.HOST_UNREACHABLE, "no such name")
    world.resolver.pending.deferreds[0].errback(refused)
    with pytest.raises(Refused):
        outcome(found)
    assert (asking.told().decision, asking.told().reason) == (DEFER, "no such name")


def test_a_lookup_has_a_deadline(world: World, asking: Asking) -> None:
    found = asking.find(NAME)
    world.clock.advance(world.runtime.deadlines.resolve)
    with pytest.raises(Refused):
        outcome(found)
    assert asking.told().reason == "no answer within 10 s"
    assert world.resolver.pending.cancelled == 1


def test_a_lookup_that_is_not_wanted_any_more_is_cancelled(world: World, asking: Asking) -> None:
    found = asking.find(NAME)
    found.cancel()
    with pytest.raises(CancelledError):
        outcome(found)
    assert world.resolver.pending.cancelled == 1
    assert world.events.of(DatagramTarget) == []


def test_what_targets_are_asked_about_is_not_the_sessions_own_decision(
    world: World, asking: Asking
) -> None:
    world.policy.answer = lambda facts: Decision(Verdict.DENY, "another")
    outcome(asking.find(TARGET))
    asking.association.end(EndedBy.BOTH)
    assert (closed(world).rule, closed(world).outcome) == ("yes", Outcome.SERVED)


def test_the_user_is_told_of(world: World) -> None:
    association = associated(world)
    targets = association.targets
    assert isinstance(targets, DatagramTargets)
    session = targets._session
    session.facts = session.facts.known_as(Principal("alice"))
    outcome(targets.find(TARGET, lambda address: True))
    assert world.events.of(DatagramTarget)[0].user == "alice"


@pytest.mark.parametrize(
    ("decision", "let_in"),
    [
        pytest.param(replace(ALLOW, unasked=True), True, id="by a rule that says so"),
        pytest.param(ALLOW, False, id="by a rule that does not"),
        pytest.param(DENY, False, id="by none"),
        pytest.param(replace(DENY, unasked=True), False, id="denied all the same"),
    ],
)
def test_who_was_not_asked_is_let_in_by_a_rule_that_says_so(
    world: World, asking: Asking, decision: Decision, let_in: bool
) -> None:
    world.policy.answer = lambda facts: decision
    expected = Granted(TARGET.host) if let_in else None
    assert asking.association.targets.lets_in(TARGET) == expected
    (facts,) = world.policy.asked
    assert (facts.command, facts.destination, facts.address) == (
        Command.UDP_ASSOCIATE,
        TARGET,
        TARGET.host,
    )
    told = [event.address for event in world.events.of(DatagramTarget)]
    assert told == ([TARGET.host] if let_in else [])


@implementer(IBudget)
class FakeBudget:
    """Nobody draws on it here."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts


@pytest.mark.parametrize("limits", ["bulk", "long", ""])
def test_a_target_is_paid_from_what_its_rule_names(world: World, limits: str) -> None:
    """And one whose limit bounds no bandwidth, from nothing."""
    world.factory.runtime = replace(world.runtime, budgets={"bulk": FakeBudget})
    world.policy.answer = lambda facts: replace(ALLOW, limits=limits, unasked=True)
    targets = associated(world).targets
    for granted in (outcome(targets.find(TARGET, lambda _: True)), targets.lets_in(TARGET)):
        assert granted.address == TARGET.host
        if limits == "bulk":
            assert granted.budget.facts.client == CLIENT
        else:
            assert granted.budget is None


def test_a_route_that_a_rule_names_is_not_gone_around(world: World, asking: Asking) -> None:
    world.policy.answer = lambda facts: replace(ALLOW, route="dmz", unasked=True)
    assert outcome(asking.find(TARGET)) is None
    told = asking.told()
    assert (told.address, told.reason) == (None, "there is no UDP but by the direct route")
    assert asking.association.targets.lets_in(TARGET) is None


def test_what_was_dropped_is_told_if_anything_was(world: World, asking: Asking) -> None:
    asking.association.targets.ended({})
    assert world.events.of(DatagramsDropped) == []
    asking.association.targets.ended({Drop.DENIED: 3})
    assert world.events.of(DatagramsDropped) == [DatagramsDropped(1, {Drop.DENIED: 3})]
