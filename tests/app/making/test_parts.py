"""Parts that would be made of the same are used again."""

from __future__ import annotations

import pytest

from socksd.app.making.parts import Parts
from socksd.app.service import Part


def test_what_runs_is_used_again_with_what_it_remembers() -> None:
    cache = {"example.com": 7}
    running = Parts([])
    assert running.take(("cache", 60), lambda: Part(what=cache)) is cache
    again = Parts(running.taken)
    assert again.take(("cache", 60), lambda: pytest.fail("made")) is cache
    assert again.taken == running.taken


def test_what_would_be_another_is_made() -> None:
    running = Parts([])
    running.take(("cache", 60), lambda: Part(what="old"))
    other = Parts(running.taken)
    assert other.take(("cache", 61), lambda: Part(what="new")) == "new"
    assert [part.made_of for part in other.taken] == [("cache", 61)]


def test_of_two_that_run_the_later_is_used() -> None:
    """The earlier one is of a configuration that goes; sessions may keep it for a while."""
    both = [Part(what=what, made_of="log") for what in ("earlier", "later")]
    assert Parts(both).take("log", lambda: pytest.fail("made")) == "later"
