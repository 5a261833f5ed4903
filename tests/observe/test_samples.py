"""The numbers of several processes are those of one, and never fall."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.observe.metrics import (
    BOUNDS,
    Distribution,
    Family,
    Kind,
    Labels,
    Metrics,
    Together,
)
from socksd.observe.process import process
from socksd.observe.samples import WORKER, Totals, apart, heard, said, together

COUNTER = Family(Kind.COUNTER, "c", "Counted.", {("a",): 1.0}, ("what",))
GAUGE = Family(Kind.GAUGE, "g", "There.", {(): 1.0})
GREATEST = replace(GAUGE, name="m", together=Together.GREATEST)
TIMES = Family(Kind.HISTOGRAM, "t", "Times.", {(): Distribution((1,) * (len(BOUNDS) + 1), 0.5)})
APART = replace(COUNTER, name="p", values={(): 1.0}, labels=(), together=Together.APART)
RULES = Family(Kind.COUNTER, "r", "By rule.", {("web", "served"): 1.0}, ("rule", "outcome"))

# Whole numbers, of which floats make exact sums.
numbers = st.integers(0, 1 << 30).map(float)
distributions = st.builds(
    lambda counts, total: Distribution(tuple(counts), total),
    st.lists(st.integers(0, 1000), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1),
    numbers,
)


def of(like: Family, value: float) -> Family:
    return replace(like, values=dict.fromkeys(like.values, value))


def families(like: Family) -> st.SearchStrategy[Family]:
    labels = st.tuples(*(st.sampled_from("abc") for _ in like.labels))
    each: st.SearchStrategy[Any] = distributions if like.kind is Kind.HISTOGRAM else numbers
    return st.dictionaries(labels, each).map(lambda values: replace(like, values=values))


def values(totals: list[Family]) -> dict[str, Mapping[Labels, Any]]:
    return {family.name: family.values for family in totals}


def test_what_was_said_is_heard() -> None:
    every = [*Metrics().families(), *process(), GREATEST, RULES]
    assert heard(json.loads(json.dumps(said(every)))) == tuple(
        replace(each, values=dict(each.values)) for each in every
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"kind": "curve"}, id="kind"),
        pytest.param({"together": "mean"}, id="together"),
        pytest.param({"values": [[["a"], None]]}, id="no number"),
        pytest.param({"values": [[["a"], "many"]]}, id="a word"),
        pytest.param({"values": [[[], 1]]}, id="labels without values"),
        pytest.param({"values": [[[["a"]], 1]]}, id="a label that is no word"),
        pytest.param({"values": 1}, id="no values"),
        pytest.param({"name": None}, id="no name"),
        pytest.param({"kind": "histogram", "values": [[["a"], [[1, 2], 3.0]]]}, id="other bounds"),
    ],
)
def test_another_versions_samples_are_refused(change: dict[str, object]) -> None:
    """Workers may be newer than their parent, for a while."""
    (family,) = json.loads(json.dumps(said([COUNTER])))
    with pytest.raises(ValueError):
        heard([family | change])


@pytest.mark.parametrize("what", [[{}], [1], 7, None, "x"])
def test_what_are_no_samples_is_refused(what: object) -> None:
    with pytest.raises(ValueError, match="no samples"):
        heard(what)


@pytest.mark.parametrize("like", [COUNTER, GAUGE, GREATEST, TIMES], ids=lambda like: like.name)
@given(data=st.data())
def test_the_order_of_adding_says_nothing(like: Family, data: st.DataObject) -> None:
    one, other, third = (data.draw(families(like)) for _ in range(3))
    assert together(one, other) == together(other, one)
    assert together(together(one, other), third) == together(one, together(other, third))


@given(one=families(COUNTER), other=families(COUNTER))
def test_the_sum_is_the_sum_of_the_parts(one: Family, other: Family) -> None:
    both = together(one, other)
    total = sum(one.values.values()) + sum(other.values.values())  # type: ignore[arg-type]  # numbers
    assert sum(both.values.values()) == total  # type: ignore[arg-type]  # as above


def test_of_two_meanings_the_other_counts() -> None:
    assert together(replace(COUNTER, labels=("was",)), COUNTER) == COUNTER


def test_all_are_added_by_their_meaning() -> None:
    totals = Totals()
    every = (COUNTER, GAUGE, GREATEST, TIMES, APART)
    totals.hear(1, every, ())
    totals.hear(2, [of(each, 2.0) if each is not TIMES else TIMES for each in every], ())
    found = values(totals.families([1, 2], [1, 2]))
    assert found["c"] == {("a",): 3}
    assert found["g"] == {(): 3}
    assert found["m"] == {(): 2}
    assert found["t"] == {(): Distribution((2,) * (len(BOUNDS) + 1), 1.0)}
    assert found["p"] == {("1",): 1, ("2",): 2}


def test_what_stands_apart_says_whose_it_is() -> None:
    assert apart(APART, "7").labels == (WORKER,)


def test_of_who_is_silent_only_counters_are_known() -> None:
    totals = Totals()
    for number in (1, 2):
        totals.hear(number, (COUNTER, GAUGE, APART), ())
    found = values(totals.families([1, 2], [2]))
    assert found == {"c": {("a",): 2}, "g": {(): 1}, "p": {("2",): 1}}


def test_counters_outlive_who_has_counted() -> None:
    totals = Totals()
    for number in range(1, 1001):
        totals.hear(number, (COUNTER, GAUGE, GREATEST, TIMES, APART), ())
        totals.families([number], [number])
    found = values(totals.families([], []))
    assert found["c"] == {("a",): 1000}
    assert found["t"] == {(): Distribution((1000,) * (len(BOUNDS) + 1), 500.0)}
    assert set(found) == {"c", "t"}
    assert not totals._last, "of those who are gone nothing is kept but the sum"
    assert not totals._rules


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("count"), st.integers(0, 3), st.integers(0, 9)),
            st.tuples(st.just("replace"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("reset"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("ask"), st.just(0), st.integers(0, 15)),
        )
    )
)
def test_counters_never_fall(steps: list[tuple[str, int, int]]) -> None:
    """Whatever ends, begins anew or is silent; and they are exact where all were asked."""
    totals, counts, numbers = Totals(), [0.0] * 4, [0, 1, 2, 3]
    before, told = 0.0, 0.0
    for step, worker, amount in [*steps, ("ask", 0, 15)]:
        if step == "count":
            counts[worker] += amount
            told += amount
        elif step == "ask":
            asked = [i for i in range(4) if amount >> i & 1]
            for i in asked:
                totals.hear(numbers[i], [of(COUNTER, counts[i])], ())
            found = values(totals.families(numbers, [numbers[i] for i in asked]))
            now = sum(found["c"].values()) if "c" in found else 0.0
            assert before <= now <= told
            before = now
        else:
            # What is asked at its end, and where it begins anew is seen to do so, loses nothing.
            totals.hear(numbers[worker], [of(COUNTER, counts[worker])], ())
            counts[worker] = 0.0
            if step == "replace":
                numbers[worker] = max(numbers) + 1
            else:
                totals.hear(numbers[worker], [of(COUNTER, 0.0)], ())
    assert before == told


def test_a_series_that_has_gone_counts_on() -> None:
    totals = Totals()
    totals.hear(1, [COUNTER], ())
    totals.hear(1, [], ())
    assert values(totals.families([1], [1]))["c"] == {("a",): 1}


def test_rules_that_nobody_has_any_more_are_forgotten() -> None:
    """As a single process does; or there were no end of them over the years."""
    totals = Totals()
    old = replace(RULES, values={("old", "served"): 5.0})
    totals.hear(1, [RULES], ["web"])
    totals.hear(2, [old], ["old"])
    assert values(totals.families([1], [1]))["r"] == {("web", "served"): 1}
    assert totals._past["r"].values == {}


def test_without_anybody_rules_are_kept() -> None:
    totals = Totals()
    totals.hear(1, [RULES], ["web"])
    assert values(totals.families([], []))["r"] == {("web", "served"): 1}
    totals.hear(2, [], ["web"])
    assert values(totals.families([2], [2]))["r"] == {("web", "served"): 1}
