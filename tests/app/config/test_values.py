from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from socksd.app.config import parse_config
from tests.app.config.told import problem


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        pytest.param("auto", None, id="any"),
        pytest.param("40000-40999", range(40000, 41000), id="a range"),
        pytest.param("40000", range(40000, 40001), id="one"),
        pytest.param("1-65535", range(1, 65536), id="all"),
    ],
)
def test_ports_for_datagrams_are_a_range(text: str, ports: range | None) -> None:
    assert parse_config(f'[udp]\nports = "{text}"', "").udp.ports == ports


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", IPv4Network("10.0.0.0/8")),
        ("192.0.2.7", IPv4Network("192.0.2.7/32")),
        ("fd00::/8", IPv6Network("fd00::/8")),
        ("::1", IPv6Network("::1/128")),
    ],
)
def test_networks_and_addresses_may_come_without_login(text: str, network: object) -> None:
    assert parse_config(f'auth.anonymous = ["{text}"]', "x").auth.anonymous == (network,)


@pytest.mark.parametrize(
    ("written", "ports"),
    [
        ("auto", None),
        ("40000-40999", range(40000, 41000)),
        ("40000", range(40000, 40001)),
        ("1-65535", range(1, 65536)),
    ],
)
def test_ports_are_a_range_of_both_ends(written: str, ports: range | None) -> None:
    assert parse_config(f'bind.ports = "{written}"', "x").bind.ports == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' has host bits set; did you mean '10.0.0.0/8'?"),
        ("fd00::1/8", "'fd00::1/8' has host bits set; did you mean 'fd00::/8'?"),
        ("10/8", "'10/8' is not a network; write one as 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not a network; write one as 10.0.0.0/8"),
        ("example.com", "'example.com' is not a network; write one as 10.0.0.0/8"),
        (
            "::ffff:10.0.0.0/104",
            "'::ffff:10.0.0.0/104' is IPv4 inside IPv6; write it as 10.0.0.0/8",
        ),
    ],
)
def test_anything_else_is_not_a_network(text: str, message: str) -> None:
    """A client's address is never IPv4-mapped: such a network would match nobody."""
    assert problem(f'auth.anonymous = ["{text}"]') == ("auth.anonymous[0]", message)


def test_a_file_is_absolute_before_twistd_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse_config('[log]\naccess = "a.jsonl"\n[control]\nsocket = "../s"\n', "")
    assert config.log.access == str(tmp_path / "a.jsonl")
    assert config.control.socket == str(tmp_path.parent / "s")
