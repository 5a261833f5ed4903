"""
The relay for Linux: two sockets, taken from their transports, on a switchboard.

Chatter is received, and sent at the end of the turn. What is more than a read
takes is bulk, and waits for its turn: splice(2) moves it through a
pipe, which is lent for as long as octets are in it. Where no pipe is to be
had, the shared buffer does: octets are peeked at, sent, and then dropped from
the socket, as many as were taken.

So an idle line is two descriptors and no buffer. What a reader that is too
slow leaves here is one read of chatter, or one pipe, or nothing; and all of
them together hold ``_CROWDED`` octets in memory and ``Pipes`` pipes.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from os import SPLICE_F_MOVE, SPLICE_F_NONBLOCK, splice
from select import EPOLLERR, EPOLLOUT
from socket import (
    IPPROTO_TCP,
    MSG_PEEK,
    MSG_TRUNC,
    SHUT_WR,
    SO_ERROR,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_NOTSENT_LOWAT,
    SocketType,
)
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.interfaces import Ended, EndedBy, IActing, ICarrier, IEnd, IRelay, IWatched, Tally
from socksd.relay.pipes import SIZE, Pipe
from socksd.relay.switchboard import Switchboard
from socksd.relay.switched import HUNG, READABLE, Switched
from socksd.relay.throttle import Budget, Throttle

_BUFFER = memoryview(bytearray(256 << 10))  # nothing in it outlives the call that has put it there
_CHATTER = 16 << 10  # one read; as much as that is taken for bulk
_BULK = 64 << 10  # what a share has to move for its direction to stay bulk

# With so many octets in memory, reads leave where they are what cannot be sent.
_CROWDED = 8 << 20

_SPLICE = SPLICE_F_NONBLOCK | SPLICE_F_MOVE
_NO_SPLICE = {errno.EINVAL, errno.ENOSYS, errno.EPERM}  # a sandbox that forbids it

_ABORTED = Failure(ConnectionAborted())


@implementer(IRelay)
class Line:
    """
    Carry octets between two ends whose transports are plain sockets.

    The transports are parked: the reactor knows nothing of their sockets until
    they are closed, by ``connectionLost``, as the reactor would do it.

    Args:
        idle: Seconds after which a relay that is open both ways ends when
            nothing has moved in either direction.
        linger: The same once one direction has ended.

    Attributes:
        moved: When some octets last did.
        over: Ended; nothing is left to be done.
    """

    __slots__ = (
        "_board",
        "_carried",
        "_client",
        "_ended",
        "_idle",
        "_linger",
        "_target",
        "moved",
        "over",
    )

    def __init__(
        self, board: Switchboard, client: IEnd, target: IEnd, idle: float, linger: float
    ) -> None:
        self._board = board
        self._idle = idle
        self._linger = linger
        self._client = self._side(client, EndedBy.CLIENT)
        self._target = self._side(target, EndedBy.TARGET)
        self._client.other = self._target
        self._target.other = self._client
        self._ended: Ended
        self._carried = (0, 0)  # in the end
        self.moved = 0.0
        self.over = False

    def _side(self, end: IEnd, name: EndedBy) -> _Side:
        return _Side(end, name, self, self._board)

    @property
    def up(self) -> int:
        """Octets from the client so far."""
        return self._carried[0] if self.over else self._client.octets

    @property
    def down(self) -> int:
        """Octets from the target so far."""
        return self._carried[1] if self.over else self._target.octets

    def join(self, early: bytes, ended: Ended) -> None:
        """Take both ends over; see :class:`~socksd.interfaces.IRelay`."""
        self._ended = ended
        self.moved = self._board.seconds()
        self._board.add(self, self.moved + self._idle)
        if early:
            self._client.data_received(early)
        client, target = self._client, self._target
        client.take_over()
        target.take_over()
        if client.transport is not None:
            client.park()
        if target.transport is not None:
            target.park()
        client.begin()
        target.begin()

    def abort(self) -> None:
        """Reset both connections now."""
        self.close(EndedBy.US)

    def look(self, now: float) -> float:
        """End a relay in which nothing moves; give the time to look again."""
        if self.over:  # by another's end, in the same walk
            return now + self._idle
        half_closed = self._client.ended or self._target.ended
        due = self.moved + (self._linger if half_closed else self._idle)
        if due <= now:
            self.close(EndedBy.LINGER if half_closed else EndedBy.IDLE)
        return due

    # -- what its sides tell -------------------------------------------------

    def read_ended(self) -> None:
        """From now on it is the linger time that counts."""
        self.moved = self._board.now
        self._board.due(self.moved + self._linger)

    def finished(self) -> None:
        """Both sides have been sent FIN, or will be by closing: the relay is over."""
        self.close(EndedBy.BOTH)

    def close(self, cause: EndedBy) -> None:
        """Close both connections, the first time."""
        if not self.over:
            ended = self._hang_up(cause)
            ended(Tally(*self._carried, cause))

    def fail(self, failure: Failure) -> None:
        """End by a bug, for whoever waits to report it."""
        if self.over:
            log.err(failure)
            return
        ended = self._hang_up(EndedBy.US)
        ended(failure)

    def _hang_up(self, cause: EndedBy) -> Ended:
        sides = self._client, self._target
        self._carried = sides[0].octets, sides[1].octets
        self.over = True
        self._board.remove(self)
        for side in sides:
            # Who has been sent FIN may still have octets to come, in the
            # kernel: a reset would take them away. But who sends on has to
            # learn that it is for nothing, unless all it does is linger.
            side.close(in_order=side.finished and (side.ended or cause is EndedBy.LINGER))
        # Leave no cycles: the collector's walk over 10,000 tunnels is a pause of 0.1 s.
        ended = self._ended
        del self._client, self._target, self._ended
        for side in sides:
            del side.end, side.other
        return ended


@implementer(ICarrier, IWatched, IActing, IPullProducer)
class _Side:
    """
    One of the two sockets, and what is under way from it to the other.

    Attributes:
        octets: How many have arrived here.
        readable: There may be something to read, FIN and errors included.
        writable: There may be room to write to.
        hung: The peer has sent FIN, or worse: to be read on for until it shows.
        kept: Octets from here that the other could not take, in memory.
        piped: How many of them are in the pipe.
        bulk: More has come at once than chatter would.
        queued: Bulk that waits for its turn.
        ended: FIN has been read.
        finished: FIN has been sent, behind all that the other had to say.
        gone: The connection is lost.
        acts: At the end of this turn it passes on what it has kept, or FIN.
        unsent: What its socket may take ahead of what it sends; 0 is up to the kernel.
    """

    __slots__ = (
        "_board",
        "_draining",
        "_line",
        "_pipe",
        "_true",
        "acts",
        "bulk",
        "descriptor",
        "end",
        "ended",
        "finished",
        "gone",
        "hung",
        "kept",
        "name",
        "octets",
        "other",
        "piped",
        "queued",
        "readable",
        "sock",
        "transport",
        "unsent",
        "writable",
    )

    other: _Side

    def __init__(self, end: IEnd, name: EndedBy, line: Line, board: Switchboard) -> None:
        self._line = line
        self._board = board
        self._draining = False
        self._true = 0  # what the transport knew of the socket
        self._pipe: Pipe | None = None
        self.end = end
        self.name = name
        self.transport: Connection | None = None  # of an end that is more than a socket
        self.sock: SocketType
        self.descriptor = -1
        self.octets = 0
        self.unsent = 0
        self.readable = self.writable = self.hung = False
        self.kept = b""
        self.piped = 0
        self.bulk = self.queued = self.acts = False
        self.ended = self.finished = self.gone = False

    # -- from the transport to the switchboard, and back ---------------------

    def data_received(self, octets: bytes) -> None:
        """Take what had arrived before us."""
        self.octets += len(octets)
        self._keep(octets)

    def read_ended(self) -> None:
        """Hear of a FIN before us; the socket tells of it again."""

    def lost(self, reason: Failure) -> None:
        """Hear that the connection is gone: by us, or by someone's abortConnection()."""
        self.gone = True
        self._line.close(self.name)

    def take_over(self) -> None:
        """Hear what happens to the end; or to its socket, where that is all it has."""
        end: Any = self.end
        if end.bare:
            self.sock, self._true, unsent = end.taken_over(self)
            self.descriptor = self.sock.fileno()
            if unsent:
                self.other.send_first(unsent)
        else:
            self.transport = end.transport
            self.sock = end.transport.getHandle()
            end.carried_by(self)

    def park(self) -> None:
        """Take the socket out of the reactor, once all has left that was written before."""
        transport = self.transport
        if transport is None or self.gone:
            return
        transport.stopReading()
        # Nobody but these two tells whether all of it has left already.
        if not transport.dataBuffer and not transport._tempDataBuffer:
            self._plug_in()
            return
        # As a pull producer we are asked for more when it has.
        transport.registerProducer(self, False)
        self._draining = True
        if transport.doWrite() is not None:
            # A reset; told once, it will look like FIN from now on.
            self._line.close(self.name)

    def resumeProducing(self) -> None:
        """All that was written before has left: from now on the socket is ours."""
        if self._draining and self.transport is not None:  # registering asks once, too
            self._draining = False
            self.transport.unregisterProducer()
            self._plug_in()
            self.begin()

    def begin(self) -> None:
        """Carry what is there already, once both sides are parked."""
        if self._true and not self._line.over:
            self.hear(self._true)

    def _plug_in(self) -> None:
        self.descriptor = self.sock.fileno()
        if isinstance(self.transport, Switched):
            self._true = self.transport.taken_over(self)
            return
        with suppress(OSError):  # a unix socket
            # What has come in pieces is passed on in pieces: to wait for more
            # (Nagle) would add the far side's delayed ACK to each.
            self.sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._board.watch(self.descriptor, self)

    def stopProducing(self) -> None:
        """Do nothing: lost() will be told."""

    def close(self, *, in_order: bool) -> None:
        """Give back what we hold, and let the transport close the socket; or reset it."""
        self._board.kept -= len(self.kept)
        self.kept = b""
        if self._pipe is not None:
            self._board.pipes.discard(self._pipe)
            self._pipe = None
        reason = connectionDone if in_order else _ABORTED
        descriptor, self.descriptor = self.descriptor, -1
        if self.transport is None:
            if not self.gone:
                bare: Any = self.end
                bare.hang_up(reason)
            return
        if descriptor != -1 and not isinstance(self.transport, Switched):  # which does so itself
            self._board.forget(descriptor)
        if not self.gone:
            self.transport.connectionLost(reason)

    # -- what the switchboard tells (IWatched) -------------------------------

    def hear(self, events: int) -> None:
        """Carry what can be carried now, both ways."""
        if events & READABLE:
            self.readable = True
            if events & HUNG:
                self.hung = True
            self._carry()
        if events & EPOLLOUT:
            self.writable = True
            if self._line.over:  # by what has been read just now
                return
            other = self.other
            if other.readable or other.kept or other.piped:
                other._carry()
        if events & EPOLLERR:
            self._break()

    def _break(self) -> None:
        """End by an error, but not before what has come with it was passed on."""
        while self.acts and not self._line.over:
            self.act()
        # It may be known already: then SO_ERROR tells nothing.
        if not self._line.over and self.sock.getsockopt(SOL_SOCKET, SO_ERROR) != 0:
            self._line.close(self.name)

    def fail(self, failure: Failure) -> None:
        """End the line by a bug of ours."""
        self._line.fail(failure)

    # -- from this side to the other -----------------------------------------

    def send_first(self, octets: bytes) -> None:
        """Send what is none of the octets that are carried."""
        self._keep(octets)
        self.acts = True
        self._board.at_end(self)

    def act(self) -> None:
        """Pass on what has come in this turn."""
        if not self.acts or self._line.over:
            return
        self.acts = False
        if self.ended:
            self._read_ended()
        elif self._flush() and self.readable:
            self._carry()

    def _carry(self) -> None:
        """
        Pass on what waits here, and read chatter, to be passed on at the end of the turn.

        Bulk has to wait for its turn.
        """
        other = self.other
        if not other.writable or self._line.over or self.queued or self.acts:
            return
        if (self.kept or self.piped) and not self._flush():
            return
        if not self.readable or self.ended:
            return
        if self.bulk or self._board.kept > _CROWDED:
            self.queued = True
            self._board.haul(self)
            return
        board = self._board
        try:
            self.kept = octets = self.sock.recv(_CHATTER)
        except BlockingIOError:
            self.readable = False
            return
        except OSError:
            self._line.close(self.name)
            return
        count = len(octets)
        if count == 0:
            self.ended = True
        else:
            self.octets += count
            board.kept += count
            self._line.moved = board.now
            if count == _CHATTER:
                self.bulk = True
            elif not self.hung:
                # That was all. What comes now is told anew; what has hung up
                # was told, and FIN may be what comes next.
                self.readable = False
                if board.alone:
                    self._flush()
                    return
        self.acts = True
        board.at_end(self)

    def haul(self, share: int) -> int:
        """Move about *share* octets of bulk; give how many it was."""
        self.queued = False
        if self._line.over:
            return 0
        if self.other.unsent != self._board.unsent:
            self.other.leave_unsent(self._board.unsent)
        before = self.octets
        # A pipe is for bulk: chatter is here when memory is crowded.
        pipe = self._board.pipes.take() if self.bulk else None
        if pipe is None:
            self._copy(share, len(_BUFFER))
        else:
            self._splice(share, SIZE, pipe)
        moved = self.octets - before
        if self._line.over:
            return moved
        self.bulk = moved >= _BULK
        if moved:
            self._line.moved = self._board.now
        if self.readable and self.other.writable:
            self.queued = True
            self._board.haul(self)
        return moved

    def leave_unsent(self, most: int) -> None:
        """Have the socket take no more than *most* octets ahead of what it sends; 0: any."""
        self.unsent = most
        with suppress(OSError):  # a unix socket, whose buffer is small
            self.sock.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, most)

    def _splice(self, share: int, most: int, pipe: Pipe) -> None:
        """Move octets through a pipe, which is empty; *most* at once."""
        self._pipe = pipe
        ended = False
        while share > 0:
            try:
                # Into an empty pipe: so it is the socket that would block.
                count = splice(self.descriptor, pipe.into, most, flags=_SPLICE)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    self._line.close(self.name)
                    return
                self._board.pipes.close()
                break
            if count == 0:
                ended = True
                break
            self.octets += count
            share -= count
            self.piped = count
            if not self._drain():
                return
        self._give_back()
        if ended:
            self._read_ended()

    def _copy(self, share: int, most: int) -> None:
        """Move octets through memory, *most* at once, and leave none there."""
        other = self.other
        while share > 0 and self.readable and other.writable:
            try:
                count = self.sock.recv_into(_BUFFER, most, MSG_PEEK)
            except BlockingIOError:
                self.readable = False
                return
            except OSError:
                self._line.close(self.name)
                return
            if count == 0:
                self._read_ended()
                return
            try:
                sent = other.sock.send(_BUFFER[:count])
            except BlockingIOError:
                other.writable = False
                return
            except OSError:
                self._line.close(other.name)
                return
            # What was peeked at is there: this only drops it, with TCP without
            # a copy (tcp(7)).
            self.sock.recv_into(_BUFFER, sent, MSG_TRUNC)
            self.octets += sent
            share -= sent
            if sent < count:
                other.writable = False
            elif count < most and not self.hung:
                self.readable = False

    def _keep(self, octets: bytes | memoryview) -> None:
        self.kept += octets
        self._board.kept += len(octets)

    def _flush(self) -> bool:
        """Pass on what waits here; tell whether all of it has left."""
        if self.piped:
            if not self._drain():
                return False
            self._give_back()
        kept = self.kept
        if kept:
            try:
                sent = self.other.sock.send(kept)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._line.close(self.other.name)
                return False
            if sent:
                self._line.moved = self._board.now
            self.kept = kept[sent:]
            self._board.kept -= sent
            if self.kept:
                self.other.writable = False
                return False
        return True

    def _drain(self) -> bool:
        """Pass on what is in the pipe; tell whether all of it has left."""
        assert self._pipe is not None
        try:
            while self.piped:
                sent = splice(self._pipe.out, self.other.descriptor, self.piped, flags=_SPLICE)
                self.piped -= sent
                self._line.moved = self._board.now
        except BlockingIOError:
            self.other.writable = False
            return False
        except OSError:
            self._line.close(self.other.name)
            return False
        return True

    def _give_back(self) -> None:
        """Give the pipe back, which is empty."""
        assert self._pipe is not None
        self._board.pipes.give(self._pipe)
        self._pipe = None

    def _read_ended(self) -> None:
        """Pass FIN on; as nothing is read while something waits, it is the next to leave."""
        self.ended = True
        self.readable = False
        other = self.other
        if self.finished:  # both are done, and closing sends FIN
            other.finished = True
            self._line.finished()
            return
        self._line.read_ended()
        try:
            other.sock.shutdown(SHUT_WR)
        except OSError:  # ENOTCONN: it was reset
            self._line.close(other.name)
        else:
            other.finished = True


