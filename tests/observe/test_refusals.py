"""A caller sees its own refusals, and never somebody else's."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination, IPAddress
from socksd.events import Decided, Outcome, SessionClosed, SessionOpened
from socksd.facts import Decision, Verdict
from socksd.observe import refusals as module
from socksd.observe.refusals import Refusal, Refusals, html_page
from tests.observe.closed import SERVED

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
SECRET = Destination("secret.example", 443)
DENIED = replace(
    SERVED, client=ONE, user=None, destination=SECRET, rule="no", outcome=Outcome.DENIED
)


def refused(client: IPAddress = ONE, user: str | None = None, **others: object) -> SessionClosed:
    return replace(DENIED, client=client, user=user, **others)  # type: ignore[arg-type]


def test_refusals_are_given_the_latest_first() -> None:
    refusals = Refusals()
    for number in range(15):
        refusals(refused(started=float(number)))
    assert [each.time for each in refusals.of(ONE, None)] == [float(n) for n in range(14, 4, -1)]


@pytest.mark.parametrize(
    ("client", "user"), [(ONE, "alice"), (ONE, "bob"), (ONE, None), (TWO, "alice"), (TWO, None)]
)
def test_only_the_same_user_at_the_same_address_sees_them(
    client: IPAddress, user: str | None
) -> None:
    """However they share addresses or names, logged in or not."""
    refusals = Refusals()
    callers = [(ONE, "alice"), (ONE, "bob"), (ONE, None), (TWO, "alice"), (TWO, None)]
    for number, caller in enumerate(callers):
        refusals(refused(*caller, destination=Destination(f"host-{number}.example", 80)))
    page = refusals.page(client, user, plain=True)
    for number, caller in enumerate(callers):
        assert (f"host-{number}.example" in page) is (caller == (client, user))


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(refused(destination=None, rule="door"), id="before it was known who asks"),
        pytest.param(refused(outcome=Outcome.LOGIN_FAILED, user="alice"), id="a claimed name"),
        pytest.param(refused(outcome=Outcome.FAILED), id="not by a rule"),
        pytest.param(refused(rule=None), id="by no rule"),
        pytest.param(SessionOpened(1, ONE, 1, "office"), id="another event"),
    ],
)
def test_what_is_nobodys_refusal_is_not_kept(event: SessionClosed) -> None:
    refusals = Refusals()
    refusals(event)
    assert refusals.of(ONE, None) == refusals.of(ONE, "alice") == ()
    assert "Nothing has been refused" in refusals.page(ONE, None, plain=True)
    assert "Nothing has been refused" in refusals.page(ONE, None, plain=False)


def test_the_text_is_that_of_the_rule_that_stood() -> None:
    """Of several addresses of a name each may have been denied by another rule."""
    refusals = Refusals()
    for rule, text in (("no", "ask the network team"), ("other", "something else")):
        refusals(Decided(DENIED.session, Decision(Verdict.DENY, rule, text), None))
    refusals(Decided(DENIED.session, Decision(Verdict.ALLOW, "yes", "ignored"), None))
    refusals(Decided(DENIED.session + 1, Decision(Verdict.DENY, "no", "another session"), None))
    refusals(DENIED)
    (refusal,) = refusals.of(ONE, None)
    assert refusal == Refusal(DENIED.started, SECRET, "no", "ask the network team")
    refusals(refused(session=DENIED.session))
    assert refusals.of(ONE, None)[0].text == "", "forgotten with its session"
    assert "\n    ask the network team\n" in refusals.page(ONE, None, plain=True)


def test_callers_are_forgotten_by_when_they_were_last_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CALLERS", 2)
    refusals = Refusals()
    for client in (ONE, TWO, ONE, IPv4Address("192.0.2.3")):
        refusals(refused(client))
    assert len(refusals.of(ONE, None)) == 2
    assert refusals.of(TWO, None) == ()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags += [tag, *(name for name, _ in attrs)]


MARKUP = st.text() | st.just("<script src='//x'>\udcff</table>&lt;")


@given(user=MARKUP, text=MARKUP)
def test_nothing_that_is_shown_becomes_markup(user: str, text: str) -> None:
    plain, hostile = Tags(), Tags()
    plain.feed(html_page(ONE, "u", [Refusal(0.0, SECRET, "no", "t")]))
    page = html_page(ONE, user, [Refusal(0.0, SECRET, "no", text)])
    hostile.feed(page)
    assert hostile.tags == plain.tags
    assert page.encode("utf-8")
