"""Endpoint strings, with errors a person can use."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.testing import MemoryReactor

from socksd.app.endpoints import is_overheard, opening, tcp
from socksd.facts import Principal
from tests import authority
from tests.fakes import outcome


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A file with a certificate and its key, in a directory of its own."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    return authority.server("gw.example").write(directory, "gw.pem")


def listen(text: str) -> MemoryReactor:
    memory = MemoryReactor()
    outcome(opening(memory, text).endpoint.listen(object()))
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
        pytest.param("systemd:domain=INET", "needs either index or name", id="neither"),
        pytest.param("systemd:INET:0:name=a", "needs either index or name", id="both"),
        pytest.param("systemd:domain=IPX:index=0", "INET, INET6, UNIX, not 'IPX'", id="domain"),
        pytest.param("systemd:index=0", "'systemd' endpoint needs domain", id="no domain"),
        pytest.param("systemd:INET:x", "index of a 'systemd' endpoint is a number", id="index"),
        pytest.param("systemd:INET:0::1", "too many arguments for a 'systemd'", id="too many"),
        pytest.param("ssl:1:privateKey=/no/such/file", "/no/such/file", id="key file"),
        pytest.param("ssl", "a 'ssl' endpoint needs port", id="no port, TLS"),
        pytest.param("ssl:x:privateKey={own}", "port of a 'ssl' endpoint is a number", id="port"),
        pytest.param("ssl:65536:privateKey={own}", "65536 is not a port", id="port, TLS"),
        pytest.param("ssl:1:privatekey={own}", "did you mean 'privateKey'?", id="spelling"),
        pytest.param("ssl:1:privateKey={own}:backlog=x", "backlog of a 'ssl'", id="backlog"),
        pytest.param("tls:{empty}:port=1", "no *.pem file", id="empty directory"),
        pytest.param("mtls:1:privateKey={own}", "a 'mtls' endpoint needs clientCA", id="no CA"),
        pytest.param(
            "mtls:1:privateKey={own}:clientCA={own}:clients=some",
            "clients is one of required, optional, not 'some'",
            id="clients",
        ),
        pytest.param(
            "mtls:1:privateKey={own}:clientCA={own}:user=name",
            "user is one of cn, email, uri, dns, not 'name'",
            id="user",
        ),
        pytest.param(
            "mtls:1:privateKey={own}:clientCA=/no/such/file", "/no/such/file", id="client CA"
        ),
        pytest.param(
            "mtls:1:privateKey={own}:clientCA={own}:crl={own}", "has no list of what", id="crl"
        ),
    ],
)
def test_a_wrong_endpoint_is_explained_in_one_line(
    text: str, said: str, own: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError) as caught:
        opening(reactor, text.format(own=own, empty=tmp_path / "empty"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError(name="serial")

    monkeypatch.setattr("socksd.app.endpoints.serverFromString", missing)
    with pytest.raises(ValueError, match="'serial' needs the Python package serial"):
        opening(reactor, "serial:1")


@pytest.mark.parametrize(
    ("text", "port", "interface", "backlog"),
    [
        pytest.param("ssl:443:privateKey={own}", 443, "", 1024, id="ssl"),
        pytest.param("ssl:0:{own}:{own}:interface=127.0.0.1", 0, "127.0.0.1", 1024, id="by place"),
        pytest.param(r"ssl:443:privateKey={own}:interface=\:\:1", 443, "::1", 1024, id="quoted"),
        pytest.param("tls:{directory}", 443, "::", 1024, id="tls"),
        pytest.param("tls:{directory}:1443:interface=", 1443, "", 1024, id="tls, IPv4"),
        pytest.param(
            "mtls:port=443:privateKey={own}:clientCA={own}:backlog=7", 443, "", 7, id="mtls"
        ),
    ],
)
def test_tls_listens_in_clear_and_has_what_tls_is_spoken_by(
    text: str, port: int, interface: str, backlog: int, own: str
) -> None:
    memory = MemoryReactor()
    made = opening(memory, text.format(own=own, directory=Path(own).parent))
    outcome(made.endpoint.listen(object()))
    (server,) = memory.tcpServers
    assert (server[0], server[2], server[3]) == (port, backlog, interface)
    assert made.security is not None
    assert (made.security.identify is not None) == text.startswith("mtls")


def test_what_tls_is_spoken_by_is_not_where_it_is_spoken(own: str) -> None:
    """A reload that changes it, or begins or ends TLS, leaves the port open."""
    texts = [
        "tcp:443:interface=127.0.0.1",
        f"ssl:443:privateKey={own}:interface=127.0.0.1",
        f"mtls:443:interface=127.0.0.1:privateKey={own}:clientCA={own}:user=uri:backlog=7",
        f"tls:{Path(own).parent}:interface=127.0.0.1",
    ]
    assert {opening(reactor, text).place for text in texts} == {"tcp:443:interface=127.0.0.1"}
    assert opening(reactor, "unix:/run/socks").place == "unix:/run/socks"


def test_in_clear_there_is_nothing_to_speak_tls_by() -> None:
    assert opening(reactor, "tcp:1080").security is None


@pytest.mark.parametrize(
    ("arguments", "verify", "name"),
    [
        ("", SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, "alice"),
        (":clients=optional", SSL.VERIFY_PEER, "alice"),
        (":clients=optional:user=email", SSL.VERIFY_PEER, "alice@example.com"),
    ],
)
def test_the_arguments_of_mtls_say_who_needs_a_certificate_and_who_it_is(
    arguments: str, verify: int, name: str, own: str
) -> None:
    made = opening(reactor, f"mtls:0:privateKey={own}:clientCA={own}{arguments}").security
    assert made is not None
    mode = made.context.get_verify_mode()
    assert mode & ~SSL.VERIFY_CLIENT_ONCE == verify
    assert made.identify is not None
    issued = authority.client("alice", x509.RFC822Name("alice@example.com"), ou=("staff",))
    assert made.identify(issued.der) == Principal(name, frozenset({"staff"}))


# -- systemd ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["systemd:domain=INET:index=0", "systemd:INET6:name=socks", r"systemd:UNIX:name=a\:b"]
)
def test_a_socket_of_systemds_is_looked_for_only_when_it_is_listened_on(text: str) -> None:
    """Who checks a configuration before a start (ExecStartPre=) has been passed none."""
    made = opening(reactor, text)
    with pytest.raises(OSError, match="no such socket") as caught:
        outcome(made.endpoint.listen(object()))
    assert caught.value.strerror == "systemd has passed no such socket (LISTEN_FDS)"


def test_a_socket_of_systemds_is_adopted_as_it_is_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twisted reads what was passed as it is imported, so it stands in here for itself."""
    described = []

    def passed(_: object, text: str) -> TCP4ServerEndpoint:
        described.append(text)
        return TCP4ServerEndpoint(memory, 1080)

    memory = MemoryReactor()
    monkeypatch.setattr("socksd.app.endpoints.serverFromString", passed)
    outcome(opening(memory, "systemd:INET:name=socks").endpoint.listen(object()))
    assert described == ["systemd:domain=INET:name=socks"]
    assert len(memory.tcpServers) == 1


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
