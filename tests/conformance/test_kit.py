"""Each case passes a server that is right, and shows the defect it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from socksd.conformance.bench import Bench, Pace
from socksd.conformance.case import Case, Result, Verdict
from socksd.conformance.kit import CASES, run, run_case
from tests.conformance.fake import Fake

# A server that is right is never waited for in vain; one with a defect often is.
PATIENT = Pace(quiet=0.15, pause=0.004)
QUICK = Pace(patience=0.4, lookup=0.4, closing=0.4, quiet=0.1, pause=0.004, silence=0.7)
BY_ID = {case.id: case for case in CASES}
LOGIN = {case.id for case in CASES if "login" in case.id}

# What a server may get wrong, and the cases that show it. Here the fake's
# words; those behind "login:" are for a server that wants one.
DEFECTS = {
    "one recv": "split-greeting split-request-ipv4 split-request-name split-request-ipv6"
    " octet-by-octet coalesced-handshake coalesced-payload early-payload early-payload-long"
    " early-fin",
    "login:one recv": "split-login coalesced-handshake",
    "drops early": "coalesced-payload early-payload early-payload-long early-fin",
    "selects 00": "method-02 method-ff methods-none",
    "selects 02": "method-00 methods-255 methods-repeated",
    "waits": "version-6 version-of-http",
    "selects in version 4": "method-00",
    "blanks": "parallel-100",
    "keeps FIN": "half-close-by-client half-close-by-target early-fin",
    "denies": "request-ipv4",
    "never connects": "request-ipv4",
    "does not listen": "bind-listens",
    "carries on": "method-ff-is-final",
    "few methods": "methods-255",
    "repeats itself": "methods-repeated",
    "any version": "version-6 version-of-http request-version",
    "login:any version": "login-version",
    "login:no password": "login-right",
    "login:any password": "login-wrong-password login-wrong-user login-failure-closes"
    " login-longest login-empty-password login-nul-in-user login-nul-in-password",
    "login:any user": "login-wrong-user login-nul-in-user",
    "login:C strings": "login-nul-in-user login-nul-in-password",
    "login:stays open": "login-failure-closes login-empty-password",
    "login:talks on": "login-failure-closes",
    "login:short login": "login-longest",
    "login:status of version 5": "login-right login-wrong-password",
    "login:login optional": "login-left-out",
    "C strings": "request-name-nul",
    "garbles": "request-ipv4 request-ipv6 request-name request-name-of-ipv4 transfer-up"
    " transfer-down transfer-both target-speaks-first reply-once bind-carries octet-by-octet"
    " udp-ipv4",
    "lies": "reply-refused reply-no-such-name reply-after-outcome request-name-255"
    " request-name-empty request-port-0 request-command-unknown failure-closes reply-at-last"
    " bound-port",
    "hangs up": "request-type-unknown request-command-unknown",
    "silent": "request-reserved request-name-empty",
    "vague": "reply-refused request-type-unknown request-command-unknown",
    "wrong code": "reply-no-such-name",
    "patient": "reply-at-last silent-client silent-greeted-client",
    "replies twice": "reply-once reply-reserved target-speaks-first",
    "RSV ff": "reply-reserved request-ipv4",
    "reply of version 4": "reply-refused",
    "reply of type 9": "reply-refused",
    "reply of a name": "bound-address bound-ipv6 bind-listens udp-associates",
    "bound zero": "bound-port bound-address bound-ipv6 bind-listens udp-associates",
    "stays open": "failure-closes",
    "closes at once": "failure-is-not-reset",
    "no half-close": "half-close-by-client half-close-by-target early-fin",
    "no reset": "reset-by-client reset-by-target",
    "two replies at once": "bind-waits",
    "peer zero": "bind-peer",
    "anybody": "bind-stranger udp-stranger-first udp-stranger-later udp-other-port",
    "outlives": "bind-ends-with-client udp-ends-with-tcp",
    "bare answers": "udp-associates-claimed udp-ipv4 udp-ipv6 udp-two-targets",
    "no names": "udp-name",
    "careless": "udp-malformed",
    "relays anything": "udp-malformed",
    "no FRAG": "udp-fragment",
    "few clients": "parallel-100",
    "dies of noise": "noise",
}


@pytest.fixture(scope="module", params=[False, True], ids=["open", "login"])
def right(request: pytest.FixtureRequest) -> Iterator[Fake]:
    with Fake(login=request.param) as fake:
        yield fake


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_server_that_is_right_has_no_failure(right: Fake, case: Case) -> None:
    result = run_case(right.server(), case, PATIENT)
    if case.id == ("method-00" if right.login else "method-02"):
        expected = Verdict.NOT_OFFERED
    elif case.id in LOGIN and not right.login:
        expected = Verdict.SKIPPED
    else:
        expected = Verdict.PASS
    assert result.verdict is expected, (result.reason, result.transcript)


@pytest.mark.parametrize(
    ("defect", "name"),
    [(defect, name) for defect, names in DEFECTS.items() for name in names.split()],
)
def test_a_defect_shows(defect: str, name: str) -> None:
    word = defect.removeprefix("login:")
    with Fake(word, login=word != defect) as fake:
        result = run_case(fake.server(), BY_ID[name], QUICK)
    assert result.verdict is Verdict.FAIL
    assert result.reason
    assert result.transcript


def test_every_case_is_shown_to_fail() -> None:
    shown = {name for names in DEFECTS.values() for name in names.split()}
    assert shown == set(BY_ID)


def test_ids_are_unique_and_every_case_says_what_it_rests_on() -> None:
    assert len(BY_ID) == len(CASES) >= 45
    for case in CASES:
        assert case.promise.endswith("."), case.id
        assert case.sentence.section.startswith("RFC "), case.id


ELSEWHERE = ip_address("192.0.2.1")  # never dialled: the cases say first what they need


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("split-login", {"method": 0}, Verdict.NOT_OFFERED),
        ("login-right", {"credentials": None}, Verdict.SKIPPED),
        ("request-ipv6", {"ipv6": None}, Verdict.NOT_OFFERED),
        ("bound-ipv6", {"ipv6": None}, Verdict.NOT_OFFERED),
        ("udp-ipv6", {"ipv6": None}, Verdict.NOT_OFFERED),
        ("request-name", {"ipv6": None}, Verdict.PASS),
        ("udp-name", {"ipv6": None}, Verdict.PASS),
        ("request-name", {"address": ELSEWHERE}, Verdict.SKIPPED),
        ("udp-name", {"address": ELSEWHERE}, Verdict.SKIPPED),
        ("bind-stranger", {"address": ELSEWHERE}, Verdict.SKIPPED),
        ("udp-stranger-first", {"address": ip_address("::1")}, Verdict.SKIPPED),
        ("udp-stranger-first", {"address": ELSEWHERE}, Verdict.SKIPPED),
        ("udp-stranger-later", {"address": ELSEWHERE}, Verdict.SKIPPED),
    ],
)
def test_a_case_says_what_it_lacks(name: str, change: dict[str, Any], expected: Verdict) -> None:
    with Fake(login=True) as fake:
        result = run_case(replace(fake.server(), **change), BY_ID[name], QUICK)
    assert result.verdict is expected
    assert bool(result.reason) is (expected is not Verdict.PASS)


def verdict(name: str, *defects: str) -> Result:
    with Fake(*defects) as fake:
        return run_case(fake.server(), BY_ID[name], QUICK)


def test_what_a_server_does_not_offer_is_no_failure() -> None:
    assert verdict("bind-peer", "no BIND").verdict is Verdict.NOT_OFFERED
    assert verdict("request-ipv6", "refuses IPv6").verdict is Verdict.NOT_OFFERED


def test_an_address_as_a_name_may_be_refused_in_form() -> None:
    assert verdict("request-name-of-ipv4", "strict names").verdict is Verdict.PASS


def test_a_server_that_is_gone_fails_every_case() -> None:
    with Fake() as fake:
        server = fake.server()
    result = run_case(server, BY_ID["method-ff"], QUICK)
    assert result.verdict is Verdict.FAIL
    assert "no connection to the server" in result.reason


def test_an_address_that_cannot_be_used_is_a_failure() -> None:
    def send(bench: Bench) -> None:
        bench.datagrams("client").send(b"", ("::1", 9))  # from an IPv4 socket

    with Fake() as fake:
        result = run_case(fake.server(), replace(BY_ID["udp-ipv4"], run=send), QUICK)
    assert result.verdict is Verdict.FAIL


def test_results_come_in_the_order_of_the_cases() -> None:
    cases = [BY_ID["method-ff"], BY_ID["method-00"]]
    with Fake() as fake:
        assert [result.case for result in run(fake.server(), cases, QUICK)] == cases
