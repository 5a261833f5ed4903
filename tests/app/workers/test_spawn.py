"""A new process, and what it inherits."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest

from socksd.app.workers.channel import DESCRIPTOR
from socksd.app.workers.pool import Worker
from socksd.app.workers.spawn import MODULE, environment, spawn


class FakeReactor:
    def __init__(self) -> None:
        self.spawned: list[Any] = []

    def spawnProcess(self, *arguments: Any, **options: Any) -> None:
        descriptors = options["childFDs"]
        self.spawned = [*arguments, dict(descriptors)]
        self.theirs = socket.socket(fileno=os.dup(descriptors[DESCRIPTOR]))

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.ours = socket.socket(fileno=os.dup(descriptor))
        self.protocol = factory.buildProtocol(None)


@pytest.mark.parametrize(("shares", "log"), [(True, 1), (False, "r")])
def test_a_worker_has_a_channel_and_our_output_and_nothing_else(shares: bool, log: object) -> None:
    reactor = FakeReactor()
    worker = Worker(7, "", lambda *_: None, lambda _: None)
    before = set(os.listdir("/proc/self/fd"))
    spawn(worker, reactor, shares_output=shares)  # type: ignore[arg-type]  # of it, what is used
    protocol, program, words, _, descriptors = reactor.spawned
    assert (protocol, program) == (worker, sys.executable)
    assert words == [sys.executable, "-P", "-m", MODULE, "7"]
    assert (set(descriptors), descriptors[1], descriptors[2]) == ({0, 1, 2, DESCRIPTOR}, 1, log)
    assert reactor.protocol is worker.asker
    with reactor.ours, reactor.theirs:
        reactor.ours.send(b"question")
        assert reactor.theirs.recv(100) == b"question"
        assert not os.get_blocking(reactor.theirs.fileno())
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_is_meant_for_the_parent_alone_is_kept_from_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["", "lib", "/opt/x"])
    ours = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "LISTEN_FDNAMES": "socks",
        "KRB5_KTNAME": "/etc/k",
        "PYTHONPATH": "/elsewhere",
    }
    assert environment(ours) == {
        "KRB5_KTNAME": "/etc/k",
        "PYTHONPATH": f"{os.path.abspath('lib')}{os.pathsep}/opt/x",
    }
