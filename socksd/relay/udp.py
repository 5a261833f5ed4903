"""
The relay of UDP ASSOCIATE: datagrams between one client and whom it sends to.

The client has a socket that nobody else can send to, and whatever it sends
leaves by one of two others, for IPv4 and IPv6, which are opened when the first
target needs them. Whoever is judged is remembered by the octets of the header
that named it, so that to relay one more datagram is to look these up.

Nothing waits here but what was sent to a name that is looked up. What the
system does not take at once is dropped, as a router would.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from errno import EADDRINUSE, ENETUNREACH
from functools import partial
from ipaddress import IPv4Address, ip_address
from secrets import randbelow
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_RCVBUF,
    SOCK_DGRAM,
    SOL_SOCKET,
    inet_ntop,
    socket,
)
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination, IPAddress, unmapped
from socksd.errors import ProtocolError, Refused
from socksd.interfaces import (
    Drop,
    Ended,
    EndedBy,
    Granted,
    IAssociation,
    IBudget,
    ICarrier,
    IEnd,
    IShare,
    ITargets,
    IWatched,
    Tally,
)
from socksd.wire.udp import Header, Reassembly, header_end

# Datagrams that one socket may relay in a turn of the reactor: a quarter of a
# millisecond, for which others wait.
_TURN = 32

_TARGETS = 1024  # remembered, those that are denied as well; the one used least recently goes first

# What may wait for lookups. A datagram counts for more than its octets, as in
# the kernel, or very many empty ones would fit.
_LOOKUPS = 16
_QUEUE = 128 << 10
_EACH = 512

_RECEIVE = 1 << 20  # asked of the kernel, which gives twice net.core.rmem_max at most: 416 KiB

_FRONT = 22  # octets of the longest header that we write, an IPv6 address's
_OCTETS = bytearray(_FRONT + 65536)
_BUFFER = memoryview(_OCTETS)  # nothing in it outlives the call that has put it there
_PAYLOAD = _BUFFER[_FRONT:]  # where answers are received, with room for a header in front


class Watching(Protocol):
    """Who says that there is something to read."""

    def watch_reading(self, descriptor: int, watched: IWatched) -> None:
        """Tell *watched* for as long as there is."""

    def forget(self, descriptor: int) -> None:
        """Tell no more; to be said before the socket is closed."""


class _Target:
    """
    Where datagrams of an association may go.

    Attributes:
        send: The sendto(2) of the socket of its family.
        to: Its address as sendto(2) takes it, and recvfrom(2) gives it.
        header: What goes in front of its answers.
        within: Spends so many octets on an answer, where there is a limit.
        names: By how many headers of the client's it is known.
    """

    __slots__ = ("header", "names", "send", "to", "within")

    def __init__(
        self, send: Callable[[Any, Any], int], to: Any, header: bytes, share: IShare | None
    ) -> None:
        self.send = send if share is None else partial(_send_within, share.up, send)
        self.to = to
        self.header = header
        self.within = None if share is None else share.down
        self.names = 0


class _Spent(OSError):
    """There is no bandwidth left; to the association the system might as well have no room."""


def _send_within(
    spend: Callable[[int], bool], send: Callable[[Any, Any], int], payload: Any, to: Any
) -> int:
    """
    Send where there is a limit.

    Raises:
        OSError: It was not sent.
    """
    if not spend(len(payload)):
        raise _Spent
    return send(payload, to)


class _Waiting:
    """Datagrams that wait for one name."""

    __slots__ = ("found", "octets", "payloads")

    def __init__(self, found: Deferred[Granted | None]) -> None:
        self.found = found
        self.payloads: list[bytes] = []
        self.octets = 0


@implementer(IWatched)
class _Ear:
    """Hears of one socket of an association."""

    __slots__ = ("_association", "_read")

    def __init__(self, association: Association, read: Callable[[], None]) -> None:
        self._association = association
        self._read = read

    def hear(self, events: int) -> None:
        self._read()

    def fail(self, failure: Failure) -> None:
        self._association.fail(failure)


def associate(
    client: IEnd,
    expected: Destination,
    targets: ITargets,
    *,
    watching: Watching,
    clock: IReactorTime,
    idle: float,
    ports: range | None,
    reassemble: bool,
    unasked: bool,
    sources: Sequence[IPAddress] = (),
) -> IAssociation:
    """
    Make the relay of an association, with a socket at the address that *client* has connected to.

    Args:
        client: The end whose TCP connection it lives as long as.
        expected: Where datagrams will come from: an address, and a port or 0.
        targets: Says where they may go.
        watching: Watches the sockets.
        clock: For the idle time.
        idle: Seconds after which it ends when nothing was relayed.
        ports: Where the client may be told to send to; ``None``: anywhere.
        reassemble: Whether fragments are put together, or dropped.
        unasked: Whether *targets* is asked about who sends without having been
            sent to; else that is dropped.
        sources: The addresses to send to targets from, one of a family at
            most: to a family that has none, nothing is sent. Without any the
            system chooses.

    Raises:
        OSError: There is no socket or port to be had.
    """
    sock = _bound(_here(client.transport.getHost(), expected), ports)
    try:
        if expected.port:
            sock.connect((str(expected.host), expected.port))
        return Association(
            client,
            sock,
            expected,
            targets,
            watching=watching,
            clock=clock,
            idle=idle,
            reassemble=reassemble,
            unasked=unasked,
            sources=sources,
        )
    except BaseException:
        sock.close()
        raise


@implementer(IAssociation, ICarrier)
class Association:
    """
    Relay datagrams as long as a client's TCP connection lives.

    Its port belongs to the client's first datagram, unless it was expected to
    come from one port only. From then on the socket is connected to that, and
    the kernel drops what others send.

    Attributes:
        bound: Where the client is to send to.
        up: Octets of payload from the client so far.
        down: Octets of payload to the client so far.
    """

    def __init__(
        self,
        client: IEnd,
        sock: socket,
        expected: Destination,
        targets: ITargets,
        *,
        watching: Watching,
        clock: IReactorTime,
        idle: float,
        reassemble: bool,
        unasked: bool,
        sources: Sequence[IPAddress],
    ) -> None:
        self.up = 0
        self.down = 0
        host, port = sock.getsockname()[:2]
        self.bound = Destination(_address(host), port)
        self._client = client
        self._sock = sock
        self._expected = expected.host
        # As recvfrom(2) has it; None until it is known.
        self._peer: Any = sock.getpeername() if expected.port else None
        self._alone = False  # nothing is left to be read that a stranger may have sent
        self._judge = targets
        self._watching = watching
        self._clock = clock
        self._idle = idle
        self._now = self._moved = clock.seconds()
        self._reassemble = reassemble
        self._unasked = unasked
        self._fragments = Reassembly()
        self._own = {_family(source): source for source in sources}
        self._sockets: dict[int, socket] = {}  # towards targets, by family
        self._targets: OrderedDict[bytes, _Target | None] = OrderedDict()  # None: denied
        self._sources: dict[Any, _Target] = {}  # the same, by where answers come from
        self._waiting: dict[bytes, _Waiting] = {}
        self._queued = 0
        self._shares: dict[IBudget, IShare] = {}
        self._drops: Counter[Drop] = Counter()
        self._ended_by: EndedBy | None = None
        self._over = False
        self._deadline: IDelayedCall | None = None
        self._ended: Ended

    def join(self, early: bytes, ended: Ended) -> None:
        """Relay from now on; see :class:`~socksd.interfaces.IRelay`."""
        self._ended = ended
        self._deadline = self._clock.callLater(self._idle, self._look)
        self._watching.watch_reading(self._sock.fileno(), _Ear(self, self._from_client))
        # Else nobody would tell of a client that is gone while a target goes on sending.
        self._client.transport.setTcpKeepAlive(True)
        self._client.carried_by(self)

    def abort(self) -> None:
        """End now."""
        self._end(EndedBy.US)

    # -- what the TCP connection tells (ICarrier) ----------------------------

    def data_received(self, octets: bytes) -> None:
        """Do nothing: RFC 1928 has nothing more to be said on this connection."""

    def read_ended(self) -> None:
        """End in order: the client has ended the association (RFC 1928 section 6)."""
        self._hang_up()
        self._client.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        """The connection is gone, and all with it."""
        self._hang_up()
        broken = not reason.check(ConnectionDone)
        ended_by = self._ended_by or (EndedBy.CLIENT if broken else EndedBy.BOTH)
        self._drops[Drop.FRAGMENT] += self._fragments.abandoned + self._fragments.position
        self._judge.ended(+self._drops)
        self._ended(Tally(self.up, self.down, ended_by))

    # -- the end -------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """End by a bug, for whoever waits to report it."""
        if not self._over:
            self._hang_up()
            self._ended(failure)

    def _look(self) -> None:
        """See whether it is time to end; else come back when it may be."""
        self._deadline = None
        left = self._moved + self._idle - self._clock.seconds()
        if left > 0:
            self._deadline = self._clock.callLater(left, self._look)
        else:
            self._end(EndedBy.IDLE)

    def _end(self, cause: EndedBy) -> None:
        self._ended_by = self._ended_by or cause
        self._hang_up()
        self._client.transport.abortConnection()

    def _hang_up(self) -> None:
        """Close all sockets and wait for nothing any more."""
        if self._over:
            return
        self._over = True
        if self._deadline is not None:
            self._deadline.cancel()
        for sock in (self._sock, *self._sockets.values()):
            self._watching.forget(sock.fileno())
            sock.close()
        for waiting in tuple(self._waiting.values()):
            waiting.found.cancel()
        for share in self._shares.values():
            share.end()

    # -- from the client -----------------------------------------------------

    def _from_client(self) -> None:
        """Relay what the client has sent, up to a turn's share of it."""
        self._now = self._clock.seconds()
        if not self._alone:
            self._from_anybody()
            return
        receive, targets, use = self._sock.recv_into, self._targets, self._targets.move_to_end
        header, end, octets = b"", 0, 0  # of the last datagram, which is mostly the next one's, too
        for _ in range(_TURN):
            try:
                count = receive(_BUFFER)
            except BlockingIOError:
                break
            except OSError:  # ECONNREFUSED: what ICMP says of an earlier answer
                continue
            # What _take() does, for the many: no call costs as little as none.
            if not header or count < end or not _OCTETS.startswith(header):
                end = header_end(_OCTETS, count)
                header = bytes(_BUFFER[:end])
                target = targets.get(header)
                if target is None or self._fragments.position:
                    header = b""  # what is known of it may change by this
                    self._take(count)
                    continue
                use(header)
                send, to = target.send, target.to
            try:
                send(_BUFFER[end:count], to)
            except OSError as error:
                self._drops[_cause(error)] += 1
            else:
                octets += count - end
                self._moved = self._now
        self.up += octets

    def _from_anybody(self) -> None:
        """Do the same while what is read may be a stranger's."""
        for _ in range(_TURN):
            try:
                count, source = self._sock.recvfrom_into(_BUFFER)
            except BlockingIOError:
                # What came before the socket was connected has been read now.
                self._alone = self._peer is not None
                return
            except OSError:  # as above
                continue
            if self._peer is None:
                self._meet(source, count)
            elif source != self._peer:
                self._drops[Drop.STRANGER] += 1
            else:
                self._take(count)

    def _meet(self, source: Any, count: int) -> None:
        """Take the datagram that may be the client's first, which tells its port."""
        host, port = source[:2]
        if _address(host) != self._expected or not port:  # 0: connect(2) would take it for any
            self._drops[Drop.STRANGER] += 1
        elif not header_end(_OCTETS, count):
            self._drops[Drop.MALFORMED] += 1
        else:
            try:
                self._sock.connect(source)
            except OSError:  # no route back to where it came from
                self._drops[Drop.UNSENT] += 1
                return
            self._peer = source
            self._take(count)

    def _take(self, count: int) -> None:
        """Relay the client's datagram, *count* octets that are in the buffer."""
        end = header_end(_OCTETS, count)
        header = bytes(_BUFFER[:end])
        if header in self._targets:
            if self._fragments.position:
                self._fragments.abandon()
            self._send(header, _BUFFER[end:count])
        else:
            self._take_apart(header, bytes(_BUFFER[end:count]))

    def _take_apart(self, header: bytes, payload: bytes) -> None:
        """Relay a datagram whose header is none that is remembered."""
        try:
            taken = Header.take(header)
        except ProtocolError:
            self._drops[Drop.MALFORMED] += 1
            return
        if not taken.fragment:
            self._fragments.abandon()
            self._ask(header, taken.destination, payload)
        elif not self._reassemble:
            self._drops[Drop.FRAGMENT] += 1
        elif whole := self._fragments.take(header, payload, self._now):
            header, payload = whole
            if header in self._targets:
                self._send(header, payload)
            else:
                self._ask(header, taken.destination, payload)

    def _ask(self, header: bytes, destination: Destination, payload: bytes) -> None:
        """Have a target judged that is not remembered, and keep what is sent to it."""
        octets = len(payload) + _EACH
        waiting = self._waiting.get(header)
        if self._queued + octets > _QUEUE or (waiting is None and len(self._waiting) == _LOOKUPS):
            self._drops[Drop.CROWDED] += 1
            return
        is_new = waiting is None
        if waiting is None:
            found = self._judge.find(destination, self._reaches)
            waiting = self._waiting[header] = _Waiting(found)
        waiting.payloads.append(payload)
        waiting.octets += octets
        self._queued += octets
        if is_new:
            waiting.found.addCallback(self._found, header, destination.port)
            waiting.found.addErrback(self._not_found, header).addErrback(self.fail)

    def _found(self, granted: Granted | None, header: bytes, port: int) -> None:
        """Remember a target, or that it is denied, and send what has waited for it."""
        waiting = self._leave_queue(header)
        try:
            target = None if granted is None else self._target(granted, port)
        except OSError:  # EMFILE, or a kernel without IPv6
            self._drops[Drop.UNSENT] += len(waiting.payloads)
            return
        self._remember(header, target)
        for payload in waiting.payloads:
            self._send(header, payload)

    def _not_found(self, failure: Failure, header: bytes) -> None:
        """Drop what was sent to a name that leads nowhere; it may lead somewhere later."""
        failure.trap(Refused)
        self._drops[Drop.NOT_FOUND] += len(self._leave_queue(header).payloads)

    def _leave_queue(self, header: bytes) -> _Waiting:
        waiting = self._waiting.pop(header)
        self._queued -= waiting.octets
        return waiting

    def _target(self, granted: Granted, port: int) -> _Target:
        """Give the target at an address, with a socket that can send to it."""
        address = granted.address
        family = _family(address)
        sock = self._sockets.get(family)
        if sock is None:
            sock = self._sockets[family] = self._towards(family)
            ear = _Ear(self, lambda: self._from_targets(sock))
            self._watching.watch_reading(sock.fileno(), ear)
        to = _spelled(address, port)
        known = self._sources.get(to)
        if known is not None:
            return known
        header = Header(Destination(address, port)).encode()
        return _Target(sock.sendto, to, header, self._share(granted.budget))

    def _share(self, budget: IBudget | None) -> IShare | None:
        """Take part in a budget, once for all targets."""
        if budget is None:
            return None
        share = self._shares.get(budget)
        if share is None:
            share = self._shares[budget] = budget.share()
        return share

    def _remember(self, header: bytes, target: _Target | None) -> None:
        """Know a target from now on, and another one no more where there are too many."""
        if len(self._targets) == _TARGETS:
            _, old = self._targets.popitem(last=False)
            if old is not None:
                old.names -= 1
                if not old.names:
                    del self._sources[old.to]
        self._targets[header] = target
        if target is not None:
            target.names += 1
            self._sources[target.to] = target

    def _send(self, header: bytes, payload: bytes | memoryview) -> None:
        """Send to a target that is remembered by this header."""
        target = self._targets[header]
        self._targets.move_to_end(header)
        if target is None:
            self._drops[Drop.DENIED] += 1
            return
        try:
            target.send(payload, target.to)
        except OSError as error:  # too long, no route, no room: all the same to who sends
            self._drops[_cause(error)] += 1
        else:
            self.up += len(payload)
            self._moved = self._now

    def _reaches(self, address: IPAddress) -> bool:
        """Say whether there is a route to *address*: connecting for UDP asks no more than that."""
        try:
            with self._towards(_family(address)) as probe:
                probe.connect((str(address), 9))
        except OSError:
            return False
        return True

    def _towards(self, family: int) -> socket:
        """
        Open a socket that sends to targets of a family.

        Raises:
            OSError: There is none to be had, or no address to send from.
        """
        sock = _opened(family)
        try:
            if self._own:
                if family not in self._own:
                    # From another address it would get around what the sources are there for.
                    raise OSError(ENETUNREACH, "no source address of this family")
                sock.bind(_spelled(self._own[family], 0))
        except OSError:
            sock.close()
            raise
        return sock

    # -- from targets --------------------------------------------------------

    def _from_targets(self, sock: socket) -> None:
        """Relay what targets have answered, up to a turn's share of it."""
        self._now = self._clock.seconds()
        receive, sources, send = sock.recvfrom_into, self._sources, self._sock.send
        last, octets, begin, within = None, 0, 0, None  # whose header is in front already
        for _ in range(_TURN):
            try:
                count, source = receive(_PAYLOAD)
            except BlockingIOError:
                break
            except OSError:  # as above
                continue
            if source != last:
                target = sources.get(source) or self._let_in(source)
                if target is None:
                    self._drops[Drop.UNASKED] += 1
                    continue
                begin, within = _FRONT - len(target.header), target.within
                _OCTETS[begin:_FRONT] = target.header
                last = source
            if within is not None and not within(count):
                self._drops[Drop.LIMITED] += 1
                continue
            try:
                send(_BUFFER[begin : _FRONT + count])
            except OSError:
                self._drops[Drop.UNSENT] += 1
            else:
                octets += count
                self._moved = self._now
        self.down += octets

    def _let_in(self, source: Any) -> _Target | None:
        """Remember who sends without having been sent to, if that is permitted."""
        if not self._unasked:
            return None
        host, port = source[:2]
        address = _address(host)
        # Else an answer would not get there: a link-local address is one only with its link.
        if _spelled(address, port) != source:
            return None
        granted = self._judge.lets_in(Destination(address, port))
        if granted is None:
            return None
        target = self._target(granted, port)
        self._remember(target.header, target)
        return target


