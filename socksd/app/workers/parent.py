"""The parent: it listens, has workers accept, and answers for them."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from socksd.admin.routes import Body, Routes, Unable, only
from socksd.app.answers import drain, listening, loaded, reloaded, trial_of
from socksd.app.build import build, let_leave
from socksd.app.collector import calm
from socksd.app.config import Config
from socksd.app.making.lasting import IReactor, Role, lasting
from socksd.app.measures import service
from socksd.app.notify import Manager, Notifier
from socksd.app.reload import Commanded, Reloader, here
from socksd.app.service import CannotStart, Entrance, Gateway, Generation, Listener, Part
from socksd.app.signals import OnSignal
from socksd.app.whole import Whole
from socksd.app.workers.pool import PATIENCE, TICK, Brief, Pool, Worker
from socksd.app.workers.said import Said, shares_standard_output
from socksd.app.workers.spawn import IReactorSpawning, spawn
from socksd.server.door import Door, Listening
from socksd.server.protocol import Sessions

T = TypeVar("T")

_log = Logger("socksd")


class IReactorParental(IReactor, IReactorSpawning):
    """What a parent takes of the reactor."""


class Shut(Door):
    """The door of who listens for others to accept."""

    def start(self) -> None:
        """Look at nothing: it stays shut."""

    def guard(self, port: Listening) -> None:
        """Let workers accept what comes to *port*."""
        port.stopReading()

    def forget(self, port: Listening) -> None:
        """Leave *port* alone."""


class Parent(Gateway):
    """
    A gateway whose sessions are its workers'.

    Its listeners are open and never read: that is done by workers, to which the
    sockets are lent. So a connection that nobody has accepted yet waits there
    whatever becomes of a worker.

    Attributes:
        pool: The workers.
        text: Of the configuration that they serve by.
        reloaded: Fires when all have taken what was handed out last, with how many
            live sessions would now be refused.
    """

    def __init__(
        self,
        generation: Generation,
        text: str,
        words: Sequence[str],
        reactor: IReactorParental,
        patience: int,
    ) -> None:
        super().__init__(generation, Sessions(Shut(reactor, None)), reactor)
        self.pool = Pool(self._spawn, self._brief, Said, reactor, patience)
        self.text = text
        self.reloaded: Deferred[int] = succeed(0)
        self._reactor = reactor
        self._words = list(words)
        self._here = here()
        self._directory = ""

    def startService(self) -> None:
        """
        Start what runs beside the listeners and, once the reactor runs, workers.

        Raises:
            CannotStart: It cannot run.
        """
        super().startService()
        try:
            self._directory = tempfile.mkdtemp(prefix="socksd-")  # with mode 700
        except OSError as error:
            message = f"socksd: no directory for the workers' sockets: {error.strerror}"
            raise CannotStart(message) from error
        # Not before: a twistd that becomes a daemon has to be one.
        self._reactor.callWhenRunning(self._begin)

    def status(self) -> str:
        """Say what it does, for a person."""
        pool = self.pool
        if not self.running:
            return f"stopping, {pool.sessions} sessions are left"
        workers = f"{pool.serving} of {len(pool)} workers"
        return f"{pool.sessions} sessions, {len(self.listeners)} listeners, {workers}"

    def hand_out(self, text: str) -> None:
        """Have workers go on by *text*, which the generation was made of."""
        self.text = text
        self.reloaded = self.pool.reload(self._count())

    def hurry(self) -> None:
        """Wait no longer for sessions to end."""
        super().hurry()
        self.pool.hurry()

    def restart(self) -> Deferred[None]:
        """Restart the workers; see :meth:`socksd.app.workers.pool.Pool.restart`."""
        return self.pool.restart()

    def restart_by_signal(self) -> None:
        """Restart the workers for somebody who only sees the log."""
        maybeDeferred(self.restart).addErrback(_not_restarted)

    def _begin(self) -> None:
        if self.running:
            self.pool.start(self._count(), self._directory)

    def _count(self) -> int:
        return max(1, self.generation.config.server.workers)

    def _spawn(self, worker: Worker) -> None:
        spawn(worker, self._reactor, shares_output=shares_standard_output())

    def _brief(self, place: int, places: int) -> Brief:
        question = {
            "text": self.text,
            "words": self._words,
            "directory": self._here,
            "place": place,
            "places": places,
        }
        return question, [each.port.fileno() for each in self.listeners]

    def _listen(self, entrance: Entrance, generation: Generation) -> Listener:
        listener = super()._listen(entrance, generation)
        # Twisted would shut the socket down when it closes it, for workers as well.
        listener.port._shouldShutdown = False
        return listener

    async def _drain(self) -> None:
        """Let the workers' sessions end by themselves, for as long as they may."""
        await self.pool.stop(0 if self._hurried else self._patience)
        shutil.rmtree(self._directory, ignore_errors=True)


