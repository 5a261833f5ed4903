"""Conditions and facts in words, as the configuration spells them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from ipaddress import IPv4Network, IPv6Network
from itertools import islice

from socksd.codes import COMMANDS
from socksd.facts import Facts
from socksd.policy.match import (
    At,
    ByUser,
    Condition,
    FromNetworks,
    Hours,
    InGroup,
    NotFrom,
    NotTo,
    OnListener,
    ResolvesTo,
    Share,
    ToHost,
    ToPorts,
    WithCommand,
    minute,
)
from socksd.policy.sets import HostSet, IPNetwork, Names, Networks

UNKNOWN = "not known yet"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_MOST = 6  # values that are shown of one key
_DAY = 24 * 60  # minutes


def wanted(condition: Condition) -> str:
    """Say what a condition asks for, the first few values of it."""
    words = _values(condition)
    shown = list(islice(words, _MOST))
    more = sum(1 for _ in words)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def found(condition: Condition, facts: Facts) -> str:
    """Say what the fact is that a condition asks about."""
    match condition:
        case OnListener():
            return facts.listener
        case ByUser() | Share():
            return user(facts)
        case InGroup():
            reported = facts.principal.groups if facts.principal else ()
            return " in ".join([user(facts), *([", ".join(sorted(reported))] if reported else [])])
        case WithCommand():
            return UNKNOWN if facts.command is None else COMMANDS[facts.command]
        case ToPorts():
            return UNKNOWN if facts.destination is None else str(facts.destination.port)
        case At():
            return ", ".join(clock(facts.time, zone) for zone, _ in condition.zones)
        case FromNetworks() | NotFrom():
            return str(facts.client)
        case ResolvesTo():
            return UNKNOWN if facts.address is None else str(facts.address)
        case ToHost() | NotTo():
            return _host(facts, landed=any(each.networks for each in condition.sets))
        case _:
            return _host(facts, landed=False)


def user(facts: Facts) -> str:
    """Say who it is."""
    if facts.principal is None:
        return UNKNOWN
    return "nobody, without login" if facts.principal.name is None else facts.principal.name


def clock(time: float, zone: tzinfo) -> str:
    """Say the day and the time that the clocks of *zone* show."""
    local = datetime.fromtimestamp(time, zone)
    return f"{DAYS[local.weekday()]} {local:%H:%M} {zone}"


def networks(each: Networks) -> Iterator[IPNetwork]:
    """Give the networks of a set, the narrow ones first."""
    for shift, leading in each.v4:
        for value in sorted(leading):
            yield IPv4Network((value << shift, 32 - shift))
    for shift, leading in each.v6:
        for value in sorted(leading):
            yield IPv6Network((value << shift, 128 - shift))


def names(each: Names) -> Iterator[str]:
    """Give the patterns of a set."""
    yield from sorted(each.exact)
    yield from (f".{suffix}" for suffix in sorted(each.suffixes))
    yield from sorted(each.globs)


def next_minute(time: float, zone: tzinfo, of_week: int) -> float:
    """Give when after *time* the clocks of *zone* show a minute of the week (but for DST)."""
    return time + (of_week - minute(time, zone)) % Hours.WEEK * 60 - time % 60


def _values(condition: Condition) -> Iterator[str]:
    match condition:
        case OnListener():
            yield from sorted(condition.names)
        case ByUser():
            yield from sorted(condition.names)
            yield from [ByUser.ANY] * condition.anyone
            yield from [ByUser.NONE] * condition.nobody
        case InGroup():
            yield from sorted(group.name for group in condition.groups)
        case WithCommand():
            yield from sorted(COMMANDS[command] for command in condition.commands)
        case ToPorts():
            for start, stop in _ranges(condition.edges):
                yield str(start) if stop == start + 1 else f"{start}-{stop - 1}"
        case At():
            for zone, edges in condition.zones:
                yield from (f"{hours} {zone}" for hours in _hours(edges))
        case Share():
            yield f"{condition.part:g} of the people"
        case FromNetworks() | NotFrom() | ToHost() | NotTo() | ResolvesTo():
            for each in sorted(condition.sets, key=lambda each: each.name):
                yield from _hosts(each)
        case _:
            yield "hostname"


def _hosts(each: HostSet) -> Iterator[str]:
    if each.name:
        yield each.name
    else:
        yield from names(each.names)
        yield from (
            str(network).removesuffix("/32").removesuffix("/128")
            for network in networks(each.networks)
        )


def _hours(edges: tuple[int, ...]) -> Iterator[str]:
    """Write minutes of the week, those of several days together: ``mon,tue 07:00-20:00``."""
    days: dict[tuple[int, int], list[int]] = {}
    for start, stop in _ranges(edges):
        if stop - start > _DAY:
            yield f"{_moment(start)} to {_moment(stop)}"
        else:
            begin = start % _DAY
            days.setdefault((begin, begin + stop - start), []).append(start // _DAY)
    for (begin, end), some in days.items():
        yield f"{_days(some)} {_time(begin)}-{_time(end if end == _DAY else end % _DAY)}"


def _days(some: list[int]) -> str:
    """Write days of the week, ascending; three or more in a row as ``mon-fri``."""
    first, last = some[0], some[-1]
    if last - first == len(some) - 1 and len(some) > 2:
        return f"{DAYS[first]}-{DAYS[last]}"
    return ",".join(DAYS[day] for day in some)


def _moment(of_week: int) -> str:
    return f"{DAYS[of_week // _DAY % 7]} {_time(of_week % _DAY)}"


def _time(of_day: int) -> str:
    return f"{of_day // 60:02}:{of_day % 60:02}"


def _ranges(edges: tuple[int, ...]) -> Iterable[tuple[int, int]]:
    return zip(edges[::2], edges[1::2], strict=True)


def _host(facts: Facts, *, landed: bool) -> str:
    if facts.destination is None:
        return UNKNOWN
    host = str(facts.destination.host)
    if not landed:
        return host
    if facts.address is None:
        return f"{host}, whose address is {UNKNOWN}"
    return host if host == str(facts.address) else f"{host} at {facts.address}"
