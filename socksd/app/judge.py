"""What a reload means for the sessions that began before it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from socksd.app.service import Gateway
from socksd.codes import COMMANDS, Command
from socksd.facts import Decision, Verdict
from socksd.observe import lines
from socksd.server.session import Session
from socksd.server.states import State
from socksd.server.why import DESTINATION as WHY

_log = Logger("socksd")

LISTED: Final = 20  # sessions named in the log; the others are counted


class Judge:
    """
    Find the live sessions that the policy in force would refuse, and cut them if so configured.

    A session that is still on its way when the policy changes is judged again
    once it must have arrived, unless such sessions are kept anyway.
    """

    def __init__(self, gateway: Gateway, clock: IReactorTime) -> None:
        self._gateway = gateway
        self._clock = clock
        self._due: set[IDelayedCall] = set()

    def look(self) -> int:
        """Judge every session that began under another policy; give how many would be refused."""
        generation = self._gateway.generation
        older = [s for s in self._gateway.sessions if s.runtime is not generation.runtime]
        refused = list(self._refused(older))
        seconds = generation.config.reload.refused_sessions
        self._say(refused, fate(seconds))
        if seconds is None:
            return len(refused)
        if seconds and refused:
            self._later(seconds, {session.number for session, _ in refused})
        else:
            self._cut(refused)
        on_their_way = {s.number for s in older if s.state not in (State.RELAYING, State.CLOSING)}
        if on_their_way:
            deadlines = max(
                s.runtime.deadlines.handshake
                + s.runtime.deadlines.resolve
                + s.runtime.deadlines.connect
                for s in older
            )
            self._later(max(seconds, deadlines), on_their_way)
        return len(refused)

    def stop(self) -> None:
        """Cut nobody any more."""
        due, self._due = self._due, set()
        for call in due:
            call.cancel()

    def _later(self, seconds: float, numbers: Collection[int]) -> None:
        """Cut those of these sessions that are then still there, and still refused."""

        def now() -> None:
            self._due.discard(call)
            if self._gateway.generation.config.reload.refused_sessions is not None:
                self._cut(self._refused(s for s in self._gateway.sessions if s.number in numbers))

        call = self._clock.callLater(seconds, now)
        self._due.add(call)

    def _refused(self, sessions: Iterable[Session]) -> Iterator[tuple[Session, Decision]]:
        policy = self._gateway.generation.runtime.policy
        for session in sessions:
            request = session.request
            if request is None or request.destination == WHY or session.state is State.CLOSING:
                continue
            associating = request.command is Command.UDP_ASSOCIATE  # which has no destination
            destination = None if associating else request.destination
            facts = session.facts.asking(request.command, destination)
            if session.address is not None:
                facts = facts.at(session.address)
            decision = policy.decide(facts)
            if decision.verdict is Verdict.DENY:
                yield session, decision

    def _say(self, refused: Collection[tuple[Session, Decision]], what_happens: str) -> None:
        for session, decision in list(refused)[:LISTED]:
            assert session.request is not None  # or it would not have been judged
            user = session.facts.principal.name if session.facts.principal else None
            _log.warn(
                "would now be refused: session {number} client={client} user={user}"
                " {command} {destination} rule={rule} ({fate})",
                number=session.number,
                client=session.facts.client,
                user=lines.word(user),
                command=COMMANDS[session.request.command],
                destination=session.request.destination,
                rule=lines.word(decision.rule),
                fate=what_happens,
            )
        if len(refused) > LISTED:
            _log.warn(
                "would now be refused: {more} more sessions ({fate})",
                more=len(refused) - LISTED,
                fate=what_happens,
            )

    def _cut(self, refused: Iterable[tuple[Session, Decision]]) -> None:
        for session, decision in refused:
            session.stop(f"refused by rule {decision.rule} since a reload")


def fate(seconds: float | None) -> str:
    """Say what becomes of sessions that would be refused."""
    if seconds is None:
        return "kept"
    return f"cut in {seconds:g} s" if seconds else "cut"
