"""
The numbers of several processes as those of one.

Each process says what it has counted since it began. What is written is the sum,
and that of a counter must not fall, for whoever reads it takes that for a new
beginning: so what a process that has ended said last is kept, as one sum of all
that have ended, and so is what a counter had before it began anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from socksd.observe.metrics import BOUNDS, Distribution, Family, Kind, Labels, Together

WORKER: Final = "worker"  # the label of what is not added up

_Value = float | Distribution


def said(families: Iterable[Family]) -> list[dict[str, Any]]:
    """Say *families* as JSON can."""
    return [
        {
            "kind": family.kind.value,
            "name": family.name,
            "help": family.help,
            "labels": family.labels,
            "together": family.together.value,
            "values": [
                [labels, [value.counts, value.sum] if isinstance(value, Distribution) else value]
                for labels, value in family.values.items()
            ],
        }
        for family in families
    ]


def heard(what: Any) -> tuple[Family, ...]:
    """
    Give the families of which said() has spoken.

    Raises:
        ValueError: It has said something else; another version, perhaps.
    """
    try:
        return tuple(_family(each) for each in what)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"these are no samples: {error!r}") from error


def together(one: Family, other: Family) -> Family:
    """
    Give what two processes say by the same name as what one says.

    Where they do not mean the same by it, being of two versions, *other* counts.
    """
    if (one.kind, one.labels, one.together) != (other.kind, other.labels, other.together):
        return other
    values = dict(one.values)
    for labels, value in other.values.items():
        before = values.get(labels)
        values[labels] = value if before is None else _both(one.together, before, value)
    return replace(other, values=values)


def apart(family: Family, worker: str) -> Family:
    """Say whose numbers these are."""
    values = {(*labels, worker): value for labels, value in family.values.items()}
    return replace(family, values=values, labels=(*family.labels, WORKER))


class Totals:
    """Adds up what processes say, each by its number, which is never given again."""

    def __init__(self) -> None:
        self._last: dict[int, dict[str, Family]] = {}
        self._rules: dict[int, frozenset[str]] = {}
        self._past: dict[str, Family] = {}  # of counters only

    def hear(self, number: int, families: Iterable[Family], rules: Iterable[str]) -> None:
        """
        Take what a process says now; its *rules* are those that it may count.

        To be told in the order in which it was said.
        """
        now = {family.name: family for family in families}
        for family in filter(_is_counted, self._last.get(number, {}).values()):
            after: Mapping[Labels, _Value] = now[family.name].values if family.name in now else {}
            fallen = {
                labels: value
                for labels, value in family.values.items()
                if labels not in after or _count(after[labels]) < _count(value)
            }
            if fallen:
                self._keep(replace(family, values=fallen))
        self._last[number] = now
        self._rules[number] = frozenset(rules)

    def families(self, living: Collection[int], answering: Collection[int]) -> list[Family]:
        """
        Give the sums, in the order in which they were heard of first.

        Args:
            living: The processes that there are; of others only what they have
                counted is kept, and their numbers are forgotten.
            answering: Those of them that have just been heard; of the others
                only counters are used.
        """
        for number in [number for number in self._last if number not in living]:
            for family in filter(_is_counted, self._last.pop(number).values()):
                self._keep(family)
            del self._rules[number]
        self._forget_rules()
        found: dict[str, Family] = {}
        now = (
            apart(family, str(number)) if family.together is Together.APART else family
            for number, families in self._last.items()
            for family in families.values()
            if number in answering or _is_counted(family)
        )
        for family in chain(self._past.values(), now):
            before = found.get(family.name)
            found[family.name] = family if before is None else together(before, family)
        return list(found.values())

    def _keep(self, family: Family) -> None:
        before = self._past.get(family.name)
        self._past[family.name] = family if before is None else together(before, family)

    def _forget_rules(self) -> None:
        """Forget rules that no configuration has any more, of which there is no end."""
        if not self._rules:
            return
        rules = frozenset().union(*self._rules.values())
        for name, family in self._past.items():
            if "rule" in family.labels:
                at = family.labels.index("rule")
                values = {key: value for key, value in family.values.items() if key[at] in rules}
                self._past[name] = replace(family, values=values)


def _family(what: Mapping[str, Any]) -> Family:
    kind = Kind(what["kind"])
    labels = _words(what["labels"])
    values: dict[Labels, _Value] = {}
    for key, value in what["values"]:
        values[_words(key)] = _distribution(value) if kind is Kind.HISTOGRAM else float(value)
    if any(len(key) != len(labels) for key in values):
        raise ValueError(f"{what['name']} has labels without a name")
    name, about = _words((what["name"], what["help"]))
    return Family(kind, name, about, values, labels, Together(what["together"]))


def _words(what: Iterable[Any]) -> tuple[str, ...]:
    words = tuple(what)
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"{words!r} are no words")
    return words


def _distribution(what: Any) -> Distribution:
    counts, total = what
    if len(counts) != len(BOUNDS) + 1:
        raise ValueError("these times were sorted by other bounds")
    return Distribution(tuple(int(count) for count in counts), float(total))


def _is_counted(family: Family) -> bool:
    return family.kind is not Kind.GAUGE and family.together is not Together.APART


def _count(value: _Value) -> float:
    return sum(value.counts) if isinstance(value, Distribution) else value


def _both(how: Together, one: _Value, other: _Value) -> _Value:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
        return Distribution(counts, one.sum + other.sum)
    assert not isinstance(one, Distribution)  # heard() has sorted them by kind
    assert not isinstance(other, Distribution)
    return one + other if how is Together.SUM else max(one, other)
