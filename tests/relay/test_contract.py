"""
What every relay promises, on real sockets.

The far sides are plain sockets that the test turns by hand, so that it can
stop reading, half-close and reset when it wants to; time is a Clock's.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from socksd.app.certificates import Own, context
from socksd.interfaces import EndedBy, IEnd, IRelay, ISecurityContext, Tally
from socksd.relay.line import Line, ThrottledLine
from socksd.relay.pipes import Pipes
from socksd.relay.pump import Pump, ThrottledPump
from socksd.relay.switchboard import Switchboard
from socksd.relay.throttle import Budget
from socksd.server.bare import BareEnd
from socksd.server.ends import End
from socksd.server.protected import Protected
from socksd.server.secure import Security
from tests import authority
from tests.kerberos import Realm, established
from tests.tokens import FakeContext, FakeFarContext, FarContext

IDLE = 900.0
LINGER = 300.0
MIB = 1 << 20
BUFFER = 1 << 16  # what the sockets are given, where memory is measured

# What a throttled relay is allowed each way; a quarter of it at once. Its clock
# goes on by the reactor's turns: what it makes wait does wait, and is quick.
RATE = 2 * MIB
pace = Clock()
TURN = 0.01

RelayFactory = Callable[[IEnd, IEnd, IReactorTime, float, float], IRelay]


@contextmanager
def pumps() -> Iterator[RelayFactory]:
    yield Pump


class OverTLS:
    """Pumps whose clients speak TLS with us."""

    def __call__(
        self, client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float
    ) -> IRelay:
        return Pump(client, target, clock, idle, linger)


@contextmanager
def pumps_over_tls() -> Iterator[RelayFactory]:
    yield OverTLS()


@contextmanager
def lines(pipes: int = 4) -> Iterator[RelayFactory]:
    """Lines on a switchboard each: a test's clock is its relay's."""
    boards = []

    def line(client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float) -> IRelay:
        boards.append(Switchboard(reactor, clock, Pipes(pipes)))
        boards[-1].start()
        return Line(boards[-1], client, target, idle, linger)

    yield line
    for board in boards:
        board.stop()


@contextmanager
def throttled_pumps(budget: Budget | None = None) -> Iterator[RelayFactory]:
    """Pumps with a budget each, if not with the one that is given."""
    yield lambda *arguments: ThrottledPump(*arguments, budget or Budget(RATE, pace))


@contextmanager
def throttled_lines(budget: Budget | None = None, *, pipes: int = 4) -> Iterator[RelayFactory]:
    boards = []

    def line(client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float) -> IRelay:
        boards.append(Switchboard(reactor, clock, Pipes(pipes)))
        boards[-1].start()
        mine = budget or Budget(RATE, pace)
        return ThrottledLine(boards[-1], client, target, idle, linger, mine)

    yield line
    for board in boards:
        board.stop()


def moved(end: IEnd, board: Switchboard) -> None:
    """Give an end that nobody carries yet a transport of the switchboard's."""
    before: Any = end.transport
    if isinstance(before, Connection) and not before.TLS:
        before.stopReading()  # type: ignore[no-untyped-call]  # Twisted's
        sock = socket.socket(fileno=before.socket.detach())
        end.transport = board.transport(sock, cast("End", end), before.getPeer())


@contextmanager
def switched_pumps() -> Iterator[RelayFactory]:
    """Pumps between such transports: what forwards HTTP, or protects by GSS-API."""
    boards = []

    def pump(client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float) -> IRelay:
        boards.append(Switchboard(reactor, clock, Pipes(4)))
        boards[-1].start()
        for end in (client, target):
            moved(end, boards[-1])
        return Pump(client, target, clock, idle, linger)

    yield pump
    for board in boards:
        board.stop()


@contextmanager
def switched_lines() -> Iterator[RelayFactory]:
    """Lines between transports that are on their switchboard already, as most are."""
    boards = []

    def line(client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float) -> IRelay:
        boards.append(Switchboard(reactor, clock, Pipes(4)))
        boards[-1].start()
        for end in (client, target):
            moved(end, boards[-1])
        return Line(boards[-1], client, target, idle, linger)

    yield line
    for board in boards:
        board.stop()


def bared(end: IEnd, board: Switchboard) -> IEnd:
    """Give an end that is only the socket of one that nobody carries yet."""
    before: Any = end.transport
    before.stopReading()
    old = before.socket
    sock = socket.SocketType(old.family, old.type, 0, old.detach())
    sock.setblocking(False)
    bare = BareEnd(board, sock, sock.getpeername())
    before.abortConnection = bare.abort
    return bare


@contextmanager
def bare_lines() -> Iterator[RelayFactory]:
    """Lines between ends without a transport, as nearly all are."""
    boards = []

    def line(client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float) -> IRelay:
        boards.append(Switchboard(reactor, clock, Pipes(4)))
        boards[-1].start()
        ends = [bared(end, boards[-1]) for end in (client, target)]
        return Line(boards[-1], *ends, idle, linger)

    yield line
    for board in boards:
        board.stop()


