"""
What one value in a configuration means.

Each reader takes a value as ``tomllib`` gives it, whatever was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, tzinfo
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from socksd.address import IPAddress, normal_host, reached, unmapped
from socksd.codes import COMMANDS, Command
from socksd.errors import did_you_mean
from socksd.facts import Verdict
from socksd.policy.guard import GUARD
from socksd.policy.match import ByUser, Hostname, Hours
from socksd.policy.rules import DEFAULT
from socksd.policy.sets import IPNetwork

T = TypeVar("T")

_ACTIONS = {"allow": Verdict.ALLOW, "deny": Verdict.DENY}
COMMANDS_BY_WORD = {word: command for command, word in COMMANDS.items()}
_MODES = {"enforce": False, "report": True}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60  # minutes

# In a log line a lone "-" is "nothing".
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_WITH_PORT = re.compile(r"[^:]+:[0-9]*|\[.*\]:[0-9]*")
_WILD_LABEL = re.compile(r"[a-z0-9_*?-]{1,63}")
# A glob that no name can match: names do not end in a number, addresses do.
_LIKE_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9*?]+)+|.*\.(?:[0-9]+|0x[0-9a-f]*)")

# Days are lower case and zones begin with an upper-case letter.
_HOURS = re.compile(
    r"(?:(?P<days>[a-z]\S*)(?: +|$))?(?:(?P<times>[0-9]\S*)(?: +|$))?(?P<zone>[A-Z]\S*)?"
)
_TIMES = re.compile(r"([0-9]{2}):([0-5][0-9])-([0-9]{2}):([0-5][0-9])")

_TYPES = {bool: "a boolean", int: "a number", float: "a float", str: "a string", list: "a list"}


class Wrong(Exception):
    """What is wrong with one value, and what to write instead."""


def type_of(value: object) -> str:
    """Say what kind of value somebody has written."""
    return _TYPES.get(type(value), "a table" if isinstance(value, Mapping) else "a date")


def some_text(value: object) -> str:
    """Read a string with something in it."""
    if not isinstance(value, str):
        raise Wrong(f"must be a string, not {type_of(value)}")
    if not value:
        raise Wrong("is empty")
    return value


def name(value: object, kind: str) -> str:
    """Read a name that may stand unquoted in a log line; *kind* is what it is a name of."""
    text = some_text(value)
    if not _NAME.fullmatch(text):
        raise Wrong(
            f"{text!r} is no {kind}: letters, digits and . _ - make one,"
            " the first a letter or digit"
        )
    return text


_TAKEN = {
    DEFAULT: "what happens when no rule matches",
    GUARD: "what [guard] refuses",
    "why": "the page that tells why something was refused",
}


def rule_id(value: object) -> str:
    """Read the id of a rule."""
    text = name(value, "id")
    if text in _TAKEN:
        raise Wrong(f"{text!r} is the id of {_TAKEN[text]}")
    return text


def sentence(value: object) -> str:
    """Read what a person may be shown, on one line."""
    text = some_text(value)
    if not text.isprintable():
        raise Wrong("must be one line of text that can be printed")
    return text


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"must be true or false, not {type_of(value)}")
    return value


def one_of(value: object, known: Mapping[str, T]) -> T:
    """Read one of a few words."""
    text = some_text(value)
    if text not in known:
        choice = ", ".join(map(repr, known))
        raise Wrong(f"{text!r} is none of {choice}{did_you_mean(text, known)}")
    return known[text]


def action(value: object) -> Verdict:
    """Read what a rule does."""
    return one_of(value, _ACTIONS)


def on_trial(value: object) -> bool:
    """Read a rule's mode."""
    return one_of(value, _MODES)


def share(value: object) -> float:
    """Read a part of the people."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Wrong(f"must be a number, not {type_of(value)}")
    if not 0 < value <= 1:
        raise Wrong(f"must be above 0 and at most 1, not {value}: 0.05 is one in twenty")
    return float(value)


def command(value: object) -> Command:
    """Read a command, by the word that logs use, too."""
    return one_of(value, COMMANDS_BY_WORD)


def requirement(value: object) -> Hostname:
    """Read what is required of a client."""
    return one_of(value, {"hostname": Hostname()})


def unasked(value: object) -> bool:
    """Read where datagrams may come from: say whether also from where none was sent to."""
    return one_of(value, {"any": True, "asked": False})


def user(value: object) -> str:
    """Read a user's name, or one of the two words."""
    text = some_text(value)
    words = (ByUser.ANY, ByUser.NONE)
    if text.startswith("@") and text not in words:
        raise Wrong(
            f"{text!r} is neither '@any' (logged in) nor '@none' (came without login)"
            f"{did_you_mean(text, words)}"
        )
    return text


def ports(value: object) -> range:
    """Read ``443``, or ``"8000-8999"`` with both ends in it."""
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif not isinstance(value, str):
        raise Wrong(f"must be a number or a range, not {type_of(value)}")
    elif found := _PORTS.fullmatch(value):
        first, last = int(found[1]), int(found[2])
    elif value.isascii() and value.isdigit():
        raise Wrong(f"{value!r} is a string; a port is a number: {value}")
    else:
        raise Wrong(f'{value!r} is no range; write one as "8000-8999"')
    if not (0 <= first <= 65535 and 0 <= last <= 65535):
        raise Wrong(f"{value!r} goes beyond 0 to 65535")
    if first > last:
        raise Wrong(f'{value!r} is backwards; did you mean "{last}-{first}"?')
    return range(first, last + 1)


