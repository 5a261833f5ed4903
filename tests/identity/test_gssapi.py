"""Security contexts, with tickets of a real KDC."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from zope.interface.verify import verifyObject

from socksd.codes import Protection
from socksd.errors import ConfigError, LoginFailed, ProtocolError
from socksd.facts import Principal
from socksd.identity.threads import LoginThreads
from socksd.interfaces import Accepted, ISecurityContext
from tests.fakes import outcome
from tests.identity.fakes import FakePool, started
from tests.kerberos import CLIENT, REALM, Inline, Realm, acceptor, established, initiator

gssapi = pytest.importorskip("gssapi")

from socksd.identity.gssapi import MOST_TOKENS, Acceptor, Context, Mapping  # noqa: E402 -- skips first

if TYPE_CHECKING:
    from gssapi import SecurityContext

ALL = frozenset({Protection.NONE, Protection.INTEGRITY, Protection.CONFIDENTIALITY})
Become = Callable[[str], None]


@pytest.fixture
def become(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Have the ticket of a user."""

    def with_ticket(user: str) -> None:
        for name, value in realm.ticket(user).items():
            monkeypatch.setenv(name, value)

    return with_ticket


@pytest.fixture
def keytab(realm: Realm, become: Become) -> Path:
    """The gateway's keytab, in a world where one is alice."""
    become("alice")
    return realm.keytabs["rcmd"]


@pytest.fixture
def pair(keytab: Path) -> tuple[ISecurityContext, SecurityContext]:
    return established(keytab)


def login(context: Context, client: SecurityContext) -> Accepted:
    accepted: Accepted = outcome(context.accept(client.step() or b""))
    return accepted


# -- who it is -----------------------------------------------------------------


def test_who_has_a_ticket_is_whom_it_names(keytab: Path) -> None:
    client, context = initiator(), acceptor(keytab).context(CLIENT)
    assert verifyObject(ISecurityContext, context)
    accepted = login(context, client)
    assert accepted.principal == Principal("alice")
    client.step(accepted.token)  # which proves to the client who we are
    assert client.complete


def test_a_user_may_be_called_by_the_whole_principal(keytab: Path, become: Become) -> None:
    become("carol/admin")
    mapping = Mapping([REALM], whole=True)
    accepted = login(acceptor(keytab, mapping).context(CLIENT), initiator())
    assert accepted.principal == Principal(f"carol/admin@{REALM}")


def test_a_token_is_good_once(keytab: Path) -> None:
    """Whoever has copied it cannot log in with it."""
    ours, client = acceptor(keytab), initiator()
    token = client.step() or b""
    assert outcome(ours.context(CLIENT).accept(token)).principal == Principal("alice")
    with pytest.raises(LoginFailed) as caught:
        outcome(ours.context(CLIENT).accept(token))
    assert caught.value.reason == "Request is a replay"


@pytest.mark.parametrize("token", [b"", b"junk", bytes(65_535)])
def test_what_is_no_token_is_no_login(keytab: Path, token: bytes) -> None:
    with pytest.raises(LoginFailed):
        outcome(acceptor(keytab).context(CLIENT).accept(token))


def test_a_ticket_for_another_service_is_no_login(realm: Realm, become: Become) -> None:
    """Though the keytab has its key."""
    become("alice")
    both = realm.directory / "both.keytab"
    both.write_bytes(realm.keytabs["rcmd"].read_bytes() + realm.keytabs["other"].read_bytes()[2:])
    ours = acceptor(both)
    assert login(ours.context(CLIENT), initiator("rcmd")).principal == Principal("alice")
    with pytest.raises(LoginFailed, match="other/localhost"):
        login(ours.context(CLIENT), initiator("other"))


def test_a_realm_that_is_not_ours_has_no_users(keytab: Path) -> None:
    """A KDC may vouch for others, whose alice is another alice."""
    with pytest.raises(LoginFailed) as caught:
        login(acceptor(keytab, Mapping(["OTHER.TEST"])).context(CLIENT), initiator())
    assert caught.value.reason == f"not a realm of users: {REALM!r}"


@pytest.mark.parametrize(
    ("principal", "short"),
    [
        (b"alice@EXAMPLE.TEST", "alice"),
        (b"alice/admin@EXAMPLE.TEST", "alice/admin"),
        ("zoë@EXAMPLE.TEST".encode(), "zoë"),
        (b"zo\xeb@EXAMPLE.TEST", "zo\udceb"),
    ],
)
def test_a_user_is_called_by_what_stands_before_the_realm(principal: bytes, short: str) -> None:
    assert Mapping(["EXAMPLE.TEST"]).user(principal) == Principal(short)


