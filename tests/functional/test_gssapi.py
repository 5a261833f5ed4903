"""Logins with tickets of a real KDC, through a real gateway."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread
from typing import TYPE_CHECKING, Protocol

import pytest

from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.origins import BLOCK, PAGE, HTTPOrigin, Origin, blocks, echo
from tests.functional.process import Gateway, needs, run, wait_for
from tests.kerberos import REALM, Realm, initiator

if TYPE_CHECKING:
    from gssapi import SecurityContext

pytest.importorskip("gssapi")

MUCH = 10_000_000
INTEGRITY, CONFIDENTIALITY = 1, 2  # RFC 1961 section 4.3


class Kerberised(Protocol):
    def __call__(self, config: str = "", keytab: Path | None = None) -> Gateway: ...


@pytest.fixture
def kerberised(serve: Serve, realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Kerberised:
    """Start gateways in a realm; who has no ticket there is nobody."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)

    def start(config: str = "", keytab: Path | None = None) -> Gateway:
        return serve(
            config=f'[gssapi]\nkeytab = "{keytab or realm.keytabs["rcmd"]}"\n'
            f'realms = ["{REALM}"]\n{config}'
        )

    return start


def curl(gateway: Gateway, url: str, *options: str, **environment: str) -> CompletedProcess[str]:
    pytest.importorskip("pycurl")
    program = Path(__file__).with_name("libcurl.py")
    proxy = f"socks5h://localhost:{gateway.port}"
    return run(sys.executable, program, proxy, url, *options, **environment)


# -- curl, which has a ticket but does not protect what it says ----------------------

CLEAR = 'protection = ["none"]\n'


def test_curl_logs_in_with_a_ticket_and_rules_know_its_user_and_groups(
    kerberised: Kerberised, realm: Realm, http: HTTPOrigin
) -> None:
    gateway = kerberised(
        CLEAR + '[guard]\nnever = "nothing"\n[groups]\nstaff = ["alice"]\n'
        '[[rule]]\nid = "staff"\naction = "allow"\ngroup = ["staff"]\n'
        '[[rule]]\nid = "not-bob"\naction = "deny"\nuser = ["bob"]\n'
    )
    url = f"http://127.0.0.1:{http.port}/"
    assert curl(gateway, url, **realm.ticket("alice")).stdout.encode() == PAGE
    assert curl(gateway, url, **realm.ticket("bob")).returncode == 1
    assert curl(gateway, url, **realm.ticket("carol/admin")).returncode == 1
    sessions = gateway.sessions(3)
    assert [(each["user"], each["rule"], each["outcome"]) for each in sessions] == [
        ("alice", "staff", "served"),
        ("bob", "not-bob", "denied"),
        ("carol/admin", "default", "denied"),
    ]


def test_a_ticket_for_another_service_is_refused(
    kerberised: Kerberised, realm: Realm, http: HTTPOrigin
) -> None:
    gateway = kerberised(CLEAR + 'service = "other"\n', realm.keytabs["other"])
    fetched = curl(gateway, f"http://127.0.0.1:{http.port}/", **realm.ticket("alice"))
    assert fetched.returncode == 1
    gateway.logged(r'login failed client=127\.0\.0\.1 port=\d+ user="" reason=".*rcmd/localhost')
    gateway.logged("session .*outcome=login-failed")


def test_a_protection_level_in_clear_is_refused(
    kerberised: Kerberised, realm: Realm, http: HTTPOrigin
) -> None:
    gateway = kerberised(CLEAR)
    fetched = curl(gateway, f"http://127.0.0.1:{http.port}/", "nec", **realm.ticket("alice"))
    assert fetched.returncode == 1
    gateway.logged("session .*outcome=protocol-error .*a protection level that is not protected")


