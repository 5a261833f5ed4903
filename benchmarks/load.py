"""The load generator of load.c: built when it is needed, run, and its JSON read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Report = dict[str, Any]  # what load.c prints; its keys are in README.rst

SOURCE = Path(__file__).parent / "load.c"
_FLAGS = ("-std=gnu11", "-O2")
_OPENING = 40.0  # seconds that load.c may take besides those it was given


class LoadError(Exception):
    """The generator could not be built or run."""


def cache() -> Path:
    """Give the folder for what is built or installed on demand."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "socksd-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiler() -> str | None:
    """Give the path of a C compiler, if there is one."""
    return shutil.which(os.environ.get("CC", "cc"))


def built(folder: Path | None = None) -> Path:
    """
    Give the program, built from load.c as it is now.

    Raises:
        LoadError: There is no C compiler, or it refuses.
    """
    cc = compiler()
    if cc is None:
        raise LoadError("a C compiler is needed (on Debian: apt install gcc libc6-dev)")
    version = hashlib.sha256(SOURCE.read_bytes() + repr((cc, _FLAGS)).encode()).hexdigest()[:16]
    program = (folder or cache()) / f"load-{version}"
    if not program.exists():
        unfinished = program.with_suffix(f".{os.getpid()}")
        command = (cc, *_FLAGS, "-o", str(unfinished), str(SOURCE))
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise LoadError(made.stderr)
        unfinished.rename(program)  # at once: others may be building it, too
    return program


class Load:
    """
    The generator, against one server.

    Args:
        program: As built() gives it.
        proxy: ``HOST:PORT`` of the SOCKS server; ``None`` goes to the targets directly.
    """

    def __init__(self, program: Path, proxy: str | None = None) -> None:
        self._program = program
        self._proxy = proxy

    def start(self, mode: str, **options: str | float | bool) -> subprocess.Popen[str]:
        """Start a run; *options* are those of load.c (``True``: a flag)."""
        command = [str(self._program), mode]
        if self._proxy is not None:
            command += ["--proxy", self._proxy]
        for name, value in options.items():
            if value is True:
                command.append(f"--{name}")
            elif value is not False:
                command += [f"--{name}", str(value)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(self, mode: str, *, seconds: float, **options: str | float | bool) -> Report:
        """
        Run to the end.

        Raises:
            LoadError: It printed no report.
        """
        return report(self.start(mode, seconds=seconds, **options), seconds)

    @contextmanager
    def held(
        self, mode: str, *, seconds: float, **options: str | float | bool
    ) -> Iterator[Callable[[], Report]]:
        """
        Hold tunnels open, from when all are open, for *seconds* at most.

        Yields:
            What ends the run and gives its report.
        """
        process = self.start(mode, seconds=seconds, hold=True, **options)
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if line != "ready\n":
                raise LoadError(line or f"{mode} has ended before it was ready")
            yield lambda: report(process, _OPENING)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def report(process: subprocess.Popen[str], seconds: float) -> Report:
    """
    Wait for the end of a run that was given *seconds*, and read its report.

    Raises:
        LoadError: There is none.
    """
    try:
        output, errors = process.communicate(timeout=seconds + _OPENING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise LoadError(f"no end after {seconds + _OPENING:g} s") from None
    try:
        found: Report = json.loads(output)
    except ValueError:
        raise LoadError(errors or f"ended with {process.returncode}: {output!r}") from None
    return found
