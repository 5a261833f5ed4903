from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from socksd.codes import ReplyCode
from socksd.egress.lookup import Answer, ILookup, NoSuchName
from socksd.egress.system import TTL, LookupThreads, SystemResolver
from socksd.errors import Refused
from tests.fakes import outcome

STREAM, TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP


def v4(address: str) -> tuple[Any, ...]:
    return (socket.AF_INET, STREAM, TCP, "", (address, 0))


def v6(address: str, scope: int = 0) -> tuple[Any, ...]:
    return (socket.AF_INET6, STREAM, TCP, "", (address, 0, 0, scope))


class FakeThreads:
    """A pool whose threads run when the test says so."""

    def __init__(self, most: int = 2) -> None:
        self.max = most
        self.threads = [object()]
        self.jobs: list[Callable[[], None]] = []
        self.started = False
        self.stopped_with: list[object] | None = None
        self.exhausted = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped_with = list(self.threads)

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], call: Callable[..., Any], *args: Any, **kw: Any
    ) -> None:
        if self.exhausted:
            raise RuntimeError("can't start new thread")

        def run() -> None:
            try:
                result = call(*args, **kw)
            except OSError:
                done(False, Failure())
            else:
                done(True, result)

        self.jobs.append(run)


class FakeMainThread:
    def callFromThread(self, call: Callable[..., None], *args: Any) -> None:
        call(*args)


class FakeNames:
    """getaddrinfo(3)."""

    def __init__(self, *entries: tuple[Any, ...], error: OSError | None = None) -> None:
        self.entries = list(entries)
        self.error = error
        self.asked: list[tuple[Any, Any, Any]] = []

    def __call__(self, host: bytes, port: None, **kw: Any) -> list[tuple[Any, ...]]:
        self.asked.append((host, port, kw))
        if self.error:
            raise self.error
        return self.entries


def system(names: FakeNames, most: int = 2) -> tuple[FakeThreads, SystemResolver]:
    threads = FakeThreads(most)
    return threads, SystemResolver(FakeMainThread(), threads, getaddrinfo=names)  # type: ignore[arg-type]  # fakes


def failure_of(asked: Deferred[Answer]) -> Refused:
    with pytest.raises(Refused) as raised:
        outcome(asked)
    return raised.value


def test_it_is_a_lookup() -> None:
    assert verifyObject(ILookup, system(FakeNames())[1])


def test_addresses_come_in_the_order_of_the_system() -> None:
    """It has sorted them by what this host can reach (RFC 6724)."""
    names = FakeNames(v6("2001:db8::1"), v4("192.0.2.1"), v6("2001:db8::2"))
    threads, resolver = system(names)
    asked = resolver.lookup("web.example")
    threads.jobs.pop()()
    found = outcome(asked)
    assert list(map(str, found.addresses)) == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
    assert found.ttl == TTL


@pytest.mark.parametrize("name", ["under_score.example", "-dash.example", "x" * 63 + ".example"])
def test_a_name_is_asked_as_it_stands(name: str) -> None:
    """No IDNA codec in between, no port, each address once, and all families."""
    names = FakeNames(v4("192.0.2.1"))
    threads, resolver = system(names)
    resolver.lookup(name)
    threads.jobs.pop()()
    assert names.asked == [(name.encode(), None, {"type": STREAM})]


def test_a_scoped_address_is_no_address() -> None:
    """fe80::1%eth0 means something on one interface: no rule can speak of it."""
    names = FakeNames(v6("fe80::1%2", scope=2), v4("192.0.2.1"))
    threads, resolver = system(names)
    asked = resolver.lookup("printer")
    threads.jobs.pop()()
    assert list(map(str, outcome(asked).addresses)) == ["192.0.2.1"]
    del names.entries[1]
    asked = resolver.lookup("printer")
    threads.jobs.pop()()
    assert failure_of(asked).reply is ReplyCode.HOST_UNREACHABLE


