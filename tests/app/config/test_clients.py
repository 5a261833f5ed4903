from __future__ import annotations

import pytest

from tests.app.config.told import LISTENER, problem


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"on"', 'must be "off", or the networks of balancers'),
        ('["10.0.0.2"]', "not a list"),
        ('{ form = ["10.0.0.2"] }', "it has no key 'form'; did you mean 'from'?"),
        ("{ from = [] }", 'as { from = ["10.0.0.2/32"] }'),
        ('{ from = ["balancer"] }', "'balancer' is not a network"),
        ('{ from = ["10.0.0.2/24"] }', "did you mean '10.0.0.0/24'?"),
        ('{ from = ["10.0.0.2", "::/0"] }', "'::/0' is everybody; name the balancers"),
    ],
)
def test_who_may_say_for_whom_it_connects_has_to_be_said(value: str, said: str) -> None:
    path, message = problem(f"version = 1\n{LISTENER}proxy_protocol = {value}\n")
    assert path == "listener[0].proxy_protocol"
    assert said in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('"none"', "must be a list of levels of protection, not a string"),
        ("[]", 'is empty; to protect no message at all write protection = ["none"]'),
        ('["nothing"]', "'nothing' must be one of confidentiality, integrity, none"),
        ("[2]", "2 must be one of confidentiality, integrity, none"),
    ],
)
def test_a_wrong_protection_says_which_there_are(value: str, message: str) -> None:
    assert problem(f"gssapi.protection = {value}") == ("gssapi.protection", message)