def hours(value: object) -> Hours:
    """Read ``mon-fri 07:00-20:00 Europe/Berlin``; either days or times may be missing."""
    text = some_text(value)
    found = _HOURS.fullmatch(text) if text.isprintable() else None
    if found is None or not (found["days"] or found["times"]):
        raise Wrong(f'{text!r} is no time; write one as "mon-fri 07:00-20:00 Europe/Berlin"')
    days, times, where = found.groups()
    if not where:
        raise Wrong(f'{text!r} names no time zone; write one behind it: "{text} Europe/Berlin"')
    begin, end = _times(times) if times else (0, _DAY)
    if end < begin:  # over midnight: of the day on which it begins
        end += _DAY
    starts = sorted(_days(days) if days else range(7))
    return Hours(zone(where), tuple(range(d * _DAY + begin, d * _DAY + end) for d in starts))


def _times(text: str) -> tuple[int, int]:
    found = _TIMES.fullmatch(text)
    if found is None:
        raise Wrong(f'{text!r} is no time of day; write "07:00-20:00"')
    first, last = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4]))
    if first >= _DAY or last > _DAY:
        raise Wrong(f"{text!r} goes beyond 24:00")
    if first == last:
        raise Wrong(f'{text!r} is no time at all; a whole day is "00:00-24:00"')
    return first, last


def _days(text: str) -> set[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for day in (first, last) if dash else (first,):
            if day not in _DAYS:
                raise Wrong(f"{day!r} is no day: {', '.join(_DAYS)}{did_you_mean(day, _DAYS)}")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update((begin + more) % 7 for more in range((end - begin) % 7 + 1))
    return days


def zone(text: str) -> tzinfo:
    """Read the name of a time zone."""
    if text == "UTC":  # also where there are no data of zones
        return UTC
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise Wrong("this host knows no time zone but UTC: install tzdata") from None
        hint = did_you_mean(text, known)
        raise Wrong(f"no time zone is named {text!r}{hint}") from None


def network(value: object) -> IPNetwork:
    """Read a network, or one address in any spelling."""
    text = some_text(value)
    if "/" in text:
        return _cidr(text)
    host = normal_host(text)
    if isinstance(host, str):
        raise Wrong(f"{text!r} is a name; here stand addresses and networks")
    return _single(host)


def target(value: object) -> str | IPNetwork:
    """Read a network, an address, or a pattern of names as ``Names.of`` takes it."""
    text = some_text(value)
    if "/" in text:
        return _cidr(text)
    if "*" in text or "?" in text:
        return _glob(text)
    if text.startswith("."):
        name = normal_host(text[1:])
        if not isinstance(name, str):
            raise Wrong(f"{text!r}: an address is no domain and has nothing below it")
        return f".{name}"
    if _WITH_PORT.fullmatch(text):
        raise Wrong(f"{text!r} is no host: a port stands under 'ports'")
    host = normal_host(text)
    return host if isinstance(host, str) else _single(host)


def _single(address: IPAddress) -> IPNetwork:
    """Make an address the network that holds just it."""
    if address.is_unspecified:
        raise Wrong(
            f"{address} is never seen, for who connects to it reaches {reached(address)};"
            " without the key every address matches"
        )
    return ip_network(address)


def _cidr(text: str) -> IPNetwork:
    """
    Read ADDRESS/LENGTH, the address written out in full.

    inet_aton(3) would take "10/8" for 0.0.0.10/8, and ``ipaddress`` the
    netmask 0.0.0.255 for 255.255.255.0: neither is what one would expect.
    """
    written, _, bits = text.partition("/")
    try:
        address = ip_address(written)
    except ValueError:
        raise Wrong(f"{text!r} is no network; write one as 10.0.0.0/8 or fd00::/8") from None
    if "%" in written:
        raise Wrong(f"a zone identifier: {text!r}")
    if not re.fullmatch(r"[0-9]{1,3}", bits) or int(bits) > address.max_prefixlen:
        raise Wrong(f"{text!r} has no prefix length of 0 to {address.max_prefixlen}")
    network: IPNetwork = ip_network((address, int(bits)), strict=False)
    if network.network_address != address:
        raise Wrong(
            f"{text!r} has host bits set; did you mean the network {str(network)!r}"
            f" or the address {str(address)!r}?"
        )
    if network.prefixlen == network.max_prefixlen:
        return _single(unmapped(address))
    return _unmapped(network)


def _unmapped(network: IPNetwork) -> IPNetwork:
    """Give the IPv4 network inside ``::ffff:0:0/96``; any other as it is."""
    if isinstance(network, IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:  # then 96 bits or more are the network's
            return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _glob(text: str) -> str:
    """Normalise a glob label by label, as whole names are."""
    if not text.strip("*"):
        raise Wrong(f"{text!r} is every name, but no address; without 'to' everything matches")
    glob = ".".join(_glob_label(label, text) for label in text.removesuffix(".").split("."))
    if _LIKE_ADDRESS.fullmatch(glob):
        raise Wrong(f"{text!r}: a glob is for names; write addresses as a network: 10.0.0.0/8")
    return glob


def _glob_label(label: str, text: str) -> str:
    if not label:
        raise Wrong(f"{text!r} has an empty label")
    if "*" not in label and "?" not in label:
        # With a name behind it, for a number alone would be an address.
        return str(normal_host(f"{label}.x")).removesuffix(".x")
    if not label.isascii():
        raise Wrong(f"{text!r}: no * or ? inside a label that is not ASCII")
    lowered = label.lower()
    if not _WILD_LABEL.fullmatch(lowered):
        raise Wrong(f"not a host: {text!r}")
    return lowered
