"""A verified login is known for a while, and never more than that."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from socksd.facts import Principal
from socksd.identity import cache as module
from socksd.identity.cache import VerifiedLogins
from tests.identity.fakes import SECRET

ALICE = Principal("alice")

logins = st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.lists(st.integers(0, 30)))
one_cache = VerifiedLogins(1, Clock().seconds)


@given(logins, logins)
@example((b"a", b"bc", []), (b"ab", b"c", []))
@example((b"", b"a", [1]), (b"", b"a1", []))
@example((b"a", b"b", [1, 1]), (b"a", b"b", [11]))
def test_different_logins_have_different_keys(
    one: tuple[bytes, bytes, list[int]], other: tuple[bytes, bytes, list[int]]
) -> None:
    assert (one_cache.key(*one) == one_cache.key(*other)) == (one == other)


def test_a_login_is_known_until_its_time_is_up() -> None:
    clock = Clock()
    cache = VerifiedLogins(300, clock.seconds)
    key = cache.key(b"alice", SECRET)
    assert cache.get(key) is None
    cache.put(key, ALICE)
    clock.advance(299)
    assert cache.get(key) == ALICE
    assert (cache.hits, cache.misses) == (1, 1)
    clock.advance(1)
    assert cache.get(key) is None, "being asked for must not prolong it"
    assert len(cache) == 0


def test_a_login_verified_again_counts_anew() -> None:
    clock = Clock()
    cache = VerifiedLogins(300, clock.seconds)
    for name in (b"alice", b"bob"):
        cache.put(cache.key(name, SECRET), ALICE)
    clock.advance(200)
    cache.put(cache.key(b"alice", SECRET), ALICE)
    clock.advance(100)
    assert cache.get(cache.key(b"alice", SECRET)) == ALICE
    assert cache.get(cache.key(b"bob", SECRET)) is None


def test_no_seconds_is_no_cache() -> None:
    cache = VerifiedLogins(0, Clock().seconds)
    cache.put(b"key", ALICE)
    assert len(cache) == 0


def test_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 2)
    cache = VerifiedLogins(300, Clock().seconds)
    for key in (b"1", b"2", b"3"):
        cache.put(key, ALICE)
    assert [cache.get(key) for key in (b"1", b"2", b"3")] == [None, ALICE, ALICE]


def test_keys_hold_for_one_process_only() -> None:
    """A key that another process can compute is a password hash, and a weak one."""
    keys = {VerifiedLogins(1, Clock().seconds).key(b"alice", SECRET) for _ in range(2)}
    assert len(keys) == 2


def test_neither_name_nor_password_is_kept() -> None:
    cache = VerifiedLogins(300, Clock().seconds)
    cache.put(cache.key(b"somebody", SECRET), Principal("x"))
    assert "somebody" not in repr(vars(cache))
    assert SECRET.decode() not in repr(vars(cache))
