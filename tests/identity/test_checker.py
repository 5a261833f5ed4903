"""The htpasswd checker: one bcrypt per login whoever asks, and a file that changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import pytest_twisted
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from socksd.errors import ConfigError
from socksd.identity import htpasswd
from socksd.identity.checker import HtpasswdChecker
from socksd.identity.credentials import IThreadedUsernamePassword, IVersioned, Login
from tests.fakes import outcome
from tests.identity.fakes import ALICE, SECRET, FakePool, hashed, started

HASH = hashed()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_bytes(b"alice:%b\n" % HASH)
    return path


@pytest.fixture
def checker(path: Path, clock: Clock) -> HtpasswdChecker:
    return HtpasswdChecker(str(path), clock.seconds)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_namespace"].startswith("socksd.identity"):
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def hashings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Each password with the hash it was verified against."""
    calls: list[tuple[bytes, bytes]] = []
    checkpw = bcrypt.checkpw

    def counted(password: bytes, against: bytes) -> bool:
        calls.append((password, against))
        return checkpw(password, against)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    return calls


def ask(
    checker: HtpasswdChecker, pool: FakePool, username: bytes = b"alice", password: bytes = SECRET
) -> Any:
    """Log in and give the avatar id, or raise."""
    answer = checker.requestAvatarId(Login(username, password, ALICE, started(pool)))
    pool.finish()
    return outcome(answer)


def test_it_is_a_checker(checker: HtpasswdChecker, pool: FakePool) -> None:
    verifyObject(ICredentialsChecker, checker)
    verifyObject(IVersioned, checker)
    verifyObject(IThreadedUsernamePassword, Login(b"", b"", ALICE, started(pool)))


def test_the_right_password_lets_in(checker: HtpasswdChecker, pool: FakePool) -> None:
    assert ask(checker, pool) == b"alice"


def test_hashing_is_not_done_in_this_thread(
    checker: HtpasswdChecker, pool: FakePool, hashings: list[Any]
) -> None:
    checker.requestAvatarId(Login(b"alice", SECRET, ALICE, started(pool)))
    assert not hashings
    pool.finish()
    assert hashings == [(SECRET, HASH)]


LONG = b"x" * 72


@pytest.mark.parametrize(
    ("username", "password"),
    [
        pytest.param(b"alice", b"wrong", id="wrong"),
        pytest.param(b"Alice", SECRET, id="unknown user"),
        pytest.param(b"", SECRET, id="no name"),
        pytest.param(b"a" * 255, b"x" * 255, id="255 octets"),
        pytest.param(b"\xff\x00\xfe", b"\xff\x00", id="not text"),
        pytest.param(b"alice", b"", id="no password"),
        pytest.param(b"empty", b"", id="no password, for its hash"),
        pytest.param(b"long", LONG + b"x", id="73 octets of which 72 match"),
        pytest.param(b"alice", SECRET + b"\0" + SECRET, id="the same to bcrypt"),
    ],
)
def test_whatever_is_wrong_costs_one_hashing_and_says_the_same(
    path: Path, pool: FakePool, hashings: list[Any], username: bytes, password: bytes
) -> None:
    """Else time or words would tell who has an account."""
    path.write_bytes(b"alice:%b\nempty:%b\nlong:%b\n" % (HASH, hashed(b""), hashed(LONG)))
    with pytest.raises(UnauthorizedLogin) as caught:
        ask(HtpasswdChecker(str(path)), pool, username, password)
    assert str(caught.value) == ""
    [(_, against)] = hashings
    assert against[4:6] == b"04"


def test_seventy_two_octets_let_in(path: Path, pool: FakePool) -> None:
    path.write_bytes(b"long:" + hashed(LONG))
    assert ask(HtpasswdChecker(str(path)), pool, b"long", LONG) == b"long"


def test_a_name_need_not_be_text(path: Path, pool: FakePool) -> None:
    path.write_bytes(b"\xff\xe9:" + HASH)
    assert ask(HtpasswdChecker(str(path)), pool, b"\xff\xe9") == b"\xff\xe9"


def test_unknown_users_cost_what_known_ones_do(
    path: Path, pool: FakePool, hashings: list[Any]
) -> None:
    """With both costs in the file both among strangers, and one for each name."""
    path.write_bytes(b"a:%b\nb:%b\n" % (hashed(cost=4), hashed(cost=5)))
    checker = HtpasswdChecker(str(path))
    for name in [b"%d" % number for number in range(40)] * 2:
        with pytest.raises(UnauthorizedLogin):
            ask(checker, pool, name)
    costs = [htpasswd.cost_of(against) for _, against in hashings]
    assert set(costs) == {4, 5}
    assert costs[:40] == costs[40:]


def test_an_empty_file_lets_nobody_in(path: Path, pool: FakePool, hashings: list[Any]) -> None:
    path.write_bytes(b"")
    with pytest.raises(UnauthorizedLogin):
        ask(HtpasswdChecker(str(path)), pool)
    assert htpasswd.cost_of(hashings[0][1]) == htpasswd.COST


def test_the_name_of_nobody_can_not_log_in(
    path: Path, pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the stand-in's hash matched."""
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: True)
    with pytest.raises(UnauthorizedLogin):
        ask(HtpasswdChecker(str(path)), pool, b"nobody")


