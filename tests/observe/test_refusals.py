"""A caller sees its own refusals, and never somebody else's."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination, IPAddress
from socksd.events import Denied, Event, Outcome
from socksd.facts import Decision, Verdict
from socksd.observe import refusals as module
from socksd.observe.refusals import Refusal, Refusals, html_page
from tests.observe import closed

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
SECRET = Destination("secret.example", 443)
DENIED = replace(closed.DENIED, client=ONE, user=None, destination=SECRET)


def refused(client: IPAddress = ONE, user: str | None = None, **others: object) -> Denied:
    return replace(DENIED, client=client, user=user, **others)  # type: ignore[arg-type]  # what others are is as the test says


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
        pytest.param(refused(destination=None), id="before it was known who asks"),
        pytest.param(
            replace(closed.SERVED, client=ONE, outcome=Outcome.DENIED), id="told of already"
        ),
    ],
)
def test_what_is_nobodys_refusal_is_not_kept(event: Event) -> None:
    refusals = Refusals()
    refusals(event)
    assert refusals.of(ONE, None) == refusals.of(ONE, "alice") == ()
    assert "Nothing has been refused" in refusals.page(ONE, None, plain=True)
    assert "Nothing has been refused" in refusals.page(ONE, None, plain=False)


def test_the_text_is_that_of_the_rule_that_stood() -> None:
    refusals = Refusals()
    refusals(refused(decision=Decision(Verdict.DENY, "no", "ask the network team")))
    (refusal,) = refusals.of(ONE, None)
    assert refusal == Refusal(DENIED.started, SECRET, "no", "ask the network team")
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
