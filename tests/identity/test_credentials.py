"""A login as checkers are given it, Twisted's own as well."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from zope.interface.verify import verifyObject

from socksd.identity.credentials import IThreadedUsernamePassword, Login
from tests.fakes import outcome
from tests.identity.fakes import FakePool, started

ALICE = ip_address("192.0.2.1")


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def login(pool: FakePool) -> Login:
    return Login(b"alice", b"hunter2", ALICE, started(pool))


def test_it_is_what_it_says(login: Login) -> None:
    assert verifyObject(IThreadedUsernamePassword, login)
    assert IUsernamePassword.providedBy(login)


def test_no_password_is_in_what_a_log_could_show(login: Login) -> None:
    for text in (repr(login), str(login), f"{login}"):
        assert "alice" in text
        assert "hunter2" not in text


def test_a_checker_that_has_heard_of_nothing_of_ours_can_judge_it(login: Login) -> None:
    knows, is_wrong = (InMemoryUsernamePasswordDatabaseDontUse() for _ in range(2))
    knows.addUser(b"alice", b"hunter2")
    is_wrong.addUser(b"alice", b"hunter")
    assert outcome(knows.requestAvatarId(login)) == b"alice"
    with pytest.raises(UnauthorizedLogin):
        outcome(is_wrong.requestAvatarId(login))


def test_its_thread_is_a_turn_of_its_client(login: Login, pool: FakePool) -> None:
    ran = login.in_thread(lambda: "verified")
    assert not ran.called
    assert list(vars(login.threads)["_running"]) == [ALICE]
    pool.finish_all()
    assert outcome(ran) == "verified"