Throttled = Callable[..., AbstractContextManager[RelayFactory]]

THROTTLED: dict[str, Throttled] = {
    "throttled pump": throttled_pumps,
    "throttled line": throttled_lines,
    "throttled line without a pipe": partial(throttled_lines, pipes=0),
}
RELAYS: dict[str, Callable[[], AbstractContextManager[RelayFactory]]] = {
    "pump": pumps,
    "pump over TLS": pumps_over_tls,
    "pump between switched transports": switched_pumps,
    "line between switched transports": switched_lines,
    "line between bare ends": bare_lines,
    "line": lines,
    "line without a pipe": partial(lines, pipes=0),
    **THROTTLED,
}


class Tokens:
    """
    Pumps whose client speaks in GSS-API tokens (RFC 1961 section 5).

    Args:
        pair: Gives both sides of a security context: ours, and the client's.
    """

    def __init__(self, pair: Callable[[], tuple[ISecurityContext, FarContext]]) -> None:
        self._pair = pair

    def far(self, sock: socket.socket) -> Far:
        """Give the client's far side; it is the next relay's."""
        self._ours, theirs = self._pair()
        return ProtectedFar(sock, theirs)

    def __call__(
        self, client: IEnd, target: IEnd, clock: IReactorTime, idle: float, linger: float
    ) -> IRelay:
        return Pump(Protected(client, self._ours, confidential=True), target, clock, idle, linger)


@contextmanager
def pumps_of_tokens() -> Iterator[RelayFactory]:
    yield Tokens(lambda: (FakeContext(size=20_000), FakeFarContext()))


@contextmanager
def pumps_of_kerberos_tokens(ticket: Mapping[str, str], keytab: Path) -> Iterator[RelayFactory]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ticket.items():
            patch.setenv(name, value)
        yield Tokens(partial(established, keytab))


@pytest.fixture(
    params=[
        *(pytest.param(relays, id=name) for name, relays in RELAYS.items()),
        pytest.param(pumps_of_tokens, id="pump of tokens"),
        pytest.param(pumps_of_kerberos_tokens, id="pump of Kerberos tokens"),
    ]
)
def relay_factory(request: pytest.FixtureRequest) -> Iterator[RelayFactory]:
    factories = request.param
    if factories is pumps_of_kerberos_tokens:
        pytest.importorskip("gssapi")
        realm: Realm = request.getfixturevalue("realm")
        factories = partial(factories, realm.ticket("alice"), realm.keytabs["rcmd"])
    with factories() as factory:
        yield factory


def client_side(relay_factory: RelayFactory, sock: socket.socket) -> Far:
    """Give the far side of a client that speaks as the relay expects."""
    return relay_factory.far(sock) if isinstance(relay_factory, Tokens) else Far(sock)


