from ipaddress import ip_address, ip_network

import pytest

from socksd.policy.guard import Guard
from socksd.policy.match import FromNetworks, NotTo, ResolvesTo, ToHost
from socksd.policy.sets import HostSet
from socksd.policy.special import SPECIAL, special_sets

GUARD = Guard.of(
    ("loopback", "link-local", "metadata", "multicast", "self"),
    special_sets([ip_network("198.51.100.7")]),
    private=True,
)
TEN = ip_network("10.0.0.0/8")


@pytest.mark.parametrize(
    ("address", "objection"),
    [
        pytest.param("127.0.0.2", "loopback", id="loopback"),
        pytest.param("169.254.1.1", "link-local", id="link-local"),
        pytest.param("100.100.100.200", "metadata", id="metadata"),
        pytest.param("ff02::1", "multicast", id="multicast"),
        pytest.param("198.51.100.7", "self", id="this host"),
        pytest.param("10.0.0.1", "private", id="private"),
        pytest.param("fd00::1", "private", id="private, IPv6"),
        pytest.param("203.0.113.1", "", id="elsewhere"),
    ],
)
def test_an_objection_names_the_kind_of_address(address: str, objection: str) -> None:
    assert GUARD.objects(ip_address(address), ()) == objection


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "198.51.100.7"])
def test_no_rule_opens_what_is_never_dialled(address: str) -> None:
    named = ToHost.of([ip_network(address)]), ResolvesTo.of([ip_network(address)])
    assert GUARD.objects(ip_address(address), named)


@pytest.mark.parametrize(
    ("condition", "opens"),
    [
        pytest.param(ToHost.of([TEN]), True, id="to: the private network"),
        pytest.param(ToHost.of([ip_network("10.0.0.1")]), True, id="to: the very address"),
        pytest.param(ToHost.of([".corp.example", TEN]), True, id="to: beside a name"),
        pytest.param(ToHost.of([SPECIAL["@private"]]), True, id="to: @private"),
        pytest.param(ToHost.of([HostSet.of([TEN], "@lan")]), True, id="to: a set"),
        pytest.param(ResolvesTo.of([TEN]), True, id="resolves_to"),
        pytest.param(ToHost.of([".corp.example"]), False, id="to: only a name"),
        pytest.param(ToHost.of([ip_network("10.1.0.0/16")]), False, id="to: another network"),
        pytest.param(ToHost.of([ip_network("0.0.0.0/0")]), False, id="to: anywhere"),
        pytest.param(ResolvesTo.of([ip_network("8.0.0.0/6")]), False, id="resolves_to: wider"),
        pytest.param(NotTo.of([TEN]), False, id="not_to"),
        pytest.param(FromNetworks.of([TEN]), False, id="from"),
    ],
)
def test_private_space_is_open_to_a_rule_that_names_it(
    condition: ToHost | ResolvesTo | NotTo | FromNetworks, opens: bool
) -> None:
    """A network that is not itself private says "anywhere", and opens nothing inside."""
    assert GUARD.objects(ip_address("10.0.0.1"), [condition]) == ("" if opens else "private")


def test_private_space_may_be_as_any_other() -> None:
    guard = Guard.of((), SPECIAL, private=False)
    assert guard.objects(ip_address("10.0.0.1"), ()) == ""
    assert guard.objects(ip_address("127.0.0.1"), ()) == ""
