from __future__ import annotations

from ipaddress import ip_address

import pytest

from socksd.app.config import parse_config
from socksd.server.spoken import PROTOCOLS
from tests.app.config.told import problem


@pytest.mark.parametrize(
    ("text", "host"),
    [
        pytest.param("", None, id="none"),
        pytest.param("203.0.113.5", ip_address("203.0.113.5"), id="IPv4"),
        pytest.param("[2001:db8::5]", ip_address("2001:db8::5"), id="IPv6"),
        pytest.param("GW.example.", "gw.example", id="a name"),
    ],
)
def test_what_is_advertised_is_an_address_or_a_name(text: str, host: object) -> None:
    assert parse_config(f'[udp]\nadvertise = "{text}"', "").udp.advertise == host


@pytest.mark.parametrize(("text", "kept"), [("reassemble", True), ("drop", False)])
def test_fragments_are_reassembled_or_dropped(text: str, kept: bool) -> None:
    assert parse_config(f'[udp]\nfragments = "{text}"', "").udp.fragments is kept


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        pytest.param(
            'ports = "40000-"',
            "udp.ports",
            'must be a range as "40000-40999", or "auto", not \'40000-\'',
            id="half a range",
        ),
        pytest.param(
            "ports = 40000", "udp.ports", "must be a string, not a whole number", id="kind"
        ),
        pytest.param(
            'ports = "0-100"', "udp.ports", "'0-100': ports go from 1 to 65535", id="port 0"
        ),
        pytest.param(
            'ports = "40000-70000"',
            "udp.ports",
            "'40000-70000': ports go from 1 to 65535",
            id="beyond the last",
        ),
        pytest.param(
            'ports = "40999-40000"',
            "udp.ports",
            "'40999-40000' is empty; did you mean '40000-40999'?",
            id="the wrong way round",
        ),
        pytest.param(
            'advertise = "gw.example:1080"',
            "udp.advertise",
            "not an address: 'gw.example:1080'; write an address or a name, without a port",
            id="with a port",
        ),
        pytest.param(
            'advertise = "0.0.0.0"',
            "udp.advertise",
            "nobody can reach 0.0.0.0; leave it out to tell clients nothing new",
            id="unspecified",
        ),
        pytest.param(
            'fragments = "dropp"',
            "udp.fragments",
            "must be \"reassemble\" or \"drop\", not 'dropp'; did you mean 'drop'?",
            id="misspelled",
        ),
        pytest.param(
            "fragments = true",
            "udp.fragments",
            'must be "reassemble" or "drop", not True',
            id="a boolean",
        ),
    ],
)
def test_a_problem_with_datagrams_says_what_to_write(text: str, path: str, message: str) -> None:
    assert problem(f"[udp]\n{text}") == (path, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(
            'bind.ports = "many"',
            'must be a range as "40000-40999", or "auto", not \'many\'',
            id="a word",
        ),
        pytest.param('bind.ports = "0-10"', "'0-10': ports go from 1 to 65535", id="port 0"),
        pytest.param(
            'bind.ports = "1-65536"', "'1-65536': ports go from 1 to 65535", id="beyond 65535"
        ),
        pytest.param(
            'bind.ports = "40999-40000"',
            "'40999-40000' is empty; did you mean '40000-40999'?",
            id="backwards",
        ),
        pytest.param(
            'bind.advertise = "gw.example"',
            "'gw.example' is a name; write an address as 203.0.113.1",
            id="a name",
        ),
        pytest.param(
            'bind.advertise = "203.0.113.256"',
            "not an address: 203.0.113.256; write an address as 203.0.113.1",
            id="no address",
        ),
        pytest.param(
            'bind.advertise = "::"',
            "nobody can reach ::; leave it out to tell clients nothing new",
            id="no address of anybody",
        ),
        pytest.param(
            "listener = [{ name = 'a', endpoint = 'tcp:1', protocols = ['socks4'] }]",
            f"'socks4' must be one of {', '.join(PROTOCOLS)}; did you mean 'socks4a'?",
            id="SOCKS4 without 4A",
        ),
    ],
)
def test_what_is_wrong_with_bind_is_told(line: str, message: str) -> None:
    assert problem(line)[1] == message


def test_only_known_kinds_of_addresses_can_be_forbidden() -> None:
    path, message = problem('guard.never = ["loopback", "metdata"]')
    assert path == "guard.never"
    assert message.endswith("did you mean 'metadata'?")