class ThrottledLine(Line):
    """
    A line that moves no more than a budget allows.

    Args:
        budget: Of the client's user; other relays may draw on it as well.
    """

    __slots__ = ("_budget",)

    _client: _ThrottledSide
    _target: _ThrottledSide

    def __init__(
        self,
        board: Switchboard,
        client: IEnd,
        target: IEnd,
        idle: float,
        linger: float,
        budget: Budget,
    ) -> None:
        self._budget = budget
        super().__init__(board, client, target, idle, linger)

    def _side(self, end: IEnd, name: EndedBy) -> _ThrottledSide:
        throttle = self._budget.up if name is EndedBy.CLIENT else self._budget.down
        return _ThrottledSide(end, name, self, self._board, throttle)

    def join(self, early: bytes, ended: Ended) -> None:
        """Take both ends over; see :class:`~socksd.interfaces.IRelay`."""
        super().join(early, self._budget.drawn_on(ended))

    def look(self, now: float) -> float:
        """See :meth:`Line.look`; what waits for its turn is not idle."""
        if self._client.waits or self._target.waits:
            self.moved = now
        return super().look(now)


class _ThrottledSide(_Side):
    """
    A side that moves all that comes by hauls, each as much as there is to spend.

    Attributes:
        waits: It has something to move, and nothing to spend.
    """

    __slots__ = ("_granted", "_throttle", "waits")

    def __init__(
        self, end: IEnd, name: EndedBy, line: Line, board: Switchboard, throttle: Throttle
    ) -> None:
        super().__init__(end, name, line, board)
        self._throttle = throttle
        self._granted = 0
        self.waits = False

    def data_received(self, octets: bytes) -> None:
        """Take what had arrived before us; it counts."""
        self._throttle.spend(len(octets))
        super().data_received(octets)

    def _carry(self) -> None:
        """Pass on what waits here; all that is to come is taken for bulk."""
        if not self.other.writable or self._line.over or self.queued or not self._flush():
            return
        if self.readable and not self.ended:
            self.queued = True
            self._board.haul(self)

    def haul(self, share: int) -> int:
        """Move what may be moved; or wait, queued as before."""
        octets, self._granted = self._granted or self._throttle.take(share), 0
        if not octets and not self._line.over:
            self.waits = True
            self._throttle.wait(self)
            return 0
        moved = super().haul(min(octets, share))
        self._throttle.spend(moved - octets)
        return moved

    # Once, for a share is what is enough and not what is too much.

    def _splice(self, share: int, most: int, pipe: Pipe) -> None:
        super()._splice(1, min(share, most), pipe)

    def _copy(self, share: int, most: int) -> None:
        super()._copy(1, min(share, most))

    def granted(self, octets: int) -> None:
        """Move so many in the next turn of the reactor."""
        self.waits = False
        self._granted = octets
        self._board.haul_soon(self)

    def close(self, *, in_order: bool) -> None:
        """Wait no more, and close as ever."""
        self._throttle.leave(self)
        super().close(in_order=in_order)
