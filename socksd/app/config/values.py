"""
Readers: how the value of a key is written, whatever the key.

Each is named by what it takes, and stands in the annotations of the tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar

from socksd.address import Destination
from socksd.app.config.units import duration
from socksd.errors import AddressError

IPNetwork = IPv4Network | IPv6Network

T = TypeVar("T")
# Reads one value as tomllib gives it. Raises ValueError: what is wrong with
# it, and what to write instead.
Reader = Callable[[object], T]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # stands unquoted in log lines
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a fraction",
    list: "a list",
    dict: "a table",
}


def kind_of(value: object) -> str:
    """Say of what kind a value is, for a message that it should be of another."""
    return _KINDS.get(type(value), "a date or time")


def a_string(value: object) -> str:
    """Read a string, which may be empty."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {kind_of(value)}")
    return value


def some_string(value: object) -> str:
    """Read a string that is not empty."""
    text = a_string(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def a_name(value: object) -> str:
    """Read a name that stands unquoted in log lines and key paths."""
    text = a_string(value)
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name: letters, digits and . _ - make one, the first a letter or digit"
        )
    return text


def a_file(value: object) -> str:
    """Read the path of a file; ``""`` and ``"-"`` stay what they are."""
    text = a_string(value)
    if "\0" in text:
        raise ValueError("no file has a NUL in its name")
    # Now, for twistd may leave the directory that a relative path begins in.
    return text if text in ("", "-") else os.path.abspath(text)


def a_host(value: object) -> str:
    """Read an address or a name, into its one normal form; ``""`` stays."""
    text = a_string(value)
    try:
        return text and str(Destination.named(text, 0).host)
    except AddressError as error:
        raise ValueError(str(error)) from None


def a_network(value: object) -> IPNetwork:
    """Read a network; an address is a network of one."""
    text = a_string(value)
    try:
        address = ip_network(text.partition("/")[0]).network_address
        network: IPNetwork = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; write one as 10.0.0.0/8") from None
    if network.network_address != address:
        raise ValueError(f"{text!r} has host bits set; did you mean {str(network)!r}?")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{text!r} is IPv4 inside IPv6; write it as 10.0.0.0/8")
    return network


def some_ports(value: object) -> range | None:
    """Read a range of ports, both ends included; ``"auto"`` is ``None``."""
    text = a_string(value)
    if text == "auto":
        return None
    found = _PORTS.fullmatch(text)
    if found is None:
        raise ValueError(f'must be a range as "40000-40999", or "auto", not {text!r}')
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= 65535 or not 1 <= last <= 65535:
        raise ValueError(f"{text!r}: ports go from 1 to 65535")
    if first > last:
        raise ValueError(f"{text!r} is empty; did you mean '{last}-{first}'?")
    return range(first, last + 1)


def a_number(least: int, most: int) -> Reader[int]:
    """Read a whole number within bounds."""
    wanted = f"{least} to {most}" if least < most else str(least)

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be a whole number, not {kind_of(value)}")
        if not least <= value <= most:
            raise ValueError(f"must be {wanted}, not {value}")
        return value

    return read


def a_number_or_auto(least: int, most: int) -> Reader[int | None]:
    """Read a whole number within bounds; ``"auto"`` is ``None``."""
    number = a_number(least, most)

    def read(value: object) -> int | None:
        if isinstance(value, str):
            if value != "auto":
                raise ValueError(f'must be a number or "auto", not {value!r}')
            return None
        return number(value)

    return read


def with_unit(parse: Callable[[str], T], least: str, most: str, example: str) -> Reader[T]:
    """Read what *parse* does, within bounds; *example* goes into a message."""
    bounds: Any = parse(least), parse(most)

    def read(value: object) -> T:
        if type(value) in (int, float):
            raise ValueError(f'needs a unit: write for example "{example}"')
        parsed = parse(a_string(value))
        if not bounds[0] <= parsed <= bounds[1]:
            raise ValueError(f"must be {least} to {most}, not {value}")
        return parsed

    return read


def a_duration(least: str = "1ms", most: str = "720h") -> Reader[float]:
    """Read a duration, as seconds."""
    return with_unit(duration, least, most, "10s")
