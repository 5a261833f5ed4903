"""``twistd socks5``: its options, and the service they describe."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO, cast

import attrs
from twisted.application.service import IService
from twisted.cred.strcred import AuthOptionMixin
from twisted.internet.interfaces import IReactorTime
from twisted.python import usage

import socksd
from socksd.app.build import IReactor, assemble
from socksd.app.config import Config, Listener, parse_config, read_config, workers
from socksd.app.confirmed import to_start_with
from socksd.app.endpoints import tcp
from socksd.app.notify import manager
from socksd.app.service import Gateway, go_by_monotonic_time
from socksd.app.signals import Early
from socksd.errors import ConfigError, Problem
from socksd.observe.sinks import STANDARD_OUTPUT, Outflow

_LOOPBACK = "127.0.0.1"
_PORT = 1080  # IANA: socks


class Options(usage.Options, AuthOptionMixin):
    """What can be said on the command line; all of it adds to the configuration."""

    synopsis = "[options]"
    longdesc = (
        "A SOCKS5 gateway. Without a configuration it listens on the loopback interface and "
        "serves clients on this host only; with --auth, whoever logs in."
    )
    optFlags = (("check", None, "Check the options and the configuration, then exit."),)
    optParameters = (
        ("port", "p", None, f"TCP port to listen on (default {_PORT}; 0: any free one)."),
        ("interface", "i", None, f"Address to listen on, with --port (default {_LOOPBACK})."),
        ("config", "c", None, "Configuration file; see etc/socksd.toml."),
        ("workers", "w", None, 'Processes that serve, a number or "cores" (default: one).'),
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self.endpoints: list[str] = []
        self.authenticators: list[str] = []
        self.gateway: Gateway | None = None
        self.path: str | None = None
        self.words: Sequence[str] = ()

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this Twisted endpoint, for example tcp:1080:interface=10.0.0.1 (repeatable)."""
        self.endpoints.append(endpoint)

    def opt_auth(self, description: str) -> None:
        """Require a login, verified by this strcred string: htpasswd:FILE (repeatable)."""
        self.authenticators.append(description)

    def opt_version(self) -> None:
        """Print socksd's version."""
        raise SystemExit(print(f"socksd {socksd.__version__}"))  # noqa: T201 -- what was asked

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse, and check all that can be checked before anything runs.

        Raises:
            SystemExit: What was said cannot be done: a line for each reason
                and status 1, instead of twistd's page of help before it.
        """
        self.words = tuple(options or ())
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted's
        except usage.UsageError as error:
            raise SystemExit(f"socks5: {error} (--help lists the options)") from error
        except ConfigError as error:
            lines = "\n".join(f"socks5: {problem}" for problem in error.problems)
            raise SystemExit(lines) from error

    def parseArgs(self, *arguments: str) -> None:
        """Take nothing but options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        """Build the gateway; nothing listens yet."""
        from twisted.internet import reactor as installed

        reactor = cast("IReactor", installed)
        go_by_monotonic_time(reactor)  # before anything is built, which may ask what time it is
        # Before the file is read: who changes it from now on shall be heard.
        signal.signal(signal.SIGHUP, Early())
        self.find()
        file = self.read()
        text = file if self["check"] else to_start_with(file)
        self.gateway = assemble(
            self,
            text,
            reactor,
            rolled_back=text != file,
            manager=manager(os.environ, os.getpid()),
        )
        if self["check"]:
            raise SystemExit(print("socksd: the configuration is good"))  # noqa: T201 -- what was asked

    def find(self) -> None:
        """Know the configuration file by its whole path, wherever twistd goes from here."""
        if self["config"]:
            self.path = os.path.abspath(self["config"])

    def read(self) -> str:
        """
        Give the configuration file's text; empty without one.

        Raises:
            ConfigError: It cannot be read.
        """
        return read_config(Path(self.path)) if self.path else ""

    def parse(self, text: str) -> Config:
        """
        Give the configuration of a text with the command line added.

        Raises:
            ConfigError: It has problems.
            usage.UsageError: An option has; the same whatever the text.
        """
        config = parse_config(text, self.path) if self.path else Config()
        listeners = list(config.listener)
        if self["port"] is not None or self["interface"] is not None:
            port = _PORT if self["port"] is None else _port(self["port"])
            endpoint = tcp(port, self["interface"] or _LOOPBACK)
            listeners.append(Listener(name="port", endpoint=endpoint))
        for number, endpoint in enumerate(self.endpoints, 1):
            listeners.append(Listener(name=f"listen-{number}", endpoint=endpoint))
        if not listeners:
            listeners.append(Listener(name="port", endpoint=tcp(_PORT, _LOOPBACK)))
        names = [listener.name for listener in listeners]
        for name in {name for name in names if names.count(name) > 1}:
            message = f"{name!r} is the name of a listener of the command line, too"
            raise ConfigError([Problem("listener", message)])
        auth = attrs.evolve(
            config.auth,
            authenticators=(*config.auth.authenticators, *self.authenticators),
        )
        server = config.server
        if self["workers"] is not None:
            server = attrs.evolve(server, workers=_workers(self["workers"]))
        return attrs.evolve(config, listener=tuple(listeners), auth=auth, server=server)


def configured(path: str) -> Config:
    """
    Give what the service would run by, were it told no more than ``--config``.

    Raises:
        ConfigError: It cannot be read, or has problems.
    """
    options = Options()
    options.path = os.path.abspath(path)
    return options.parse(options.read())


def makeService(options: Options) -> IService:
    """Give the gateway that *options* have built."""
    from twisted.internet import reactor

    # Where twistd's log goes with --nodaemon, unless told otherwise: who reads it
    # and is stuck shall not hold up traffic.
    sys.stdout = cast("TextIO", Outflow(STANDARD_OUTPUT, cast("IReactorTime", reactor)))
    assert options.gateway is not None, "postOptions has built it"
    return cast("IService", options.gateway)


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise usage.UsageError(f"--port {text!r} is not a port; they go from 0 to 65535")


def _workers(text: str) -> int:
    try:
        return workers(int(text) if text.isascii() and text.isdecimal() else text)
    except ValueError as error:
        raise usage.UsageError(f"--workers {error}") from None
