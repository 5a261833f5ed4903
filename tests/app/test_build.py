"""A configuration made ready, with what runs already used again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksd.app.build import Lasting, build, lasting
from socksd.app.config import parse_config
from socksd.app.service import Generation, Part
from socksd.errors import ConfigError

SAME = """
[auth]
authenticators = ["memory:alice:secret"]
[log]
access = "-"
[control]
socket = "/run/no/control.sock"
"""


@pytest.fixture
def reactor() -> Any:
    return MemoryReactorClock()


@pytest.fixture
def common(reactor: Any) -> Lasting:
    return lasting(reactor)


def made(text: str, reactor: Any, common: Lasting, running: Sequence[Part] = ()) -> Generation:
    return build(parse_config(text, ""), reactor, common, running)


def test_what_would_be_made_of_the_same_is_used_again(reactor: Any, common: Lasting) -> None:
    """Verified logins, cached names and the open log outlive a reload that changes rules."""
    first = made(SAME, reactor, common)
    rules = '[[rule]]\nid = "all"\naction = "allow"\n'
    second = made(SAME + rules, reactor, common, first.parts)
    assert second.parts == first.parts
    assert second.runtime.authenticator is first.runtime.authenticator
    assert second.runtime.resolver is first.runtime.resolver
    assert second.runtime.policy is not first.runtime.policy
    assert (first.rules[0], second.rules) == (("local", "allow"), (("all", "allow"),))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ('[auth]\ncache = "1m"\n', {"authenticator"}),
        ("[auth]\nthreads = 3\n", {"login threads", "authenticator"}),
        ('[resolver]\nttl = "2m"\n', {"resolver"}),
        ('[deadlines]\nresolve = "1s"\n', {"resolver"}),
        ('[log]\naccess = "/var/log/other"\n', {"access log"}),
        ('[control]\nsocket = "/run/other"\n', {"control"}),
        ('[deadlines]\nidle = "1m"\n', set()),
    ],
)
def test_only_what_has_changed_is_made_anew(
    reactor: Any, common: Lasting, text: str, changed: set[str]
) -> None:
    first = made("", reactor, common)
    second = made(text, reactor, common, first.parts)
    fresh = {
        part.made_of[0]
        for part in second.parts
        if part not in first.parts  # type: ignore[index]
    }
    assert fresh == changed


def test_a_password_file_that_is_broken_is_a_problem_although_it_runs(
    reactor: Any, common: Lasting, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("")
    text = f'[auth]\nauthenticators = ["htpasswd:{users}"]\n'
    first = made(text, reactor, common)
    users.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        made(text, reactor, common, first.parts)
