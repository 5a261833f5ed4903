"""
A worker: ``python -m socksd.app.workers.child``, as only its parent starts it.

It is told by its parent, over the channel, what to serve and on which sockets; and
writes its log to the standard error.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TextIO, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorSocket
from twisted.internet.protocol import Factory
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from socksd.admin.control import ControlSocket
from socksd.admin.routes import Unable
from socksd.app.build import adopted, build, complete
from socksd.app.config import Config
from socksd.app.making.lasting import IReactor, Role, lasting
from socksd.app.making.sharing import share
from socksd.app.reload import Reloader
from socksd.app.service import CannotStart, Gateway, Generation, Part, go_by_monotonic_time
from socksd.app.signals import OnSignal
from socksd.app.tap import Options
from socksd.app.workers.adopt import Shared
from socksd.app.workers.channel import DESCRIPTOR, Answerer, Message
from socksd.errors import ConfigError
from socksd.observe.sinks import Outflow
from socksd.server.door import Door
from socksd.server.protocol import Sessions

_log = Logger("socksd")

STANDARD_ERROR: Final = 2
# Session numbers of the worker with number k begin at k times this, and one more: they
# are unique whichever worker has them, and say which.
NUMBERS: Final = 10**9


class IReactorChild(IReactor, IReactorSocket):
    """What a worker takes of the reactor."""


class Words(Options):
    """The parent's command line."""

    def postOptions(self) -> None:
        """Build nothing: the parent says by which text."""
        self.find()


class Told:
    """Where a worker's configurations come from: its parent, which has read them."""

    def __init__(self, options: Options) -> None:
        self.path = options.path
        self.text = ""
        self.place = (0, 1)  # which of how many
        self.sockets: Sequence[int] = ()  # in the order of the listeners
        self._options = options

    def hear(self, question: Message, sockets: Sequence[int]) -> None:
        """Take what the parent says."""
        self.text, self.sockets = question["text"], sockets
        self.place = question["place"], question["places"]

    def read(self) -> str:
        """Give what was told last."""
        return self.text

    def parse(self, text: str) -> Config:
        """
        Give the configuration of a text with the command line added, as far as it is ours.

        Raises:
            ConfigError: It has problems.
        """
        config = self._options.parse(text)
        most = config.limits.sessions
        if most is not None:
            most = share(most, *self.place)
        return attrs.evolve(
            config,
            limits=attrs.evolve(config.limits, sessions=most),
            reload=attrs.evolve(config.reload, state=""),  # trials are the parent's
        )


class Child:
    """
    Does what the parent asks for.

    Attributes:
        status: What the process shall end with.
    """

    def __init__(self, reactor: IReactorChild) -> None:
        self.status = 0
        self._reactor = reactor
        self._told: Told
        self._reloader: Reloader
        self._gateway: Gateway | None = None
        self._directory = ""  # of the workers' sockets

    def answer(self, question: Message, sockets: Sequence[int]) -> Message | Deferred[Message]:
        """Answer a question; *sockets* are open for so long."""
        gateway = self._gateway
        match question["do"]:
            case "serve":
                problems = self._attempt(partial(self._serve, question, sockets))
                self.status = int(bool(problems))
                return {"problems": problems}
            case "reload" if gateway is not None:
                return self._reload(question, sockets)
            case "reload":  # it could not serve, and has said why
                return _reloaded(0)
            case "say":
                return {"sessions": 0 if gateway is None else len(gateway.sessions)}
            case "stop" if gateway is not None:
                gateway.drain(question["seconds"])
                return {}
            case "hurry" if gateway is not None:
                gateway.hurry()
        self.end()
        return {}

    def orphaned(self) -> None:
        """End, for nobody is there any more to end us; or it has hung up."""
        if self._gateway is not None and self._gateway.running:
            _log.error("the parent has gone: draining")
            # Stopped after what is behind it; of several orphans the last one can.
            self._gateway.beside.insert(0, Part(stop=self._remove_directory))
        self.end()

    def _serve(self, question: Message, sockets: Sequence[int]) -> None:
        """
        Begin.

        Raises:
            ConfigError: See build().
            CannotStart: It cannot.
        """
        os.chdir(question["directory"])
        options = Words()
        options.parseOptions(question["words"])
        reactor, number = self._reactor, question["number"]
        told = self._told = Told(options)
        told.hear(question, sockets)
        common = lasting(reactor, Role.WORKER)

        def made(config: Config, running: Sequence[Part]) -> Generation:
            generation = build(config, reactor, common, running)
            entrances = tuple(
                replace(entrance, endpoint=Shared(reactor, socket))
                for entrance, socket in zip(generation.entrances, told.sockets, strict=True)
            )
            return replace(generation, entrances=entrances)

        generation = made(told.parse(told.text), ())
        door = Door(reactor, generation.config.limits.sessions)
        gateway = Gateway(generation, Sessions(door, number * NUMBERS), reactor)
        self._reloader = Reloader(
            gateway,
            told,
            made,
            reactor,
            text=told.text,
            rolled_back=False,
            adopted=partial(adopted, common),
        )
        complete(gateway, self._reloader, common, reactor)
        self._directory = os.path.dirname(question["socket"])
        control = ControlSocket(question["socket"], common.routes, reactor)
        gateway.beside.append(Part(control.open, control.close))
        gateway.leave = self.end
        reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
        gateway.startService()
        self._gateway = gateway

    def _reload(self, question: Message, sockets: Sequence[int]) -> Deferred[Message]:
        self._told.hear(question, sockets)
        return self._reloader.reload().addCallbacks(_reloaded, _not_reloaded)

    def _remove_directory(self) -> None:
        with suppress(OSError):
            os.rmdir(self._directory)

    def _attempt(self, do: Callable[[], object]) -> list[str]:
        """Do something, and give what keeps us from it."""
        try:
            do()
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        except CannotStart as error:
            return [str(error).removeprefix("socksd: ")]
        return []

    def end(self) -> None:
        """Accept no more, drain and end; more than once is once."""
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def _reloaded(refused: int) -> Message:
    return {"problems": [], "refused": refused}


def _not_reloaded(failure: Failure) -> Message:
    error = failure.trap(ConfigError, Unable) and failure.value
    if isinstance(error, ConfigError):
        return _reloaded(0) | {"problems": [str(each) for each in error.problems]}
    return _reloaded(0)  # it ends already, by a signal of its own


def main() -> None:
    """
    Serve until the parent, or a signal, says to end.

    Raises:
        SystemExit: When it has ended.
    """
    from twisted.internet import reactor as installed

    reactor = cast("IReactorChild", installed)
    go_by_monotonic_time(reactor)
    log = cast("TextIO", Outflow(STANDARD_ERROR, reactor))
    globalLogBeginner.beginLoggingTo([textFileLogObserver(log)])
    child = Child(reactor)
    factory = Factory.forProtocol(partial(Answerer, child.answer, child.orphaned))
    factory.noisy = False
    reactor.adoptStreamConnection(DESCRIPTOR, socket.AF_UNIX, factory)  # type: ignore[arg-type]  # any IProtocolFactory will do
    os.close(DESCRIPTOR)
    # By a signal as by its parent: once is as good as twice, for a service manager may
    # signal both. Who insists, does so by the parent.
    for number in (signal.SIGTERM, signal.SIGINT):
        OnSignal(number, reactor, child.end).start()
    installed.run(installSignalHandlers=False)  # type: ignore[call-arg]  # not of the interface
    raise SystemExit(child.status)


if __name__ == "__main__":
    main()
