"""Another configuration for a running service, for good or on trial."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredLock, fail
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from socksd.admin.routes import Unable
from socksd.app.config import Config
from socksd.app.confirmed import Confirmed
from socksd.app.judge import Judge
from socksd.app.service import Gateway, Generation, Part
from socksd.app.signals import OnSignal
from socksd.errors import ConfigError, Problem

_log = Logger("socksd")

WAITING: Final = 16  # reloads, at most, for the one that is under way


class IReactorReloading(IReactorTime, IReactorFromThreads):
    """What reloading takes of the reactor."""


class Source(Protocol):
    """Where configurations come from: a file, and the command line that adds to it."""

    path: str | None  # of the file, absolute; None without one

    def read(self) -> str:
        """Give the file's text; raises ConfigError."""

    def parse(self, text: str) -> Config:
        """
        Give the configuration of a text with the command line added; raises ConfigError.

        Called in a thread. No relative path may count in it.
        """


class Commanded(Source, Protocol):
    """A source whose command line can be given on to another process."""

    words: Sequence[str]  # of the command line, without the program


class Reloader:
    """
    Load the configuration again on SIGHUP or when asked to.

    A configuration is parsed in a thread, for a set of a hundred thousand
    lines takes a second; building and adopting it happen in one turn of the
    reactor. Reloads take turns, and signals that come meanwhile are one more.
    What fails changes nothing, and is said in the log, a line for each problem.

    A configuration can be taken on trial: unless confirm() comes in time the
    last confirmed one is taken again. See :mod:`socksd.app.confirmed` for what
    of this outlives the process.

    Attributes:
        path: Of the configuration file; ``None`` without one.
        loaded: When the configuration in force was, in seconds since the epoch.
        reloads: How many have succeeded,
        failed: and how many have not.
        unconfirmed_until: When the trial ends; ``None`` without one.
        rolled_back: Whether what is in force is the confirmed copy in the
            place of a file that was not confirmed.
        adopted: Called with each generation as soon as it serves.
        begins: Called when a reload begins,
        ends: and when it is over, well or not.
    """

    def __init__(
        self,
        gateway: Gateway,
        source: Source,
        build: Callable[[Config, Sequence[Part]], Generation],
        reactor: IReactorReloading,
        *,
        text: str,
        rolled_back: bool,
        adopted: Callable[[Generation], object],
        in_thread: Callable[..., Deferred[Any]] = deferToThread,
    ) -> None:
        """Prepare, for a gateway that starts with *text*; see assemble()."""
        self.path = source.path
        self.loaded = time.time()
        self.reloads = 0
        self.failed = 0
        self.unconfirmed_until: float | None = None
        self.rolled_back = rolled_back
        self.begins: Callable[[], object] = lambda: None
        self.ends: Callable[[], object] = lambda: None
        self._gateway = gateway
        self._source = source
        self._build = build
        self._reactor = reactor
        self._adopted = adopted
        self._in_thread = in_thread
        self._turns = DeferredLock()
        self._signalled = False  # and the reload for it has not begun
        # Relative paths mean what they meant when the command line was read,
        # wherever twistd goes from there.
        self._directory = here()
        self._judge = Judge(gateway, reactor)
        self._confirmed = text  # what a trial that fails goes back to
        self._on_trial = ""
        self._trial: IDelayedCall | None = None
        self._on_hangup = OnSignal(signal.SIGHUP, reactor, self._asked_by_signal)

    @property
    def text(self) -> str:
        """What the file said that is in force."""
        return self._confirmed if self._trial is None else self._on_trial

    def start(self) -> None:
        """Listen to SIGHUP, and keep what the service was started with as confirmed."""
        self._on_hangup.start()
        self._adopted(self._gateway.generation)
        kept = self._kept()
        if kept is None:
            return
        if self.rolled_back:
            _log.warn(
                "the configuration file was never confirmed: in force is the last confirmed one,"
                " {directory}/confirmed.toml; `socksd reload` takes the file",
                directory=kept.directory,
            )
            return
        try:
            kept.confirm(self._confirmed)
        except OSError as error:
            _log.error(
                "cannot keep the confirmed configuration in {directory}: {error}",
                directory=kept.directory,
                error=error.strerror,
            )

    def stop(self) -> None:
        """Leave SIGHUP as it was, and let a trial be: it is not confirmed."""
        self._on_hangup.stop()
        self._judge.stop()
        self._end_trial()

    def reload(self, trial: float | None = None, *, by_hand: bool = True) -> Deferred[int]:
        """
        Take the configuration that the file has, once it is this one's turn.

        Args:
            trial: Seconds after which it is rolled back unless confirmed;
                ``None`` takes it for good.
            by_hand: Whether a person has asked. Signals come from log rotation
                and service managers as well, and confirm nothing: without a
                person what has failed its trial is not taken.

        Returns:
            How many live sessions it would refuse. Fails with ConfigError, all
            the problems, which the log has, too; or with Unable, as things stand.
        """
        if by_hand and len(self._turns.waiting) >= WAITING:  # of signals one at most waits
            return fail(Unable("too many reloads wait for their turn already"))
        return self._turns.run(
            lambda: Deferred.fromCoroutine(self._in_its_turn(trial, by_hand=by_hand))
        )

    async def _in_its_turn(self, trial: float | None, *, by_hand: bool) -> int:
        if not by_hand:
            self._signalled = False  # whoever signals from now on has changed something since
        self._must_run()
        self.begins()
        try:
            return await self._reload(trial, by_hand)
        except ConfigError as error:
            self.failed += 1
            self._refuse(error)
            raise
        finally:
            if self._gateway.running:  # or it has been said that we stop
                self.ends()

    def _must_run(self) -> None:
        if not self._gateway.running:
            raise Unable("the service is stopping")

    def confirm(self) -> None:
        """
        Keep the configuration that is on trial.

        Raises:
            Unable: None is; or that cannot be written down.
        """
        if self._trial is None:
            raise Unable("no configuration waits to be confirmed")
        self._keep(self._gateway.generation.config, self._on_trial)
        self._end_trial()
        _log.info("the configuration is confirmed")

    async def _reload(self, trial: float | None, by_hand: bool) -> int:
        self._must_not_be_on_trial(trial)
        text = self._source.read()
        if not by_hand and self._is_marked(text):
            raise Unable("the file was never confirmed; `socksd reload` takes it all the same")
        config = await self._in_thread(self._source.parse, text)
        # Some time has gone by.
        self._must_run()
        self._must_not_be_on_trial(trial)
        generation = self._built(config)
        if trial is None:
            self._gateway.adopt(generation)
            self._confirmed = text
            try:
                self._keep(generation.config, text)
            except Unable as error:
                _log.error("{error}", error=error)
        else:
            self._try(generation, text, trial)
        self.rolled_back = False
        return self._serve(generation)

    def _must_not_be_on_trial(self, trial: float | None) -> None:
        if self._trial is not None and trial is None:
            raise Unable(
                "a configuration waits to be confirmed: `socksd confirm` keeps it,"
                " `socksd reload --confirm TIME` tries another"
            )

    def _try(self, generation: Generation, text: str, seconds: float) -> None:
        """Adopt a configuration on trial; the mark is there before it serves anybody."""
        kept, state = self._kept(), generation.config.reload.state
        if kept is None or str(kept.directory) != state:
            raise Unable(
                "--confirm needs a directory to survive in: set [reload] state,"
                " reload without --confirm once, and leave it so"
            )
        until = time.time() + seconds
        try:
            if kept.text() != self._confirmed:
                kept.confirm(self._confirmed)
            before = kept.mark(text, until)
        except OSError as error:
            raise Unable(f"cannot write into {state}: {error.strerror}") from error
        try:
            self._gateway.adopt(generation)
        except ConfigError:
            with contextlib.suppress(OSError):
                kept.put_back(before)
            raise
        self._end_trial()
        self._on_trial, self.unconfirmed_until = text, until
        self._trial = self._reactor.callLater(seconds, self._roll_back)

    def _roll_back(self) -> None:
        self._trial = self.unconfirmed_until = None
        if not self._gateway.running:
            return  # a start takes the confirmed one
        try:
            generation = self._built(self._source.parse(self._confirmed))
            self._gateway.adopt(generation)
        except ConfigError as error:
            _log.error("not confirmed in time, but it cannot be rolled back:")
            self._refuse(error)
            return
        self.rolled_back = True
        _log.warn("not confirmed in time: rolled back to the last confirmed configuration")
        self._serve(generation)

    def _built(self, config: Config) -> Generation:
        try:
            with contextlib.chdir(self._directory):
                return self._build(config, self._gateway.parts())
        except OSError as error:  # of a directory that has gone, or from a plugin
            raise ConfigError([Problem("", error.strerror or str(error))]) from error

    def _serve(self, generation: Generation) -> int:
        """Do what follows once a generation has been adopted; see reload()."""
        self.loaded = time.time()
        self.reloads += 1
        self._adopted(generation)
        _log.info(
            "reloaded: rules={rules} listeners={listeners}",
            rules=len(generation.rules),
            listeners=len(generation.entrances),
        )
        return self._judge.look()

    def _refuse(self, error: ConfigError) -> None:
        for problem in error.problems:
            _log.error("not reloaded: {problem}", problem=problem)

    def _kept(self) -> Confirmed | None:
        state = self._gateway.generation.config.reload.state
        return Confirmed(Path(state)) if state else None

    def _is_marked(self, text: str) -> bool:
        kept = self._kept()
        if kept is None:
            return False
        try:
            return kept.is_marked(text)
        except OSError as error:
            raise Unable(f"cannot read {kept.directory}: {error.strerror}") from error

    def _keep(self, config: Config, text: str) -> None:
        """
        Write down that *text* is confirmed.

        Raises:
            Unable: It cannot be.
        """
        if config.reload.state:
            try:
                Confirmed(Path(config.reload.state)).confirm(text)
            except OSError as error:
                raise Unable(
                    f"cannot keep the confirmed configuration in {config.reload.state}:"
                    f" {error.strerror}"
                ) from error
        self._confirmed = text

    def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        self.unconfirmed_until = None
        if trial is not None:
            trial.cancel()

    def _asked_by_signal(self) -> None:
        if not self._signalled:
            self._signalled = True
            self.reload(by_hand=False).addErrback(self._not_reloaded)

    def _not_reloaded(self, failure: Failure) -> None:
        failure.trap(Unable, ConfigError)
        if failure.check(Unable):  # a ConfigError has been said already
            _log.error("not reloaded: {error}", error=failure.value)


def here() -> str:
    """Give the directory that relative paths begin in."""
    try:
        return os.getcwd()
    except OSError:  # it has been removed; nothing relative can be meant
        return "/"
