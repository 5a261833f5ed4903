"""The log for people, through twisted.logger."""

from __future__ import annotations

from collections import Counter
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from socksd.codes import ReplyCode
from socksd.events import (
    DatagramsDropped,
    DatagramTarget,
    Denied,
    Event,
    LoginRefused,
    SessionClosed,
    StrangerTurnedAway,
)
from socksd.observe import lines
from socksd.observe.batch import Batch
from socksd.observe.textlog import TextLog

_log = Logger("socksd")

LINES_A_SECOND: Final = 100  # of each kind
HINT_EVERY: Final = 60.0  # seconds

# The id under which the policy denies what no rule speaks of.
_NO_RULE = "default"


class PeopleLog:
    """
    Write one canonical line per session, and at once what cannot wait.

    Denials and failed logins are warnings in the fixed forms of
    :mod:`socksd.observe.lines`. The lines of sessions come, and are dated, up
    to a tenth of a second late; see :class:`~socksd.observe.batch.Batch`.

    Anybody who reaches the port can cause lines. Of each kind 100 a second
    are written; then one says how many more there were. Only the closing line
    of a session that reached its destination is always written: it is the
    record of what was visited, and costs the client a real connection. To
    send datagrams somewhere costs nothing, so those lines are not exempt.
    """

    hears = (
        DatagramsDropped,
        DatagramTarget,
        Denied,
        LoginRefused,
        SessionClosed,
        StrangerTurnedAway,
    )

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._sessions = Batch(clock, lines.session, TextLog().info)
        self._said: Counter[str] = Counter()  # lines of each kind in this second
        self._second: IDelayedCall | None = None  # ends this second
        self._hint_from = clock.seconds()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, SessionClosed):
            self._closed(event)
        elif isinstance(event, Denied):
            self._denied(event)
        elif isinstance(event, LoginRefused) and self._may_say("login failed"):
            _log.warn("{line}", line=lines.login_failed(event))
        elif isinstance(event, StrangerTurnedAway) and self._may_say("has turned away"):
            _log.info("{line}", line=lines.turned_away(event))
        elif isinstance(event, DatagramTarget):
            self._target(event)
        elif isinstance(event, DatagramsDropped) and self._may_say("datagrams dropped"):
            _log.info("{line}", line=lines.dropped(event))

    def close(self) -> None:
        """Say what there is left to say, and leave no delayed call behind."""
        if self._second is not None:
            self._second.cancel()
            self._second_over()
        self._sessions.flush()

    def _denied(self, event: Denied) -> None:
        if event.decision.log and self._may_say("denied"):
            _log.warn("{line}", line=lines.denied(event))
        if event.decision.rule == _NO_RULE and self._clock.seconds() >= self._hint_from:
            self._hint_from = self._clock.seconds() + HINT_EVERY
            _log.info("{line}", line=lines.hint(event.client))

    def _closed(self, event: SessionClosed) -> None:
        if not event.logged:
            return
        reached = event.reply is ReplyCode.SUCCEEDED
        if reached or self._may_say(f"session outcome={event.outcome}"):
            self._sessions.add(event)

    def _target(self, event: DatagramTarget) -> None:
        if event.decision.log and self._may_say("udp"):
            _log.info("{line}", line=lines.target(event))

    def _may_say(self, kind: str) -> bool:
        if self._second is None:
            self._second = self._clock.callLater(1.0, self._second_over)
        self._said[kind] += 1
        return self._said[kind] <= LINES_A_SECOND

    def _second_over(self) -> None:
        self._second = None
        for kind, count in self._said.items():
            if count > LINES_A_SECOND:
                more = count - LINES_A_SECOND
                _log.warn("suppressed {more} more lines: {kind}", more=more, kind=kind)
        self._said.clear()
