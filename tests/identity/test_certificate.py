"""Whom a certificate is for."""

from __future__ import annotations

import contextlib

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from socksd.errors import LoginFailed
from socksd.facts import Principal
from socksd.identity.certificate import NamedBy, principal_of
from tests.authority import Issued, issue

MAIL = x509.RFC822Name("Alice@Example.COM")
SPIFFE = x509.UniformResourceIdentifier("spiffe://example.com/alice")
DNS = x509.DNSName("Laptop.example.com")
ALL = issue(MAIL, SPIFFE, DNS, cn="alice", ou=("staff", "dba"))


@pytest.mark.parametrize(
    ("by", "name"),
    [
        (NamedBy.CN, "alice"),
        (NamedBy.EMAIL, "Alice@example.com"),
        (NamedBy.URI, "spiffe://example.com/alice"),
        (NamedBy.DNS, "laptop.example.com"),
    ],
)
def test_the_name_is_the_one_of_its_kind_and_the_groups_are_the_ous(by: NamedBy, name: str) -> None:
    assert principal_of(ALL.der, by) == Principal(name, frozenset({"staff", "dba"}))


@pytest.mark.parametrize(
    ("issued", "by", "said"),
    [
        pytest.param(issue(MAIL), NamedBy.CN, "0 names of kind cn", id="no CN"),
        pytest.param(issue(cn=["alice", "root"]), NamedBy.CN, "2 names of kind cn", id="two CNs"),
        pytest.param(issue(cn="alice"), NamedBy.EMAIL, "0 names of kind email", id="no SAN"),
        pytest.param(issue(DNS, cn="a"), NamedBy.URI, "0 names of kind uri", id="another SAN"),
        pytest.param(
            issue(MAIL, x509.RFC822Name("root@example.com"), cn="a"),
            NamedBy.EMAIL,
            "2 names of kind email",
            id="two addresses",
        ),
        pytest.param(issue(cn="alice\nroot"), NamedBy.CN, "no user's name", id="a line feed"),
        pytest.param(issue(cn="alice\0root"), NamedBy.CN, "no user's name", id="NUL"),
        pytest.param(
            issue(x509.UniformResourceIdentifier("spiffe://" + "a" * 247)),
            NamedBy.URI,
            "no user's name",
            id="256 octets",
        ),
        pytest.param(issue(x509.DNSName("")), NamedBy.DNS, "no user's name", id="empty"),
    ],
)
def test_what_names_nobody_or_more_than_one_is_nobody(
    issued: Issued, by: NamedBy, said: str
) -> None:
    with pytest.raises(LoginFailed, match=said):
        principal_of(issued.der, by)


def test_a_user_may_have_any_letters() -> None:
    assert principal_of(issue(cn="Zoë Müller").der, NamedBy.CN).name == "Zoë Müller"


@given(st.data(), st.sampled_from(NamedBy))
def test_no_octets_make_it_raise_anything_but_login_failed(
    data: st.DataObject, by: NamedBy
) -> None:
    damaged = bytearray(ALL.der)
    for index in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[index] = data.draw(st.integers(0, 255))
    with contextlib.suppress(LoginFailed):
        principal_of(bytes(damaged), by)
