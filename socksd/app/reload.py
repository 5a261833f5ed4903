"""Another configuration for a running service, for good or on trial."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from socksd.admin.routes import Unable
from socksd.app.config import Config
from socksd.app.confirmed import Confirmed
from socksd.app.judge import Judge
from socksd.app.service import Gateway, Generation, Part
from socksd.app.signals import OnSignal
from socksd.errors import ConfigError, Problem

_log = Logger("socksd")


class IReactorReloading(IReactorTime, IReactorFromThreads):
    """What reloading takes of the reactor."""


class Source(Protocol):
    """Where configurations come from: a file, and the command line that adds to it."""

    path: str | None  # of the file, absolute; None without one

    def read(self) -> str:
        """Give the file's text; raises ConfigError."""

    def parse(self, text: str) -> Config:
        """Give the configuration of a text with the command line added; raises ConfigError."""


class Commanded(Source, Protocol):
    """A source whose command line can be given on to another process."""

    words: Sequence[str]  # of the command line, without the program


class Reloader:
    """
    Load the configuration again on SIGHUP or when asked to.

    Loading, building and adopting happen in one turn of the reactor: reloads
    never overlap, and signals that come meanwhile are one more reload. What
    fails changes nothing, and is said in the log, a line for each problem.

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

    def reload(self, trial: float | None = None, *, by_hand: bool = True) -> int:
        """
        Take the configuration that the file has now.

        Args:
            trial: Seconds after which it is rolled back unless confirmed;
                ``None`` takes it for good.
            by_hand: Whether a person has asked. Signals come from log rotation
                and service managers as well, and confirm nothing: without a
                person what has failed its trial is not taken.

        Returns:
            How many live sessions it would refuse.

        Raises:
            ConfigError: It has problems, all of them; the log has them, too.
            Unable: It cannot be taken as things stand.
        """
        if not self._gateway.running:
            raise Unable("the service is stopping")
        self.begins()
        try:
            return self._reload(trial, by_hand)
        except ConfigError as error:
            self.failed += 1
            self._refuse(error)
            raise
        finally:
            self.ends()

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

    def _reload(self, trial: float | None, by_hand: bool) -> int:
        if self._trial is not None and trial is None:
            raise Unable(
                "a configuration waits to be confirmed: `socksd confirm` keeps it,"
                " `socksd reload --confirm TIME` tries another"
            )
        text = self._source.read()
        if not by_hand and self._is_marked(text):
            raise Unable("the file was never confirmed; `socksd reload` takes it all the same")
        generation = self._prepared(text)
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
            generation = self._prepared(self._confirmed)
            self._gateway.adopt(generation)
        except ConfigError as error:
            _log.error("not confirmed in time, but it cannot be rolled back:")
            self._refuse(error)
            return
        self.rolled_back = True
        _log.warn("not confirmed in time: rolled back to the last confirmed configuration")
        self._serve(generation)

    def _prepared(self, text: str) -> Generation:
        try:
            with contextlib.chdir(self._directory):
                return self._build(self._source.parse(text), self._gateway.parts())
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
        try:
            self.reload(by_hand=False)
        except Unable as error:
            _log.error("not reloaded: {error}", error=error)
        except ConfigError:
            pass  # said already


def here() -> str:
    """Give the directory that relative paths begin in."""
    try:
        return os.getcwd()
    except OSError:  # it has been removed; nothing relative can be meant
        return "/"