def test_without_a_ticket_nobody_gets_in(
    kerberised: Kerberised, realm: Realm, http: HTTPOrigin
) -> None:
    """Nor with one that has expired: the client notices by itself, and has nothing to send."""
    gateway = kerberised(CLEAR)
    url = f"http://127.0.0.1:{http.port}/"
    assert curl(gateway, url).returncode == 1
    ticket = realm.ticket("alice", "1s")
    klist = needs("klist")
    cache = ticket["KRB5CCNAME"]
    wait_for("the ticket to expire", lambda: run(klist, "-s", cache, **ticket).returncode)
    assert curl(gateway, url, **ticket).returncode == 1
    sessions = gateway.sessions(2)
    assert {(each["user"], each["outcome"]) for each in sessions} == {(None, "client-left")}


def test_curl_learns_that_it_would_have_to_protect_what_it_says(
    kerberised: Kerberised, realm: Realm, http: HTTPOrigin
) -> None:
    """Its contexts are not even fit for it; should they be one day, it cannot."""
    gateway = kerberised()
    fetched = curl(gateway, f"http://127.0.0.1:{http.port}/", **realm.ticket("alice"))
    assert fetched.returncode == 1
    gateway.logged("session .*outcome=protocol-error .*without out_of_sequence_detection")


def test_who_has_no_ticket_may_have_a_password(
    kerberised: Kerberised, http: HTTPOrigin, tmp_path: Path
) -> None:
    set_password(tmp_path / "users", "dave", "s3cret")
    gateway = kerberised(f'[auth]\nauthenticators = ["htpasswd:{tmp_path / "users"}"]\n')
    fetched = run(
        needs("curl"), "--silent", "--show-error", "--socks5-basic",
        "--proxy", f"socks5h://dave:s3cret@{gateway.address}", f"http://127.0.0.1:{http.port}/",
    )  # fmt: skip
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged("session .*user=dave ")


# -- a client that protects what it says: no program in Debian does -------------------


