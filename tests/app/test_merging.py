"""Several answers are one, and what they count is what they count together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.app import merging
from socksd.app.live import TALKERS
from socksd.observe.leaks import CLIENTS, DESTINATIONS
from socksd.observe.traffic import DENIALS, EVERY, HOUR

Row = dict[str, Any]

counts = st.integers(0, 1 << 40)
times = st.integers(0, 1 << 31).map(float)
clients = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"])
users = st.sampled_from([None, "alice"])

rules = st.fixed_dictionaries(
    {
        "action": st.just("allow"),
        "hits": counts,
        "open": counts,
        "outcomes": st.dictionaries(st.sampled_from(["served", "denied"]), counts),
        "last": st.none() | times,
        "since": times,
    }
)
rule_answers = st.tuples(rules, rules).map(
    lambda pair: {"rules": [{"id": name} | row for name, row in zip("ab", pair, strict=True)]}
)


def distinct(rows: st.SearchStrategy[Row], name: str, *keys: str) -> st.SearchStrategy[Row]:
    lists = st.lists(rows, max_size=6, unique_by=lambda row: tuple(row[key] for key in keys))
    return lists.map(lambda found: {name: found})


talker_answers = distinct(
    st.fixed_dictionaries(
        {
            "client": clients,
            "user": users,
            "host": st.sampled_from("ab"),
            "sessions": counts,
            "up": counts,
            "down": counts,
        }
    ),
    "talkers",
    *("client", "user", "host"),
)
leak_answers = distinct(
    st.fixed_dictionaries(
        {
            "client": clients,
            "user": users,
            "addresses": counts,
            "names": counts,
            "since": times,
            "last": times,
            "top": st.dictionaries(st.sampled_from("abc"), st.integers(1, 99)).map(
                lambda top: [{"destination": d, "count": n} for d, n in top.items()]
            ),
        }
    ),
    "leaks",
    *("client", "user"),
).map(lambda answer: {"clients": len(answer["leaks"]), **answer})


def unordered(answer: object) -> object:
    """What an answer says, but for the order of what counts as much."""
    if isinstance(answer, dict):
        return {key: unordered(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return sorted(json.dumps(unordered(each), sort_keys=True) for each in answer)
    return answer


@pytest.mark.parametrize(
    ("merge", "answers"),
    [
        pytest.param(merging.rules, rule_answers, id="rules"),
        pytest.param(merging.talkers, talker_answers, id="talkers"),
        pytest.param(merging.leaks, leak_answers, id="leaks"),
    ],
)
@given(data=st.data())
def test_neither_order_nor_grouping_says_anything(
    merge: Callable[[Sequence[Any]], Any],
    answers: st.SearchStrategy[Any],
    data: st.DataObject,
) -> None:
    one, other, third = (data.draw(answers) for _ in range(3))
    whole = unordered(merge([one, other, third]))
    assert all(unordered(merge(each)) == whole for each in permutations((one, other, third)))
    assert unordered(merge([merge([one, other]), third])) == whole
    assert unordered(merge([one, merge([other, third])])) == whole


@given(st.lists(rule_answers, min_size=1, max_size=4))
def test_rules_add_up(answers: list[Any]) -> None:
    for place, merged in enumerate(merging.rules(answers)["rules"]):
        rows = [answer["rules"][place] for answer in answers]
        assert merged["hits"] == sum(row["hits"] for row in rows)
        assert merged["open"] == sum(row["open"] for row in rows)
        assert sum(merged["outcomes"].values()) == sum(
            sum(row["outcomes"].values()) for row in rows
        )
        assert merged["since"] == min(row["since"] for row in rows)
        assert merged["last"] in [row["last"] for row in rows]
        assert all(merged["last"] >= row["last"] for row in rows if row["last"] is not None)


def test_rules_stand_as_in_the_configuration() -> None:
    """While one worker has another one already, what it has more comes behind."""
    row = {"action": "allow", "hits": 1, "open": 0, "outcomes": {}, "last": None, "since": 1.0}
    old = {"rules": [{"id": name} | row for name in "xz"]}
    new = {"rules": [{"id": name} | row for name in "xyz"]}
    assert [each["id"] for each in merging.rules([new, old])["rules"]] == ["x", "y", "z"]
    assert [each["id"] for each in merging.rules([old, new])["rules"]] == ["x", "z", "y"]
    assert merging.only_rules({"z"}, old) == {"rules": [{"id": "z"} | row]}
    live = {"rules": [{"id": "x"} | row | {"open": 3}]}
    assert merging.without_open(live) == {"rules": [{"id": "x"} | row]}


def session(number: int, **more: float) -> Row:
    return {"session": number, "seconds": 1.0, "up": 0, "down": 0, **more}


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("session", [1, 2, 3]),
        ("-session", [4, 3, 2]),
        ("seconds", [2, 4, 1]),
        ("-seconds", [3, 1, 4]),
        ("-up", [3, 4, 1]),
        ("-down", [1, 2, 3]),
        ("-octets", [3, 1, 4]),
    ],
)
def test_sessions_are_in_order_right_across(order: str, numbers: list[int]) -> None:
    one = [session(1, seconds=7.0, up=1, down=9), session(3, seconds=9.0, up=50)]
    other = [session(2, seconds=1.0, down=3), session(4, seconds=2.0, up=4)]
    answers = [{"count": 12, "sessions": one}, {"count": 2, "sessions": other}]
    merged = merging.sessions(answers, order, 3)
    assert merged["count"] == 14
    assert [row["session"] for row in merged["sessions"]] == numbers


def test_those_who_talk_most_are_kept() -> None:
    rows = [
        {"client": "a", "user": None, "host": str(n), "sessions": 1, "up": n, "down": 0}
        for n in range(TALKERS + 5)
    ]
    (most, *_) = found = merging.talkers([{"talkers": rows}, {"talkers": rows[-1:]}])["talkers"]
    assert len(found) == TALKERS
    assert (most["host"], most["sessions"], most["up"]) == (f"{TALKERS + 4}", 2, 2 * (TALKERS + 4))


def leak(client: str, addresses: int, last: float, *top: str) -> Row:
    return {
        "client": client,
        "user": None,
        "addresses": addresses,
        "names": 1,
        "since": 1.0,
        "last": last,
        "top": [{"destination": each, "count": 2} for each in top],
    }


def test_a_client_of_several_workers_is_one() -> None:
    one = {"clients": 2, "leaks": [leak("x", 0, 3.0), leak("y", 0, 3.0)]}
    other = {"clients": 1, "leaks": [leak("x", 5, 4.0, *"abcdefghijklm")]}
    merged = merging.leaks([one, other])
    assert merged["clients"] == 2
    (x, y) = merged["leaks"]
    assert (x["client"], x["addresses"], x["names"], x["last"]) == ("x", 5, 2, 4.0)
    assert len(x["top"]) == DESTINATIONS
    assert merging.only_leaking(merged) == {"clients": 2, "leaks": [x]}
    assert y["addresses"] == 0


def test_who_has_asked_least_recently_is_forgotten() -> None:
    rows = [leak(str(n), 1, float(n)) for n in range(CLIENTS + 1)]
    merged = merging.leaks([{"clients": len(rows), "leaks": rows}])
    assert merged["clients"] == len(merged["leaks"]) == CLIENTS
    assert "0" not in {row["client"] for row in merged["leaks"]}


# -- traffic -----------------------------------------------------------------


@st.composite
def rates(draw: st.DrawFn) -> Row:
    """What one worker has measured: every ten seconds or so, with a gap where it was stuck."""
    now, found = draw(st.floats(1e9, 1e9 + 100)), []
    for seconds, up, down in draw(
        st.lists(st.tuples(st.sampled_from([9.5, 10.0, 10.25, 40.0]), counts, counts), max_size=12)
    ):
        now += seconds
        found.append({"time": now, "up": up, "down": down, "seconds": seconds})
    return {"rates": found}


def carried(answer: Any) -> tuple[float, float]:
    up = sum(rate["up"] * rate["seconds"] for rate in answer["rates"])
    return up, sum(rate["down"] * rate["seconds"] for rate in answer["rates"])


@given(st.lists(rates(), max_size=4))
def test_no_octet_is_lost_or_counted_twice(answers: list[Any]) -> None:
    merged = merging.slots(answers)
    for got, *parts in zip(carried(merged), *map(carried, answers), strict=True):
        assert math.isclose(got, sum(parts), rel_tol=1e-6)
    assert all(rate["time"] % EVERY == 0 for rate in merged["rates"])
    found = [rate["time"] for rate in merged["rates"]]
    assert found == sorted(set(found))


@given(st.lists(rates(), min_size=2, max_size=3))
def test_slots_merge_with_slots(answers: list[Any]) -> None:
    at_once = merging.slots(answers)["rates"]
    in_turn = merging.slots([merging.slots(answers[:1]), *answers[1:]])["rates"]
    assert [rate["time"] for rate in in_turn] == [rate["time"] for rate in at_once]
    for one, other in zip(at_once, in_turn, strict=True):
        assert math.isclose(one["up"], other["up"], rel_tol=1e-6, abs_tol=1e-3)


def rate(time: float, up: float) -> Row:
    return {"time": time, "up": up, "down": 0.0, "seconds": EVERY}


def test_a_slot_of_which_a_worker_is_still_to_tell_is_not_shown() -> None:
    """It would look as if less were carried now."""
    one = {"rates": [rate(1010.0, 5.0), rate(1020.0, 5.0)]}
    other = {"rates": [rate(1005.0, 2.0), rate(1015.0, 2.0)]}
    shown = merging.traffic([one, other, {"rates": []}], [])["rates"]
    assert [(each["time"], each["up"]) for each in shown] == [(1000.0, 1.0), (1010.0, 7.0)]


def test_who_does_not_answer_holds_up_nothing() -> None:
    one = {"rates": [rate(1010.0, 5.0), rate(1020.0, 5.0)]}
    gone = {"rates": [rate(1010.0, 2.0)]}
    shown = merging.traffic([one], [gone])["rates"]
    assert [each["up"] for each in shown] == [7.0, 5.0]
    assert merging.traffic([], [gone])["rates"] == [rate(1010.0, 2.0)]
    assert merging.traffic([], []) == {"rates": []}


def test_an_hour_is_shown() -> None:
    long = [rate(1000 * EVERY + n * EVERY, 1.0) for n in range(500)]
    merged = merging.slots([{"rates": long}])["rates"]
    assert len(merged) * EVERY == HOUR
    assert merged[-1] == long[-1]


# -- denials -----------------------------------------------------------------


def test_the_latest_denials_come_first() -> None:
    def told(count: int, *rows: tuple[float, int]) -> Any:
        return {"count": count, "denials": [{"time": t, "session": n} for t, n in rows]}

    merged = merging.denials([told(7, (5.0, 3), (2.0, 1)), told(1, (4.0, 2)), told(0)])
    assert merged["count"] == 8
    assert [row["session"] for row in merged["denials"]] == [3, 2, 1]
    many = told(999, *((float(n), n) for n in reversed(range(DENIALS))))
    assert len(merging.denials([many, many])["denials"]) == DENIALS