class Far:
    """
    A far side.

    Attributes:
        reading: Whether it reads what comes.
        ended: It has read FIN.
        error: The errno it has met, 0 as long as all is well.
        sent: How many octets its kernel has taken.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.received = bytearray()
        self.reading = True
        self.ended = False
        self.error = 0
        self.sent = 0
        self._unsent = memoryview(b"")
        self._finishing = False

    def send(self, octets: bytes) -> None:
        """Send, as the other end takes it."""
        self._unsent = memoryview(bytes(self._unsent) + octets)

    def finish(self) -> None:
        """Send FIN behind it, and read on."""
        self._finishing = True

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    @property
    def closed(self) -> bool:
        return self.sock.fileno() == -1

    @property
    def left(self) -> bool:
        """Whether it has been told that the connection is over."""
        return self.ended or self.error != 0

    def turn(self) -> None:
        """Send and read as much as goes without waiting."""
        if self.closed:
            return
        try:
            self._write()
            if self.reading:
                self._read()
            # After FIN, recv() does not tell of a reset.
            self.error = self.error or self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            self.error = error.errno or 0
            self._unsent = memoryview(b"")

    def _write(self) -> None:
        try:
            while self._unsent:
                count = self.sock.send(self._unsent[:MIB])
                self._unsent = self._unsent[count:]
                self.sent += count
        except BlockingIOError:
            return
        if self._finishing:
            self._finishing = False
            self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            while not self.ended:
                octets = self.sock.recv(MIB)
                self.received += octets
                self.ended = not octets
        except BlockingIOError:
            pass


class SecureFar(Far):
    """A far side that speaks TLS; its FIN is close_notify."""

    def __init__(self, sock: socket.socket, versions: int) -> None:
        super().__init__(sock)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(versions)
        self.tls = SSL.Connection(context, sock)
        self.tls.set_connect_state()

    async def shake_hands(self) -> None:
        for _ in range(1000):
            with suppress(SSL.WantReadError):
                self.tls.do_handshake()
                return
            await one_turn()

    def turn(self) -> None:
        if self.error:  # OpenSSL has no more to say
            return
        try:
            super().turn()
        except SSL.SysCallError as error:
            self.error = error.args[0]

    def close(self) -> None:
        if not self.closed:
            with suppress(SSL.Error):
                self.tls.shutdown()
        super().close()

    def cut(self) -> None:
        """Close without close_notify."""
        super().close()

    def _write(self) -> None:
        with suppress(SSL.WantWriteError):
            while self._unsent:
                count = self.tls.send(self._unsent[:MIB])
                self._unsent = self._unsent[count:]
                self.sent += count
            if self._finishing:
                self._finishing = False
                if not self.tls.get_shutdown() & SSL.SENT_SHUTDOWN:  # a second one would read, too
                    self.tls.shutdown()

    def _read(self) -> None:
        try:
            while not self.ended:
                self.received += self.tls.recv(MIB)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True


class ProtectedFar(Far):
    """A far side that speaks in GSS-API tokens."""

    def __init__(self, sock: socket.socket, context: FarContext) -> None:
        super().__init__(sock)
        self._context = context
        self._leaving = b""
        self._leaving_for = 0  # octets that are in it
        self._come = bytearray()

    def _write(self) -> None:
        try:
            while self._leaving or self._unsent:
                if not self._leaving:
                    held, self._unsent = bytes(self._unsent[:20_000]), self._unsent[20_000:]
                    token = self._context.wrap(held, True).message
                    self._leaving = struct.pack("!BBH", 1, 3, len(token)) + token
                    self._leaving_for = len(held)
                self._leaving = self._leaving[self.sock.send(self._leaving) :]
                if not self._leaving:
                    self.sent += self._leaving_for
        except BlockingIOError:
            return
        if self._finishing:
            self._finishing = False
            self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            while not self.ended:
                octets = self.sock.recv(MIB)
                self._come += octets
                self.ended = not octets
                self._take()
        except BlockingIOError:
            pass

    def _take(self) -> None:
        start = 0
        while len(self._come) - start >= 4:
            version, kind, length = struct.unpack_from("!BBH", self._come, start)
            assert (version, kind) == (1, 3)
            end = start + 4 + length
            if len(self._come) < end:
                break
            result = self._context.unwrap(bytes(self._come[start + 4 : end]))
            assert result.encrypted
            self.received += result.message
            start = end
        del self._come[:start]


@dataclass
class Relayed:
    """A relay between two far sides."""

    relay: IRelay
    client: Far
    target: Far
    clock: Clock
    tallies: list[Any] = field(default_factory=list)

    @property
    def tally(self) -> Tally:
        (tally,) = self.tallies
        return tally

    def far(self, name: str) -> tuple[Far, Far]:
        """Give the named one, and the other."""
        pair = (self.client, self.target)
        return pair if name == "client" else (pair[1], pair[0])

    async def until(self, condition: Callable[[], object], *, timeless: bool = False) -> None:
        """Turn both far sides, and the reactor, until *condition* holds."""
        for _ in range(20_000):
            self.client.turn()
            self.target.turn()
            if condition():
                return
            await (deferLater(reactor, 0) if timeless else one_turn())
        pytest.fail("it has not come about")

    async def some_turns(self, count: int) -> None:
        for _ in range(count):
            await one_turn()
            self.client.turn()
            self.target.turn()

    async def settle(self) -> None:
        """Turn until all has happened that will."""
        seen, quiet = None, 0
        while quiet < 20:
            await one_turn()
            self.client.turn()
            self.target.turn()
            now = [
                (far.sent, len(far.received), far.ended, far.error)
                for far in (self.client, self.target)
            ]
            quiet = quiet + 1 if now == seen else 0
            seen = now

    async def ended(self) -> None:
        await self.until(lambda: self.tallies)

    def check_closed(self) -> None:
        """Both ends are gone, and nothing is left to happen."""
        assert self.tallies
        assert not self.clock.getDelayedCalls()
        assert not pace.getDelayedCalls()


def one_turn() -> Deferred[None]:
    pace.advance(TURN)
    return deferLater(reactor, 0, lambda: None)


class Meet(Factory[End]):
    """Makes one End, and tells of it once it is connected."""

    def __init__(self) -> None:
        self.met: Deferred[End] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> End:
        end = End()
        reactor.callLater(0, self.met.callback, end)
        return end


async def accepted(
    listen: Callable[[Factory[End]], IListeningPort], connect: Callable[[Any], socket.socket]
) -> tuple[End, socket.socket]:
    """Give a connection that was made to us: our end of it, and the far side's."""
    meet = Meet()
    port = listen(meet)
    sock = connect(port.getHost())
    end = await meet.met
    await port.stopListening()
    return end, sock


