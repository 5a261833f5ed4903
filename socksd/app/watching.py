"""What the dashboard asks of the running service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from socksd.address import IPAddress
from socksd.app.live import denial
from socksd.errors import LoginFailed
from socksd.events import Denied
from socksd.facts import Principal
from socksd.observe import lines
from socksd.observe.traffic import EVERY, Denials, Traffic

if TYPE_CHECKING:
    from socksd.app.service import Gateway

_log = Logger("socksd")


class Watching:
    """
    Who may look, and what is kept for them to look at.

    Attributes:
        gateway: The one to look at, from its making on.
        traffic: What has been carried over the last hour,
        denials: and who was refused: both observers.
    """

    gateway: Gateway

    def __init__(self, clock: IReactorTime) -> None:
        self.traffic = Traffic(lambda: self.gateway.sessions.carried())
        self.denials = Denials()
        self._sampling = LoopingCall(lambda: self.traffic.sample(time.time()))
        self._sampling.clock = clock

    def start(self) -> None:
        """Begin to take samples of the traffic."""
        self._sampling.start(EVERY)

    def stop(self) -> None:
        """Take no more."""
        self._sampling.stop()

    def log_in(self, username: bytes, password: bytes, client: IPAddress) -> Deferred[Principal]:
        """Verify as the listeners do, by the configuration in force; fails with LoginFailed."""
        authenticator = self.gateway.generation.runtime.authenticator
        found: Deferred[Principal] = authenticator.login(username, password, client)
        return found.addErrback(_refused, username, client)

    def admits(self, principal: Principal) -> bool:
        """Tell whether the configuration in force lets somebody look."""
        config = self.gateway.generation.config
        return config.dashboard.admits(principal, config.groups)

    def subscribe(self, tell: Callable[[str, object], None]) -> Callable[[], None]:
        """Tell of each refusal from now on, until what is given back is called."""

        def hear(event: Denied) -> None:
            tell("denied", denial(event))

        self.denials.heard_by.add(hear)
        return lambda: self.denials.heard_by.discard(hear)


def _refused(failure: Failure, username: bytes, client: IPAddress) -> Failure:
    failure.trap(LoginFailed)
    user = username.decode(errors="surrogateescape")
    _log.warn(
        "dashboard login refused client={client} user={user}", client=client, user=lines.word(user)
    )
    return failure
