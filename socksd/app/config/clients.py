"""Where clients come in, and who they are."""

from __future__ import annotations

from typing import Annotated

import attrs

from socksd.app.config.values import (
    IPNetwork,
    a_duration,
    a_file,
    a_name,
    a_network,
    a_number_or_auto,
    kind_of,
    some_string,
)
from socksd.codes import Protection
from socksd.errors import did_you_mean
from socksd.server.spoken import PROTOCOLS

_PROTECTIONS = {
    "confidentiality": Protection.CONFIDENTIALITY,
    "integrity": Protection.INTEGRITY,
    "none": Protection.NONE,
}


def _protocols(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of protocols, not {kind_of(value)}")
    if not value:
        raise ValueError("is empty; nobody could be served")
    for each in value:
        if each not in PROTOCOLS:
            hint = did_you_mean(str(each), PROTOCOLS)
            raise ValueError(f"{each!r} must be one of {', '.join(PROTOCOLS)}{hint}")
    return tuple(dict.fromkeys(value))


def _balancers(value: object) -> tuple[IPNetwork, ...] | None:
    if value == "off":
        return None
    form = 'must be "off", or the networks of balancers, as { from = ["10.0.0.2/32"] }'
    if not isinstance(value, dict):
        raise ValueError(f"{form}, not {kind_of(value)}")
    for key in value:
        if key != "from":
            raise ValueError(f"{form}; it has no key {key!r}{did_you_mean(key, ['from'])}")
    networks = value.get("from")
    if not isinstance(networks, list) or not networks:
        raise ValueError(form)
    found = tuple(dict.fromkeys(map(a_network, networks)))
    for network in found:
        if not network.prefixlen:  # then anybody could say to be anybody
            raise ValueError(f"{str(network)!r} is everybody; name the balancers")
    return found


@attrs.frozen
class Listener:
    """``[[listener]]``: where clients come in."""

    name: Annotated[str, a_name]
    endpoint: Annotated[str, some_string]  # a Twisted endpoint string, not looked into here
    protocols: Annotated[tuple[str, ...], _protocols] = PROTOCOLS
    # Whose connections begin with a PROXY header, and nobody else may come; None: all may.
    proxy_protocol: Annotated[tuple[IPNetwork, ...] | None, _balancers] = None


@attrs.frozen
class Auth:
    """``[auth]``: who has to log in, and how that is verified."""

    authenticators: tuple[Annotated[str, some_string], ...] = ()  # strcred strings, not looked into
    anonymous: tuple[Annotated[IPNetwork, a_network], ...] = ()
    cache: Annotated[float, a_duration(least="0s")] = 300.0
    threads: Annotated[int | None, a_number_or_auto(1, 64)] = None  # None: one per CPU, at most 4


def _protections(value: object) -> tuple[Protection, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of levels of protection, not {kind_of(value)}")
    if not value:
        raise ValueError('is empty; to protect no message at all write protection = ["none"]')
    for each in value:
        if each not in tuple(_PROTECTIONS):  # which compares, and does not hash
            hint = did_you_mean(str(each), _PROTECTIONS)
            raise ValueError(f"{each!r} must be one of {', '.join(_PROTECTIONS)}{hint}")
    return tuple(dict.fromkeys(_PROTECTIONS[each] for each in value))


def _whole(value: object) -> bool:
    if value not in ("short", "principal"):
        raise ValueError(f'must be "short" or "principal", not {value!r}')
    return value == "principal"


@attrs.frozen
class Gssapi:
    """``[gssapi]``: logins with Kerberos tickets (RFC 1961)."""

    keytab: Annotated[str, a_file] = ""  # "": no such logins
    service: Annotated[str, some_string] = "rcmd"  # on any host, or NAME@HOST
    realms: tuple[Annotated[str, some_string], ...] = ()
    user: Annotated[bool, _whole] = False  # called by the whole principal
    protection: Annotated[tuple[Protection, ...], _protections] = (
        Protection.CONFIDENTIALITY,
        Protection.INTEGRITY,
    )
