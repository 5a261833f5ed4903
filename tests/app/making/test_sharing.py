"""What of a configuration several processes cannot share, and what each has of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.app.config import parse_config
from socksd.app.making.sharing import share, unshared

LISTENER = '[[listener]]\nname = "{}"\nendpoint = "{}"\n'


@pytest.mark.parametrize(
    "endpoint",
    [
        "1080",
        "tcp:1080",
        "tcp6:1080",
        "unix:/s",
        "systemd:domain=INET:index=0",
        "tls:/certificates",
    ],
)
def test_sockets_can_be_shared(endpoint: str) -> None:
    text = "[server]\nworkers = 2\n" + LISTENER.format("a", endpoint)
    assert list(unshared(parse_config(text, ""))) == []


def test_what_another_package_adds_to_a_socket_cannot_be_shared() -> None:
    text = "[server]\nworkers = 2\n" + LISTENER.format("a", "1080")
    config = parse_config(text + LISTENER.format("b", "haproxy:tcp:1081"), "")
    (problem,) = unshared(config)
    assert problem.path == "listener[1].endpoint"
    assert problem.message.startswith("workers cannot share a 'haproxy' endpoint; only tcp, tcp6,")


def test_each_worker_needs_a_session_of_the_limit() -> None:
    (problem,) = unshared(parse_config("[server]\nworkers = 4\n[limits]\nsessions = 3\n", ""))
    assert str(problem) == (
        "limits.sessions: must be 4 at least, for each of the 4 workers has its share"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_single_process_shares_nothing(workers: int) -> None:
    text = f"[server]\nworkers = {workers}\n[limits]\nsessions = 1\n"
    assert list(unshared(parse_config(text + LISTENER.format("a", "haproxy:tcp:1"), ""))) == []


@given(st.integers(1, 10**6), st.integers(1, 256))
def test_shares_are_the_whole_and_as_good_as_equal(whole: int, places: int) -> None:
    shares = [share(whole, place, places) for place in range(places)]
    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1