class Client:
    """
    A client of RFC 1961, by the standard library and python-gssapi.

    It shares nothing with socksd, so that one mistake is not made twice.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
        self.context: SecurityContext = initiator()
        self.confidential = False
        self._come = bytearray()

    def close(self) -> None:
        self.sock.close()

    def say(self, kind: int, token: bytes) -> None:
        self.sock.sendall(struct.pack("!BBH", 1, kind, len(token)) + token)

    def hear(self, kind: int) -> bytes:
        version, kind_heard, length = struct.unpack("!BBH", self._exactly(4))
        assert (version, kind_heard) == (1, kind)
        return self._exactly(length)

    def greet(self) -> None:
        """Agree on GSS-API, and send the first token."""
        self.sock.sendall(b"\x05\x01\x01")
        assert self._exactly(2) == b"\x05\x01"
        self.say(1, self.context.step() or b"")

    def log_in(self, level: int) -> None:
        self.greet()
        self.context.step(self.hear(1))
        assert self.context.complete
        self.say(2, self.context.wrap(bytes((level,)), False).message)
        assert self.context.unwrap(self.hear(2)).message == bytes((level,))
        self.confidential = level == CONFIDENTIALITY

    def send(self, octets: bytes) -> None:
        for start in range(0, len(octets), 60_000):
            part = octets[start : start + 60_000]
            self.say(3, self.context.wrap(part, self.confidential).message)

    def receive(self) -> bytes:
        """Give what the next token holds; nothing at FIN."""
        self._come += self.sock.recv(1 << 18)
        if not self._come:
            return b""
        unwrapped = self.context.unwrap(self.hear(3))
        assert unwrapped.encrypted is self.confidential
        return unwrapped.message

    def connect(self, port: int) -> None:
        self.send(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        assert self.receive()[:2] == b"\x05\x00"

    def _exactly(self, count: int) -> bytes:
        while len(self._come) < count:
            octets = self.sock.recv(1 << 18)
            assert octets, "the gateway has closed"
            self._come += octets
        taken = bytes(self._come[:count])
        del self._come[:count]
        return taken


@pytest.fixture
def client(
    kerberised: Kerberised, realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Gateway], Client]]:
    """Connect clients with the ticket of alice."""
    for name, value in realm.ticket("alice").items():
        monkeypatch.setenv(name, value)
    clients: list[Client] = []

    def start(gateway: Gateway) -> Client:
        clients.append(Client(gateway))
        return clients[-1]

    yield start
    for each in clients:
        each.close()


@pytest.mark.parametrize(
    "level",
    [pytest.param(INTEGRITY, id="integrity"), pytest.param(CONFIDENTIALITY, id="confidentiality")],
)
def test_much_is_carried_both_ways_unharmed_and_in_tokens(
    kerberised: Kerberised,
    client: Callable[[Gateway], Client],
    origin: Callable[..., Origin],
    level: int,
) -> None:
    gateway = kerberised()
    target = origin(echo)
    alice = client(gateway)
    alice.log_in(level)
    alice.connect(target.port)

    def send() -> None:
        for block in blocks(MUCH):
            alice.send(block)
        alice.sock.shutdown(socket.SHUT_WR)

    sending = Thread(target=send)
    sending.start()
    expected, received, count = hashlib.sha256(), hashlib.sha256(), 0
    while octets := alice.receive():
        received.update(octets)
        count += len(octets)
    sending.join()
    for block in blocks(MUCH):
        expected.update(block)
    assert count == MUCH
    assert received.digest() == expected.digest()
    gateway.logged(rf"session .*user=alice .*outcome=served up={MUCH} down={MUCH} ")


def test_memory_is_bounded_while_a_client_in_tokens_does_not_read(
    kerberised: Kerberised, client: Callable[[Gateway], Client], origin: Callable[..., Origin]
) -> None:
    gateway = kerberised()
    sent = 0

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        for _ in range(200):
            sock.sendall(BLOCK)
            sent += len(BLOCK)

    target = origin(flood)
    alice = client(gateway)
    alice.log_in(CONFIDENTIALITY)
    alice.connect(target.port)
    before, seen = gateway.usage().memory, -1

    def stalled() -> bool:
        nonlocal seen
        last, seen = seen, sent
        return last == seen > 0

    wait_for("the origin to stall", lambda: all(stalled() for _ in range(3)))
    assert gateway.usage().memory - before < 8 << 20


def test_a_token_that_was_changed_on_the_way_ends_the_session(
    kerberised: Kerberised, client: Callable[[Gateway], Client]
) -> None:
    gateway = kerberised()
    alice = client(gateway)
    alice.log_in(INTEGRITY)
    token = alice.context.wrap(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", False).message
    alice.say(3, token.replace(b"\x7f\x00\x00\x01", b"\x7f\x00\x00\x02"))
    with suppress(ConnectionResetError):
        assert alice.sock.recv(1) == b""
    gateway.logged("session .*user=alice .*outcome=protocol-error .*a bad GSS-API token")


def test_a_keytab_that_is_slow_keeps_nobody_else_waiting(
    kerberised: Kerberised,
    realm: Realm,
    client: Callable[[Gateway], Client],
    http: HTTPOrigin,
    tmp_path: Path,
) -> None:
    keytab, slow = tmp_path / "keytab", tmp_path / "slow"
    keytab.write_bytes(realm.keytabs["rcmd"].read_bytes())
    gateway = kerberised('[auth]\nanonymous = ["127.0.0.0/8"]\n', keytab)
    os.mkfifo(slow)
    keytab.rename(tmp_path / "quick")
    slow.rename(keytab)
    alice = client(gateway)
    alice.greet()

    def opened() -> int | None:
        with suppress(OSError):  # ENXIO: nobody is reading yet
            return os.open(keytab, os.O_WRONLY | os.O_NONBLOCK)
        return None

    descriptor = wait_for("the keytab to be read", opened)
    for _ in range(3):
        fetched = run(
            needs("curl"), "--silent", "--show-error", "--socks5-basic",
            "--proxy", f"socks5h://{gateway.address}", f"http://127.0.0.1:{http.port}/",
        )  # fmt: skip
        assert fetched.stdout.encode() == PAGE, fetched.stderr
    alice.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        alice.sock.recv(1)
    (tmp_path / "quick").rename(keytab)
    os.close(descriptor)  # what was read so far is an empty keytab
    alice.sock.settimeout(20)
    assert alice.sock.recv(2) == b"\x01\xff"
    alice.close()
    gateway.logged("session .*outcome=login-failed")
