"""
What the access log says of a decision: lines in, facts and verdicts out.

Sessions repeat themselves. So a line becomes a key first, and only a key that
has not been seen before is worth being taken apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from operator import itemgetter
from typing import Any

from socksd.address import Destination, IPAddress, reached
from socksd.codes import COMMANDS, Command
from socksd.events import Asked, Outcome
from socksd.facts import Facts, Principal, Verdict

# All but the time, in the order in which record() takes them.
_KEYS = (
    *("asked", "outcome", "client", "listener", "user", "command", "literal", "host", "port"),
    *("address", "verdict", "rule", "unlisted"),
)
_scalars = itemgetter(*_KEYS)
_COMMANDS: Mapping[object, Command] = {word: command for command, word in COMMANDS.items()}
_SPELLED = re.compile(r"\\u(d[89a-f][0-9a-f]{2}|005c)")

Key = tuple[Any, ...]  # hashable


class Unused(StrEnum):
    """Why a line says nothing of a decision."""

    TORN = "torn, or no JSON objects"
    LACKING = "without what a decision uses, as older versions wrote them"
    UNREADABLE = "with values that no session has"
    NOT_ASKED = "of sessions that ended before the policy was asked, or that the gateway answered"
    BUG = "of sessions that a bug has ended"
    UNLISTED = "of names with more addresses than the log lists"


class Unusable(Exception):
    """
    A line that says nothing of a decision.

    Attributes:
        why: What is the matter with it.
    """

    def __init__(self, why: Unused) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Record:
    """
    What was decided, and by which facts.

    Attributes:
        user: As the log writes it; ``None`` without login, or not known yet.
        asked: What the decision was about.
        client, listener: The facts of every question.
        principal, command, destination: ``None`` where the question was about the client.
        literal: The address that was asked for; ``None`` where it was a name.
        addresses: Where the name has led, as far as the log lists it.
        dialled: The address that answered, if one did.
        unlisted: How many addresses the log leaves out.
        rule: The id of the rule that spoke; '' where the verdict is DEFER.
    """

    user: str | None
    asked: Asked
    client: IPAddress
    listener: str
    principal: Principal | None
    command: Command | None
    destination: Destination | None
    literal: IPAddress | None
    addresses: tuple[IPAddress, ...]
    dialled: IPAddress | None
    unlisted: int
    verdict: Verdict
    rule: str

    @property
    def settled(self) -> bool:
        """Whether all facts were known: there can be no DEFER."""
        return self.asked is Asked.ADDRESS or self.literal is not None

    def connecting(self, time: float) -> Facts:
        """Give the facts of the question about the client."""
        return Facts(self.client, self.listener, time=time)

    def asking(self, time: float, address: IPAddress | None = None) -> Facts:
        """Give the facts of the question about the request, or about an address of its name."""
        return Facts(
            self.client,
            self.listener,
            self.principal,
            self.command,
            self.destination,
            address or self.literal,
            time,
        )


def read(line: str) -> tuple[dict[str, object], Key]:
    """
    Give what a line says, and what of it a decision depends on, the time excepted.

    Raises:
        Unusable: It is no record, or one without decision.
    """
    try:
        written = json.loads(line)
    except (ValueError, RecursionError):
        raise Unusable(Unused.TORN) from None
    if type(written) is not dict:
        raise Unusable(Unused.TORN)
    try:
        key = (*_scalars(written), tuple(written["groups"]), tuple(written["addresses"]))
        hash(key)
    except KeyError:
        raise Unusable(Unused.LACKING) from None
    except TypeError:
        raise Unusable(Unused.UNREADABLE) from None
    return written, key


def record(key: Key) -> Record:
    """
    Take apart what read() has given.

    Raises:
        Unusable: There was no decision, or a bug may have spoilt it.
    """
    asked, outcome, *rest = key
    if outcome == Outcome.ERROR:
        raise Unusable(Unused.BUG)
    if asked is None:
        raise Unusable(Unused.NOT_ASKED)
    try:
        return _record(Asked(asked), *rest)
    except (ValueError, KeyError, TypeError):
        raise Unusable(Unused.UNREADABLE) from None


def _record(
    asked: Asked,
    client: object,
    listener: object,
    user: object,
    command: object,
    literal: object,
    host: object,
    port: object,
    dialled: object,
    verdict: object,
    rule: object,
    unlisted: object,
    groups: tuple[object, ...],
    addresses: tuple[object, ...],
) -> Record:
    name, principal, does, destination, own = None, None, None, None, None
    if asked is not Asked.CLIENT:
        name = None if user is None else _text(user)
        principal = Principal(
            None if name is None else unspelled(name),
            frozenset(unspelled(_text(group)) for group in groups),
        )
        does = _COMMANDS[command]
        if does is not Command.UDP_ASSOCIATE:  # which names where it sends from, if anything
            own = reached(_address(host)) if literal else None
            destination = Destination(_address(host) if literal else _text(host), _number(port))
    elif command == "connect":  # which is never carried out without being asked about
        raise Unusable(Unused.NOT_ASKED)
    if asked is Asked.ADDRESS and not addresses:
        raise Unusable(Unused.UNREADABLE)
    return Record(
        name,
        asked,
        _address(client),
        _text(listener),
        principal,
        does,
        destination,
        own,
        tuple(map(_address, addresses)),
        None if dialled is None else _address(dialled),
        _number(unlisted),
        Verdict(verdict),
        "" if rule is None else _text(rule),
    )


def moment(written: object) -> float:
    """
    Give the seconds since the epoch that a record's ``time`` stands for.

    Raises:
        Unusable: It is none, or not of UTC.
    """
    try:
        text = _text(written)
        if not text.endswith("Z"):
            raise ValueError
        time = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise Unusable(Unused.UNREADABLE) from None
    return time.timestamp()


def unspelled(text: str) -> str:
    """Give a text of the log as it was before surrogates were spelled out."""
    if "\\" not in text:
        return text
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)), text)


@lru_cache(maxsize=65536)
def _address(value: object) -> IPAddress:
    return ip_address(_text(value))


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value
