"""The authenticator: who is let in, what it costs, and what nobody is told."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import (
    ANONYMOUS as ANONYMOUS_ID,
)
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    FilePasswordDB,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous, ICredentials
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from socksd.address import IPAddress
from socksd.codes import Method
from socksd.errors import ConfigError, LoginFailed
from socksd.facts import ANONYMOUS, Principal
from socksd.identity import portal as module
from socksd.identity.checker import HtpasswdChecker
from socksd.identity.credentials import Login
from socksd.identity.portal import Authenticator, Realm
from socksd.interfaces import IAuthenticator
from tests.fakes import outcome
from tests.identity.fakes import ALICE, BOB, SECRET, Answers, FakePool, hashed, raising, started

WRONG = r"^wrong user name or password$"
BROKEN = r"^the authenticator failed$"
HASH = hashed()
LAN = (ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))

LoggedErrors = list[dict[str, Any]]


def yes(credentials: Any) -> bytes:
    assert isinstance(credentials.username, bytes)
    return credentials.username


unauthorized = raising(UnauthorizedLogin())


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
def authenticator(path: Path, pool: FakePool, clock: Clock) -> Authenticator:
    """One that asks an htpasswd file in which alice is."""
    return Authenticator([HtpasswdChecker(str(path), clock.seconds)], started(pool), clock)


def asking(*checkers: Any, **settings: Any) -> Authenticator:
    return Authenticator(checkers, started(FakePool()), Clock(), **settings)


def log_in(
    authenticator: Authenticator, username: bytes = b"alice", password: bytes = SECRET
) -> Any:
    return outcome(authenticator.login(username, password, ALICE))


# -- methods ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkers", "anonymous", "client", "methods"),
    [
        pytest.param([], (), "192.0.2.9", [0], id="no checkers"),
        pytest.param([], LAN, "192.0.2.1", [0], id="no checkers, anonymous network"),
        pytest.param([Answers(yes)], (), "192.0.2.1", [2], id="login only"),
        pytest.param([Answers(yes)], LAN, "192.0.2.1", [0, 2], id="anonymous network"),
        pytest.param([Answers(yes)], LAN, "192.0.2.2", [2], id="beside it"),
        pytest.param([Answers(yes)], LAN, "2001:db8::1", [0, 2], id="anonymous network, IPv6"),
        pytest.param([Answers(yes)], LAN, "2001:db9::1", [2], id="beside it, IPv6"),
    ],
)
def test_methods_follow_from_checkers_and_address(
    checkers: Sequence[Any], anonymous: Any, client: str, methods: list[int]
) -> None:
    authenticator = asking(*checkers, anonymous=anonymous)
    assert authenticator.methods(ip_address(client)) == tuple(map(Method, methods))


@pytest.mark.parametrize(
    ("checkers", "anonymous", "methods"),
    [
        pytest.param([], (), [1], id="tickets only"),
        pytest.param([Answers(yes)], (), [1, 2], id="tickets rather than passwords"),
        pytest.param([Answers(yes)], LAN, [0, 1, 2], id="anonymous network"),
    ],
)
def test_gssapi_is_a_method_where_there_is_an_acceptor(
    checkers: Sequence[Any], anonymous: Any, methods: list[int]
) -> None:
    class FakeAcceptor:
        def context(self, client: IPAddress) -> str:
            return f"a context with {client}"

    authenticator = asking(*checkers, anonymous=anonymous, acceptor=FakeAcceptor())
    assert authenticator.methods(ip_address("192.0.2.1")) == tuple(map(Method, methods))
    client = ip_address("192.0.2.7")
    assert authenticator.security_context(client) == "a context with 192.0.2.7"


def test_without_an_acceptor_there_is_no_security_context() -> None:
    with pytest.raises(RuntimeError):
        asking().security_context(ip_address("192.0.2.1"))


def test_it_is_an_authenticator(authenticator: Authenticator) -> None:
    verifyObject(IAuthenticator, authenticator)


def test_a_checker_that_would_never_be_asked_is_a_config_error() -> None:
    """Else `anonymous` beside `htpasswd:` would look as if it did something."""
    keys = Answers(yes)
    keys.credentialInterfaces = (IAnonymous,)
    with pytest.raises(ConfigError) as caught:
        asking(Answers(yes), AllowAnonymousAccess(), keys)
    assert [str(problem) for problem in caught.value.problems] == [
        "twisted.cred.checkers.AllowAnonymousAccess takes no user name and password",
        "tests.identity.fakes.Answers takes no user name and password",
    ]


def test_a_checker_of_any_credentials_is_asked() -> None:
    anything = Answers(yes)
    anything.credentialInterfaces = (ICredentials,)
    assert log_in(asking(anything)) == Principal("alice")


# -- who ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("avatar_id", "principal"),
    [
        pytest.param(b"alice", Principal("alice"), id="octets"),
        pytest.param("alice", Principal("alice"), id="text"),
        pytest.param(b"J\xc3\xb6rg", Principal("J\u00f6rg"), id="UTF-8"),
        pytest.param(b"J\xf6rg", Principal("J\udcf6rg"), id="not UTF-8"),
        pytest.param(b"x" * 255, Principal("x" * 255), id="255 octets"),
        pytest.param(ANONYMOUS_ID, ANONYMOUS, id="cred's anonymous"),
    ],
)
def test_what_a_checker_calls_a_user_becomes_a_principal(
    avatar_id: Any, principal: Principal
) -> None:
    assert log_in(asking(Answers(lambda _: avatar_id))) == principal
    assert log_in(asking(Answers(lambda _: succeed(avatar_id)))) == principal


@pytest.mark.parametrize("avatar_id", [None, False, True, 0, 1, b"", "", [], [b"alice"], object()])
def test_nonsense_lets_nobody_in(avatar_id: Any, logged_errors: LoggedErrors) -> None:
    with pytest.raises(LoginFailed, match=BROKEN):
        log_in(asking(Answers(lambda _: avatar_id)))
    [event] = logged_errors
    assert "a checker gave no name" in event["log_failure"].getErrorMessage()
    logged_errors.clear()


def test_the_realm_has_principals_only() -> None:
    with pytest.raises(NotImplementedError):
        Realm().requestAvatar(b"alice", None, IAnonymous)


def test_twisteds_own_checkers_do(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"bob:" + SECRET + b"\n")
    authenticator = asking(
        InMemoryUsernamePasswordDatabaseDontUse(alice=SECRET), FilePasswordDB(tmp_path / "plain")
    )
    assert log_in(authenticator, b"alice") == Principal("alice")
    assert log_in(authenticator, b"bob") == Principal("bob")
    with pytest.raises(LoginFailed, match=WRONG):
        log_in(authenticator, b"bob", b"wrong")


def test_the_first_checker_that_knows_the_login_speaks() -> None:
    first, second, third = Answers(unauthorized), Answers(lambda _: b"two"), Answers(yes)
    assert log_in(asking(first, second, third)) == Principal("two")
    assert (len(first.asked), len(second.asked), len(third.asked)) == (1, 1, 0)


def test_an_empty_password_never_lets_in() -> None:
    """A directory takes it for an anonymous bind and says yes."""
    checkers = Answers(yes), Answers(yes)
    with pytest.raises(LoginFailed, match=WRONG):
        log_in(asking(*checkers), password=b"")
    assert [len(checker.asked) for checker in checkers] == [1, 1], "it takes as long"


@pytest.mark.parametrize("error", [RuntimeError("down"), LoginDenied(), CancelledError()])
def test_a_checker_that_fails_refuses_and_is_logged(
    error: Exception, logged_errors: LoggedErrors
) -> None:
    """What it would have said is not known, so the next one is not asked."""
    after = Answers(yes)
    with pytest.raises(LoginFailed, match=BROKEN):
        log_in(asking(Answers(raising(error)), after))
    assert not after.asked
    [event] = logged_errors
    assert event["log_failure"].value is error
    logged_errors.clear()


# -- htpasswd, whole ----------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "password"),
    [(b"alice", b"wrong"), (b"nobody", SECRET), (b"alice", b""), (b"", b""), (b"\xff" * 255,) * 2],
    ids=["wrong", "unknown", "no password", "nothing", "255 octets, not text"],
)
def test_a_failed_login_says_the_same_whatever_was_wrong(
    authenticator: Authenticator, pool: FakePool, username: bytes, password: bytes
) -> None:
    login = authenticator.login(username, password, ALICE)
    assert pool.finish_all() == 1
    with pytest.raises(LoginFailed, match=WRONG) as caught:
        outcome(login)
    assert caught.value.reason == module.WRONG
    assert caught.value.__suppress_context__


def test_fifty_connections_cost_one_hashing(authenticator: Authenticator, pool: FakePool) -> None:
    logins = [authenticator.login(b"alice", SECRET, ALICE) for _ in range(50)]
    assert pool.finish_all() == 1
    assert {outcome(login) for login in logins} == {Principal("alice")}
    assert log_in(authenticator) == Principal("alice")
    assert not pool.begun


def test_fifty_wrong_ones_cost_one_hashing_while_it_lasts(
    authenticator: Authenticator, pool: FakePool
) -> None:
    logins = [authenticator.login(b"alice", b"wrong", ALICE) for _ in range(50)]
    assert pool.finish_all() == 1
    for login in logins:
        with pytest.raises(LoginFailed, match=WRONG):
            outcome(login)
    again = authenticator.login(b"alice", b"wrong", ALICE)
    assert pool.finish_all() == 1, "a failure is not remembered"
    with pytest.raises(LoginFailed, match=WRONG):
        outcome(again)


def test_a_login_does_not_wait_in_anothers_queue(
    authenticator: Authenticator, pool: FakePool
) -> None:
    """Bob knows alice's password and has filled his queue; alice has her own."""
    for number in range(20):
        authenticator.login(b"alice", b"%d" % number, BOB).addErrback(lambda _: None)
    authenticator.login(b"alice", SECRET, BOB)
    login = authenticator.login(b"alice", SECRET, ALICE)
    pool.finish(1)
    assert outcome(login) == Principal("alice")
    pool.finish_all()


