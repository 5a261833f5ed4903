"""What is confirmed outlives the process, whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from socksd.app.confirmed import Confirmed, to_start_with
from socksd.errors import ConfigError

OLD, NEW = "version = 1\n", "version = 1 # näw\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def kept(state: Path) -> Confirmed:
    return Confirmed(state)


def test_nothing_is_there_until_something_is_confirmed(kept: Confirmed) -> None:
    assert kept.text() is None
    assert not kept.is_marked(OLD)
    assert not kept.directory.exists()


def test_the_confirmed_copy_is_the_text_and_nobody_elses_to_read(kept: Confirmed) -> None:
    kept.confirm(NEW)
    assert Confirmed(kept.directory).text() == NEW
    assert stat.S_IMODE(kept.directory.stat().st_mode) == 0o700
    (copy,) = kept.directory.iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_mark_is_on_one_text(kept: Confirmed) -> None:
    kept.confirm(OLD)
    assert kept.mark(NEW, 5.0) is None
    assert (kept.is_marked(NEW), kept.is_marked(OLD), kept.text()) == (True, False, OLD)
    kept.confirm(NEW)
    assert (kept.is_marked(NEW), kept.text()) == (False, NEW)


def test_a_mark_can_be_put_back(kept: Confirmed) -> None:
    kept.put_back(kept.mark(OLD, 5.0))
    assert not kept.is_marked(OLD)
    kept.mark(OLD, 5.0)
    kept.put_back(kept.mark(NEW, 6.0))
    assert (kept.is_marked(OLD), kept.is_marked(NEW)) == (True, False)


def test_a_mark_that_cannot_be_read_is_on_everything(kept: Confirmed) -> None:
    kept.mark(OLD, 5.0)
    (kept.directory / "unconfirmed.json").write_text("{")
    assert kept.is_marked(NEW)
    (kept.directory / "unconfirmed.json").write_text("[]")
    assert not kept.is_marked(NEW)


def test_every_write_is_on_the_disk_before_it_counts(
    kept: Confirmed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before it gets its name, and the name before anybody goes on."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        done.append("directory" if stat.S_ISDIR(mode) else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Any) -> Path:
        done.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    kept.mark(OLD, 5.0)
    assert done == ["file", "name", "directory"]
    kept.confirm(OLD)
    assert done[3:] == ["file", "name", "directory", "directory"]
    kept.confirm(OLD)
    assert done[7:] == [], "what is there already is not written again"


def test_a_write_that_fails_leaves_the_old_one(
    kept: Confirmed, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.confirm(OLD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.confirm(NEW)
    assert kept.text() == OLD


def with_state(state: Path, more: str = "") -> str:
    return f'[reload]\nstate = "{state}"\n{more}'


def test_what_is_not_marked_is_started_with(kept: Confirmed, state: Path) -> None:
    text = with_state(state)
    assert to_start_with(text) == text
    kept.confirm(OLD)
    kept.mark(NEW, 5.0)
    assert to_start_with(text) == text, "edited since: another one, which nobody has tried"


@pytest.mark.parametrize("until", [0.0, 9e9], ids=["time is over", "time is left"])
def test_what_is_marked_is_not_started_with(kept: Confirmed, state: Path, until: float) -> None:
    """Even where the rest of it no longer loads."""
    text = with_state(state, 'no_such_key = "?"\n')
    kept.confirm(OLD)
    kept.mark(text, until)
    assert to_start_with(text) == OLD


@pytest.mark.parametrize(
    "text",
    ["", "= no TOML", "reload = 1", "[reload]\n", "[reload]\nstate = 1", '[reload]\nstate = ""'],
)
def test_without_a_state_there_is_nothing_to_look_at(text: str) -> None:
    assert to_start_with(text) == text


def test_a_marked_one_without_a_confirmed_one_is_a_problem(kept: Confirmed, state: Path) -> None:
    text = with_state(state)
    kept.mark(text, 5.0)
    with pytest.raises(ConfigError, match=r"reload\.state: this configuration is not confirmed"):
        to_start_with(text)


def test_a_state_that_cannot_be_read_is_a_problem(state: Path) -> None:
    state.write_text("a file")
    with pytest.raises(ConfigError, match=r"reload\.state: .*Not a directory"):
        to_start_with(with_state(state))
