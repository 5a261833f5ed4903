from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from zope.interface.verify import verifyObject

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.interfaces import IPrincipal

FIRST = Facts(IPv4Address("192.0.2.1"), "office")


def test_a_principal_is_one() -> None:
    assert verifyObject(IPrincipal, Principal("alice"))


def test_the_first_octets_know_client_and_listener_only() -> None:
    assert (FIRST.principal, FIRST.command, FIRST.destination, FIRST.address) == (None,) * 4


def test_facts_grow_and_forget_nothing() -> None:
    alice, web = Principal("alice"), Destination("www.example", 80)
    facts = FIRST.known_as(alice).asking(Command.CONNECT, web).at(IPv6Address("2001:db8::1"))
    assert facts == Facts(
        IPv4Address("192.0.2.1"), "office", alice, Command.CONNECT, web, IPv6Address("2001:db8::1")
    )
    assert Facts(IPv4Address("192.0.2.1"), "office") == FIRST


def test_all_questions_of_a_session_are_of_one_time() -> None:
    """Else a session that begins at closing time could be allowed and denied at once."""
    began = Facts(IPv4Address("192.0.2.1"), "office", time=1234.5)
    facts = began.known_as(ANONYMOUS).asking(Command.CONNECT, Destination("www.example", 80))
    assert facts.at(IPv4Address("192.0.2.7")).time == 1234.5


def test_a_decision_says_no_more_than_its_rule() -> None:
    assert Decision(Verdict.DENY, "x") == Decision(Verdict.DENY, "x", "", "", (), "direct", "")


def test_to_come_without_login_is_something_known() -> None:
    assert FIRST.known_as(ANONYMOUS).principal == Principal(None)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        pytest.param("192.0.2.7", "192.0.2.7", id="IPv4"),
        pytest.param("2001:db8::7", "2001:db8::7", id="IPv6"),
        pytest.param("0.0.0.0", "127.0.0.1", id="what the kernel takes to the loopback"),
        pytest.param("::", "::1", id="the same for IPv6"),
    ],
)
def test_a_literal_is_its_own_address(host: str, address: str) -> None:
    facts = FIRST.asking(Command.CONNECT, Destination.named(host, 80))
    assert facts.address == ip_address(address)


def test_a_request_may_have_no_destination() -> None:
    """UDP ASSOCIATE has none; its datagrams do."""
    facts = FIRST.asking(Command.UDP_ASSOCIATE, None)
    assert (facts.command, facts.destination, facts.address) == (Command.UDP_ASSOCIATE, None, None)


def test_a_name_has_no_address_before_it_is_resolved() -> None:
    resolved = FIRST.at(IPv4Address("192.0.2.7"))
    assert resolved.asking(Command.CONNECT, Destination.named("a.example", 80)).address is None


@pytest.mark.parametrize(
    ("address", "judged"),
    [
        pytest.param("0.0.0.0", "127.0.0.1", id="unspecified"),
        pytest.param("::ffff:127.0.0.1", "127.0.0.1", id="mapped"),
        pytest.param("192.0.2.7", "192.0.2.7", id="any other"),
    ],
)
def test_a_resolved_address_is_judged_as_connect_would_take_it(address: str, judged: str) -> None:
    """A name server that answers 0.0.0.0 must not get past a rule about the loopback."""
    assert FIRST.at(ip_address(address)).address == ip_address(judged)