class Asked:
    """What is asked of the parent itself."""

    def __init__(self, parent: Parent, reloader: Reloader) -> None:
        self._parent = parent
        self._reloader = reloader

    def routes(self) -> Routes:
        """Give all of it."""
        return {
            ("POST", "/v1/reload"): self.reload,
            ("POST", "/v1/confirm"): self.confirm,
            ("POST", "/v1/restart-workers"): self.restart,
            ("POST", "/v1/drain"): self.drain,
        }

    def status(self) -> dict[str, Any]:
        """Say what the parent knows best, of what Answers.status() says."""
        return loaded(self._reloader) | listening(self._parent)

    def reload(self, body: Body) -> Deferred[dict[str, Any]]:
        """Load the configuration again, and have all workers take it."""
        done: Deferred[Any] = self._reloader.reload(trial_of(body))
        done.addCallback(lambda _: self._parent.reloaded)
        return done.addCallback(reloaded, self._parent, self._reloader)

    def confirm(self, body: Body) -> dict[str, Any]:
        """Keep the configuration that is on trial."""
        only(body)
        self._reloader.confirm()
        return {}

    def drain(self, body: Body) -> dict[str, Any]:
        """Stop as SIGTERM does, with all workers."""
        return drain(body, self._parent, self._parent.pool.sessions)

    def restart(self, body: Body) -> Deferred[dict[str, Any]]:
        """Restart the workers, one by one."""
        only(body)
        count = len(self._parent.pool)
        return self._parent.restart().addCallback(lambda _: {"restarted": count})


def assemble(
    source: Commanded,
    text: str,
    config: Config,
    reactor: IReactorParental,
    *,
    rolled_back: bool,
    manager: Manager | None,
) -> Parent:
    """
    Make the service of a *config* with workers; see :func:`socksd.app.build.assemble`.

    Raises:
        ConfigError: See build().
    """
    parent: Parent
    asked: Asked
    reloader: Reloader
    whole = Whole(
        lambda: parent.pool.addresses(),
        reactor,
        status=lambda: asked.status(),
        families=lambda: service(reloader),
    )
    common = lasting(reactor, Role.PARENT, whole)

    def made(config: Config, running: Sequence[Part]) -> Generation:
        return build(config, reactor, common, running)

    patience = PATIENCE
    if manager is not None and manager.watchdog is not None:
        patience = max(1, round(manager.watchdog / TICK))
    parent = Parent(made(config, ()), text, source.words, reactor, patience)
    reloader = Reloader(
        parent,
        source,
        made,
        reactor,
        text=text,
        rolled_back=rolled_back,
        adopted=lambda _: parent.hand_out(reloader.text),
    )
    asked = Asked(parent, reloader)
    common.routes.update(asked.routes())
    common.watching.gateway = parent
    parent.pool.remember = whole.remember
    reopening = OnSignal(signal.SIGUSR1, reactor, parent.pool.reopen, shared=True)
    restarting = OnSignal(signal.SIGUSR2, reactor, parent.restart_by_signal)
    for each in (reloader, reopening, restarting):
        parent.beside.append(Part(each.start, each.stop))
    let_leave(parent, reactor)
    if manager is not None:
        notifier = Notifier(manager, parent.status, reactor)
        parent.beside.append(Part(notifier.start_unready, notifier.stop))
        parent.ends.append(notifier.stopping)
        parent.pool.ready = notifier.ready
        reloader.begins = notifier.reloading
        reloader.ends = lambda: parent.reloaded.addBoth(_after, notifier.ready)
    parent.beside.append(Part(calm))
    return parent


def _after(result: T, then: Callable[[], object]) -> T:
    then()
    return result


def _not_restarted(failure: Failure) -> None:
    failure.trap(Unable)
    _log.error("workers not restarted: {error}", error=failure.value)
