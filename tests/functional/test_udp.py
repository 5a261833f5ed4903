"""UDP ASSOCIATE with real datagrams, through a real twistd."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from socksd.admin.client import ask
from tests.functional.conftest import Serve
from tests.functional.datagrams import Association, header
from tests.functional.dialogue import SECONDS, Refused, take, take_all, tunnel
from tests.functional.origins import NameServer, Origin, echo
from tests.functional.process import needs, run, wait_for

MIB = 1 << 20
NOT_ALLOWED = 2

# Everything is on the loopback here.
OPEN = '[guard]\nnever = "nothing"\n[[rule]]\nid = "all"\naction = "allow"\n'


class Echo:
    """A target that sends back what it gets, ``echo:`` in front."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.sock.bind((host, 0))
        self.sock.settimeout(0.1)
        self.port: int = self.sock.getsockname()[1]
        self.got: list[bytes] = []
        self.askers: set[str] = set()
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over:
            try:
                octets, source = self.sock.recvfrom(65536)
            except TimeoutError:
                continue
            self.got.append(octets)
            self.askers.add(source[0])
            self.sock.sendto(b"echo:" + octets, source)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.sock.close()


@contextmanager
def echoing(host: str = "127.0.0.1") -> Iterator[Echo]:
    target = Echo(host)
    try:
        yield target
    finally:
        target.close()


def test_datagrams_get_there_by_address_and_by_name_and_back(
    serve: Serve, names: Callable[..., NameServer]
) -> None:
    zone = names({"target.example": ["127.0.0.1"]})
    gateway = serve(config=f'{OPEN}[resolver]\nvia = "dns:127.0.0.1:{zone.port}"\n')
    with Association(gateway.port):
        pass  # what there is once and for all is there after the first one
    gateway.sessions(1)
    before = gateway.usage()
    with echoing() as ipv4, echoing("::1") as ipv6, Association(gateway.port) as association:
        assert association.ask("127.0.0.1", ipv4.port, b"one") == b"echo:one"
        association.send("::1", ipv6.port, b"two")
        assert association.take() == ("::1", ipv6.port, b"echo:two")
        association.send(b"target.example", ipv4.port, b"three")
        assert association.take() == ("127.0.0.1", ipv4.port, b"echo:three")
        for part, payload in ((1, b"fo"), (2, b"u"), (0x83, b"r")):
            association.send("127.0.0.1", ipv4.port, payload, part)
        assert association.take()[2] == b"echo:four"
        assert ipv4.got == [b"one", b"three", b"four"]
        where = str(ipv4.port)
    (_, session) = gateway.sessions(2)
    assert (session["command"], session["outcome"]) == ("udp", "served")
    assert (session["up"], session["down"]) == (3 + 3 + 5 + 4, 15 + 4 * 5)
    gateway.logged(rf"session 2 .* udp 127\.0\.0\.1:{where} via=127\.0\.0\.1 rule=all$")
    gateway.logged(rf"session 2 .* udp target\.example:{where} via=127\.0\.0\.1 rule=all$")
    assert gateway.settled(before).descriptors <= before.descriptors


def test_rules_decide_about_each_target(serve: Serve, tmp_path: Path) -> None:
    control = str(tmp_path / "control.sock")
    with echoing() as allowed, echoing() as denied:
        gateway = serve(
            config=f'[control]\nsocket = "{control}"\n[guard]\nnever = "nothing"\n'
            '[[rule]]\nid = "that-port"\naction = "allow"\ncommand = "udp"\n'
            f"ports = {allowed.port}\n"
        )
        with Association(gateway.port) as association:
            for _ in range(3):
                association.send("127.0.0.1", denied.port, b"no")
            assert association.ask("127.0.0.1", allowed.port, b"yes") == b"echo:yes"
        assert denied.got == []
        gateway.sessions(1)
        gateway.logged(rf"denied client=127\.0\.0\.1 .* destination=127\.0\.0\.1:{denied.port} ")
        gateway.logged("session 1 datagrams dropped: denied=3")
        assert gateway.log().count("denied client=") == 1
        # It counts for the rule, and who was refused is told on asking.
        _, answer = ask(control, "GET", "/v1/rules")
        hits = {each["id"]: each["hits"] for each in answer["rules"]}
        assert hits == {"that-port": 0, "guard": 0, "default": 1, "why": 0}
        with tunnel(gateway.port, b"why.socksd", 80) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
            assert f"127.0.0.1:{denied.port}  rule default".encode() in take_all(sock)


def test_a_target_sees_the_source_of_the_direct_route(serve: Serve) -> None:
    with echoing() as target, echoing("::1") as other:
        gateway = serve(config=f'{OPEN}[route.direct]\nsource = ["127.0.0.9"]\n')
        with Association(gateway.port) as association:
            association.send("::1", other.port, b"by no family of ours")
            assert association.ask("127.0.0.1", target.port, b"whence") == b"echo:whence"
        assert (target.askers, other.askers) == ({"127.0.0.9"}, set())
        gateway.logged("session 1 datagrams dropped: unsent=1")


