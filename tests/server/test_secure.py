"""TLS in front of a session: octet for octet, without a socket."""

from __future__ import annotations

import contextlib
from hashlib import sha256
from ipaddress import ip_address, ip_network

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from socksd.codes import Method
from socksd.errors import LoginFailed
from socksd.events import MethodChosen, Outcome, SessionClosed, SessionOpened
from socksd.facts import Principal
from socksd.server.front import Front
from socksd.server.secure import HalfClosing, Identify, Security
from socksd.wire.socks5 import Greeting, UsernamePassword
from tests import authority
from tests.authority import Issued
from tests.fakes import FakeTransport
from tests.server.world import DENY, FakePolicy, World

ALICE = authority.client("alice")
SERVER = authority.server("gw.example")
PEER = IPv4Address("TCP", "192.0.2.1", 40000)
OFFERS = {"nothing": b"\x00", "both": b"\x00\x02", "a login": b"\x02"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pyOpenSSL's, of itself


def context(issued: Issued | None, versions: int | None = None) -> SSL.Context:
    made = SSL.Context(SSL.TLS_METHOD)
    if issued is not None:
        made.use_certificate(X509.from_cryptography(issued.certificate))
        made.use_privatekey(PKey.from_cryptography_key(issued.key))
    if versions is not None:
        made.set_max_proto_version(versions)
    return made


def clients_wanted(required: bool) -> SSL.Context:
    made = context(SERVER)
    store = made.get_cert_store()
    assert store is not None
    store.add_cert(X509.from_cryptography(authority.clients_authority().certificate))
    made.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0))
    return made


def alice(certificate: bytes) -> Principal:
    assert certificate == ALICE.certificate.public_bytes(Encoding.DER)
    return Principal("alice", frozenset({"staff"}))


def nobody(certificate: bytes) -> Principal:
    raise LoginFailed("the client's certificate has 0 names of kind email, not one")


class Client:
    """A client that speaks TLS over a fake transport."""

    def __init__(
        self, world: World, issued: Issued | None = None, versions: int | None = None
    ) -> None:
        self.world = world
        protocol = world.factory.buildProtocol(PEER)
        assert protocol is not None
        self.transport = FakeTransport(protocol, PEER)
        self.tls = SSL.Connection(context(issued, versions))
        self.tls.set_connect_state()
        self.ended = False

    def handshake(self, before: bytes = b"") -> None:
        if before:
            self.transport.receive(before)
        for _ in range(4):
            with contextlib.suppress(SSL.WantReadError):
                self.tls.do_handshake()
            self.turn()

    def greet(self) -> None:
        """Shake hands, and speak: only then does TLS 1.3 tell what it thinks of a certificate."""
        self.handshake()
        self.say(Greeting(b"\x00").encode())

    def turn(self) -> bytes:
        """Carry octets both ways, and give what was for the client."""
        heard = b""
        for _ in range(3):
            self.world.clock.advance(0)  # Twisted gathers small writes
            try:
                octets = self.tls.bio_read(65536)
            except SSL.WantReadError:
                octets = b""
            if octets and self.transport.gone is None:
                self.transport.receive(octets)
            if self.transport.sent:
                self.tls.bio_write(bytes(self.transport.sent))
                self.transport.sent.clear()
            try:
                heard += self.tls.recv(65536)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                self.ended = True
        return heard

    def say(self, octets: bytes) -> bytes:
        self.tls.send(octets)
        return self.turn()


def listen(world: World, *, required: bool | None = None, identify: Identify | None = None) -> None:
    made = context(SERVER) if required is None else clients_wanted(required)
    world.factory.front = Front(None, Security(made, identify))


def the_end(world: World) -> SessionClosed:
    (closed,) = world.events.of(SessionClosed)
    assert len(world.sessions) == 0
    assert not world.clock.getDelayedCalls()
    return closed


@pytest.fixture
def world() -> World:
    return World()


def test_socks_over_tls_is_socks(world: World) -> None:
    listen(world)
    client = Client(world)
    client.handshake()
    assert client.say(Greeting(b"\x00").encode()) == b"\x05\x00"
    (session,) = world.sessions
    assert session.facts.certificate is None
    client.transport.receive_reset()
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


