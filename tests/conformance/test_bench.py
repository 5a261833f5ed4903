"""How a server is looked at before the cases are run."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from socksd.address import IPAddress
from socksd.conformance import bench
from socksd.conformance.bench import LOGIN, NONE, Bench, CannotRun, Server, survey
from tests.conformance.fake import PASSWORD, USER, Fake
from tests.conformance.test_kit import QUICK

KNOWN = (USER, PASSWORD)
IPV4, IPV6 = IPv4Address("127.0.0.1"), IPv6Address("::1")


def test_a_survey_finds_where_targets_can_be_reached() -> None:
    with Fake() as fake:
        assert survey("localhost", fake.port, None, QUICK) == fake.server()


@pytest.mark.parametrize(("login", "method"), [(True, LOGIN), (False, NONE)])
def test_a_login_is_tried_first_where_there_is_one(login: bool, method: int) -> None:
    with Fake(login=login) as fake:
        server = survey("127.0.0.1", fake.port, KNOWN, QUICK)
    assert server == replace(fake.server(), credentials=KNOWN, method=method)


def test_a_server_that_is_not_there_cannot_be_tested() -> None:
    with Fake() as fake:
        port = fake.port
    with pytest.raises(CannotRun, match=r"no connection to 127\.0\.0\.1 port"):
        survey("127.0.0.1", port, None, QUICK)


def test_a_server_that_wants_a_login_says_so() -> None:
    with Fake(login=True) as fake, pytest.raises(CannotRun, match="give --user and --pass"):
        survey("127.0.0.1", fake.port, None, QUICK)


def test_a_wrong_login_cannot_be_used() -> None:
    with Fake(login=True) as fake, pytest.raises(CannotRun, match="STATUS: 01 00 expected"):
        survey("127.0.0.1", fake.port, (USER, b"wrong"), QUICK)


def test_a_server_that_may_not_go_to_our_targets_cannot_be_tested() -> None:
    with Fake("denies") as fake, pytest.raises(CannotRun, match=r"127\.0\.0\.1.*REP is 02"):
        survey("127.0.0.1", fake.port, None, QUICK)


@pytest.mark.parametrize(
    ("server", "asked"),
    [("192.0.2.1", {"192.0.2.1", "2001:db8::1"}), ("2001:db8::2", {"192.0.2.1", "2001:db8::2"})],
)
def test_targets_of_a_server_elsewhere_listen_where_it_can_reach_them(
    server: str, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def facing(there: IPAddress) -> IPAddress | None:
        seen.append(str(there))
        return IPV4 if there.version == 4 else None

    monkeypatch.setattr(bench, "_facing", facing)
    assert bench._ours(ip_address(server)) == (IPV4, None)
    assert set(seen) == asked
    assert not Server(ip_address(server), 1080, IPV4, None).is_here


@pytest.mark.parametrize(
    ("server", "ipv6", "expected"),
    [(IPV4, IPV6, IPV4), (IPV6, IPV6, IPV6), (IPV6, None, IPV4)],
)
def test_datagrams_leave_by_the_family_of_the_server(
    server: IPAddress, ipv6: IPv6Address | None, expected: IPAddress
) -> None:
    with Bench(Server(server, 1080, IPV4, ipv6), QUICK) as at:
        assert at.here == expected


def test_a_family_that_leads_nowhere_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRoute:
        def __init__(self, *_: object) -> None:
            raise OSError

    monkeypatch.setattr("socksd.conformance.bench.socket.socket", NoRoute)
    assert bench._facing(IPV6) is None