@pytest.mark.parametrize(
    ("error", "reply", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), 4, "no such name"),
        (socket.gaierror(socket.EAI_NODATA, ""), 4, "no such name"),
        (socket.gaierror(socket.EAI_AGAIN, ""), 4, "no name server answered"),
        (socket.gaierror(socket.EAI_FAIL, ""), 4, "name server failure"),
        (socket.gaierror(socket.EAI_MEMORY, ""), 4, "the name lookup failed (EAI -10)"),
        (OSError(errno.EMFILE, ""), 1, "cannot look names up: EMFILE"),
    ],
)
def test_a_failure_says_what_kind_it_is(error: OSError, reply: int, reason: str) -> None:
    threads, resolver = system(FakeNames(error=error))
    asked = resolver.lookup("web.example")
    threads.jobs.pop()()
    refused = failure_of(asked)
    assert (refused.reply, refused.reason) == (reply, reason)
    assert isinstance(refused, NoSuchName) == (reason == "no such name")


def test_no_more_lookups_than_threads_at_a_time() -> None:
    threads, resolver = system(FakeNames(v4("192.0.2.1")), most=2)
    asked = [resolver.lookup(name) for name in "abc"]
    assert len(threads.jobs) == 2
    threads.jobs.pop(0)()
    assert len(threads.jobs) == 2
    for job in threads.jobs:
        job()
    assert all(outcome(deferred).addresses for deferred in asked)


def test_who_leaves_the_queue_is_never_asked_for() -> None:
    names = FakeNames(v4("192.0.2.1"))
    threads, resolver = system(names, most=1)
    resolver.lookup("a")
    leaving, staying = resolver.lookup("b"), resolver.lookup("c")
    leaving.cancel()
    with pytest.raises(CancelledError):
        outcome(leaving)
    for _ in range(2):
        threads.jobs.pop()()
    assert outcome(staying).addresses
    assert [host for host, _, _ in names.asked] == [b"a", b"c"]


@pytest.mark.parametrize("error", [None, socket.gaierror(socket.EAI_AGAIN, "")])
def test_a_cancelled_lookup_keeps_its_thread_until_it_ends(error: OSError | None) -> None:
    """Nothing stops getaddrinfo(3), so the next must not count on that thread."""
    threads, resolver = system(FakeNames(v4("192.0.2.1"), error=error), most=1)
    leaving = resolver.lookup("a")
    leaving.cancel()
    with pytest.raises(CancelledError):
        outcome(leaving)
    resolver.lookup("b").addErrback(lambda _: None)
    assert len(threads.jobs) == 1
    threads.jobs.pop()()
    assert len(threads.jobs) == 1
    threads.jobs.pop()()


def test_no_thread_to_be_had_refuses_this_one_only() -> None:
    threads, resolver = system(FakeNames(v4("192.0.2.1")), most=1)
    threads.exhausted = True
    assert failure_of(resolver.lookup("a")).reply is ReplyCode.GENERAL_FAILURE
    threads.exhausted = False
    asked = resolver.lookup("a")
    threads.jobs.pop()()
    assert outcome(asked).addresses


def test_after_stop_a_question_is_refused_rather_than_lost() -> None:
    threads, resolver = system(FakeNames(v4("192.0.2.1")), most=1)
    assert threads.started
    running, waiting = resolver.lookup("a"), resolver.lookup("b")
    resolver.stop()
    assert threads.stopped_with == [], "a thread that hangs would be waited for"
    threads.jobs.pop()()
    assert outcome(running).addresses
    assert failure_of(waiting).reply is ReplyCode.GENERAL_FAILURE
    assert failure_of(resolver.lookup("c")).reply is ReplyCode.GENERAL_FAILURE


@pytest_twisted.ensureDeferred
async def test_sixty_names_that_hang_do_not_stop_a_good_one() -> None:
    """In real threads, none of which are there before the first name."""
    released = threading.Event()

    def getaddrinfo(host: bytes, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if host.startswith(b"hanging"):
            released.wait(10)
        return [v4("192.0.2.1")]

    def ours() -> int:
        return sum("socksd-resolve" in thread.name for thread in threading.enumerate())

    resolver = SystemResolver(real_reactor, LookupThreads(), getaddrinfo=getaddrinfo)  # type: ignore[arg-type]  # the reactor is a module to mypy
    assert ours() == 0
    try:
        hanging = [resolver.lookup(f"hanging{number}") for number in range(60)]
        assert (await resolver.lookup("good")).addresses
        assert not any(deferred.called for deferred in hanging)
        assert all(
            thread.daemon for thread in threading.enumerate() if "socksd-resolve" in thread.name
        )
    finally:
        resolver.stop()  # does not wait for them
        released.set()
    await gatherResults(hanging)
