"""What the control socket answers, and to what."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

import socksd
from socksd.admin.routes import BadBody, Body, Routes, Unable, only
from socksd.app import asked
from socksd.app.judge import fate
from socksd.app.live import denial, killed, listing, talkers
from socksd.app.measures import Measures
from socksd.app.reload import Reloader
from socksd.app.service import Gateway, written
from socksd.app.shown import shown
from socksd.observe import samples
from socksd.observe.counters import RuleCounters
from socksd.observe.leaks import Leaks
from socksd.observe.metrics import Family
from socksd.observe.process import process
from socksd.observe.traffic import Denials, Traffic
from socksd.server.states import State

_log = Logger("socksd")

# What decides without being a rule of the configuration, and what it does.
UNWRITTEN: Final = (("guard", "deny"), ("default", "deny"), ("why", "allow"))
LONGEST_TRIAL: Final = 24 * 3600.0  # seconds
LONGEST_DRAIN: Final = 720 * 3600.0  # as [server] drain


class Answers:
    """
    Says how the service is doing.

    Everything it gives is what JSON can say; times are seconds since the epoch.
    """

    def __init__(
        self,
        gateway: Gateway,
        reloader: Reloader,
        counters: RuleCounters,
        leaks: Leaks,
        traffic: Traffic,
        denials: Denials,
        measures: Measures,
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        self._gateway = gateway
        self._reloader = reloader
        self._counters = counters
        self._leaks = leaks
        self._traffic = traffic
        self._denials = denials
        self._measures = measures
        self._clock = clock
        self._in_thread = in_thread
        self._explaining = DeferredLock()  # one at a time: each may take a CPU for a while
        self._started = time.time()

    def routes(self) -> Routes:
        """Give all that can be asked."""
        return {
            ("GET", "/v1/status"): self.status,
            ("GET", "/v1/rules"): self.rules,
            ("GET", "/v1/leaks"): self.leaks,
            ("GET", "/v1/sessions"): self.sessions,
            ("GET", "/v1/config"): self.config,
            ("GET", "/v1/talkers"): self.talkers,
            ("GET", "/v1/traffic"): self.traffic,
            ("GET", "/v1/denials"): self.denials,
            ("GET", "/v1/samples"): self.samples,
            ("POST", "/v1/explain"): self.explain,
            ("POST", "/v1/kill"): self.kill,
            ("POST", "/v1/reload"): self.reload,
            ("POST", "/v1/confirm"): self.confirm,
            ("POST", "/v1/restart-workers"): self.restart_workers,
            ("POST", "/v1/drain"): self.drain,
        }

    def status(self, _: Body) -> dict[str, Any]:
        """Say what runs, since when, and by which configuration."""
        gateway, reloader = self._gateway, self._reloader
        sessions = len(gateway.sessions)
        return {
            "version": socksd.__version__,
            "pid": os.getpid(),
            "started": self._started,
            **loaded(reloader),
            **listening(gateway),
            "sessions": sessions,
            "older_sessions": sessions - gateway.sessions.keep(gateway.generation.runtime),
        }

    def rules(self, _: Body) -> dict[str, Any]:
        """Say what each rule has decided, in the order of the configuration."""
        now_open = Counter(
            session.decision.rule
            for session in self._gateway.sessions
            if session.decision is not None and session.state is State.RELAYING
        )
        rules = []
        for rule, action in (*self._gateway.generation.rules, *UNWRITTEN):
            hits = self._counters.hits[rule]
            rules.append(
                {
                    "id": rule,
                    "action": action,
                    "hits": hits.count,
                    "open": now_open[rule],
                    "outcomes": dict(hits.outcomes),
                    "last": hits.last,
                    "since": hits.since,
                }
            )
        return {"rules": rules}

    def leaks(self, body: Body) -> dict[str, Any]:
        """
        Say which clients send addresses where they could send names.

        With ``{"all": 1}`` those that do not are there as well.
        """
        only(body, "all")
        clients = self._leaks.everybody() if "all" in body else self._leaks
        return {
            "clients": len(self._leaks),
            "leaks": [
                {
                    "client": str(client),
                    "user": user,
                    "addresses": asked.addresses,
                    "names": asked.names,
                    "since": asked.since,
                    "last": asked.last,
                    "top": [
                        {"destination": str(destination), "count": count}
                        for destination, count in _descending(asked.top.items())
                    ],
                }
                for (client, user), asked in clients
            ],
        }

    def sessions(self, body: Body) -> dict[str, Any]:
        """List live sessions; see :func:`socksd.app.live.listing`."""
        return listing(self._gateway.sessions, body, self._clock.seconds())

    def talkers(self, body: Body) -> dict[str, Any]:
        """Say who talks to whom; see :func:`socksd.app.live.talkers`."""
        only(body, "limit")
        return {"talkers": talkers(self._gateway.sessions, body)}

    def traffic(self, body: Body) -> dict[str, Any]:
        """Give the octets a second of the last hour, the oldest first."""
        only(body)
        self._watched()
        return {"rates": [rate._asdict() for rate in self._traffic.rates()]}

    def denials(self, body: Body) -> dict[str, Any]:
        """
        Give the last refusals, the latest first, and how many there were so far.

        With ``{"after": COUNT}`` only those that have come since there were so many.
        """
        only(body, "after")
        self._watched()
        count, last = self._denials.count, self._denials.last()
        if "after" in body:
            last = last[: max(0, count - _count("after", body["after"]))]
        return {"count": count, "denials": [denial(each) for each in last]}

    def samples(self, body: Body) -> Deferred[dict[str, Any]]:
        """Give the numbers that a scrape shows, as :func:`socksd.observe.samples.said` does."""
        only(body)
        if not self._gateway.generation.config.metrics.endpoint:
            raise Unable("this is counted for Prometheus only, and [metrics] endpoint is not set")
        families, rules = self._measures(), list(self._counters.hits)
        # In a thread: of a process it lists the descriptors, and there may be many.
        found: Deferred[list[Family]] = self._in_thread(lambda: [*families, *process()])
        return found.addCallback(lambda found: {"families": samples.said(found), "rules": rules})

    def _watched(self) -> None:
        if not self._gateway.generation.config.dashboard.endpoint:
            raise Unable("this is kept for the dashboard only, and [dashboard] endpoint is not set")

    def kill(self, body: Body) -> dict[str, Any]:
        """End live sessions; see :func:`socksd.app.live.chosen`."""
        count = killed(self._gateway.sessions, body)
        which = ", ".join(f"{key}={value}" for key, value in body.items())
        _log.warn("{count} sessions ended by hand: {which}", count=count, which=which)
        return {"killed": count}

    def config(self, _: Body) -> dict[str, Any]:
        """Give the configuration file as it was loaded, as JSON."""
        return {"path": self._reloader.path, "config": shown(self._reloader.text)}

    def explain(self, body: Body) -> Deferred[dict[str, Any]]:
        """
        Explain a request by the policy in force; see :func:`socksd.app.asked.answer`.

        In a thread: of a thousand rules the nearest change takes a while to find.
        """
        config = self._gateway.generation.config
        return self._explaining.run(self._in_thread, asked.answer, config, body)

    def reload(self, body: Body) -> Deferred[dict[str, Any]]:
        """Load the configuration again; see :func:`trial_of`."""
        done = self._reloader.reload(trial_of(body))
        return done.addCallback(reloaded, self._gateway, self._reloader)

    def confirm(self, body: Body) -> dict[str, Any]:
        """Keep the configuration that is on trial."""
        only(body)
        self._reloader.confirm()
        return {}

    def restart_workers(self, body: Body) -> dict[str, Any]:
        """Refuse: a process that answers by itself has no workers."""
        only(body)
        raise Unable("the service is a single process: it has no workers")

    def drain(self, body: Body) -> dict[str, Any]:
        """Stop as SIGTERM does; see :func:`drain`."""
        return drain(body, self._gateway, len(self._gateway.sessions))


def loaded(reloader: Reloader) -> dict[str, Any]:
    """Say of /v1/status by which configuration it runs, and since when."""
    return {
        "config": reloader.path,
        "loaded": reloader.loaded,
        "reloads": reloader.reloads,
        "failed_reloads": reloader.failed,
        "unconfirmed_until": reloader.unconfirmed_until,
        "rolled_back": reloader.rolled_back,
    }


def listening(gateway: Gateway) -> dict[str, Any]:
    """Say of /v1/status where it listens, and for how long it still does."""
    return {
        "draining_until": gateway.draining_until,
        "listeners": [
            {"name": each.factory.listener, "address": written(each.port.getHost())}
            for each in gateway.listeners
        ],
    }


def trial_of(body: Body) -> float | None:
    """
    Give how many seconds a configuration is taken on trial for: ``{"confirm": SECONDS}``.

    Raises:
        BadBody: It does not say what it should.
    """
    only(body, "confirm")
    return _seconds(body, "confirm", 1, LONGEST_TRIAL)


def reloaded(refused: int, gateway: Gateway, reloader: Reloader) -> dict[str, Any]:
    """Say what a reload has done: *refused* live sessions would be."""
    fate_of_refused = fate(gateway.generation.config.reload.refused_sessions)
    return {
        "refused_sessions": {"count": refused, "fate": fate_of_refused},
        "unconfirmed_until": reloader.unconfirmed_until,
    }


def drain(body: Body, gateway: Gateway, sessions: int) -> dict[str, Any]:
    """
    Stop as SIGTERM does; ``{"seconds": N}`` instead of ``[server] drain``.

    Raises:
        BadBody: It does not say what it should.
        Unable: It is under way already, and has its time.
    """
    only(body, "seconds")
    seconds = _seconds(body, "seconds", 0, LONGEST_DRAIN)
    if seconds is not None and gateway.draining_until is not None:
        raise Unable("it is draining already; another SIGTERM ends it at once")
    if gateway.draining_until is None:
        _log.info("told to drain over the control socket")
    gateway.drain(seconds)
    return {"sessions": sessions, "draining_until": gateway.draining_until}


def _count(key: str, value: object) -> int:
    try:
        count = int(value) if isinstance(value, str | int) else -1
    except ValueError:
        count = -1
    if count < 0:
        raise BadBody(f"{key} is a number, 0 or more")
    return count


def _seconds(body: Body, key: str, least: float, most: float) -> float | None:
    """
    Read a time; ``None`` where there is none.

    Raises:
        BadBody: It is something else.
    """
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise BadBody(f"{key} is a number of seconds, {least:g} to {most:g}")


def _descending(items: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
    return sorted(items, key=lambda item: -item[1])
