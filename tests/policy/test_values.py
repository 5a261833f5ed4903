"""How the values of a rule are written."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.errors import AddressError
from socksd.policy import values
from socksd.policy.values import Wrong

READERS: list[Callable[[object], Any]] = [
    *(values.some_text, values.rule_id, values.sentence, values.boolean, values.action),
    *(values.on_trial, values.share, values.command, values.requirement, values.unasked),
    *(values.user, values.ports, values.hours, values.network, values.target),
]
WRITTEN = (
    st.text()
    | st.from_regex(r"[0-9a-z.:/*?@-]{0,30}", fullmatch=True)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
    | st.dates()
)


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@given(written=WRITTEN)
def test_whatever_is_written_is_a_value_or_said_to_be_none(
    read: Callable[[object], Any], written: object
) -> None:
    """In one line, for a person; no other error comes of it."""
    said = ""
    try:
        read(written)
    except (Wrong, AddressError) as error:
        said = str(error)
    assert said.isprintable()


@pytest.mark.parametrize(
    ("written", "ports"),
    [
        (443, range(443, 444)),
        (0, range(1)),
        ("8000-8999", range(8000, 9000)),
        ("65535-65535", range(65535, 65536)),
    ],
)
def test_ports_have_both_their_ends(written: object, ports: range) -> None:
    assert values.ports(written) == ports


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_range_the_wrong_way_round_is_shown_turned(first: int, last: int) -> None:
    if first <= last:
        assert values.ports(f"{first}-{last}") == range(first, last + 1)
        return
    with pytest.raises(Wrong, match=rf'did you mean "{last}-{first}"\?'):
        values.ports(f"{first}-{last}")


@pytest.mark.parametrize(
    ("written", "network"),
    [
        pytest.param("10.0.0.0/8", "10.0.0.0/8", id="a network"),
        pytest.param("0x7f.1", "127.0.0.1/32", id="an address in any spelling"),
        pytest.param("::ffff:10.0.0.0/104", "10.0.0.0/8", id="IPv4 inside IPv6"),
        pytest.param("::ffff:192.0.2.1/128", "192.0.2.1/32", id="one of these"),
    ],
)
def test_a_network_has_one_form(written: str, network: str) -> None:
    assert values.network(written) == ip_network(network)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        pytest.param("10/8", "is no network; write one as 10.0.0.0/8", id="inet_aton's"),
        pytest.param("10.0.0.0/0.0.0.255", "has no prefix length of 0 to 32", id="a wildcard mask"),
        pytest.param("10.0.0.1/8", "the network '10.0.0.0/8' or the address", id="host bits"),
        pytest.param("fe80::1%eth0/64", "a zone identifier", id="a zone"),
        pytest.param("0.0.0.0", "is never seen, for who connects to it reaches", id="unspecified"),
        pytest.param("a.example", "is a name; here stand addresses", id="a name"),
    ],
)
def test_what_would_not_be_what_one_expects_is_refused(written: str, said: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.network(written)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("written", "target"),
    [
        (".Example.COM.", ".example.com"),
        ("B\u00dccher.example", "xn--bcher-kva.example"),
        ("db-?.Example", "db-?.example"),
    ],
)
def test_a_name_or_pattern_has_one_form(written: str, target: str) -> None:
    assert values.target(written) == target


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("*", "is every name, but no address"),
        ("10.0.*", "a glob is for names; write addresses as a network"),
        ("a.example:80", "a port stands under 'ports'"),
        (".192.0.2.1", "an address is no domain"),
        ("b\u00fc*.example", "not ASCII"),
    ],
)
def test_what_could_match_nothing_is_refused(written: str, said: str) -> None:
    with pytest.raises(Wrong) as caught:
        values.target(written)
    assert said in str(caught.value)


def test_hours_over_midnight_are_of_the_day_on_which_they_begin() -> None:
    (sunday,) = values.hours("sun 22:00-06:00 UTC").minutes
    assert (sunday.start, sunday.stop) == (6 * 1440 + 22 * 60, 7 * 1440 + 6 * 60)


@pytest.mark.parametrize("word", ["default", "guard", "why"])
def test_what_logs_call_something_else_is_no_id(word: str) -> None:
    with pytest.raises(Wrong, match="is the id of"):
        values.rule_id(word)
