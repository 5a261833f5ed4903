"""A headless Chromium that can be asked what it shows, and be given a login."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.functional.process import needs

SECONDS = 30.0  # for any one page

# The browser wants its pipe at 3 and 4; in us those may be anything.
_AT_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for place, fd in zip((3, 4), high):
    os.dup2(fd, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """
    One tab, driven over the pipe of the DevTools protocol.

    Attributes:
        asked: Where a login was asked for: "Proxy" or "Server", and the realm.
    """

    def __init__(self, to_it: int, from_it: int, login: tuple[str, str] | None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._to_it, self._from_it = to_it, from_it
        self._login = login
        self._unread = b""
        self._number = 0
        self._loaded = False
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")
        self._call("Fetch.enable", handleAuthRequests=True)

    def show(self, url: str) -> str:
        """Go to a page, and give its text once it has been loaded."""
        self._loaded = False
        self._call("Page.navigate", url=url)
        end = time.monotonic() + SECONDS
        while not self._loaded:
            self._hear(self._read(end))
        shown = self._call("Runtime.evaluate", expression="document.documentElement.innerText")
        return str(shown["result"]["value"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._send(method, **parameters)
        end = time.monotonic() + SECONDS
        while (message := self._read(end)).get("id") != number:
            self._hear(message)
        assert "result" in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _send(self, method: str, **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        return self._number

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            left = end - time.monotonic()
            assert left > 0, "the browser says no more"
            if select.select([self._from_it], [], [], left)[0]:
                octets = os.read(self._from_it, 65536)
                assert octets, "the browser has ended"
                self._unread += octets
        octets, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(octets)
        return message

    def _hear(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", requestId=parameters["requestId"])
        elif method == "Fetch.authRequired":
            challenge = parameters["authChallenge"]
            self.asked.append((challenge["source"], challenge["realm"]))
            response = {"response": "CancelAuth"}
            if self._login is not None:
                username, password = self._login
                response = {
                    "response": "ProvideCredentials",
                    "username": username,
                    "password": password,
                }
            self._send(
                "Fetch.continueWithAuth",
                requestId=parameters["requestId"],
                authChallengeResponse=response,
            )


@contextmanager
def chromium(profile: Path, proxy: str, login: tuple[str, str] | None = None) -> Iterator[Chromium]:
    """
    Run a browser behind *proxy* while the block lasts.

    Args:
        profile: A directory for what it keeps.
        proxy: As for ``--proxy-server``.
        login: What it answers whoever asks for a login; ``None``: nothing.
    """
    program = needs("chromium")
    its_input, to_it = os.pipe()
    from_it, its_output = os.pipe()
    with (profile.parent / f"{profile.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-c", _AT_3_AND_4, str(its_input), str(its_output), program,
                "--remote-debugging-pipe", "--headless", "--no-sandbox", "--disable-gpu",
                "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--ignore-certificate-errors", f"--user-data-dir={profile}",
                f"--proxy-server={proxy}", "about:blank",
            ],
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )  # fmt: skip
    os.close(its_input)
    os.close(its_output)
    try:
        yield Chromium(to_it, from_it, login)
    finally:
        os.close(to_it)  # which it takes for the end
        os.close(from_it)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
