"""
Which configuration somebody has confirmed, kept where a kill -9 does not reach.

A directory with two files. ``confirmed.toml`` is a copy of the configuration
file as it was last confirmed: by a start, by a plain reload, or by ``socksd
confirm``. ``unconfirmed.json`` names, by its digest, the configuration on trial
or the one whose trial has failed; it is there before that one serves anybody.

A configuration so marked is not started with, however much of its time is
left: a process that was killed takes the clock of the trial with it, and whoever
would confirm may be locked out by that very configuration. To change the file,
or to ask for it by ``socksd reload``, takes the mark away.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from contextlib import suppress
from pathlib import Path

from socksd.errors import ConfigError, Problem


class Confirmed:
    """
    The last confirmed configuration, and the mark on one that is not.

    All methods may raise OSError.

    Args:
        directory: Made, with mode 0700, where something is to be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._copy = directory / "confirmed.toml"
        self._mark = directory / "unconfirmed.json"

    def text(self) -> str | None:
        """Give the last confirmed configuration; ``None`` if there is none."""
        try:
            return self._copy.read_text("utf-8")
        except FileNotFoundError:
            return None

    def is_marked(self, text: str) -> bool:
        """Tell whether *text* is on trial, or has failed it."""
        try:
            mark = json.loads(self._mark.read_bytes())
        except FileNotFoundError:
            return False
        except ValueError:
            return True  # not our writing, which is whole or not there: trust nothing
        return isinstance(mark, dict) and mark.get("sha256") == _digest(text)

    def mark(self, text: str, until: float) -> bytes | None:
        """
        Mark *text* as on trial until a time, in seconds since the epoch.

        Returns:
            The mark before, for :meth:`put_back`.
        """
        before = None
        with suppress(FileNotFoundError):
            before = self._mark.read_bytes()
        self._write(self._mark, json.dumps({"sha256": _digest(text), "until": until}).encode())
        return before

    def put_back(self, mark: bytes | None) -> None:
        """Have the mark as it was before *mark* was called."""
        if mark is None:
            self._unmark()
        else:
            self._write(self._mark, mark)

    def confirm(self, text: str) -> None:
        """Keep *text* as the confirmed configuration, and take any mark away."""
        # In this order: killed in between, the mark is on what is confirmed.
        if self.text() != text:
            self._write(self._copy, text.encode())
        self._unmark()

    def _unmark(self) -> None:
        with suppress(FileNotFoundError):
            self._mark.unlink()
            self._sync()

    def _write(self, path: Path, octets: bytes) -> None:
        """Write a file so that after a crash it is the old one or the new one, whole."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        new = path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
        self._sync()

    def _sync(self) -> None:
        """Have the directory's entries on the disk."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def to_start_with(text: str) -> str:
    """
    Give the configuration to start with: *text*, or the confirmed one in its place.

    Where to look stands in *text* itself, ``[reload] state``; it is read here
    without looking at anything else, for the rest may no longer load.

    Raises:
        ConfigError: *text* is not confirmed, and what was is not to be had.
    """
    try:
        table = tomllib.loads(text).get("reload")
    except tomllib.TOMLDecodeError:
        return text  # whoever parses it will say so
    state = table.get("state") if isinstance(table, dict) else None
    if not isinstance(state, str) or not state:
        return text
    kept = Confirmed(Path(state))
    try:
        if not kept.is_marked(text):
            return text
        confirmed = kept.text()
    except OSError as error:
        raise ConfigError([Problem("reload.state", f"{state}: {error.strerror}")]) from error
    if confirmed is None:
        message = f"this configuration is not confirmed, and {state} has none that is"
        raise ConfigError([Problem("reload.state", message)])
    return confirmed


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