@pytest.mark.parametrize(
    "principal",
    [
        pytest.param(b"alice", id="no realm"),
        pytest.param(b"@EXAMPLE.TEST", id="no name"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"alice@OTHER.TEST", id="another realm"),
        pytest.param(b"alice@example.test", id="realms have case"),
        pytest.param(b"alice@OTHER.TEST@EXAMPLE.TEST", id="two realms"),
        pytest.param(b"alice\\@OTHER.TEST@EXAMPLE.TEST", id="a name with @, as an enterprise's"),
        pytest.param(b"alice@EXAMPLE.TEST\\@OTHER.TEST", id="a realm with @"),
        pytest.param(b"al\\nice@EXAMPLE.TEST", id="a name with a control character"),
    ],
)
def test_a_principal_that_could_be_read_in_two_ways_is_nobody(principal: bytes) -> None:
    with pytest.raises(LoginFailed):
        Mapping(["EXAMPLE.TEST"]).user(principal)


def test_what_a_client_has_chosen_is_cut_in_a_reason() -> None:
    for principal in (b"x" * 60_000, b"alice@" + b"X" * 60_000):
        with pytest.raises(LoginFailed) as caught:
            Mapping(["EXAMPLE.TEST"]).user(principal)
        assert len(caught.value.reason) < 300


# -- the gateway's key -----------------------------------------------------------


def test_a_service_may_be_bound_to_a_host(keytab: Path) -> None:
    ours = acceptor(keytab, service="rcmd@localhost")
    assert login(ours.context(CLIENT), initiator()).principal == Principal("alice")


@pytest.mark.parametrize("service", ["nosuch", "rcmd@gw.example.test"])
def test_a_keytab_without_the_key_is_a_problem(keytab: Path, service: str) -> None:
    with pytest.raises(ConfigError) as caught:
        acceptor(keytab, service=service)
    (problem,) = caught.value.problems
    assert problem.path == "gssapi.keytab"
    assert problem.message.startswith(f"{keytab} has no key for the service {service!r}: No key")


def test_a_keytab_that_is_not_there_is_a_problem(keytab: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*not found"):
        acceptor(tmp_path / "nowhere")


def test_a_keytab_that_hangs_is_a_problem_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open a FIFO waits for who writes, as a dead file system does for its server."""
    monkeypatch.setattr("socksd.identity.gssapi._PATIENCE", 0.0)
    fifo = tmp_path / "keytab"
    os.mkfifo(fifo)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            acceptor(fifo)
        (problem,) = caught.value.problems
        assert str(problem) == (
            f"gssapi.keytab: {fifo} cannot be read within 0 s: does its file system hang?"
        )
    fifo.open("wb").close()  # for the thread to end


def test_a_new_key_counts_without_a_restart(realm: Realm, become: Become, tmp_path: Path) -> None:
    become("alice")
    path = tmp_path / "keytab"
    path.write_bytes(realm.keytabs["rcmd"].read_bytes())
    ours = acceptor(path)
    path.write_bytes(realm.keytabs["other"].read_bytes())
    with pytest.raises(LoginFailed):
        login(ours.context(CLIENT), initiator())
    path.write_bytes(realm.keytabs["rcmd"].read_bytes())
    assert login(ours.context(CLIENT), initiator()).principal == Principal("alice")


# -- where it is done --------------------------------------------------------------


def test_a_token_is_looked_at_in_a_thread(keytab: Path) -> None:
    """The keytab, and the replay cache, are files: they may be slow."""
    pool = FakePool()
    ours = Acceptor(str(keytab), "rcmd", Mapping([REALM]), ALL, started(pool))
    accepted = ours.context(CLIENT).accept(initiator().step() or b"")
    assert not accepted.called
    pool.finish()
    assert outcome(accepted).principal == Principal("alice")


# -- what only other mechanisms and attackers do -------------------------------------


def accepting(monkeypatch: pytest.MonkeyPatch, **result: Any) -> Context:
    """A context whose library says that."""
    usual = {"context": object(), "token": None, "more_steps": False, "flags": 0}
    answer = SimpleNamespace(initiator_name=None, **{**usual, **result})
    monkeypatch.setattr("socksd.identity.gssapi.raw.accept_sec_context", lambda *_: answer)
    monkeypatch.setattr(
        "socksd.identity.gssapi.raw.display_name",
        lambda *_, **__: SimpleNamespace(name=b"WELLKNOWN/ANONYMOUS@EXAMPLE.TEST"),
    )
    ours = SimpleNamespace(
        credentials=None, threads=Inline(), mapping=Mapping([REALM]), protections=ALL
    )
    return Context(cast("Acceptor", ours), CLIENT)


def test_an_anonymous_ticket_is_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our own realm though it may be: RFC 8062."""
    context = accepting(monkeypatch, flags=gssapi.RequirementFlag.anonymity)
    with pytest.raises(LoginFailed) as caught:
        outcome(context.accept(b"token"))
    assert caught.value.reason == "an anonymous ticket"


def test_more_tokens_than_any_mechanism_needs_are_no_login(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = accepting(monkeypatch, more_steps=True, token=b"go on")
    for _ in range(MOST_TOKENS):
        assert outcome(context.accept(b"token")) == Accepted(b"go on", None)
    with pytest.raises(LoginFailed):
        outcome(context.accept(b"token"))


def test_without_a_token_to_answer_the_answer_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(accepting(monkeypatch).accept(b"token")).token == b""


# -- protection ------------------------------------------------------------------------


@pytest.mark.parametrize("confidential", [True, False])
def test_tokens_carry_octets_both_ways(
    pair: tuple[ISecurityContext, SecurityContext], confidential: bool
) -> None:
    ours, client = pair
    token = ours.wrap(b"secret", confidential)
    assert (b"secret" not in token) is confidential
    assert client.unwrap(token).message == b"secret"
    assert ours.unwrap(client.wrap(b"answer", confidential).message) == (b"answer", confidential)


@pytest.mark.parametrize("confidential", [True, False])
def test_the_longest_fits(
    pair: tuple[ISecurityContext, SecurityContext], confidential: bool
) -> None:
    ours, _ = pair
    longest = ours.longest(confidential)
    assert 65_000 < longest < 65_535
    assert len(ours.wrap(bytes(longest), confidential)) <= 65_535


def damaged(tokens: list[bytes]) -> bytes:
    return tokens[0][:-1] + bytes((tokens[0][-1] ^ 1,))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(damaged, id="changed"),
        pytest.param(lambda tokens: tokens[1], id="one is missing"),
        pytest.param(lambda tokens: b"", id="empty"),
        pytest.param(lambda tokens: bytes(100), id="none at all"),
    ],
)
def test_a_token_that_is_not_the_next_one_is_an_error(
    pair: tuple[ISecurityContext, SecurityContext], bad: Callable[[list[bytes]], bytes]
) -> None:
    ours, client = pair
    tokens = [client.wrap(octets, True).message for octets in (b"one", b"two")]
    with pytest.raises(ProtocolError, match=r"^a bad GSS-API token: "):
        ours.unwrap(bad(tokens))


