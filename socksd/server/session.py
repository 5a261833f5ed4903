"""One client's life, from its first octet to its last."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination, IPAddress
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import LoginFailed, ProtocolError, Refused, TimedOut
from socksd.events import (
    Asked,
    Decided,
    Denied,
    Event,
    LoggedIn,
    LoginRefused,
    Outcome,
    RequestReceived,
    SessionClosed,
    SessionOpened,
)
from socksd.facts import ANONYMOUS, Decision, Facts, Principal, Verdict
from socksd.interfaces import EndedBy, ICarrier, IEnd, IRelay, Tally
from socksd.server.associate import associate
from socksd.server.bind import bind
from socksd.server.connect import connect
from socksd.server.dialogue import IDialogue
from socksd.server.ends import End
from socksd.server.protected import Protected
from socksd.server.runtime import Runtime
from socksd.server.states import DEADLINE, SAME, STEPS, State
from socksd.server.waiting import Waiting
from socksd.wire import socks4
from socksd.wire.guess import wrong_version
from socksd.wire.socks5 import Request

T = TypeVar("T")

_log = Logger("socksd")

# What carries out which command, besides CONNECT.
_COMMANDS: dict[Command, Callable[[Session, Request], Coroutine[Any, Any, None]]] = {
    Command.BIND: bind,
    Command.UDP_ASSOCIATE: associate,
}

# What a relay's end means for the session: its outcome, and a clause for the log.
_RELAYED = {
    EndedBy.BOTH: (Outcome.SERVED, ""),
    EndedBy.CLIENT: (Outcome.RESET, "the client's connection broke"),
    EndedBy.TARGET: (Outcome.RESET, "the target's connection broke"),
    EndedBy.IDLE: (Outcome.IDLE, "nothing moved for the idle time"),
    EndedBy.LINGER: (Outcome.IDLE, "half-closed, and nothing moved for the linger time"),
    EndedBy.US: (Outcome.STOPPED, "the service has stopped"),
}


@implementer(ICarrier)
class Session:
    """
    One client's life.

    The first carrier of the client's end: it has the client's first octet say
    which protocol this is, lets the dialogue hear what arrives, and hands the
    end to a relay when there is one.

    Attributes:
        dialogue: Speaks the client's protocol; ``None`` before its first octet
            and once a relay carries.
        facts: What is known of the client; the request adds to them.
        decision: The last decision that stands.
        address: The address that was dialled, once it has answered.
        protocol: Which one the client speaks, by its name in the configuration;
            ``None`` before its first octet, and if that is of none.
        judged: Where the name has led: what the log lists of it.
        unlisted: How many addresses the log leaves out.
        overdue: Nobody has answered in time: the deadline of the state has
            passed, or that of what it waited for.
    """

    __slots__ = (
        "_asked",
        "_forget",
        "_monotonic",
        "_outcome",
        "_paused",
        "_relay",
        "_reply",
        "_task",
        "_waiting",
        "address",
        "client_port",
        "decision",
        "dialogue",
        "end",
        "facts",
        "judged",
        "number",
        "overdue",
        "protocol",
        "request",
        "runtime",
        "state",
        "unlisted",
    )

    def __init__(
        self,
        number: int,
        end: IEnd,
        runtime: Runtime,
        facts: Facts,
        client_port: int,
        forget: Callable[[Session], None],
        waited: float = 0.0,
    ) -> None:
        """
        Begin with a client that has just connected, or *waited* seconds ago.

        *forget* is called at the very end.
        """
        self.number = number
        self.end = end
        self.runtime = runtime
        self.facts = facts
        self.client_port = client_port
        self.state = State.OPEN
        self.dialogue: IDialogue | None = None
        self.protocol: str | None = None
        self.request: Request | None = None
        self.decision: Decision | None = None
        self.address: IPAddress | None = None
        self.judged: tuple[IPAddress, ...] = ()
        self.unlisted = 0
        self._asked: Facts | None = None  # what the policy has decided about last
        self._forget = forget
        self._monotonic = runtime.clock.seconds()
        self._outcome: tuple[Outcome, str] | None = None
        self._reply: ReplyCode | None = None
        self._task: Deferred[Any] | None = None
        self._relay: IRelay | None = None
        self.overdue = False
        self._paused = False
        self._waiting: Waiting | None = runtime.waiting["handshake"]
        if waited:  # for a header or TLS: it has less time than others, and waits alone
            self._waiting = Waiting(runtime.clock, runtime.deadlines.handshake - waited)
        self._waiting.add(self)
        if SessionOpened in runtime.hears:
            self.tell(SessionOpened(number, facts.client, client_port, facts.listener))

    # -- what the client's end tells us (ICarrier) ---------------------------

    def data_received(self, octets: bytes) -> None:
        """Take octets of the dialogue, or early payload behind it."""
        if self.state is State.CLOSING:
            return  # read on only to hear FIN: closing on unread octets would reset
        dialogue = self.dialogue or self._opened(octets[0])
        if dialogue is None:
            return
        dialogue.receive(octets)
        if dialogue.clients_turn:
            try:
                dialogue.advance()
            except ProtocolError as error:
                self._broken(error)
        # Not paused at the first early octet: a paused transport hears neither
        # FIN nor RST, and who has left would still cost a lookup and a connect.
        elif len(dialogue.unread) > self.runtime.early_data and not self._paused:
            self._paused = True
            self.end.transport.pauseProducing()

    def read_ended(self) -> None:
        """
        Hear that the client sends no more.

        With early payload waiting that is a half-close, and the relay will
        pass it on. With none, a client that waits for a name or a connection
        cannot be told from one that has left: most such have left.
        """
        if self.state is State.CLOSING:
            self.end.transport.loseConnection()
        elif self.dialogue is None or self.dialogue.clients_turn or not self.dialogue.unread:
            self._left()
            self.enter(State.CLOSING)
            self.end.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        """Hear that the connection is gone, before a relay had it; ProtocolError: TLS never was."""
        if self._outcome is None and isinstance(reason.value, ProtocolError):
            self._outcome = (Outcome.PROTOCOL_ERROR, str(reason.value))
        self._left()
        self._close()

    # -- what can be seen of it ----------------------------------------------

    @property
    def begun(self) -> float:
        """When it began, by the clock of its Runtime."""
        return self._monotonic

    @property
    def carried(self) -> tuple[int, int]:
        """How many octets have gone up and down so far."""
        relay = self._relay
        return (relay.up, relay.down) if relay is not None else (0, 0)

    # -- what the commands do ------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the observer."""
        self.runtime.observer(event)

    def enter(self, state: State) -> None:
        """Go on to *state*, under its deadline."""
        try:
            deadline = STEPS[self.state][state]
        except KeyError:
            raise RuntimeError(f"no way from {self.state.name} to {state.name}") from None
        self.state = state
        if deadline is not SAME:
            if self._waiting is not None:
                self._waiting.remove(self)
            self._waiting = waiting = self.runtime.waiting[deadline] if deadline else None
            if waiting is not None:
                waiting.add(self)

    def ask(self, facts: Facts) -> Decision:
        """Ask the policy."""
        self.decision = decision = self.runtime.policy.decide(facts)
        self._asked = facts
        if Decided in self.runtime.hears:
            self.tell(Decided(self.number, decision, facts.address))
        return decision

    async def outcome_of(self, running: Deferred[Any]) -> Any:
        """
        Wait for *running* under the deadline of the state.

        Raises:
            Refused: HOST_UNREACHABLE at the deadline, as peers answer; the
                other candidate, TTL expired, is an ICMP message that says
                something else. Or what *running* failed with.
        """
        try:
            return await running
        except CancelledError:
            raise self._given_up() from None

    def wait_for(self, running: Deferred[T]) -> Deferred[T]:
        """Have *running* cancelled when the client leaves, or the deadline of the state passes."""
        self._task = running
        return running

    def refusal(self, failure: Failure) -> Failure:
        """Give what *failure* of something that was waited for means; see outcome_of()."""
        return Failure(self._given_up()) if failure.check(CancelledError) else failure

    def _given_up(self) -> Refused:
        if self.overdue:
            seconds = getattr(self.runtime.deadlines, DEADLINE[self.state] or "")
            return Refused(ReplyCode.HOST_UNREACHABLE, f"no answer within {seconds:g} s")
        return Refused(ReplyCode.HOST_UNREACHABLE, "the client has left")

    def relay(self, target: End, bound: Destination) -> None:
        """Tell the client that *target* has answered, and carry until both have ended."""
        runtime, limits = self.runtime, self.decision.limits if self.decision else ""
        assert self.dialogue is not None  # it has asked
        ends = self.dialogue.ends(target)
        relay = runtime.limited[limits](self.facts, *ends) if limits else runtime.relay(*ends)
        self.carry(relay, bound, target)

    def carry(
        self, relay: IRelay, bound: Destination | None = None, target: End | None = None
    ) -> None:
        """
        Tell the client that it is connected, and let *relay* carry until it ends.

        Not a coroutine: the command's frames, kept for the whole life of a
        tunnel, would be a fifth of the memory that one takes.
        """
        dialogue = self.dialogue
        assert dialogue is not None  # nobody else asks for anything
        dialogue.granted(bound)
        self._reply = ReplyCode.SUCCEEDED
        self.enter(State.RELAYING)
        self._relay = relay
        early = bytes(dialogue.unread)
        self.dialogue = None
        if self._paused:
            self.end.transport.resumeProducing()
        self._task = None  # nothing is left of it to cancel
        relay.join(early, partial(self._relayed, target))

    def listening(self, bound: Destination) -> None:
        """Tell the client where its peer is to connect; it will be told once more."""
        assert self.dialogue is not None  # nobody else asks for anything
        self.dialogue.granted(bound)

    def stop(self, reason: str = "the service has stopped") -> None:
        """End at once, for a reason of ours."""
        self._outcome = self._outcome or (Outcome.STOPPED, reason)
        if self._relay is not None:
            self._relay.abort()
        else:
            self.end.transport.abortConnection()

    # -- what the dialogue asks for ------------------------------------------

    def methods(self) -> Sequence[Method]:
        """Name the methods of authentication that would do for this client, the best first."""
        acceptable = self.runtime.authenticator.methods(self.facts.client)
        if self.facts.certificate is None:
            return acceptable
        return (Method.NO_AUTHENTICATION, *acceptable)  # it has shown who it is

    def anonymous(self) -> None:
        """Take the client as one without login, or as whom its certificate says."""
        if self.facts.certificate is None:
            self.facts = self.facts.known_as(ANONYMOUS)
        self.enter(State.REQUESTING)

    def log_in(self, username: bytes, password: bytes) -> None:
        """Verify a user name and a password; the dialogue hears what has come of it."""
        self.run(self._login(username, password))

    def authenticate(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step of an authentication that takes several, then hear what has come since."""
        self.run(self._authenticate(step))

    def accept_login(self, principal: Principal) -> None:
        """Take the client as *principal*, tell the dialogue, and go on."""
        assert self.dialogue is not None  # it has asked
        self.facts = self.facts.known_as(principal)
        self.tell(LoggedIn(self.number, principal.name or ""))
        self.dialogue.logged_in()
        self.enter(State.REQUESTING)
        self._task = None
        self._advance()

    def refuse_login(self, user: str, reason: str) -> None:
        """Tell that the client, *user* as it says, is not who it claims to be."""
        assert self.dialogue is not None  # it has asked
        client, port = self.facts.client, self.client_port
        self.tell(LoginRefused(self.number, client, port, user, reason))
        self.facts = self.facts.known_as(Principal(user))
        self.dialogue.login_refused(reason)

    def requested(self, request: Request) -> None:
        """Carry a request out."""
        self.request = request
        if RequestReceived in self.runtime.hears:
            self.tell(RequestReceived(self.number, request.command, request.destination))
        if request.command is Command.CONNECT:
            try:
                connect(self, request)
            except Exception:  # noqa: BLE001 -- a bug ends one session, as it does in a coroutine
                self.failed(Failure())
        elif request.command is Command.UDP_ASSOCIATE and isinstance(self.end, Protected):
            # Its datagrams would have to be protected, too: RFC 1961 section 5.
            reason = "datagrams cannot be protected as this session is"
            self._refuse(ReplyCode.COMMAND_NOT_SUPPORTED, reason)
            self.finish(Outcome.FAILED, reason)
        else:
            self.run(_COMMANDS[request.command](self, request))

    def finish(self, outcome: Outcome, reason: str) -> None:
        """
        Say no more: flush, send FIN, and wait for the client to close.

        Closing at once could reset the connection under our last octets: the
        client may have sent something that we have not read.
        """
        self._outcome = (outcome, reason)
        if outcome is Outcome.DENIED:
            self._denied()
        self.enter(State.CLOSING)
        if self._paused:
            self.end.transport.resumeProducing()
        self.end.finish_writing()

    def settled(self, outcome: Outcome, reason: str) -> None:
        """Hear how this will have ended, of which the relay will only know that it did."""
        self._outcome = self._outcome or (outcome, reason)

    # -- the dialogue --------------------------------------------------------

    def _opened(self, octet: int) -> IDialogue | None:
        """Begin the dialogue that *octet* is the first of, unless that is the end of it."""
        self.enter(State.NEGOTIATING)
        if self.ask(self.facts).verdict is Verdict.DENY:
            shown = " or certificate" if self.facts.certificate else ""
            self.finish(Outcome.DENIED, f"by its address{shown}")
            return None
        speaker = self.runtime.dialogues[self.facts.listener].get(octet)
        if speaker is None:
            self._broken(wrong_version(octet))
            return None
        self.dialogue = dialogue = speaker(self)
        self.protocol = dialogue.protocol
        return dialogue

    def _advance(self) -> None:
        assert self.dialogue is not None  # it has just been told, or has told us
        try:
            self.dialogue.advance()
        except ProtocolError as error:
            self._broken(error)

    def _broken(self, error: ProtocolError) -> None:
        """End the session of a client that broke the protocol."""
        if error.reply is not None:
            self._refuse(error.reply, str(error))
        elif error.answer:
            self.end.send(error.answer)
        self.finish(Outcome.PROTOCOL_ERROR, str(error))

    def _refuse(self, code: ReplyCode, reason: str) -> None:
        if self.dialogue is not None and self.dialogue.refused(code, reason):
            self._reply = code

    async def _login(self, username: bytes, password: bytes) -> None:
        try:
            principal: Principal = await self.runtime.authenticator.login(
                username, password, self.facts.client
            )
        except LoginFailed as failed:
            self.refuse_login(username.decode(errors="surrogateescape"), failed.reason)
        else:
            self.accept_login(principal)

    async def _authenticate(self, step: Coroutine[Any, Any, None]) -> None:
        await step
        self._task = None
        if self.state is State.AUTHENTICATING:
            self._advance()

    def run(self, command: Coroutine[Any, Any, None]) -> None:
        """Run what has to wait, until the client leaves or the deadline of the state passes."""
        task = Deferred.fromCoroutine(command)
        if not task.called:
            self._task = task
        task.addErrback(self.failed)

    def failed(self, failure: Failure) -> None:
        """End a session whose command has failed."""
        if self._outcome is not None:  # the client has left, and the command heard of it
            if not failure.check(CancelledError, Refused):
                _log.failure("session {number} has left behind", failure, number=self.number)
            return
        code, outcome = ReplyCode.GENERAL_FAILURE, Outcome.ERROR
        if failure.check(Refused):
            refused: Refused = failure.value  # type: ignore[assignment]  # checked above
            code, reason = refused.reply, refused.reason
            self.overdue = self.overdue or isinstance(refused, TimedOut)
            denied = self.decision is not None and self.decision.verdict is Verdict.DENY
            outcome = Outcome.DENIED if denied else Outcome.FAILED
        elif failure.check(CancelledError) and self.overdue:
            reason, outcome = "the login took too long", Outcome.TIMED_OUT
        else:
            _log.failure("session {number} has met a bug", failure, number=self.number)
            reason = "a bug; its traceback is in the log"
        self._refuse(code, reason)
        self._outcome = (outcome, reason)
        self.end.carried_by(self)  # a relay with a bug may have it, or have had it closed
        if self.state is not State.CLOSED:
            self.finish(outcome, reason)

    # -- the end -------------------------------------------------------------

    def _denied(self) -> None:
        facts, request, decision = self.facts, self.request, self.decision
        assert decision is not None  # it is what has denied
        self.tell(
            Denied(
                session=self.number,
                started=facts.time,
                client=facts.client,
                client_port=self.client_port,
                user=facts.principal.name if facts.principal else None,
                command=request.command if request else None,
                destination=request.destination if request else None,
                decision=decision,
            )
        )

    def _relayed(self, target: End | None, result: Tally | Failure) -> None:
        if isinstance(result, Failure):
            if target is not None:
                target.abort()
            self.failed(result)
            return
        self._outcome = self._outcome or _RELAYED[result.ended_by]
        self._close(result)

    def _left(self) -> None:
        """The client is no longer there to be served."""
        if self._outcome is None:
            self._outcome = (Outcome.CLIENT_LEFT, f"waiting for {self.state.value}")
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def time_is_up(self) -> None:
        """Hear that the deadline has passed."""
        self._waiting = None
        if self.state is State.CLOSING:
            self.end.transport.abortConnection()
        elif self._task is not None:
            self.overdue = True
            self._task.cancel()
        else:
            self._outcome = (Outcome.TIMED_OUT, f"waiting for {self.state.value}")
            self.end.transport.abortConnection()

    def _close(self, tally: Tally | None = None) -> None:
        """Tell how it ended: once, and last."""
        self.enter(State.CLOSED)
        outcome, reason = self._outcome or (Outcome.ERROR, "ended without an outcome")
        facts, request, decision = self.facts, self.request, self.decision
        # By position, in the order of the class: to find 25 values by their names takes
        # 5 us, and to make it without 1.5.
        self.runtime.observer(
            SessionClosed(
                self.number,
                facts.time,
                self.runtime.clock.seconds() - self._monotonic,
                facts.client,
                self.client_port,
                facts.listener,
                facts.principal.name if facts.principal else None,
                request.command if request else None,
                request.destination if request else None,
                self.address,
                decision.rule if decision and decision.verdict is not Verdict.DEFER else None,
                outcome,
                self._reply,
                reason,
                tally.up if tally else 0,
                tally.down if tally else 0,
                facts.principal.groups if facts.principal else frozenset(),
                _about(self._asked),
                decision.verdict if decision else None,
                decision.reports if decision else (),
                self.judged,
                self.unlisted,
                decision.log if decision else True,
                _userid(request),
                facts.certificate,
                self.protocol,
            )
        )
        self._forget(self)


def _userid(request: Request | None) -> str | None:
    """Give what the client has said of itself, octets that are not UTF-8 as surrogates."""
    if isinstance(request, socks4.Request):
        return request.userid.decode(errors="surrogateescape")
    return None


def _about(facts: Facts | None) -> Asked | None:
    """Say what a question by these facts was about."""
    if facts is None:
        return None
    if facts.command is None:
        return Asked.CLIENT
    if facts.destination is None:
        return Asked.REQUEST
    if facts.address is not None and isinstance(facts.destination.host, str):
        return Asked.ADDRESS
    return Asked.REQUEST