@pytest_twisted.ensureDeferred
async def test_other_programs_may_use_it(checker: HtpasswdChecker) -> None:
    """Any twistd plugin with --auth offers it, and knows nothing of our threads."""
    assert await checker.requestAvatarId(UsernamePassword(b"alice", SECRET)) == b"alice"
    with pytest.raises(UnauthorizedLogin):
        await checker.requestAvatarId(UsernamePassword(b"alice", b"wrong"))


# -- the file at the start ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("none", "none: No such file or directory", id="missing"),
        pytest.param("", ": not a regular file", id="directory"),
        pytest.param("pipe", "pipe: not a regular file", id="pipe"),
        pytest.param("weak", "weak:1: user 'a' has no bcrypt hash", id="weak"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_config_error(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "weak").write_bytes(b"a:plain")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as caught:
        HtpasswdChecker(str(tmp_path / name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_found_again_from_another_directory(
    path: Path, pool: FakePool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twistd changes to its --rundir after it has read the options."""
    monkeypatch.chdir(path.parent)
    checker = HtpasswdChecker("users", clock.seconds)
    monkeypatch.chdir("/")
    path.write_bytes(b"bob:" + HASH)
    clock.advance(1)
    assert ask(checker, pool, b"bob") == b"bob"


# -- the file later -----------------------------------------------------------


def test_a_change_counts_from_the_next_login(
    checker: HtpasswdChecker, path: Path, pool: FakePool, clock: Clock, logged: list[str]
) -> None:
    path.write_bytes(b"bob:%b\n" % HASH)
    clock.advance(1)
    assert ask(checker, pool, b"bob") == b"bob"
    with pytest.raises(UnauthorizedLogin):
        ask(checker, pool, b"alice")
    assert logged == [f"{path} has changed: 1 users"]


def test_the_version_tells_of_a_change_and_of_nothing_else(
    checker: HtpasswdChecker, path: Path, clock: Clock
) -> None:
    before = checker.version()
    clock.advance(1)
    assert checker.version() == before
    path.write_bytes(b"alice:%b\n" % hashed())
    clock.advance(1)
    assert checker.version() != before


def test_the_file_is_looked_at_once_a_second(
    checker: HtpasswdChecker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look = os.stat

    def counted(path: str) -> os.stat_result:
        looks.append(path)
        return look(path)

    monkeypatch.setattr(os, "stat", counted)
    for _ in range(20):
        clock.advance(0.25)
        checker.version()
    assert len(looks) == 5


@pytest.mark.parametrize("under", [False, True], ids=["in place", "with the old times"])
def test_a_change_of_one_octet_is_seen(
    checker: HtpasswdChecker, path: Path, clock: Clock, under: bool
) -> None:
    """The size says nothing, and cp -p or rsync put the old mtime back."""
    before, status = checker.version(), path.stat()
    path.write_bytes(b"alicf:%b\n" % HASH)
    if under:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    clock.advance(1)
    assert checker.version() != before


def test_a_broken_version_leaves_the_last_good_one_in_force_and_is_logged_once(
    checker: HtpasswdChecker, path: Path, pool: FakePool, clock: Clock, logged: list[str]
) -> None:
    path.write_bytes(b"alice:hunter2\n")
    before = checker.version()
    for _ in range(3):
        clock.advance(1)
        assert ask(checker, pool) == b"alice"
    [line] = logged
    assert line.startswith(f"{path} has changed and cannot be used; its last good version stays")
    assert f"{path}:1: user 'alice' has no bcrypt hash" in line
    assert "hunter2" not in line
    assert checker.version() == before

    path.write_bytes(b"bob:%b\n" % HASH)
    clock.advance(1)
    assert ask(checker, pool, b"bob") == b"bob"
    path.write_bytes(b"alice:hunter2\n")
    clock.advance(1)
    checker.version()
    assert len(logged) == 3, "broken again is news"


def test_a_broken_version_is_parsed_once(
    checker: HtpasswdChecker, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"alice:hunter2\n")
    clock.advance(1)
    checker.version()
    monkeypatch.setattr(htpasswd, "parse", lambda *_: pytest.fail("parsed again"))
    clock.advance(1)
    checker.version()


def test_a_file_that_goes_and_comes_back(
    checker: HtpasswdChecker, path: Path, pool: FakePool, clock: Clock, logged: list[str]
) -> None:
    """As when an editor saves; the users need not know."""
    away = path.rename(path.with_name("away"))
    for _ in range(3):
        clock.advance(1)
        assert ask(checker, pool) == b"alice"
    assert len(logged) == 1
    assert logged[0].endswith(f"{path}: No such file or directory")
    away.rename(path)
    clock.advance(1)
    assert ask(checker, pool) == b"alice"


def test_a_passing_failure_to_read_is_tried_again(
    checker: HtpasswdChecker,
    path: Path,
    pool: FakePool,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
) -> None:
    """Out of descriptors for a second must not mean out of date for ever."""

    def fail(_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    path.write_bytes(b"bob:%b\n" % HASH)
    with monkeypatch.context() as patch:
        patch.setattr(HtpasswdChecker, "_read", fail)
        for _ in range(2):
            clock.advance(1)
            assert ask(checker, pool) == b"alice"
    clock.advance(1)
    assert ask(checker, pool, b"bob") == b"bob"
    assert [line.rpartition(": ")[2] for line in logged] == ["Too many open files", "1 users"]
