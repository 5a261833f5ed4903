"""
Threads for what a login costs, taken in turns.

A bcrypt verification takes tens of milliseconds of one core. Whoever sends
wrong passwords as fast as they can must not make others wait: each source has
a queue of its own, the queues are served in rotation, and one source alone
never occupies all of the threads.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from socksd.address import IPAddress
from socksd.errors import LoginFailed
from socksd.identity.patience import GivenUp, within

T = TypeVar("T")

Source = IPAddress | IPv6Network

# At 57 ms each, what a queue can hold takes longer than any client waits: the
# bounds are for memory, and the deadlines of the sessions empty the queues.
WAITING_PER_SOURCE = 256
WAITING_IN_ALL = 4096

_PATIENCE = 3.0  # seconds for what the threads are at when they are to stop


def source_of(client: IPAddress) -> Source:
    """Give what takes turns: an IPv4 address, or the /64 that one IPv6 host may have whole."""
    if isinstance(client, IPv6Address):
        return IPv6Network((client, 64), strict=False)
    return client


@dataclass(slots=True, eq=False, repr=False)  # a repr would show what *work* holds
class _Job:
    """Work, and whose turn it waits for."""

    source: Source
    work: Callable[[], Any]
    done: Deferred[Any]


class _Thread(Thread):
    """One that the process does not wait for at its end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named, daemon=True)


class _Pool(ThreadPool):
    threadFactory = _Thread


class LoginThreads:
    """
    A small thread pool with a fair queue before it.

    Belongs to the service: start() after daemonising, stop() with the service.
    Several authenticators may share it, as they do across a reload.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        threads: int | None = None,
        *,
        pool: Callable[..., ThreadPool] = _Pool,
    ) -> None:
        """
        Prepare; no thread runs before start().

        Args:
            reactor: Where the results are delivered.
            threads: How many verify at once; ``None`` is one per CPU, up to 4.
            pool: Makes the thread pool, anew at each start().
        """
        self._reactor = reactor
        self._threads = threads or min(4, os.cpu_count() or 1)
        # One thread stays free for the others; with a single one it is a matter of turns.
        self._share = max(1, self._threads - 1)
        self._make_pool = pool
        self._pool: ThreadPool | None = None
        self._waiting: OrderedDict[Source, deque[_Job]] = OrderedDict()
        self._running: Counter[Source] = Counter()

    def start(self) -> None:
        """Accept work."""
        self._pool = self._make_pool(minthreads=0, maxthreads=self._threads, name="login")
        self._pool.start()

    def stop(self) -> None:
        """
        Fail all that wait, and join the threads when the work in hand is done.

        Work that hangs is left alone: with a file system that has gone, the
        very reload that does without it would not come to its end.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        waiting = [job for queue in self._waiting.values() for job in queue]
        self._waiting.clear()
        for job in waiting:
            job.done.errback(LoginFailed("the service is stopping"))
        with suppress(GivenUp):
            within(_PATIENCE, f"login threads {id(pool)}", pool.stop)

    def run(self, client: IPAddress, work: Callable[[], T]) -> Deferred[T]:
        """
        Call *work* in a thread once it is the turn of *client*.

        Fails with what *work* raises, or at once with LoginFailed when too
        many wait already or the service is not running. Cancelling takes work
        that has not begun out of the queue; work that has runs to its end and
        nobody hears of it.
        """
        if self._pool is None:
            return fail(LoginFailed("the service is not running"))
        source = source_of(client)
        if len(self._waiting.get(source, ())) >= WAITING_PER_SOURCE:
            return fail(LoginFailed(f"too many logins waiting from {source}"))
        if sum(map(len, self._waiting.values())) >= WAITING_IN_ALL:
            return fail(LoginFailed("too many logins waiting"))
        done: Deferred[T] = Deferred(lambda _: self._leave(job))
        job = _Job(source, work, done)
        self._waiting.setdefault(source, deque()).append(job)
        self._begin()
        return done

    def _leave(self, job: _Job) -> None:
        queue = self._waiting.get(job.source, deque())
        if job in queue:  # else it has begun
            queue.remove(job)
            if not queue:
                del self._waiting[job.source]

    def _begin(self) -> None:
        """Hand work to the threads while both are there."""
        while self._pool is not None and self._running.total() < self._threads:
            source = next((s for s in self._waiting if self._running[s] < self._share), None)
            if source is None:
                return
            queue = self._waiting[source]
            job = queue.popleft()
            if queue:
                self._waiting.move_to_end(source)
            else:
                del self._waiting[source]
            self._running[source] += 1
            deferToThreadPool(self._reactor, self._pool, job.work).addBoth(self._ended, job)

    def _ended(self, result: Any, job: _Job) -> None:
        self._running[job.source] -= 1
        if not self._running[job.source]:
            del self._running[job.source]
        self._begin()
        if job.done.called:
            return  # cancelled; Twisted ignores the late result only where there is no canceller
        if isinstance(result, Failure):
            job.done.errback(result)
        else:
            job.done.callback(result)
