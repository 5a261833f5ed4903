"""What cannot be made is noted, and what is a bug is not."""

from __future__ import annotations

from typing import Any

import pytest

from socksd.app.making.attempts import attempt
from socksd.errors import ConfigError, Problem


def fails(error: Exception) -> Any:
    raise error


def test_what_can_be_made_is_given() -> None:
    problems: list[Problem] = []
    assert attempt(lambda: 7, "a.b", problems) == 7
    assert problems == []


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        (ValueError("is wrong"), [Problem("a.b", "is wrong")]),
        (
            ConfigError([Problem("", "is wrong"), Problem("c.d", "as well")]),
            [Problem("a.b", "is wrong"), Problem("c.d", "as well")],
        ),
    ],
)
def test_what_is_wrong_is_noted_where_it_stands_behind_what_was_before(
    error: Exception, noted: list[Problem]
) -> None:
    first = Problem("", "first")
    problems = [first]
    assert attempt(lambda: fails(error), "a.b", problems) is None
    assert problems == [first, *noted]


def test_a_bug_is_not_taken_for_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: fails(ZeroDivisionError()), "a.b", [])
