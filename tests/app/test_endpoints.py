"""Endpoint strings, with errors a person can use."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.testing import MemoryReactor

from socksd.app.endpoints import is_overheard, listening_endpoint, tcp
from tests.fakes import outcome


def listen(text: str) -> MemoryReactor:
    memory = MemoryReactor()
    outcome(listening_endpoint(memory, text).listen(object()))
    return memory


@pytest.mark.parametrize(
    ("text", "port", "interface"),
    [
        pytest.param("1080", 1080, "127.0.0.1", id="a bare port is on the loopback"),
        pytest.param("tcp:1080", 1080, "", id="as Twisted has it, on every interface"),
        pytest.param("tcp:80:interface=192.0.2.1", 80, "192.0.2.1", id="one interface"),
        pytest.param(tcp(0, "::1"), 0, "::1", id="IPv6, quoted"),
    ],
)
def test_tcp_endpoints_listen_where_they_say(text: str, port: int, interface: str) -> None:
    (server,) = listen(text).tcpServers
    assert (server[0], server[3]) == (port, interface)


@pytest.mark.parametrize(
    ("text", "backlog"), [("1080", 1024), ("tcp:1080", 1024), ("tcp:1080:backlog=7", 7)]
)
def test_the_queue_is_longer_than_twisteds_unless_said_otherwise(text: str, backlog: int) -> None:
    (server,) = listen(text).tcpServers
    assert server[2] == backlog


def test_other_endpoints_are_twisteds() -> None:
    (server,) = listen("unix:/run/socksd.sock:mode=660").unixServers
    assert server[0] == "/run/socksd.sock"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("carrier-pigeon:1", "Unknown endpoint type: 'carrier-pigeon'", id="kind"),
        pytest.param("", "Unknown endpoint type: ''", id="empty"),
        pytest.param("tcp:abc", "invalid literal for int", id="port is a word"),
        pytest.param("tcp", "wrong or missing arguments for a 'tcp' endpoint", id="no port"),
        pytest.param("tcp:1:colour=red", "wrong or missing arguments", id="no such argument"),
        pytest.param("tcp:65536", "65536 is not a port", id="port too large"),
        pytest.param("99999", "99999 is not a port", id="bare port too large"),
        pytest.param("systemd:domain=INET:index=0", "systemd has passed no such socket", id="fd"),
        pytest.param("ssl:1:privateKey=/no/such/file", "/no/such/file", id="key file"),
    ],
)
def test_a_wrong_endpoint_is_explained_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        listening_endpoint(reactor, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError(name="OpenSSL")

    monkeypatch.setattr("socksd.app.endpoints.serverFromString", missing)
    with pytest.raises(ValueError, match="'ssl' needs the Python package OpenSSL"):
        listening_endpoint(reactor, "ssl:1")


@pytest.mark.parametrize(
    ("text", "overheard"),
    [
        ("1080", False),
        ("tcp:1080", True),
        ("tcp:1080:interface=127.0.0.1", False),
        ("tcp:interface=127.0.0.1:port=1080", False),
        ("tcp:1080:interface=192.0.2.1", True),
        ("tcp:1080:interface=localhost", True),
        ("tcp:1080:note=interface=127.0.0.1", True),
        (tcp(1080, "::1"), False),
        (tcp(1080, "::"), True),
        ("tcp6:1080:interface=\\:\\:1", False),
        ("unix:/run/x:mode=660", False),
        ("ssl:1443:privateKey=a", False),
        ("tls:/etc/keys:tcp:1443", False),
        ("systemd:domain=INET:index=0", True),
        ("haproxy:tcp:1080:interface=127.0.0.1", True),
    ],
)
def test_it_is_known_where_others_could_listen_in(text: str, overheard: bool) -> None:
    """What is not known to be safe is not."""
    assert is_overheard(text) is overheard