def test_a_full_queue_is_not_a_wrong_password(
    authenticator: Authenticator, pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socksd.identity.threads.WAITING_PER_SOURCE", 0)
    with pytest.raises(LoginFailed, match="too many logins waiting"):
        log_in(authenticator)
    assert not pool.begun


def test_a_verified_login_holds_for_its_time(
    authenticator: Authenticator, pool: FakePool, clock: Clock
) -> None:
    login = authenticator.login(b"alice", SECRET, ALICE)
    clock.advance(60)
    pool.finish()
    assert outcome(login) == Principal("alice")
    clock.advance(299)
    assert outcome(authenticator.login(b"alice", SECRET, BOB)) == Principal("alice")
    clock.advance(1)
    assert not authenticator.login(b"alice", SECRET, ALICE).called
    assert pool.finish_all() == 1


def test_a_verified_login_verifies_no_other_password(
    authenticator: Authenticator, pool: FakePool
) -> None:
    authenticator.login(b"alice", SECRET, ALICE)
    pool.finish()
    login = authenticator.login(b"alice", SECRET[:-1], ALICE)
    assert pool.finish_all() == 1
    with pytest.raises(LoginFailed, match=WRONG):
        outcome(login)


def test_no_cache_verifies_every_login() -> None:
    checker = Answers(yes)
    authenticator = asking(checker, cache_seconds=0)
    log_in(authenticator)
    log_in(authenticator)
    assert len(checker.asked) == 2


def test_a_changed_file_voids_what_was_verified(
    authenticator: Authenticator, path: Path, pool: FakePool, clock: Clock
) -> None:
    """A dismissed user is out within a second, not in five minutes."""
    authenticator.login(b"alice", SECRET, ALICE)
    pool.finish()
    path.write_bytes(b"bob:%b\n" % HASH)
    clock.advance(1)
    login = authenticator.login(b"alice", SECRET, ALICE)
    pool.finish()
    with pytest.raises(LoginFailed, match=WRONG):
        outcome(login)


def test_a_login_begun_before_a_change_is_no_answer_to_one_after(
    authenticator: Authenticator, path: Path, pool: FakePool, clock: Clock
) -> None:
    before = authenticator.login(b"alice", SECRET, ALICE)
    path.write_bytes(b"bob:%b\n" % HASH)
    clock.advance(1)
    after = authenticator.login(b"alice", SECRET, ALICE)
    assert pool.finish_all() == 2
    assert outcome(before) == Principal("alice")
    with pytest.raises(LoginFailed, match=WRONG):
        outcome(after)
    again = authenticator.login(b"alice", SECRET, ALICE)
    assert pool.finish_all() == 1, "nor is it remembered"
    with pytest.raises(LoginFailed, match=WRONG):
        outcome(again)


def test_a_login_leaves_nothing_behind_but_its_place_in_the_cache(
    authenticator: Authenticator, pool: FakePool
) -> None:
    logins = [authenticator.login(b"alice", password, ALICE) for password in (SECRET, b"", b"x")]
    for login in logins[1:]:
        login.addErrback(lambda _: None)
    pool.finish_all()
    assert not vars(authenticator)["_under_way"]
    assert len(vars(authenticator)["_verified"]) == 1


# -- leaving ------------------------------------------------------------------


def cancelled(login: Deferred[Principal]) -> None:
    login.cancel()
    with pytest.raises(CancelledError):
        outcome(login)


def test_the_last_to_leave_gives_up_the_place_in_the_queue(
    authenticator: Authenticator, pool: FakePool
) -> None:
    authenticator.login(b"alice", b"other", ALICE).addErrback(lambda _: None)
    first, second = (authenticator.login(b"alice", SECRET, ALICE) for _ in range(2))
    cancelled(first)
    cancelled(second)
    assert pool.finish_all() == 1


def test_one_who_leaves_does_not_take_the_answer_along(
    authenticator: Authenticator, pool: FakePool
) -> None:
    first, second = (authenticator.login(b"alice", SECRET, ALICE) for _ in range(2))
    cancelled(first)
    pool.finish()
    assert outcome(second) == Principal("alice")


def test_leaving_cancels_a_checker_and_is_no_failure_of_it(logged_errors: LoggedErrors) -> None:
    left: list[Deferred[bytes]] = []
    cancelled(asking(Answers(lambda _: Deferred(left.append))).login(b"a", b"b", ALICE))
    assert len(left) == 1
    assert not logged_errors


@pytest.mark.parametrize("says_yes", [False, True])
def test_a_login_after_all_have_left_is_asked_anew(says_yes: bool) -> None:
    """A checker may take its time to be cancelled; nobody should get that for an answer."""
    tidying: Deferred[None] = Deferred()

    async def slow_to_leave() -> bytes:
        try:
            await Deferred()
        except CancelledError:
            await tidying
            if not says_yes:
                raise
        return b"late"

    answers = iter([slow_to_leave(), Deferred()])
    checker = Answers(lambda _: next(answers))
    authenticator = asking(checker)
    cancelled(authenticator.login(b"alice", SECRET, ALICE))
    login = authenticator.login(b"alice", SECRET, ALICE)
    assert len(checker.asked) == 2
    tidying.callback(None)
    assert not login.called
    joined = authenticator.login(b"alice", SECRET, ALICE)
    assert len(checker.asked) == 2, "the second is still under way"
    if says_yes:
        assert outcome(joined) == Principal("late"), "it was verified after all"
    else:
        cancelled(joined)
    cancelled(login)


# -- secrets ------------------------------------------------------------------


def test_the_password_is_in_nothing_that_is_shown(
    authenticator: Authenticator, pool: FakePool, logged_errors: LoggedErrors
) -> None:
    """Not in a repr, a log event, a traceback or a failure."""
    shown: list[str] = []

    def observe(event: LogEvent) -> None:
        shown.append(repr(event))
        if "log_failure" in event:
            shown.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    credentials = Login(b"alice", SECRET, ALICE, started(pool))
    login = authenticator.login(b"mallory", SECRET, ALICE)
    waiting = authenticator.login(b"alice", SECRET, ALICE)
    shown += [repr(credentials), str(credentials), repr(login), repr(vars(authenticator))]
    pool.finish()
    failures: list[Any] = []
    login.addErrback(failures.append)
    shown += [failures[0].getTraceback(), repr(failures), failures[0].getErrorMessage()]
    cancelled(waiting)
    failing = asking(Answers(lambda credentials: {}[credentials]))
    failing.login(b"alice", SECRET, ALICE).addErrback(failures.append)
    shown += [failures[1].getTraceback()]
    globalLogPublisher.removeObserver(observe)
    assert len(logged_errors) == 1
    logged_errors.clear()
    assert len(failures) == 2
    assert all(SECRET.decode() not in text for text in shown)
    assert "username=b'alice'" in repr(credentials)
