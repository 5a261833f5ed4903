"""
Rules from the ``[[rule]]`` tables of a configuration.

Everything wrong is reported at once, each with its key path; indices count
from 0 as in code, so ``rule[3].to[1]`` is the fourth rule's second value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar

from socksd.address import IPAddress, normal_host, reached, unmapped
from socksd.codes import Command
from socksd.errors import AddressError, ConfigError, Problem, did_you_mean
from socksd.facts import Verdict
from socksd.policy.match import (
    ByUser,
    Condition,
    FromNetworks,
    IPNetwork,
    OnListener,
    ToHost,
    ToPorts,
    WithCommand,
)
from socksd.policy.rules import DEFAULT, Rule

T = TypeVar("T")

_ACTIONS = {"allow": Verdict.ALLOW, "deny": Verdict.DENY}
_COMMANDS = {"connect": Command.CONNECT, "bind": Command.BIND, "udp": Command.UDP_ASSOCIATE}
_KEYS = ("id", "action", "from", "listener", "user", "command", "to", "ports")

# Ids stand unquoted in log lines, where a lone "-" is "nothing".
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_WITH_PORT = re.compile(r"[^:]+:[0-9]*|\[.*\]:[0-9]*")
_WILD_LABEL = re.compile(r"[a-z0-9_*?-]{1,63}")
# A glob that no name can match: names do not end in a number, addresses do.
_LIKE_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9*?]+)+|.*\.(?:[0-9]+|0x[0-9a-f]*)")

_TYPES = {bool: "a boolean", int: "a number", float: "a float", str: "a string", list: "a list"}


def load_rules(tables: object, listeners: Collection[str]) -> tuple[Rule, ...]:
    """
    Make rules of the parsed ``rule`` key: a list of tables.

    Args:
        tables: As ``tomllib`` gives it, whatever was written.
        listeners: The names that ``listener`` may use.

    Raises:
        ConfigError: With every problem there is.
    """
    if not isinstance(tables, Sequence) or isinstance(tables, str):
        raise ConfigError([Problem("rule", "must be a list of tables: write [[rule]]")])
    loader = _Loader(listeners, [], {})
    rules = [loader.rule(table, f"rule[{index}]") for index, table in enumerate(tables)]
    if loader.problems:
        raise ConfigError(loader.problems)
    return tuple(rules)


class _Wrong(Exception):
    """What is wrong with one value, and what to write instead."""


@dataclass
class _Loader:
    """
    One run over all tables.

    After a problem it goes on with what is left, to find the next one; the
    rules made then are not used.
    """

    listeners: Collection[str]
    problems: list[Problem]
    ids: dict[str, str]  # each id, and the path of the rule that has it

    def rule(self, table: object, path: str) -> Rule:
        if not isinstance(table, Mapping):
            self.problems.append(Problem(path, f"must be a table, not {_type(table)}"))
            return Rule("", Verdict.DENY, ())
        for key in table:
            if key not in _KEYS:
                hint = did_you_mean(key, _KEYS)
                self.problems.append(Problem(f"{path}.{key}", f"there is no such key{hint}"))
        name = self.required(table, path, "id", _id)
        if name is not None and name in self.ids:
            message = f"{name!r} is the id of {self.ids[name]} already"
            self.problems.append(Problem(f"{path}.id", message))
        elif name is not None:
            self.ids[name] = path
        action = self.required(table, path, "action", lambda value: _one_of(value, _ACTIONS))
        conditions = (
            # In the order in which they are asked, the cheap ones first.
            self.condition(table, path, "listener", self.listener, OnListener.of),
            self.condition(table, path, "user", _user, ByUser.of),
            self.condition(table, path, "command", _command, WithCommand.of),
            self.condition(table, path, "ports", _ports, ToPorts.of),
            self.condition(table, path, "from", _network, FromNetworks.of),
            self.condition(table, path, "to", _target, ToHost.of),
        )
        return Rule(
            name or "",
            action or Verdict.DENY,
            tuple(condition for condition in conditions if condition is not None),
        )

    def required(
        self, table: Mapping[str, object], path: str, key: str, read: Callable[[object], T]
    ) -> T | None:
        """Read the one value of a key that every rule has."""
        if key not in table:
            self.problems.append(Problem(f"{path}.{key}", "is missing"))
            return None
        return self.value(table[key], f"{path}.{key}", read)

    def condition(
        self,
        table: Mapping[str, object],
        path: str,
        key: str,
        read: Callable[[object], T],
        make: Callable[[Iterable[T]], Condition],
    ) -> Condition | None:
        """Read a value or a list of them; ``None`` where the key is not there."""
        if key not in table:
            return None
        path, written = f"{path}.{key}", table[key]
        if not isinstance(written, list):
            values = [self.value(written, path, read)]
        elif written:
            values = [
                self.value(value, f"{path}[{index}]", read) for index, value in enumerate(written)
            ]
        else:
            values = []
            message = "an empty list matches nothing; without the key everything matches"
            self.problems.append(Problem(path, message))
        return make(value for value in values if value is not None)

    def value(self, value: object, path: str, read: Callable[[object], T]) -> T | None:
        """Read one value; a mistake becomes a problem."""
        try:
            return read(value)
        except (_Wrong, AddressError) as error:
            self.problems.append(Problem(path, str(error)))
            return None

    def listener(self, value: object) -> str:
        name = _text(value)
        if name not in self.listeners:
            hint = did_you_mean(name, self.listeners)
            raise _Wrong(f"no listener is named {name!r}{hint}")
        return name


def _type(value: object) -> str:
    return _TYPES.get(type(value), "a table" if isinstance(value, Mapping) else "a date")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"must be a string, not {_type(value)}")
    if not value:
        raise _Wrong("is empty")
    return value


def _id(value: object) -> str:
    text = _text(value)
    if not _ID.fullmatch(text):
        raise _Wrong(
            f"{text!r} is no id: letters, digits and . _ - make one, the first a letter or digit"
        )
    if text == DEFAULT:
        raise _Wrong(f"{text!r} is the id of what happens when no rule matches")
    return text


def _one_of(value: object, known: Mapping[str, T]) -> T:
    text = _text(value)
    if text not in known:
        choice = ", ".join(map(repr, known))
        raise _Wrong(f"{text!r} is none of {choice}{did_you_mean(text, known)}")
    return known[text]


def _command(value: object) -> Command:
    return _one_of(value, _COMMANDS)


def _user(value: object) -> str:
    text = _text(value)
    words = (ByUser.ANY, ByUser.NONE)
    if text.startswith("@") and text not in words:
        raise _Wrong(
            f"{text!r} is neither '@any' (logged in) nor '@none' (came without login)"
            f"{did_you_mean(text, words)}"
        )
    return text


def _ports(value: object) -> range:
    """Read ``443``, or ``"8000-8999"`` with both ends in it."""
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif not isinstance(value, str):
        raise _Wrong(f"must be a number or a range, not {_type(value)}")
    elif found := _PORTS.fullmatch(value):
        first, last = int(found[1]), int(found[2])
    elif value.isascii() and value.isdigit():
        raise _Wrong(f"{value!r} is a string; a port is a number: {value}")
    else:
        raise _Wrong(f'{value!r} is no range; write one as "8000-8999"')
    if not (0 <= first <= 65535 and 0 <= last <= 65535):
        raise _Wrong(f"{value!r} goes beyond 0 to 65535")
    if first > last:
        raise _Wrong(f'{value!r} is backwards; did you mean "{last}-{first}"?')
    return range(first, last + 1)


def _network(value: object) -> IPNetwork:
    """Read a network, or one address in any spelling."""
    text = _text(value)
    if "/" in text:
        return _cidr(text)
    host = normal_host(text)
    if isinstance(host, str):
        raise _Wrong(f"{text!r} is a name; here stand addresses and networks")
    return _single(host)


def _target(value: object) -> str | IPNetwork:
    """Read a network, an address, or a pattern of names as ``Names.of`` takes it."""
    text = _text(value)
    if "/" in text:
        return _cidr(text)
    if "*" in text or "?" in text:
        return _glob(text)
    if text.startswith("."):
        name = normal_host(text[1:])
        if not isinstance(name, str):
            raise _Wrong(f"{text!r}: an address is no domain and has nothing below it")
        return f".{name}"
    if _WITH_PORT.fullmatch(text):
        raise _Wrong(f"{text!r} is no host: a port stands under 'ports'")
    host = normal_host(text)
    return host if isinstance(host, str) else _single(host)


def _single(address: IPAddress) -> IPNetwork:
    """Make an address the network that holds just it."""
    if address.is_unspecified:
        raise _Wrong(
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
        raise _Wrong(f"{text!r} is no network; write one as 10.0.0.0/8 or fd00::/8") from None
    if "%" in written:
        raise _Wrong(f"a zone identifier: {text!r}")
    if not re.fullmatch(r"[0-9]{1,3}", bits) or int(bits) > address.max_prefixlen:
        raise _Wrong(f"{text!r} has no prefix length of 0 to {address.max_prefixlen}")
    network: IPNetwork = ip_network((address, int(bits)), strict=False)
    if network.network_address != address:
        raise _Wrong(
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
        raise _Wrong(f"{text!r} is every name, but no address; without 'to' everything matches")
    glob = ".".join(_glob_label(label, text) for label in text.removesuffix(".").split("."))
    if _LIKE_ADDRESS.fullmatch(glob):
        raise _Wrong(f"{text!r}: a glob is for names; write addresses as a network: 10.0.0.0/8")
    return glob


def _glob_label(label: str, text: str) -> str:
    if not label:
        raise _Wrong(f"{text!r} has an empty label")
    if "*" not in label and "?" not in label:
        # With a name behind it, for a number alone would be an address.
        return str(normal_host(f"{label}.x")).removesuffix(".x")
    if not label.isascii():
        raise _Wrong(f"{text!r}: no * or ? inside a label that is not ASCII")
    lowered = label.lower()
    if not _WILD_LABEL.fullmatch(lowered):
        raise _Wrong(f"not a host: {text!r}")
    return lowered
