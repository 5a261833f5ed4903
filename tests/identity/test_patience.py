"""Not to wait for ever."""

from __future__ import annotations

import threading

import pytest

from socksd.identity import patience
from socksd.identity.patience import GivenUp, within

LONG = 60.0  # seconds, none of which is waited for


def test_what_comes_back_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_hanging", {})
    assert within(LONG, "a file", lambda: "its key") == "its key"
    assert patience._hanging == {}


def test_what_is_raised_is_raised() -> None:
    """A TimeoutError as well, which is the work's and not ours."""

    def fails() -> None:
        raise TimeoutError("ETIMEDOUT")

    with pytest.raises(TimeoutError, match="ETIMEDOUT"):
        within(LONG, "a file", fails)


def test_what_hangs_is_given_up_and_not_tried_again_while_it_does() -> None:
    """Or each try would leave a thread behind."""
    release = threading.Event()
    began = []

    def hang() -> None:
        began.append(threading.current_thread())
        release.wait()

    with pytest.raises(GivenUp):
        within(0, "a dead file", hang)
    for _ in range(3):
        with pytest.raises(GivenUp):
            within(LONG, "a dead file", hang)
    assert within(LONG, "another file", lambda: 1) == 1
    release.set()
    (thread,) = began
    assert thread.daemon, "the process does not wait for it either"
    thread.join()
    assert within(LONG, "a dead file", lambda: 2) == 2
