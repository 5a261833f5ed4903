"""
What several workers answer, made into what one server would.

Every function takes the answers of :mod:`socksd.app.answers` and gives one of
the same shape, so that what was merged can be merged again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import nlargest, nsmallest
from math import floor, inf
from operator import itemgetter
from typing import Any, Final

from socksd.app.live import TALKERS, Row
from socksd.observe.leaks import CLIENTS, DESTINATIONS
from socksd.observe.traffic import DENIALS, EVERY, HOUR

Answer = Mapping[str, Any]
Merge = Callable[[Sequence[Answer]], dict[str, Any]]


def total(answers: Iterable[Answer], key: str) -> Any:
    """Add up one number of all of them."""
    return sum(answer[key] for answer in answers)


def sessions(answers: Sequence[Answer], order: str, limit: int) -> dict[str, Any]:
    """Merge what /v1/sessions answers, each the first *limit* of its rows in this *order*."""
    rows = [row for answer in answers for row in answer["sessions"]]
    first = nlargest if order.startswith("-") else nsmallest
    return {
        "count": total(answers, "count"),
        "sessions": first(limit, rows, _KEYS[order.removeprefix("-")]),
    }


# What the rows of sessions are put in order by, as live.ORDERS calls it.
_KEYS: Final[Mapping[str, Callable[[Row], float]]] = {
    **{key: itemgetter(key) for key in ("session", "seconds", "up", "down")},
    "octets": lambda row: row["up"] + row["down"],
}


def talkers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Merge what /v1/talkers answers: the same as live.talkers(), if they are not cut short."""
    pairs = _grouped(answers, "talkers", ("client", "user", "host"))
    merged = [
        {**rows[0], **{key: total(rows, key) for key in ("sessions", "up", "down")}}
        for rows in pairs
    ]
    return {"talkers": nlargest(TALKERS, merged, _KEYS["octets"])}


def rules(answers: Sequence[Answer]) -> dict[str, Any]:
    """
    Merge what /v1/rules answers.

    They stand in the order of the first answer; while workers have different
    configurations, those that only others have come behind.
    """
    return {"rules": [_rule(rows) for rows in _grouped(answers, "rules", ("id",))]}


def _rule(rows: Sequence[Row]) -> Row:
    outcomes: Counter[str] = Counter()
    for row in rows:
        outcomes.update(row["outcomes"])
    return {
        **rows[0],
        "hits": total(rows, "hits"),
        "open": total(rows, "open"),
        "outcomes": dict(outcomes),
        "last": max((row["last"] for row in rows if row["last"] is not None), default=None),
        "since": min(row["since"] for row in rows),
    }


def without_open(answer: Answer) -> dict[str, Any]:
    """Say what rules have decided, and nothing of sessions that live."""
    return {"rules": [{**row, "open": 0} for row in answer["rules"]]}


def only_rules(known: Collection[str], answer: Answer) -> dict[str, Any]:
    """Leave out rules that are not *known*."""
    return {"rules": [row for row in answer["rules"] if row["id"] in known]}


def leaks(answers: Sequence[Answer]) -> dict[str, Any]:
    """
    Merge what /v1/leaks answers.

    Args:
        answers: Each with all of its clients, or clients that several of them
            have seen would be counted more than once.
    """
    merged = [_leak(rows) for rows in _grouped(answers, "leaks", ("client", "user"))]
    latest = nlargest(CLIENTS, merged, itemgetter("last"))
    return {
        "clients": len(latest),
        "leaks": sorted(latest, key=lambda row: (-row["addresses"], row["client"])),
    }


def only_leaking(answer: Answer) -> dict[str, Any]:
    """Leave out clients that send names only, but count them."""
    return {**answer, "leaks": [row for row in answer["leaks"] if row["addresses"]]}


def _leak(rows: Sequence[Row]) -> Row:
    top: Counter[str] = Counter()
    for row in rows:
        top.update({each["destination"]: each["count"] for each in row["top"]})
    return {
        "client": rows[0]["client"],
        "user": rows[0]["user"],
        "addresses": total(rows, "addresses"),
        "names": total(rows, "names"),
        "since": min(row["since"] for row in rows),
        "last": max(row["last"] for row in rows),
        "top": [
            {"destination": destination, "count": count}
            for destination, count in top.most_common(DESTINATIONS)
        ],
    }


def slots(answers: Iterable[Answer]) -> dict[str, Any]:
    """
    Merge what /v1/traffic answers, in slots of EVERY seconds, the same for all.

    Workers take their samples at different times, so what one has measured is
    shared among the slots that it lies in; no octet is lost or counted twice.
    The last slots may not be full yet: see traffic().
    """
    octets: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for answer in answers:
        for rate in answer["rates"]:
            begin, end = rate["time"] - rate["seconds"], rate["time"]
            for slot in range(floor(begin / EVERY), floor(end / EVERY) + 1):
                within = min(end, (slot + 1) * EVERY) - max(begin, slot * EVERY)
                if within > 0:
                    octets[slot][0] += rate["up"] * within
                    octets[slot][1] += rate["down"] * within
    oldest = max(octets, default=0) - HOUR / EVERY
    return {
        "rates": [
            {
                "time": (slot + 1) * EVERY,
                "up": up / EVERY,
                "down": down / EVERY,
                "seconds": EVERY,
            }
            for slot, (up, down) in sorted(octets.items())
            if slot > oldest
        ]
    }


def traffic(live: Sequence[Answer], others: Sequence[Answer]) -> dict[str, Any]:
    """
    Merge what /v1/traffic answers, up to where all that are *live* have been sampled.

    A slot of which a worker is still to tell would look like a drop.
    """
    known = min((answer["rates"][-1]["time"] for answer in live if answer["rates"]), default=inf)
    merged = slots((*live, *others))["rates"]
    return {"rates": [rate for rate in merged if rate["time"] <= known]}


def denials(answers: Sequence[Answer]) -> dict[str, Any]:
    """Merge what /v1/denials answers."""
    rows = (row for answer in answers for row in answer["denials"])
    return {
        "count": total(answers, "count"),
        "denials": nlargest(DENIALS, rows, itemgetter("time", "session")),
    }


def _grouped(answers: Iterable[Answer], rows: str, keys: Sequence[str]) -> Iterable[list[Row]]:
    """Give the rows that are about the same, together, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for answer in answers:
        for row in answer[rows]:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups.values()