def test_a_token_that_came_before_is_an_error(
    pair: tuple[ISecurityContext, SecurityContext],
) -> None:
    ours, client = pair
    token = client.wrap(b"pay 1", True).message
    assert ours.unwrap(token) == (b"pay 1", True)
    with pytest.raises(ProtocolError):
        ours.unwrap(token)


def test_a_token_from_another_client_is_an_error(keytab: Path) -> None:
    ours, _ = established(keytab)
    _, other = established(keytab)
    with pytest.raises(ProtocolError):
        ours.unwrap(other.wrap(b"hello", True).message)


def test_a_context_that_has_failed_wraps_no_more(
    pair: tuple[ISecurityContext, SecurityContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise gssapi.exceptions.ExpiredContextError(12 << 16, 0)

    monkeypatch.setattr("socksd.identity.gssapi.raw.wrap", fail)
    with pytest.raises(ProtocolError, match=r"^no GSS-API token can be made: "):
        pair[0].wrap(b"too late", True)


def test_before_it_is_established_a_context_protects_nothing(keytab: Path) -> None:
    context = acceptor(keytab).context(CLIENT)
    for call in (
        lambda: context.wrap(b"", True),
        lambda: context.unwrap(b""),
        lambda: context.longest(True),
    ):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize(
    ("permitted", "asked", "agreed"),
    [
        pytest.param({1, 2}, 2, 2, id="as asked"),
        pytest.param({1, 2}, 1, 1, id="as asked, less"),
        pytest.param({1, 2}, 0, 2, id="too little"),
        pytest.param({2}, 1, 2, id="too little, 1"),
        pytest.param({0}, 2, 0, id="more than there is"),
        pytest.param({0, 1}, 2, 1, id="more than there is, 1"),
        pytest.param({0, 1, 2}, 3, 2, id="selective"),
        pytest.param({0, 1, 2}, 255, 2, id="unknown"),
    ],
)
def test_what_is_agreed_on_is_asked_for_or_the_most(
    keytab: Path, permitted: Collection[int], asked: int, agreed: int
) -> None:
    threads = cast("LoginThreads", Inline())
    protections = map(Protection, permitted)
    ours = Acceptor(str(keytab), "rcmd", Mapping([REALM]), list(protections), threads)
    context = ours.context(CLIENT)
    login(context, initiator())
    assert context.agree(asked) == agreed


def test_a_context_that_keeps_no_order_protects_nothing(keytab: Path) -> None:
    """Messages could be left out of what looks whole: RFC 1961 section 3.2 has it required."""
    context = acceptor(keytab).context(CLIENT)
    login(context, initiator(in_order=False))
    assert context.agree(0) is Protection.NONE
    with pytest.raises(ProtocolError) as caught:
        context.agree(2)
    assert str(caught.value) == "a security context without out_of_sequence_detection"