async def accepted_over_tls(
    connect: Callable[[Any], socket.socket], versions: int
) -> tuple[End, SecureFar]:
    """Give the same, where the far side speaks TLS of these *versions* at most."""
    security = Security(_certified())
    client, sock = await accepted(
        lambda factory: reactor.listenTCP(
            0, TLSMemoryBIOFactory(security, False, factory), interface="127.0.0.1"
        ),
        connect,
    )
    far = SecureFar(sock, versions)
    await far.shake_hands()
    return client, far


@cache
def _certified() -> SSL.Context:
    ours = authority.server("localhost")
    return context([Own(ours.certificate, ours.key)])


async def dialled(buffer: int | None) -> tuple[End, socket.socket]:
    """Give a connection that we have made."""
    with socket.socket() as listener:
        if buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        end = await endpoint.connect(Factory.forProtocol(End))
        return end, listener.accept()[0]


@asynccontextmanager
async def relayed(
    relay_factory: RelayFactory,
    early: bytes = b"",
    buffer: int | None = None,
    versions: int = SSL.TLS1_3_VERSION,
) -> AsyncIterator[Relayed]:
    """Join a client and a target; *buffer* sizes the kernel's, where that matters."""

    def connect(address: IPv4Address) -> socket.socket:
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.connect((address.host, address.port))
        return sock

    if isinstance(relay_factory, OverTLS):
        client, client_far = await accepted_over_tls(connect, versions)
    else:
        client, sock = await accepted(
            lambda factory: reactor.listenTCP(0, factory, interface="127.0.0.1"), connect
        )
        client_far = client_side(relay_factory, sock)
    target, target_sock = await dialled(buffer)
    if buffer:
        for end in (client, target):
            handle = getattr(end.transport, "transport", end.transport).getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    async with joined(relay_factory, client, client_far, target, Far(target_sock), early) as r:
        yield r


@asynccontextmanager
async def joined(
    relay_factory: RelayFactory,
    client: End,
    client_far: Far,
    target: End,
    target_far: Far,
    early: bytes = b"",
) -> AsyncIterator[Relayed]:
    clock = Clock()
    relay = relay_factory(client, target, clock, IDLE, LINGER)
    result = Relayed(relay, client_far, target_far, clock)
    relay.join(early, result.tallies.append)
    try:
        yield result
    finally:
        client_far.close()
        target_far.close()
        relay.abort()
        for _ in range(3):
            await one_turn()


both_ways = pytest.mark.parametrize("name", ["client", "target"])


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def _warm() -> None:
    """The reactor's first port brings descriptors that it keeps for good."""
    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest.fixture(autouse=True)
def _descriptors(_warm: None) -> Iterator[None]:
    """Every test leaves as many descriptors as it has found."""
    before = descriptors()
    yield
    assert descriptors() == before


# -- octets -------------------------------------------------------------------


async def test_it_is_a_relay(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory) as r:
        assert verifyObject(IRelay, r.relay)


async def test_every_octet_arrives_both_ways_at_once(relay_factory: RelayFactory) -> None:
    up, down = noise(1, 3 * MIB + 1), noise(2, 5 * MIB + 7)
    chunks = random.Random(3)
    async with relayed(relay_factory) as r:
        sent = {"up": 0, "down": 0}
        while sent["up"] < len(up) or sent["down"] < len(down):
            for far, octets, way in ((r.client, up, "up"), (r.target, down, "down")):
                size = chunks.choice([1, 2, 1447, 4096, 65535, 65537, 300_001])
                far.send(octets[sent[way] : sent[way] + size])
                sent[way] += size
            r.client.turn()
            r.target.turn()
            await one_turn()
        r.client.finish()
        r.target.finish()
        await r.ended()
        await r.until(lambda: r.client.ended and r.target.ended)
        assert r.target.received == up
        assert r.client.received == down
        assert r.tally == Tally(len(up), len(down), EndedBy.BOTH)
        r.check_closed()


async def test_early_octets_come_first(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory, early=b"early ") as r:
        r.client.send(b"late")
        await r.until(lambda: len(r.target.received) == 10)
        assert r.target.received == b"early late"
        assert r.relay.up == 10


async def test_a_target_may_speak_first(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory) as r:
        r.target.send(b"220 ready\r\n")
        await r.until(lambda: r.client.received)
        assert r.client.received == b"220 ready\r\n"
        assert (r.relay.up, r.relay.down) == (0, 11)


async def test_counters_follow_while_it_runs(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory) as r:
        for count in range(1, 20):
            r.client.send(b"ping")
            await r.until(lambda n=count: len(r.target.received) == 4 * n)
            r.target.send(b"pong!")
            await r.until(lambda n=count: len(r.client.received) == 5 * n)
            assert (r.relay.up, r.relay.down) == (4 * count, 5 * count)


# -- a far side that does not read --------------------------------------------


