"""Where clients are sent, and by which ways."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

import attrs

from socksd.address import Host, IPAddress, normal_host, unmapped
from socksd.app.config.values import (
    a_duration,
    a_number,
    a_string,
    kind_of,
    some_ports,
    some_string,
)
from socksd.errors import AddressError, did_you_mean
from socksd.policy.special import CLASSES


def _never(value: object) -> tuple[str, ...]:
    if value == "nothing":
        return ()
    if not isinstance(value, list):
        raise ValueError(f'must be a list of kinds of addresses, or "nothing", not {value!r}')
    if not value:
        raise ValueError('is empty; to forbid no address at all write never = "nothing"')
    for each in value:
        if each not in CLASSES:
            hint = did_you_mean(str(each), CLASSES)
            raise ValueError(f"{each!r} must be one of {', '.join(CLASSES)}{hint}")
    return tuple(dict.fromkeys(value))


def _explicit(value: object) -> bool:
    if value not in ("explicit", "open"):
        raise ValueError(f'must be "explicit" or "open", not {value!r}')
    return value == "explicit"


@attrs.frozen
class Guarded:
    """``[guard]``: where nobody is sent, whatever a rule allows."""

    never: Annotated[tuple[str, ...], _never] = (
        "loopback",
        "link-local",
        "metadata",
        "multicast",
        "self",
    )
    private: Annotated[bool, _explicit] = True  # only where the rule names it


@attrs.frozen
class Resolver:
    """``[resolver]``: where names are looked up, and how long answers are kept."""

    via: Annotated[str, some_string] = "system"  # or dns:ADDRESS,...; not looked into here
    threads: Annotated[int, a_number(1, 1024)] = 128
    ttl: Annotated[float, a_duration(least="0s")] = 60.0
    negative_ttl: Annotated[float, a_duration(least="0s")] = 5.0
    entries: Annotated[int, a_number(1, 1_000_000)] = 10_000


def _sources(value: object) -> tuple[IPAddress, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {kind_of(value)}: write [...]")
    if not value:
        raise ValueError("is empty; without the table the system chooses")
    sources: dict[int, IPAddress] = {}
    for text in map(a_string, value):
        try:
            address = unmapped(ip_address(text))
        except ValueError:
            raise ValueError(f"{text!r} is not an address; write one as 192.0.2.1") from None
        if address.is_unspecified or address.is_multicast:
            raise ValueError(f"{text!r} is no address of a host")
        if address.version in sources:
            both = f"{sources[address.version]} and {address}"
            raise ValueError(f"has two of IPv{address.version}, {both}; one of each is taken")
        sources[address.version] = address
    return tuple(sources.values())


@attrs.frozen
class Route:
    """``[route.NAME]``: a way for the sessions whose rule names it in ``route``."""

    source: Annotated[tuple[IPAddress, ...], _sources]  # one of a family, at most


def _public(value: object, like: str) -> Host | None:
    """Read what clients are told to connect to; *like* says how to write it."""
    text = a_string(value)
    if not text:
        return None
    try:
        host = normal_host(text)
    except AddressError as error:
        raise ValueError(f"{error}; write {like}") from None
    if not isinstance(host, str) and host.is_unspecified:
        raise ValueError(f"nobody can reach {text}; leave it out to tell clients nothing new")
    return host


def _address(value: object) -> IPAddress | None:
    host = _public(value, "an address as 203.0.113.1")
    if isinstance(host, str):
        raise ValueError(f"{host!r} is a name; write an address as 203.0.113.1")
    return host


@attrs.frozen
class Bind:
    """``[bind]``: where we wait for the peers of BIND."""

    ports: Annotated[range | None, some_ports] = None  # None: the kernel's choice
    advertise: Annotated[IPAddress | None, _address] = None  # None: the address we listen on


def _advertised(value: object) -> Host | None:
    return _public(value, "an address or a name, without a port")


def _reassemble(value: object) -> bool:
    if value not in ("reassemble", "drop"):
        hint = did_you_mean(str(value), ("reassemble", "drop"))
        raise ValueError(f'must be "reassemble" or "drop", not {value!r}{hint}')
    return value == "reassemble"


@attrs.frozen
class Udp:
    """``[udp]``: how datagrams are relayed."""

    ports: Annotated[range | None, some_ports] = None  # where clients send to; None: any
    advertise: Annotated[Host | None, _advertised] = None  # None: the address clients connected to
    fragments: Annotated[bool, _reassemble] = True  # put together; else dropped
