"""SIGUSR1: the log has been moved away."""

from __future__ import annotations

import signal

from twisted.internet.interfaces import IReactorFromThreads

from socksd.app.service import Gateway
from socksd.app.signals import OnSignal
from socksd.observe.access import AccessLog


class Reopener(OnSignal):
    """Have the access log begin its file anew, though nobody writes to it just now."""

    def __init__(self, gateway: Gateway, reactor: IReactorFromThreads) -> None:
        super().__init__(signal.SIGUSR1, reactor, self.reopen, shared=True)
        self._gateway = gateway

    def reopen(self) -> None:
        """Begin it anew now."""
        for part in self._gateway.parts():
            if isinstance(part.what, AccessLog):
                part.what.reopen()