@both_ways
async def test_memory_is_bounded_while_a_far_side_does_not_read(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        octets = noise(4, MIB) * 64
        fast.send(octets)
        await r.settle()
        assert 0 < fast.sent < 2 * MIB  # four kernel buffers, and the relay's own
        slow.reading = True
        fast.finish()
        await r.until(lambda: slow.ended)
        assert slow.received == octets


@both_ways
async def test_the_other_direction_flows_meanwhile(relay_factory: RelayFactory, name: str) -> None:
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        fast.send(bytes(8 * MIB))
        await r.settle()
        slow.send(noise(5, 2 * MIB))
        await r.until(lambda: len(fast.received) == 2 * MIB)
        assert fast.received == noise(5, 2 * MIB)


# -- the end, in order --------------------------------------------------------


@both_ways
async def test_half_closed_the_other_direction_flows_on(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory) as r:
        first, second = r.far(name)
        first.send(b"GET /\r\n")
        first.finish()
        await r.until(lambda: second.ended)
        assert second.received == b"GET /\r\n"
        page = noise(6, 4 * MIB)
        second.send(page)
        await r.until(lambda: len(first.received) == len(page))
        assert not first.left
        assert not r.tallies
        second.finish()
        await r.until(lambda: first.ended)
        assert first.received == page
        await r.ended()
        assert r.tally.ended_by is EndedBy.BOTH
        r.check_closed()


@both_ways
async def test_the_last_octets_before_fin_are_delivered(
    relay_factory: RelayFactory, name: str
) -> None:
    """100 of 100, though the sender closes without waiting."""
    for size in range(1, 101):
        async with relayed(relay_factory) as r:
            first, second = r.far(name)
            octets = noise(size, size * 997)
            second.finish()
            first.send(octets)
            first.turn()
            await r.until(lambda far=first, n=size * 997: far.sent == n)
            first.close()
            await r.until(lambda far=second: far.ended)
            await r.ended()
            assert second.received == octets
            assert r.tally.ended_by is EndedBy.BOTH


@both_ways
async def test_the_last_octets_wait_for_a_slow_reader(
    relay_factory: RelayFactory, name: str
) -> None:
    """Both have sent FIN; what is under way still arrives."""
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        octets = noise(7, MIB)
        fast.send(octets)
        fast.finish()
        slow.finish()
        await r.settle()
        slow.reading = True
        await r.until(lambda: slow.ended)
        assert slow.received == octets
        assert fast.ended
        await r.ended()
        assert r.tally.ended_by is EndedBy.BOTH


# -- the end, by a reset ------------------------------------------------------


@both_ways
async def test_a_reset_arrives_as_a_reset(relay_factory: RelayFactory, name: str) -> None:
    async with relayed(relay_factory) as r:
        first, second = r.far(name)
        first.send(b"half a mess")
        await r.until(lambda: second.received)
        first.reset()
        await r.until(lambda: second.left)
        assert second.error == errno.ECONNRESET
        await r.ended()
        assert r.tally.ended_by == name
        r.check_closed()


@both_ways
async def test_a_reset_reaches_whom_was_paused(relay_factory: RelayFactory, name: str) -> None:
    """The one who does not read resets: the other must not stay connected."""
    async with relayed(relay_factory, buffer=BUFFER) as r:
        first, second = r.far(name)
        first.reading = False
        second.send(bytes(8 * MIB))
        await r.settle()
        assert second.sent < 2 * MIB
        first.reset()
        await r.until(lambda: second.left)
        assert second.error == errno.ECONNRESET
        await r.ended()
        assert r.tally.ended_by == name
        r.check_closed()


@both_ways
async def test_a_reset_behind_octets_that_wait_is_found(
    relay_factory: RelayFactory, name: str
) -> None:
    """The one who was paused resets; the one who did not read learns of it when it does."""
    async with relayed(relay_factory, buffer=BUFFER) as r:
        first, second = r.far(name)
        second.reading = False
        octets = noise(8, 8 * MIB)
        first.send(octets)
        await r.settle()
        first.reset()
        await r.settle()
        second.reading = True
        await r.until(lambda: second.left)
        assert second.error == errno.ECONNRESET
        assert octets.startswith(second.received)
        await r.ended()
        assert r.tally.ended_by == name


@both_ways
async def test_a_reset_after_a_half_close_stays_a_reset(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory) as r:
        first, second = r.far(name)
        first.finish()
        await r.until(lambda: second.ended)
        second.send(b"for nobody")
        await r.until(lambda: first.received)
        first.reset()
        second.send(b"for nobody")  # the relay learns of the reset as it writes
        await r.settle()
        second.send(b"for nobody")
        await r.ended()
        assert r.tally.ended_by == name
        await r.until(lambda: second.error)
        assert second.error in (errno.EPIPE, errno.ECONNRESET)  # EPIPE: it has read FIN before
        r.check_closed()


async def test_abort_resets_both(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory) as r:
        r.client.send(b"hello")
        await r.until(lambda: r.target.received)
        r.relay.abort()
        await r.until(lambda: r.client.left and r.target.left)
        assert (r.client.error, r.target.error) == (errno.ECONNRESET, errno.ECONNRESET)
        assert r.tally == Tally(5, 0, EndedBy.US)
        r.check_closed()


@both_ways
async def test_abort_while_one_is_paused_leaves_nobody(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        fast.send(bytes(8 * MIB))
        await r.settle()
        r.relay.abort()
        await r.ended()
        assert r.tally.ended_by is EndedBy.US
        await r.until(lambda: fast.left)
        r.check_closed()


# -- deadlines ----------------------------------------------------------------


async def test_an_idle_relay_is_reset(relay_factory: RelayFactory) -> None:
    async with relayed(relay_factory) as r:
        r.clock.advance(IDLE / 2)
        r.client.send(b"still here")
        await r.until(lambda: r.target.received)
        r.clock.advance(IDLE - 1)
        await r.settle()
        assert not r.client.left
        r.clock.advance(1)
        await r.until(lambda: r.client.left and r.target.left)
        assert (r.client.error, r.target.error) == (errno.ECONNRESET, errno.ECONNRESET)
        assert r.tally.ended_by is EndedBy.IDLE
        r.check_closed()


@both_ways
async def test_a_far_side_that_reads_no_more_is_idle(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        fast.send(bytes(8 * MIB))
        await r.settle()
        r.clock.advance(IDLE)
        await r.until(lambda: fast.left)
        await r.ended()
        assert r.tally.ended_by is EndedBy.IDLE
        r.check_closed()


@both_ways
async def test_half_closed_it_lingers_while_octets_move(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory) as r:
        first, second = r.far(name)
        first.finish()
        await r.until(lambda: second.ended)
        for count in range(1, 13):  # an hour
            r.clock.advance(LINGER - 1)
            second.send(b"more")
            await r.until(lambda n=count: len(first.received) == 4 * n)
        assert not r.tallies
        r.clock.advance(LINGER)
        await r.until(lambda: first.left)
        assert first.error == errno.ECONNRESET  # it was told no end, for there was none
        await r.ended()
        assert r.tally.ended_by is EndedBy.LINGER
        r.check_closed()


@both_ways
async def test_what_is_under_way_at_the_linger_deadline_still_arrives(
    relay_factory: RelayFactory, name: str
) -> None:
    """All was handed to the kernel, and FIN behind it; its reader is only slow."""
    async with relayed(relay_factory) as r:
        slow, fast = r.far(name)
        slow.reading = False
        octets = noise(9, 100_000)
        fast.send(octets)
        fast.finish()
        await r.settle()
        r.clock.advance(LINGER)
        await r.settle()
        slow.reading = True
        await r.until(lambda: slow.left)
        assert slow.received == octets
        assert slow.ended
        await r.ended()
        assert r.tally.ended_by is EndedBy.LINGER


@both_ways
async def test_octets_that_nobody_reads_are_cut_off_though_both_have_closed(
    relay_factory: RelayFactory, name: str
) -> None:
    async with relayed(relay_factory, buffer=BUFFER) as r:
        slow, fast = r.far(name)
        slow.reading = False
        fast.send(bytes(8 * MIB))
        await r.settle()
        fast.close()
        slow.finish()
        await r.settle()
        for _ in range(2):
            r.clock.advance(LINGER)
            await r.settle()
        await r.ended()
        # Over TLS there is no room for close_notify, and an end without one is a reset.
        cut = isinstance(fast, SecureFar)
        assert r.tally.ended_by is (EndedBy.CLIENT if cut else EndedBy.LINGER)
        r.check_closed()


# -- throttled ----------------------------------------------------------------

BURST = RATE // 4
QUANTUM = RATE // 10
READ = 1 << 16  # by which a pump may be ahead


@pytest.fixture(params=THROTTLED.values(), ids=THROTTLED)
def throttled(
    request: pytest.FixtureRequest,
) -> Callable[..., AbstractContextManager[RelayFactory]]:
    factory: Callable[..., AbstractContextManager[RelayFactory]] = request.param
    return factory


def flowed(began: float) -> float:
    """How many octets the rate has come to by now."""
    return (pace.seconds() - began) * RATE


async def test_throttled_each_way_is_exactly_as_fast_as_allowed(throttled: Throttled) -> None:
    """Never faster, and hardly slower, with both ways at once."""
    size = 4 * MIB
    budget = Budget(RATE, pace)
    with throttled(budget) as factory:
        async with relayed(factory) as r:

            def time_is_due() -> bool:
                ways = (r.relay.up, budget.up), (r.relay.down, budget.down)
                return all(octets == size or throttle._queue for octets, throttle in ways)

            began = pace.seconds()
            ahead = READ if isinstance(r.relay, ThrottledPump) else 2  # by rounding
            r.client.send(noise(13, size))
            r.target.send(noise(14, size))
            while r.relay.up < size or r.relay.down < size:
                for octets in (r.relay.up, r.relay.down):
                    assert octets <= BURST + flowed(began) + ahead
                    assert octets >= min(size, BURST + flowed(began) - 2 * QUANTUM - RATE * 0.1)
                # What comes late, as on a machine that is busy, is not the throttle's doing.
                await r.until(time_is_due, timeless=True)
                pace.advance(TURN)
            await r.until(lambda: len(r.client.received) == len(r.target.received) == size)
            assert r.target.received == noise(13, size)
            assert r.client.received == noise(14, size)


async def test_throttled_relays_share_a_budget_fairly(throttled: Throttled) -> None:
    budget = Budget(RATE, pace)
    with throttled(budget) as factory:
        async with relayed(factory) as one, relayed(factory) as two, relayed(factory) as three:
            began = pace.seconds()
            relays = (one, two, three)
            for r in relays:
                r.client.send(bytes(8 * MIB))
            assert budget.relays == 3

            def all_wait() -> bool:
                for r in relays:
                    r.client.turn()
                    r.target.turn()
                return len(budget.up._queue) == 3

            while flowed(began) < 3 * MIB:
                # Whoever has nothing to send when time passes, as on a machine that is
                # busy, leaves its part to the others.
                await one.until(all_wait, timeless=True)
                pace.advance(TURN)
            shares = [r.relay.up for r in relays]
            assert sum(shares) <= BURST + flowed(began) + 3 * READ
            assert sum(shares) >= flowed(began) - RATE * 0.2
            # Whoever came first has had the burst.
            assert max(shares) - min(shares) <= BURST + QUANTUM + READ
    assert budget.relays == 0


async def test_others_do_not_notice_that_one_is_throttled(throttled: Throttled) -> None:
    with throttled() as factory, throttled() as for_others:
        async with relayed(factory) as bulk, relayed(for_others) as chat:
            bulk.client.send(bytes(8 * MIB))
            await bulk.some_turns(40)
            began, carried = pace.seconds(), bulk.relay.up
            assert carried < 2 * MIB
            for count in range(1, 50):
                chat.client.send(b"ping")
                for _ in range(200):  # without the budgets' time
                    chat.client.turn()
                    chat.target.turn()
                    if len(chat.target.received) == 4 * count:
                        break
                    await deferLater(reactor, 0, lambda: None)
            assert len(chat.target.received) == 4 * 49
            assert pace.seconds() == began
            assert bulk.relay.up <= carried + READ


@both_ways
async def test_throttled_a_half_close_comes_behind_its_octets(
    throttled: Throttled, name: str
) -> None:
    with throttled() as factory:
        async with relayed(factory) as r:
            first, second = r.far(name)
            first.send(noise(15, MIB))
            first.finish()
            second.send(b"answer")
            await r.until(lambda: first.received == b"answer")
            assert not second.ended
            await r.until(lambda: second.ended)
            assert second.received == noise(15, MIB)
            second.finish()
            await r.ended()
            assert r.tally.ended_by is EndedBy.BOTH
            r.check_closed()


@both_ways
@pytest.mark.parametrize("who", ["the one who sends", "the one who reads", "us"])
async def test_throttled_an_end_leaves_nothing_waiting(
    throttled: Throttled, name: str, who: str
) -> None:
    with throttled() as factory:
        async with relayed(factory) as r:
            first, second = r.far(name)
            first.send(bytes(4 * MIB))
            await r.until(pace.getDelayedCalls)
            if who == "us":
                r.relay.abort()
            else:
                (first if who == "the one who sends" else second).reset()
            await r.ended()
            await r.until(lambda: all(far.closed or far.left for far in (first, second)))
            assert len(second.received) < 4 * MIB
            for far in (first, second):
                assert far.closed or far.error == errno.ECONNRESET
            r.check_closed()


async def test_to_wait_for_bandwidth_is_not_to_be_idle(throttled: Throttled) -> None:
    """Though it takes longer than the idle time until it is this one's turn."""
    budget = Budget(RATE, pace)
    with throttled(budget) as factory:
        async with relayed(factory) as r:
            budget.up.spend(BURST + 5 * RATE)
            r.client.send(bytes(MIB))
            await r.some_turns(20)
            r.clock.advance(IDLE)
            r.clock.advance(IDLE - 1)
            assert not r.tallies
            await r.until(lambda: len(r.target.received) == MIB)


@both_ways
async def test_throttled_an_idle_relay_ends_as_ever(throttled: Throttled, name: str) -> None:
    """That its reader reads no more is not for want of bandwidth."""
    with throttled() as factory:
        async with relayed(factory, buffer=BUFFER) as r:
            slow, fast = r.far(name)
            slow.reading = False
            fast.send(bytes(8 * MIB))
            await r.settle()
            assert not pace.getDelayedCalls()
            for _ in range(2):
                r.clock.advance(IDLE)
            await r.ended()
            assert r.tally.ended_by is EndedBy.IDLE
            r.check_closed()


async def test_throttled_early_octets_count(throttled: Throttled) -> None:
    budget = Budget(RATE, pace)
    with throttled(budget) as factory:
        async with relayed(factory, early=bytes(BURST)) as r:
            r.client.send(b"late")
            await r.until(lambda: len(r.target.received) == BURST)
            began = pace.seconds()
            await r.until(lambda: len(r.target.received) == BURST + 4)
            assert r.relay.up == BURST + 4
            assert pace.seconds() - began > 0.05


async def test_what_a_throttled_relay_has_left_is_there_for_the_next(throttled: Throttled) -> None:
    """Nor has it more than its share by opening another one."""
    budget = Budget(RATE, pace)
    began = pace.seconds()
    with throttled(budget) as factory:
        for _ in range(20):
            async with relayed(factory) as r:
                r.client.send(bytes(100_000))
                await r.until(lambda: len(r.target.received) == 100_000)
    assert BURST + flowed(began) + READ >= 20 * 100_000


# -- transports with ways of their own (the pump takes them all, a line unix) --


def relayed_over_tls_1_2() -> AbstractAsyncContextManager[Relayed]:
    """Join a client that speaks TLS without half-close with us, and a target."""
    return relayed(OverTLS(), versions=SSL.TLS1_2_VERSION)


async def test_over_tls_1_2_every_octet_arrives_before_the_targets_fin() -> None:
    """Twisted holds small writes back for a turn; a half-close would lose them."""
    async with relayed_over_tls_1_2() as r:
        r.client.send(b"GET /\r\n")
        await r.until(lambda: r.target.received)
        page = noise(10, MIB)
        r.target.send(page + b"the end")
        r.target.finish()
        await r.until(lambda: r.client.ended)
        assert r.client.received == page + b"the end"
        r.client.finish()
        await r.ended()
        assert r.tally == Tally(7, MIB + 7, EndedBy.BOTH)
        r.check_closed()


async def test_over_tls_1_2_the_client_may_send_on_behind_the_targets_fin() -> None:
    async with relayed_over_tls_1_2() as r:
        r.target.finish()
        await r.until(lambda: r.client.ended)
        r.client.send(noise(11, MIB))
        await r.until(lambda: len(r.target.received) == MIB)
        assert r.target.received == noise(11, MIB)


async def test_over_tls_1_2_close_notify_ends_the_target_in_order() -> None:
    async with relayed_over_tls_1_2() as r:
        r.client.send(b"bye")
        r.client.finish()
        await r.until(lambda: r.target.ended)
        assert r.target.received == b"bye"
        assert r.target.error == 0
        await r.ended()
        assert r.tally.ended_by is EndedBy.BOTH


async def test_over_tls_1_2_close_notify_is_heard_while_the_target_is_paused() -> None:
    """Else the target would pour what it has into nothing, and never be idle."""
    async with relayed_over_tls_1_2() as r:
        r.client.reading = False
        r.target.send(bytes(64 * MIB))
        await r.settle()
        r.client.finish()
        await r.settle()
        r.client.reading = True
        await r.ended()
        assert r.target.sent < 64 * MIB
        assert r.tally.ended_by is EndedBy.BOTH


async def test_over_tls_an_end_without_close_notify_is_a_reset() -> None:
    """Whoever is between could have cut off the rest (RFC 8446 section 6.1)."""
    async with relayed(OverTLS()) as r:
        r.client.send(b"half a mess")
        await r.until(lambda: r.target.received)
        assert isinstance(r.client, SecureFar)
        r.client.cut()
        await r.until(lambda: r.target.left)
        assert r.target.error == errno.ECONNRESET
        await r.ended()
        assert r.tally.ended_by is EndedBy.CLIENT


async def test_a_client_on_a_unix_socket_half_closes(
    relay_factory: RelayFactory, tmp_path: Path
) -> None:
    path = str(tmp_path / "socks")

    def connect(_: object) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

    client, client_far = await accepted(lambda factory: reactor.listenUNIX(path, factory), connect)
    target, target_far = await dialled(None)
    far = client_side(relay_factory, client_far)
    async with joined(relay_factory, client, far, target, Far(target_far)) as r:
        r.client.send(noise(12, MIB))
        r.client.finish()
        await r.until(lambda: r.target.ended)
        assert r.target.received == noise(12, MIB)
        r.target.send(b"answer")
        r.target.finish()
        await r.until(lambda: r.client.ended)
        assert r.client.received == b"answer"
        await r.ended()
        assert r.tally.ended_by is EndedBy.BOTH
