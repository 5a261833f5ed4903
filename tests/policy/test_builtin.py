from ipaddress import ip_address

import pytest

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.policy.builtin import built_in, built_in_tables
from socksd.policy.load import load_rules

ALLOW, DENY, DEFER = Verdict.ALLOW, Verdict.DENY, Verdict.DEFER


def client(address: str) -> Facts:
    return Facts(ip_address(address), "default")


def asking(facts: Facts, host: str) -> Facts:
    return facts.asking(Command.CONNECT, Destination.named(host, 80))


REMOTE = client("192.0.2.1")
ALICE = REMOTE.known_as(Principal("alice"))


@pytest.mark.parametrize("with_login", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_client_on_this_host_may_go_anywhere(address: str, with_login: bool) -> None:
    policy = built_in(with_login=with_login)
    assert policy.decide(client(address)) == Decision(ALLOW, "local")
    assert policy.decide(asking(client(address), "127.0.0.1")) == Decision(ALLOW, "local")


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1"])
def test_without_login_everybody_else_is_refused_at_once(address: str) -> None:
    """Never an open proxy by accident."""
    assert built_in(with_login=False).decide(client(address)) == Decision(DENY, "default")


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        pytest.param(REMOTE, Decision(DEFER, "loopback-and-link-local"), id="may yet log in"),
        pytest.param(
            REMOTE.known_as(ANONYMOUS), Decision(DENY, "default"), id="comes without login"
        ),
        pytest.param(
            asking(ALICE, "www.example"),
            Decision(DEFER, "loopback-and-link-local"),
            id="a name may lead inside",
        ),
        pytest.param(
            asking(ALICE, "www.example").at(ip_address("198.51.100.1")),
            Decision(ALLOW, "authenticated"),
            id="it leads outside",
        ),
        pytest.param(
            asking(ALICE, "www.example").at(ip_address("127.0.0.1")),
            Decision(DENY, "loopback-and-link-local"),
            id="it leads inside",
        ),
        pytest.param(asking(ALICE, "10.0.0.1"), Decision(ALLOW, "authenticated"), id="intranet"),
    ],
)
def test_who_has_logged_in_may_go_anywhere_outside(facts: Facts, decision: Decision) -> None:
    assert built_in(with_login=True).decide(facts) == decision


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "0x7f.1", "0.0.0.0", "0.0.0.1", "::1", "::", "::ffff:127.0.0.1"),
        *("169.254.169.254", "fe80::1", "febf::1"),
    ],
)
def test_nobody_from_elsewhere_reaches_the_inside_of_this_host(host: str) -> None:
    """What listens on the loopback trusts that only this host comes."""
    decision = built_in(with_login=True).decide(asking(ALICE, host))
    assert decision == Decision(DENY, "loopback-and-link-local")


@pytest.mark.parametrize("with_login", [False, True])
def test_the_tables_shown_are_the_policy(with_login: bool) -> None:
    """An administrator begins with them; they are a copy, to do with as one likes."""
    shown = built_in_tables(with_login=with_login)
    assert load_rules(shown, ()) == built_in(with_login=with_login).rules
    shown[0]["action"] = "deny"
    assert built_in_tables(with_login=with_login)[0]["action"] == "allow"
