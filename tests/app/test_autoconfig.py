"""What browsers are told of the gateway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import MemoryReactorClock

from socksd.app.autoconfig import problems, via, write
from socksd.app.build import build, lasting
from socksd.app.config import Config, parse_config
from socksd.errors import ConfigError


def config(endpoint: str = "tcp:1080", more: str = "", protocols: str = "") -> Config:
    return parse_config(
        f'[[listener]]\nname = "office"\nendpoint = "{endpoint}"\n{protocols}\n'
        f'[pac]\nendpoint = "tcp:8080"\n{more}',
        "x",
    )


LOGIN = '[auth]\nauthenticators = ["memory:a:b"]\n'
BOTH = 'protocols = ["socks5", "http-connect"]'


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (config(protocols=BOTH), ["SOCKS5 gw:1080", "PROXY gw:1080"]),
        (config(protocols='protocols = ["socks5"]'), ["SOCKS5 gw:1080"]),
        (config(protocols='protocols = ["http-connect"]'), ["PROXY gw:1080"]),
        (config(more=LOGIN, protocols=BOTH), ["PROXY gw:1080"]),
        (config(more=LOGIN, protocols='protocols = ["socks5"]'), ["SOCKS5 gw:1080"]),
        (config("ssl:1443:privateKey=a", protocols=BOTH), ["HTTPS gw:1080"]),
    ],
    ids=["both", "socks", "http", "login", "login without http", "tls"],
)
def test_browsers_are_told_what_they_can_speak(made: Config, told: list[str]) -> None:
    assert via(made, "gw", 1080) == told
    assert not list(problems(made))


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert via(config(protocols='protocols = ["socks5"]'), "::1", 80) == ["SOCKS5 [::1]:80"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (config(more='listener = "ofice"'), "no listener is named 'ofice'; did you mean 'office'?"),
        (
            config("ssl:1443:privateKey=a", protocols='protocols = ["socks5"]'),
            "browsers speak 'http-connect' over TLS and no SOCKS; 'office' does not",
        ),
        (config("unix:/run/x"), "'office' is no port that a browser could reach"),
    ],
)
def test_a_listener_that_no_browser_can_use_is_a_problem(made: Config, said: str) -> None:
    (problem,) = problems(made)
    assert (problem.path, problem.message) == ("pac.listener", said)
    reactor: Any = MemoryReactorClock()
    with pytest.raises(ConfigError, match=r"pac\.listener"):
        build(made, reactor, lasting(reactor))


def test_an_endpoint_that_is_none_is_a_problem() -> None:
    reactor: Any = MemoryReactorClock()
    with pytest.raises(ConfigError, match=r"pac\.endpoint"):
        build(
            parse_config('[[listener]]\nname = "a"\nendpoint = "1"\n[pac]\nendpoint = "x:1"', ""),
            reactor,
            lasting(reactor),
        )


@pytest.mark.parametrize(
    ("here", "more", "host"),
    [
        (IPv4Address("TCP", "192.0.2.9", 8080), "", "192.0.2.9"),
        (IPv6Address("TCP", "::ffff:192.0.2.9", 8080), "", "192.0.2.9"),
        (UNIXAddress(b"/run/x"), "", "127.0.0.1"),
        (IPv4Address("TCP", "192.0.2.9", 8080), 'host = "gw.example"', "gw.example"),
    ],
)
def test_it_names_the_gateway_as_the_browser_knows_it(here: Any, more: str, host: str) -> None:
    reactor: Any = MemoryReactorClock()
    made = config(protocols='protocols = ["socks5"]', more=more)
    port = SimpleNamespace(getHost=lambda: IPv4Address("TCP", "0.0.0.0", 4711))
    gateway: Any = SimpleNamespace(
        generation=build(made, reactor, lasting(reactor)),
        listeners=[
            SimpleNamespace(factory=SimpleNamespace(listener=name), port=port)
            for name in ("other", "office")
        ],
    )
    text = write(gateway, IPv4Address("TCP", "192.0.2.7", 5000), here)
    assert f'var VIA = "SOCKS5 {host}:4711";' in text
    assert "for 192.0.2.7.\n" in text
