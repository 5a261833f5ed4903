"""Making what a value describes, and noting what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from socksd.errors import ConfigError, Problem

T = TypeVar("T")


def attempt(make: Callable[[], T], path: str, problems: list[Problem]) -> T | None:
    """Make something of the value at *path*; note what is wrong with it instead of raising."""
    try:
        return make()
    except ConfigError as error:
        problems += [Problem(problem.path or path, problem.message) for problem in error.problems]
    except ValueError as error:
        problems.append(Problem(path, str(error)))
    return None
