"""A gateway as its user runs it: a twistd process, its log and what /proc says of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

SCRIPTS = Path(sys.executable).parent  # of the environment that runs the tests
LISTEN = "tcp:0:interface=127.0.0.1"
WAIT = 20.0  # seconds; only a failing test ever waits that long

_LISTENING = re.compile(r"listening name=\S+ on \S+:(\d+)")
_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # where sshd lives
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def needs(program: str) -> str:
    """Give the path of a program; skip the test on a machine that lacks it."""
    path = shutil.which(program, path=_SBIN)
    if path is None:
        pytest.skip(f"needs {program}")
    return path


def run(
    *command: str | Path, stdin: str = "", seconds: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, unaware of any proxy or login of whoever runs the tests."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=inherited | environment,
        check=False,
    )


def heeds_ctrl_c() -> None:
    """Undo what a shell does to what runs in the background, in a process that is to start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = WAIT) -> T:
    """Give the first true answer of *probe*; fail the test after *seconds*."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds."""

    descriptors: int
    memory: int  # resident, in octets


class Gateway:
    """
    A running ``twistd socks5`` on an ephemeral port of the loopback.

    Args:
        directory: Its working directory; holds its log and its access log.
        options: Of ``twistd socks5``; a listener is added.
        config: TOML behind a listener and an access log, which every
            configuration here has; ``None`` runs without a configuration.
        descriptors: The limit to start under (``ulimit -n``).
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        config: str | None = None,
        descriptors: int | None = None,
    ) -> None:
        self.directory = directory
        self._log = directory / "twistd.log"
        self._access = directory / "access.jsonl"
        self.file = directory / "socksd.toml"
        if config is None:
            options = ("--listen", LISTEN, *options)
        else:
            self.configure(config)
            options = ("--config", str(self.file), *options)
        limit = f"ulimit -n {descriptors}; " if descriptors else ""
        twistd = (str(SCRIPTS / "twistd"), "--nodaemon", "--pidfile=", "socks5", *options)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ("sh", "-c", f'{limit}exec "$0" "$@"', *twistd),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=heeds_ctrl_c,
            )
        try:
            self.port = wait_for("the listener", self._listening)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def port_of(self, listener: str) -> int:
        """Give the port of a listener that its configuration adds."""
        return int(self.logged(rf"listening name={listener} on \S+:\d+").rpartition(":")[2])

    def configure(self, config: str) -> None:
        """Write the configuration, all of it at once; one that runs has to be told to look."""
        new = self.file.with_suffix(".new")
        new.write_text(
            f'version = 1\n[log]\naccess = "{self._access}"\n'
            f'[[listener]]\nname = "test"\nendpoint = "{LISTEN}"\n{config}'
        )
        new.replace(self.file)

    def log(self) -> str:
        """Everything said so far."""
        return self._log.read_text()

    def logged(self, pattern: str) -> str:
        """Wait for a log line that matches, and give it."""

        def probe() -> str | None:
            found = re.search(f"^.*(?:{pattern}).*$", self.log(), re.MULTILINE)
            return found and found[0]

        try:
            return wait_for(f"{pattern!r} in the log", probe)
        except pytest.fail.Exception as failed:
            pytest.fail(f"{failed}; its end:\n{self.log()[-5000:]}")

    def sessions(self, count: int) -> list[dict[str, Any]]:
        """Wait until *count* sessions have ended, and give their access log entries."""

        def probe() -> list[str] | None:
            lines = self._access.read_text().splitlines() if self._access.exists() else []
            return lines if len(lines) >= count else None

        lines = wait_for(f"{count} sessions in the access log", probe)
        assert len(lines) == count
        return [json.loads(line) for line in lines]

    def usage(self) -> Usage:
        status = Path(f"/proc/{self.pid}/status").read_text()
        kibibytes = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert kibibytes
        return Usage(len(os.listdir(f"/proc/{self.pid}/fd")), int(kibibytes[1]) * 1024)

    def settled(self, base: Usage) -> Usage:
        """Wait until no more descriptors are held than at *base* (+4), and say what is held."""
        wait_for(
            f"{base.descriptors} descriptors",
            lambda: self.usage().descriptors <= base.descriptors + 4,
        )
        return self.usage()

    def busy(self) -> float:
        """Seconds of processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def stop(self) -> int:
        """Ask it to end, and insist if it waits for sessions; give its exit status."""

        def is_ending() -> bool:
            return self.process.poll() is not None or "draining: " in self.log()

        try:
            for _ in range(2):
                if self.process.poll() is None:
                    self.process.send_signal(signal.SIGTERM)
                    wait_for("the end", is_ending)
            return self.process.wait(WAIT)
        except (subprocess.TimeoutExpired, pytest.fail.Exception):
            self.process.kill()
            self.process.wait()
            raise

    def _listening(self) -> int | None:
        found = _LISTENING.search(self.log())
        if not found and self.process.poll() is not None:
            pytest.fail(f"twistd has ended:\n{self.log()}")
        return int(found[1]) if found else None
