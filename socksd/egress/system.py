"""Names by the system's resolver: its hosts file, its search domains, its caches."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from socksd.codes import ReplyCode
from socksd.egress.lookup import Answer, ILookup, NoSuchName
from socksd.errors import Refused

TTL = 60.0  # seconds; getaddrinfo(3) keeps the true one to itself

# A lookup that nobody answers holds its thread for 5 s and more (10 s by
# glibc's default with one name server, 30 s with three), also after the client
# has left. So the pool has to be larger than the number of names that hang at
# a time. A waiting thread costs some 100 KiB, and is made when first needed.
THREADS = 128

_NO_SUCH_NAME = {socket.EAI_NONAME, socket.EAI_NODATA}
_REASONS = {
    socket.EAI_AGAIN: "no name server answered",  # nor does one that says SERVFAIL
    socket.EAI_FAIL: "name server failure",
}


class LookupThreads(ThreadPool):
    """
    Threads of their own for getaddrinfo(3), none of them until there is a name.

    The reactor's ten would all be held by ten dead names, and with them all
    else that needs a thread. Daemons, for a process that is told to stop cannot
    wait half a minute for a name server.
    """

    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]  # as it calls it

    def __init__(self, most: int = THREADS) -> None:
        super().__init__(0, most, "socksd-resolve")


@implementer(ILookup)
class SystemResolver:
    """
    Ask getaddrinfo(3), in threads.

    Args:
        threads: Ours from now on: started here and stopped by stop().
        ttl: For how many seconds an answer is good.
        getaddrinfo: For tests.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        threads: ThreadPool,
        ttl: float = TTL,
        getaddrinfo: Any = socket.getaddrinfo,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._ttl = ttl
        self._getaddrinfo = getaddrinfo
        # Not the pool's own queue: from that one, nothing can be taken back.
        self._turns = DeferredSemaphore(threads.max)
        self._stopped = False
        threads.start()

    def lookup(self, name: str) -> Deferred[Answer]:
        """Ask once a thread is free; see ILookup."""
        return Deferred.fromCoroutine(self._lookup(name))

    def stop(self) -> None:
        """Refuse all further questions; threads end with their lookups."""
        self._stopped = True
        # stop() would join them, and so block the reactor behind a dead name.
        self._threads.threads.clear()
        self._threads.stop()

    async def _lookup(self, name: str) -> Answer:
        await self._turns.acquire()
        answered: Deferred[list[Any]] = Deferred()
        try:
            self._ask(name, answered)
        except BaseException:
            self._turns.release()
            raise
        try:
            entries = await answered
        except socket.gaierror as error:
            raise _refusal(error.errno or 0) from error
        except OSError as error:  # EAI_SYSTEM: ours, not the name's
            reason = f"cannot look names up: {errno.errorcode.get(error.errno or 0, error)}"
            raise Refused(ReplyCode.GENERAL_FAILURE, reason) from error
        # A link-local address with its scope identifier means something on one
        # interface only: no rule can speak of it (see socksd.address).
        found = [
            ip_address(where[0])
            for family, _, _, _, where in entries
            if family == socket.AF_INET or where[3] == 0
        ]
        if not found:
            raise Refused(ReplyCode.HOST_UNREACHABLE, "the name has no usable address")
        return Answer(found, self._ttl)

    def _ask(self, name: str, answered: Deferred[list[Any]]) -> None:
        if self._stopped:  # a stopped pool drops what it is given
            raise Refused(ReplyCode.GENERAL_FAILURE, "names are no longer looked up: stopping")

        def in_thread(found: bool, result: Any) -> None:
            tell = answered.callback if found else answered.errback
            self._reactor.callFromThread(self._done, tell, result)

        try:
            self._threads.callInThreadWithCallback(
                in_thread,
                self._getaddrinfo,
                # As octets: a str would go through Python's IDNA codec, which
                # refuses names that are none of its business.
                name.encode("ascii"),
                None,
                type=socket.SOCK_STREAM,
                # No AI_ADDRCONFIG: on a host whose only IPv6 address is ::1 it
                # hides ::1. An address without a route fails at once and costs
                # nothing; getaddrinfo sorts it last anyway (RFC 6724).
            )
        except RuntimeError as error:  # can't start new thread
            reason = "cannot look names up: no thread to be had"
            raise Refused(ReplyCode.GENERAL_FAILURE, reason) from error

    def _done(self, tell: Callable[[Any], None], result: Any) -> None:
        """Called in the reactor's thread, also when nobody waits any more."""
        self._turns.release()
        tell(result)


def _refusal(code: int) -> Refused:
    """Tell what getaddrinfo(3) has said, an EAI_ code."""
    if code in _NO_SUCH_NAME:
        return NoSuchName()
    reason = _REASONS.get(code, f"the name lookup failed (EAI {code})")
    return Refused(ReplyCode.HOST_UNREACHABLE, reason)
