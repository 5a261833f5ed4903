"""How long, how much and how many."""

from __future__ import annotations

import attrs
import pytest

from socksd.app.config import Deadlines, Limit
from socksd.server import states


def test_a_client_is_not_waited_for_longer_than_the_rfc_allows() -> None:
    """RFC 1928 section 6: the connection closes within ten seconds of a failure."""
    assert Deadlines().closing == 10.0


def test_the_server_has_the_same_deadlines_with_the_same_defaults() -> None:
    assert attrs.asdict(Deadlines()) == {
        name: getattr(states.Deadlines(), name) for name in attrs.fields_dict(Deadlines)
    }


def test_a_limit_limits_something() -> None:
    with pytest.raises(ValueError, match="limits nothing"):
        Limit()
    assert Limit(bandwidth=1).idle is None
    assert Limit(idle=1.0).bandwidth is None
