"""The live sessions, as the control socket lists and ends them."""

from __future__ import annotations

from typing import Any

import pytest

from socksd.admin.routes import BadBody
from socksd.app.live import MOST, ORDERS, chosen, killed, listing, talkers
from socksd.events import Outcome, SessionClosed
from tests.server.test_session import GREETING, LITERAL, NAMED
from tests.server.world import World, addresses


@pytest.fixture
def world() -> World:
    """Three clients: one relayed to an address, one to a name, one that has said nothing."""
    world = World()
    world.connect("192.0.2.1").receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    world.clock.advance(5)
    world.connect("192.0.2.2").receive(GREETING + NAMED)
    world.resolver.pending.deferreds[-1].callback(addresses("203.0.113.9"))
    world.egress.answer("203.0.113.9")
    world.clock.advance(2)
    world.connect("2001:db8::3")
    world.relays[0].up, world.relays[0].down = 10, 20
    world.relays[1].up, world.relays[1].down = 500, 5
    return world


def listed(world: World, **body: object) -> list[int]:
    answer = listing(world.sessions, body, world.clock.seconds())
    return [each["session"] for each in answer["sessions"]]


def test_a_row_says_all_that_is_known(world: World) -> None:
    first, second, third = listing(world.sessions, {}, world.clock.seconds())["sessions"]
    assert isinstance(first.pop("started"), float)
    assert first == {
        "session": 1,
        "client": "192.0.2.1",
        "port": 40000,
        "listener": "office",
        "user": None,
        "protocol": "socks5",
        "state": "relaying",
        "command": "connect",
        "destination": "198.51.100.7:80",
        "address": "198.51.100.7",
        "rule": "yes",
        "seconds": 7.0,
        "up": 10,
        "down": 20,
    }
    assert (second["destination"], second["address"]) == ("web.example:443", "203.0.113.9")
    assert (third["state"], third["command"], third["destination"]) == ("open", None, None)
    assert (third["address"], third["rule"], third["up"]) == (None, None, 0)
    assert third["protocol"] is None, "it has said nothing"


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        pytest.param({"session": 2}, [2], id="number"),
        pytest.param({"session": "2"}, [2], id="number of a URL"),
        pytest.param({"session": [1, 3]}, [1, 3], id="numbers"),
        pytest.param({"client": "192.0.2.0/24"}, [1, 2], id="network"),
        pytest.param({"client": "2001:db8::3"}, [3], id="address"),
        pytest.param({"user": "@none"}, [1, 2], id="known to be without login"),
        pytest.param({"user": "alice"}, [], id="user"),
        pytest.param({"rule": "yes"}, [1, 2], id="rule"),
        pytest.param({"listener": "office"}, [1, 2, 3], id="listener"),
        pytest.param({"listener": "lab"}, [], id="another listener"),
        pytest.param({"state": "open"}, [3], id="state"),
        pytest.param({"to": "WEB.Example"}, [2], id="name"),
        pytest.param({"to": ".Example"}, [2], id="suffix"),
        pytest.param({"to": ".ample"}, [], id="no suffix"),
        pytest.param({"to": ".web.example"}, [2], id="suffix that is all"),
        pytest.param({"to": "203.0.113.9"}, [2], id="address a name led to"),
        pytest.param({"to": "198.51.100.7"}, [1], id="address asked for"),
        pytest.param({"client": "192.0.2.0/24", "to": "web.example"}, [2], id="both"),
    ],
)
def test_sessions_are_found_by_what_they_are(
    world: World, body: dict[str, object], numbers: list[int]
) -> None:
    assert listed(world, **body) == numbers
    assert killed(world.sessions, body) == len(numbers)
    assert sorted(each.session for each in world.events.of(SessionClosed)) == numbers


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("session", [1, 2, 3]),
        ("-session", [3, 2, 1]),
        ("seconds", [3, 2, 1]),
        ("-up", [2, 1, 3]),
        ("-down", [1, 2, 3]),
        ("octets", [3, 1, 2]),
    ],
)
def test_they_come_in_any_order(world: World, order: str, numbers: list[int]) -> None:
    assert order.lstrip("-") in ORDERS
    assert listed(world, sort=order) == numbers


def test_of_many_the_first_are_listed_and_all_counted(world: World) -> None:
    answer = listing(world.sessions, {"sort": "-up", "limit": "1"}, 0.0)
    assert (answer["count"], [each["session"] for each in answer["sessions"]]) == (3, [2])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"usr": "a"}, "there is no 'usr'; did you mean 'user'?"),
        ({"session": "x"}, "session is a number, or a list of them"),
        ({"session": [1, None]}, "session is a number, or a list of them"),
        ({"client": "192.0.2.1/8"}, "client is an address or a network"),
        ({"client": 7}, "client is a string"),
        ({"user": ""}, "user is a string"),
        ({"state": "relayin"}, "there is no state 'relayin'; did you mean 'relaying'?"),
        ({"to": "a..b"}, "to is a host or a .suffix"),
    ],
)
def test_what_is_no_choice_is_said(body: dict[str, object], said: str) -> None:
    with pytest.raises(BadBody) as caught:
        chosen(body)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("limit", [0, -1, MOST + 1, "x", None, 1.5])
def test_an_answer_is_bounded(world: World, limit: Any) -> None:
    with pytest.raises(BadBody, match="limit is a number"):
        listing(world.sessions, {"limit": limit}, 0.0)


def test_an_order_that_there_is_not_is_said(world: World) -> None:
    with pytest.raises(BadBody, match="cannot sort by 'size'"):
        listing(world.sessions, {"sort": "size"}, 0.0)


def test_nobody_ends_all_sessions_by_leaving_something_out(world: World) -> None:
    with pytest.raises(BadBody, match="say which sessions"):
        killed(world.sessions, {})
    assert len(world.sessions) == 3


def test_who_is_ended_is_said_to_be(world: World) -> None:
    killed(world.sessions, {"session": 1})
    (closed,) = world.events.of(SessionClosed)
    assert (closed.outcome, closed.reason) == (Outcome.STOPPED, "ended by hand")


def test_who_talks_to_whom_is_added_up(world: World) -> None:
    """By client, user and host; what is not relayed yet talks to nobody."""
    world.connect("192.0.2.1").receive(GREETING + LITERAL)
    world.egress.answer("198.51.100.7")
    world.relays[2].up = 1
    first, second = talkers(world.sessions, {})
    assert first == {
        "client": "192.0.2.2",
        "user": None,
        "host": "web.example",
        "sessions": 1,
        "up": 500,
        "down": 5,
    }
    assert (second["host"], second["sessions"]) == ("198.51.100.7", 2)
    assert (second["up"], second["down"]) == (11, 20)
    assert talkers(world.sessions, {"limit": "1"}) == [first]