def test_who_may_not_associate_is_told_so(serve: Serve) -> None:
    gateway = serve(
        config='[[rule]]\nid = "no-udp"\naction = "deny"\ncommand = "udp"\n'
        '[[rule]]\nid = "all"\naction = "allow"\n'
    )
    with pytest.raises(Refused) as refused:
        Association(gateway.port)
    assert refused.value.answer == NOT_ALLOWED
    (session,) = gateway.sessions(1)
    assert (session["outcome"], session["rule"]) == ("denied", "no-udp")


def test_ports_and_the_advertised_address_are_those_of_the_configuration(serve: Serve) -> None:
    # Below those that the system gives, above those that services have.
    gateway = serve(config=f'{OPEN}[udp]\nports = "23457-23458"\nadvertise = "127.0.0.3"\n')
    with Association(gateway.port) as one, Association(gateway.port) as other:
        assert {one.relay[0], other.relay[0]} == {"127.0.0.3"}
        assert {one.relay[1], other.relay[1]} == {23457, 23458}
        with pytest.raises(Refused):
            Association(gateway.port)
    gateway.logged('reason="no port for datagrams: all ports from 23457 to 23458 are in use"')


@pytest.mark.parametrize("replies", ["asked", "any"])
def test_a_rule_says_who_may_send_without_being_asked(serve: Serve, replies: str) -> None:
    gateway = serve(config=f'{OPEN}udp_replies = "{replies}"\n')
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as known,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as friend,
        Association(gateway.port) as association,
    ):
        known.bind(("127.0.0.1", 0))
        known.settimeout(SECONDS)
        association.send("127.0.0.1", known.getsockname()[1], b"here I am")
        _, source = known.recvfrom(100)
        friend.sendto(b"from a friend", source)
        known.sendto(b"from whom you know", source)
        heard = {association.take()[2] for _ in range(2 if replies == "any" else 1)}
    friends = {b"from a friend"} if replies == "any" else set()
    assert heard == {b"from whom you know"} | friends


def test_two_hundred_associations_are_answered_at_once(serve: Serve) -> None:
    gateway = serve(config=OPEN)
    before = gateway.usage()
    associations: list[Association] = []
    try:
        with echoing() as target:
            for number in range(200):
                associations.append(Association(gateway.port))
                associations[-1].send("127.0.0.1", target.port, b"%d" % number)
            answers = [association.take()[2] for association in associations]
            assert answers == [b"echo:%d" % number for number in range(200)]
    finally:
        for association in associations:
            association.close()
    gateway.settled(before)


def test_dig_is_answered(serve: Serve, names: Callable[..., NameServer]) -> None:
    """By way of a few lines that put dig's question into a datagram: it speaks no SOCKS itself."""
    dig = needs("dig")
    zone = names({"www.example": ["192.0.2.80"]})
    gateway = serve(config=OPEN)
    with (
        Association(gateway.port) as association,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
    ):
        resolver.bind(("127.0.0.1", 0))
        resolver.settimeout(SECONDS)
        port = resolver.getsockname()[1]

        def forward() -> None:
            question, source = resolver.recvfrom(65536)
            resolver.sendto(association.ask("127.0.0.1", zone.port, question), source)

        thread = threading.Thread(target=forward)
        thread.start()
        done = run(dig, "@127.0.0.1", "-p", str(port), "+short", "+tries=1", "www.example", "A")
        thread.join()
    assert done.stdout == "192.0.2.80\n", done.stderr


@pytest.mark.parametrize(
    "known", [pytest.param(True, id="one target"), pytest.param(False, id="a new one each time")]
)
@pytest.mark.reactor_timeout(60)
def test_a_flood_takes_neither_memory_nor_everybodys_time(
    serve: Serve, origin: Callable[..., Origin], known: bool
) -> None:
    """100,000 datagrams as fast as they can be sent: to be dropped as a router would."""
    gateway = serve(config=OPEN)
    asking = origin(echo)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
        tunnel(gateway.port, "127.0.0.1", asking.port) as chat,
        Association(gateway.port) as association,
    ):
        target.bind(("127.0.0.1", 0))
        port = target.getsockname()[1]
        association.send("127.0.0.1", port, b"first")
        target.settimeout(SECONDS)
        assert target.recv(100) == b"first"
        target.settimeout(0)
        before, over = gateway.usage().memory, threading.Event()

        def flood() -> None:
            for number in range(100_000):
                host = "127.0.0.1" if known else f"127.1.{number >> 8 & 255}.{number & 255}"
                association.sock.sendto(header(host, port) + bytes(64), association.relay)
            over.set()

        thread = threading.Thread(target=flood)
        thread.start()
        rounds = 0
        while not over.is_set() or rounds < 10:
            chat.sendall(b"are you there?")
            assert take(chat, 14) == b"are you there?"
            with tunnel(gateway.port, "127.0.0.1", asking.port) as other:
                other.sendall(b"and you?")
                assert take(other, 8) == b"and you?"
            rounds += 1
        thread.join()
        assert gateway.usage().memory - before < 8 * MIB

        def answered() -> bool:
            association.send("127.0.0.1", port, b"still there?")
            time.sleep(0.01)
            try:
                while target.recv(100) != b"still there?":
                    pass
            except BlockingIOError:
                return False
            return True

        wait_for("the association to be of use again", answered)