def _here(host: IAddress, expected: Destination) -> tuple[int, tuple[Any, ...]]:
    """Give the family and the address at which a client is to be served, with port 0."""
    text = getattr(host, "host", str(expected.host))  # a unix socket's client is on the loopback
    address = _address(text)
    if isinstance(address, IPv4Address):
        return AF_INET, (str(address), 0)
    return AF_INET6, (str(address), 0, 0, getattr(host, "scopeID", 0))


def _bound(here: tuple[int, tuple[Any, ...]], ports: range | None) -> socket:
    """
    Open a socket at an address, on one of *ports*.

    Raises:
        OSError: There is none, or all ports are in use.
    """
    family, (host, _, *more) = here
    sock = _opened(family)
    try:
        if ports is None:
            sock.bind((host, 0, *more))
            return sock
        begin = randbelow(len(ports))  # so that nobody knows the next one
        for port in (*ports[begin:], *ports[:begin]):
            try:
                sock.bind((host, port, *more))
            except OSError as error:
                if error.errno != EADDRINUSE:
                    raise
            else:
                return sock
        raise OSError(EADDRINUSE, f"all ports from {ports[0]} to {ports[-1]} are in use")
    except OSError:
        sock.close()
        raise


def _opened(family: int) -> socket:
    sock = socket(family, SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE)
    if family == AF_INET6:  # IPv4 has a socket of its own
        sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    return sock


def _spelled(address: IPAddress, port: int) -> Any:
    """Give an address as recvfrom(2) spells it, which str() does not always."""
    family = _family(address)
    host = inet_ntop(family, address.packed)
    return (host, port) if family == AF_INET else (host, port, 0, 0)


def _cause(error: OSError) -> Drop:
    return Drop.LIMITED if isinstance(error, _Spent) else Drop.UNSENT


def _family(address: IPAddress) -> int:
    return AF_INET if isinstance(address, IPv4Address) else AF_INET6


def _address(text: str) -> IPAddress:
    return unmapped(ip_address(text.partition("%")[0]))
