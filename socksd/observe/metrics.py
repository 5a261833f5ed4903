"""
Counts and times of what happens, as plain numbers.

Nothing here knows Prometheus: a session costs some additions, and a scrape
asks for all of it as values (:mod:`socksd.observe.exposition` writes them).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from socksd.codes import COMMANDS, Command, ReplyCode
from socksd.events import (
    Connected,
    ConnectFailed,
    Event,
    LoggedIn,
    LoginRefused,
    Outcome,
    RequestReceived,
    Resolved,
    ResolveFailed,
    SessionClosed,
)
from socksd.interfaces import IRelay

# Upper ends of what times are sorted into, in seconds: from a cached name to a deadline.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_EVERY: Final = 1.0  # seconds

# How a session ends that never got as far as a request.
HANDSHAKE_FAILURES: Final = (
    Outcome.LOGIN_FAILED,
    Outcome.NO_METHOD,
    Outcome.PROTOCOL_ERROR,
    Outcome.TIMED_OUT,
)

Labels = tuple[str, ...]


class Kind(StrEnum):
    """What may be done with a number."""

    COUNTER = "counter"  # only grows; its name ends in _total where it is written
    GAUGE = "gauge"
    HISTOGRAM = "histogram"  # its values are Distribution


class Together(StrEnum):
    """What the numbers of several processes are together."""

    SUM = "sum"
    GREATEST = "greatest"
    APART = "apart"  # each by itself, with a label that says whose it is


@dataclass(frozen=True, slots=True)
class Distribution:
    """
    How many times were how long.

    Attributes:
        counts: For each of BOUNDS those that were at most so long, and longer
            than the one before; last those that were longer than all.
        sum: All of them together, in seconds.
    """

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Family:
    """
    Numbers that go by one name.

    Attributes:
        labels: What tells them apart;
        values: and each by its labels' values.
        together: What becomes of it where there are workers; histograms and
            counters are added, or stand apart.
    """

    kind: Kind
    name: str
    help: str
    values: Mapping[Labels, float | Distribution]
    labels: Labels = ()
    together: Together = Together.SUM


class Times:
    """Sorts seconds into BOUNDS."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def now(self) -> Distribution:
        """Give what was counted so far."""
        return Distribution(tuple(self._counts), self._sum)


class Metrics:
    """
    Count what sessions tell.

    Whatever there is to count has a place from the beginning, of which there
    are some fifty: no client can make more.

    Attributes:
        up: Octets from clients to targets, in sessions that have ended,
        down: and octets from targets to clients.
        relays: How many have begun, by their class; who makes them counts them.
        hears: What counts each kind of event; of others it is not told.
        lag: How late the reactor was with what it had to do, see ReactorLag.
    """

    def __init__(self) -> None:
        self.up = self.down = 0
        self.lag = Times()
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._logged_in = self._refused = 0
        self._requests = {(c, by_name): 0 for c in Command for by_name in (True, False)}
        self._resolved, self._not_resolved = Times(), Times()
        self._connected, self._not_connected = Times(), Times()
        self._failures = dict.fromkeys(ReplyCode, 0)
        self.relays: Counter[type[IRelay]] = Counter()
        self.hears: Mapping[type[Event], Callable[..., None]] = {
            LoggedIn: self._login_right,
            LoginRefused: self._login_wrong,
            RequestReceived: self._request,
            Resolved: lambda event: self._resolved.add(event.seconds),
            ResolveFailed: lambda event: self._not_resolved.add(event.seconds),
            Connected: lambda event: self._connected.add(event.seconds),
            ConnectFailed: self._connect_failed,
            SessionClosed: self._closed,
        }

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        self.hears[type(event)](event)

    def families(self) -> Iterator[Family]:
        """Give all that was counted, as it is now."""
        yield Family(
            Kind.COUNTER,
            "socksd_sessions_closed",
            "Sessions that have ended, by how.",
            {(outcome.value,): count for outcome, count in self._outcomes.items()},
            ("outcome",),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_handshake_failures",
            "Sessions that ended before there was a request, by why.",
            {(cause.value,): self._outcomes[cause] for cause in HANDSHAKE_FAILURES},
            ("cause",),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_logins",
            "User names and passwords, by whether they were right.",
            {("right",): self._logged_in, ("wrong",): self._refused},
            ("result",),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_requests",
            "Requests, by whether they had a name or an address: what has one leaks its lookups.",
            {
                (COMMANDS[command], "name" if by_name else "address"): count
                for (command, by_name), count in self._requests.items()
            },
            ("command", "host"),
        )
        yield Family(
            Kind.HISTOGRAM,
            "socksd_resolve_seconds",
            "How long looking names up has taken.",
            {("found",): self._resolved.now(), ("failed",): self._not_resolved.now()},
            ("result",),
        )
        yield Family(
            Kind.HISTOGRAM,
            "socksd_connect_seconds",
            "How long connecting to destinations has taken.",
            {("connected",): self._connected.now(), ("failed",): self._not_connected.now()},
            ("result",),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_connect_failures",
            "Destinations that could not be connected to, by what the client was told.",
            {(code.name.lower(),): count for code, count in self._failures.items() if code},
            ("reply",),
        )
        yield Family(
            Kind.COUNTER,
            "socksd_relays",
            "Relays begun, by their kind.",
            {(kind.__name__.lower(),): count for kind, count in self.relays.items()},
            ("kind",),
        )
        yield Family(
            Kind.HISTOGRAM,
            "socksd_reactor_lag_seconds",
            "How late the reactor was with a call that is due each second.",
            {(): self.lag.now()},
        )

    def _login_right(self, _: LoggedIn) -> None:
        self._logged_in += 1

    def _login_wrong(self, _: LoginRefused) -> None:
        self._refused += 1

    def _request(self, event: RequestReceived) -> None:
        self._requests[event.command, isinstance(event.destination.host, str)] += 1

    def _connect_failed(self, event: ConnectFailed) -> None:
        self._failures[event.reply] += 1
        self._not_connected.add(event.seconds)

    def _closed(self, event: SessionClosed) -> None:
        self._outcomes[event.outcome] += 1
        self.up += event.up
        self.down += event.down


class ReactorLag:
    """Ask the reactor for a call each second, and measure how late it comes."""

    def __init__(self, clock: IReactorTime, times: Times) -> None:
        self._clock = clock
        self._times = times
        self._due = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.seconds() + LAG_EVERY
        self._call = self._clock.callLater(LAG_EVERY, self._measure)

    def stop(self) -> None:
        """Measure no more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _measure(self) -> None:
        self._times.add(max(0.0, self._clock.seconds() - self._due))
        self.start()