@pytest.mark.parametrize("required", [True, False], ids=["required", "optional"])
def test_a_verified_certificate_says_who_it_is(world: World, required: bool) -> None:
    listen(world, required=required, identify=alice)
    client = Client(world, ALICE)
    client.handshake()
    client.say(Greeting(b"\x00").encode())
    (facts,) = world.policy.asked
    assert facts.principal == Principal("alice", frozenset({"staff"}))
    fingerprint = sha256(ALICE.der).hexdigest()
    assert facts.certificate == fingerprint
    client.transport.receive_reset()
    closed = the_end(world)
    assert (closed.user, closed.groups) == ("alice", {"staff"})
    assert closed.certificate == fingerprint


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ("nothing", Method.NO_AUTHENTICATION),
        ("both", Method.NO_AUTHENTICATION),
        ("a login", Method.USERNAME_PASSWORD),
    ],
)
def test_who_has_a_certificate_need_not_log_in(world: World, offers: str, chosen: Method) -> None:
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    listen(world, required=False, identify=alice)
    client = Client(world, ALICE)
    client.handshake()
    assert client.say(Greeting(OFFERS[offers]).encode()) == bytes((5, chosen))
    assert world.events.of(MethodChosen)[0].method is chosen
    (session,) = world.sessions
    assert session.facts.principal == Principal("alice", frozenset({"staff"}))
    client.transport.receive_reset()


def test_who_is_allowed_nothing_is_told_so_at_the_first_octet() -> None:
    world = World(policy=FakePolicy(lambda facts: DENY))
    listen(world, required=True, identify=alice)
    client = Client(world, ALICE)
    client.greet()
    assert client.ended
    client.transport.receive_fin()
    closed = the_end(world)
    assert closed.outcome is Outcome.DENIED
    assert closed.reason == "by its address or certificate"
    assert closed.user == "alice"


def test_who_logs_in_nevertheless_is_who_has_logged_in(world: World) -> None:
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    world.authenticator.users[b"bob"] = b"secret"
    listen(world, required=False, identify=alice)
    client = Client(world, ALICE)
    client.handshake()
    client.say(Greeting(b"\x02").encode())
    client.say(UsernamePassword(b"bob", b"secret").encode())
    (session,) = world.sessions
    assert session.facts.principal == Principal("bob")
    client.transport.receive_reset()


def test_who_has_none_is_treated_as_over_tcp_where_none_is_required(world: World) -> None:
    world.authenticator.acceptable = (Method.USERNAME_PASSWORD,)
    listen(world, required=False, identify=alice)
    client = Client(world)
    client.handshake()
    assert client.say(Greeting(b"\x00").encode()) == b"\x05\xff"
    assert world.policy.asked[0].principal is None
    client.transport.receive_fin()


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        pytest.param(None, "peer did not return a certificate", id="none"),
        pytest.param(authority.server("alice"), "certificate verify failed", id="self-signed"),
        pytest.param(
            authority.issue(cn="alice", by=authority.clients_authority(), days=-1),
            "certificate verify failed",
            id="expired",
        ),
        pytest.param(
            authority.server("alice", by=authority.clients_authority()),
            "certificate verify failed",
            id="for a server",
        ),
    ],
)
def test_no_certificate_that_will_do_is_the_end_before_the_first_octet(
    world: World, issued: Issued | None, reason: str
) -> None:
    listen(world, required=True, identify=nobody)
    client = Client(world, issued)
    with pytest.raises(SSL.Error):
        client.greet()
    closed = the_end(world)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert closed.reason == f"TLS: {reason}"
    assert world.policy.asked == []


def test_a_certificate_that_does_not_verify_is_not_optional(world: World) -> None:
    listen(world, required=False, identify=nobody)
    client = Client(world, authority.server("alice"))
    with pytest.raises(SSL.Error):
        client.greet()
    assert the_end(world).outcome is Outcome.PROTOCOL_ERROR


def test_a_certificate_that_names_no_user_is_a_login_that_failed(world: World) -> None:
    listen(world, required=False, identify=nobody)
    client = Client(world, ALICE)
    client.handshake()
    assert client.ended
    client.transport.receive_fin()
    closed = the_end(world)
    assert closed.outcome is Outcome.LOGIN_FAILED
    assert closed.reason == "the client's certificate has 0 names of kind email, not one"
    assert closed.user is None
    assert world.policy.asked == []


