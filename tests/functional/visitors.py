"""Clients that come again and again, and whom nobody may refuse."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.functional.dialogue import Refused, take, tunnel
from tests.functional.process import wait_for

ECHOED = b"still there?"


class Visitors:
    """
    Threads, each of which visits an echo server through a gateway, over and over.

    Attributes:
        served: How many visits have gone well,
        failed: and what became of the others.
    """

    def __init__(self, port: int, target: int) -> None:
        self.served = 0
        self.failed: list[str] = []
        self._port = port
        self._target = target
        self._over = threading.Event()
        self._lock = threading.Lock()

    def visit(self) -> None:
        """Visit until it is over."""
        while not self._over.is_set():
            try:
                with tunnel(self._port, "127.0.0.1", self._target) as client:
                    client.sendall(ECHOED)
                    assert take(client, len(ECHOED)) == ECHOED
            except (Refused, OSError, EOFError) as error:
                self.failed.append(repr(error))
                return
            with self._lock:
                self.served += 1

    def more(self, visits: int) -> None:
        """Wait for so many visits from now on; or for one that fails."""
        goal = self.served + visits
        wait_for(f"{visits} visits", lambda: self.served >= goal or self.failed)

    @contextmanager
    def coming(self, clients: int) -> Iterator[Visitors]:
        """Have so many of them come while the block lasts; then nobody may have failed."""
        threads = [threading.Thread(target=self.visit) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert not self.failed, f"after {self.served} visits: {self.failed}"
