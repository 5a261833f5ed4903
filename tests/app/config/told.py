"""What a configuration is told to be wrong with."""

from __future__ import annotations

import pytest

from socksd.app.config import parse_config
from socksd.errors import ConfigError

LISTENER = '[[listener]]\nname = "local"\nendpoint = "tcp:1080"\n'


def problems(text: str) -> dict[str, str]:
    """Give what is wrong with a configuration, by key path."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "socksd.toml")
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def problem(text: str) -> tuple[str, str]:
    """Give the one thing that is wrong."""
    (found,) = problems(text).items()
    return found