@pytest.mark.parametrize("octets", [b"\x05\x01\x00" + bytes(8), b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_not_tls_breaks_the_protocol(world: World, octets: bytes) -> None:
    listen(world)
    client = Client(world)
    client.transport.receive(octets)
    closed = the_end(world)
    assert closed.outcome is Outcome.PROTOCOL_ERROR
    assert closed.reason.startswith("TLS: ")


def test_who_goes_in_the_middle_of_the_handshake_has_left(world: World) -> None:
    listen(world)
    client = Client(world)
    client.transport.receive(b"\x16\x03\x01\x02")
    client.transport.receive_fin()
    assert the_end(world).outcome is Outcome.CLIENT_LEFT


def test_the_deadline_of_the_handshake_holds_for_that_of_tls(world: World) -> None:
    listen(world)
    client = Client(world)
    client.transport.receive(b"\x16\x03\x01\x02")
    world.clock.advance(world.runtime.deadlines.handshake)
    assert client.transport.gone == "reset"
    assert the_end(world).outcome is Outcome.TIMED_OUT


def test_a_proxy_header_comes_before_tls(world: World) -> None:
    listen(world, required=True, identify=alice)
    assert world.factory.front is not None
    balancers = (ip_network("192.0.2.1"),)
    world.factory.front = Front(balancers, world.factory.front.security)
    client = Client(world, ALICE)
    client.handshake(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 1080\r\n")
    assert client.say(Greeting(b"\x00").encode()) == b"\x05\x00"
    (opened,) = world.events.of(SessionOpened)
    assert opened.client == ip_address("203.0.113.9")
    assert world.policy.asked[0].principal == Principal("alice", frozenset({"staff"}))
    client.transport.receive_reset()


# -- close_notify ----------------------------------------------------------------


@implementer(IHalfCloseableProtocol)
class Wrapped:
    """Stands in for TLSMemoryBIOProtocol, and for the protocol in it."""

    def __init__(self) -> None:
        self.wrappedProtocol = self
        self.ends = 0

    def readConnectionLost(self) -> None:
        self.ends += 1

    def writeConnectionLost(self) -> None: ...


class Pair:
    """A server and a client of TLS, that have shaken hands."""

    def __init__(self, versions: int) -> None:
        self.told = Wrapped()
        self.server = HalfClosing(context(SERVER), self.told)  # type: ignore[arg-type]  # it is enough of one
        self.server.set_accept_state()
        self.client = SSL.Connection(context(None, versions))
        self.client.set_connect_state()
        for _ in range(4):
            for here in (self.client, self.server):
                with contextlib.suppress(SSL.WantReadError):
                    here.do_handshake()
                self.carry()

    def carry(self) -> None:
        for here, there in ((self.client, self.server), (self.server, self.client)):
            with contextlib.suppress(SSL.WantReadError):
                there.bio_write(here.bio_read(65536))


def test_close_notify_ends_what_the_client_sends_and_nothing_else() -> None:
    pair = Pair(SSL.TLS1_3_VERSION)
    pair.client.send(b"GET /")
    pair.client.shutdown()
    pair.carry()
    assert pair.server.recv(100) == b"GET /"
    with pytest.raises(SSL.WantReadError):
        pair.server.recv(100)
    assert pair.told.ends == 1
    pair.server.send(b"the page")
    pair.carry()
    assert pair.client.recv(100) == b"the page"


def test_what_comes_behind_close_notify_is_not_piled_up() -> None:
    """OpenSSL reads no more; who sends on is closed at the next octets."""
    pair = Pair(SSL.TLS1_3_VERSION)
    pair.client.shutdown()
    pair.carry()
    with pytest.raises(SSL.WantReadError):
        pair.server.recv(100)
    pair.server.bio_write(b"more")
    with pytest.raises(SSL.ZeroReturnError):
        pair.server.recv(100)
    assert pair.told.ends == 1


def test_the_second_close_notify_ends_the_connection() -> None:
    pair = Pair(SSL.TLS1_3_VERSION)
    pair.server.shutdown()
    pair.client.shutdown()
    pair.carry()
    with pytest.raises(SSL.ZeroReturnError):
        pair.server.recv(100)
    assert pair.told.ends == 0


def test_before_tls_1_3_close_notify_ends_both_directions() -> None:
    """RFC 5246 section 7.2.1: the other party MUST discard any pending writes."""
    pair = Pair(SSL.TLS1_2_VERSION)
    pair.client.shutdown()
    pair.carry()
    with pytest.raises(SSL.ZeroReturnError):
        pair.server.recv(100)
    assert pair.told.ends == 0
