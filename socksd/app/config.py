"""
The configuration: ``etc/socksd.toml``, key for key.

A class is a table; its attributes are the table's keys, with their defaults.
Durations have become seconds and sizes octets.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections import abc
from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from socksd.address import Destination, Host, IPAddress, normal_host, unmapped
from socksd.app.own import own_networks
from socksd.codes import Protection
from socksd.errors import AddressError, ConfigError, Problem, did_you_mean
from socksd.facts import DIRECT, Principal
from socksd.policy.builtin import built_in
from socksd.policy.cases import Case, load_cases
from socksd.policy.guard import Guard
from socksd.policy.load import load_groups, load_rules, load_sets
from socksd.policy.match import Group
from socksd.policy.rules import Policy, Rule
from socksd.policy.sets import HostSet
from socksd.policy.special import CLASSES, SPECIAL, special_sets
from socksd.server.spoken import PROTOCOLS

IPNetwork = IPv4Network | IPv6Network

T = TypeVar("T")
# Reads one value as tomllib gives it. Raises ValueError: what is wrong with
# it, and what to write instead.
Reader = Callable[[object], T]

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB)")
_OCTETS = {"B": 1, "KiB": 1024, "MiB": 1024**2}
_A_SECOND = {  # octets
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "kbit": 125,
    "Mbit": 125_000,
    "Gbit": 125_000_000,
}
_RATE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)({'|'.join(_A_SECOND)})/s")
_PROTECTIONS = {
    "confidentiality": Protection.CONFIDENTIALITY,
    "integrity": Protection.INTEGRITY,
    "none": Protection.NONE,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # stands unquoted in log lines
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
JOURNALD = "journald"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a fraction",
    list: "a list",
    dict: "a table",
}


def duration(text: str) -> float:
    """
    Give the seconds that a duration as ``"1.5s"`` or ``"15m"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a duration; write one as "500ms", "10s", "15m" or "2h"')
    return float(found[1]) * _SECONDS[found[2]]


def size(text: str) -> int:
    """
    Give the octets that a size as ``"64KiB"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a size; write one as "512B", "64KiB" or "1MiB"')
    return int(found[1]) * _OCTETS[found[2]]


def rate(text: str) -> int:
    """
    Give the octets a second that a rate as ``"20MB/s"`` or ``"100Mbit/s"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f'{text!r} is not a rate; write one as "500KB/s", "20MB/s", "16MiB/s" or "100Mbit/s"'
        )
    return int(float(found[1]) * _A_SECOND[found[2]])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")
    return value


def _some_text(value: object) -> str:
    text = _text(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def _name(value: object) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name: letters, digits and . _ - make one, the first a letter or digit"
        )
    return text


def _file(value: object) -> str:
    text = _text(value)
    if "\0" in text:
        raise ValueError("no file has a NUL in its name")
    # Now, for twistd may leave the directory that a relative path begins in.
    return text if text in ("", "-") else os.path.abspath(text)


def _host(value: object) -> str:
    text = _text(value)
    try:
        return text and str(Destination.named(text, 0).host)
    except AddressError as error:
        raise ValueError(str(error)) from None


def _network(value: object) -> IPNetwork:
    text = _text(value)
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


def _sources(value: object) -> tuple[IPAddress, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {_kind(value)}: write [...]")
    if not value:
        raise ValueError("is empty; without the table the system chooses")
    sources: dict[int, IPAddress] = {}
    for text in map(_text, value):
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


def _number(least: int, most: int) -> Reader[int]:
    wanted = f"{least} to {most}" if least < most else str(least)

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be a whole number, not {_kind(value)}")
        if not least <= value <= most:
            raise ValueError(f"must be {wanted}, not {value}")
        return value

    return read


def _number_or_auto(least: int, most: int) -> Reader[int | None]:
    number = _number(least, most)

    def read(value: object) -> int | None:
        if isinstance(value, str):
            if value != "auto":
                raise ValueError(f'must be a number or "auto", not {value!r}')
            return None
        return number(value)

    return read


def _with_unit(parse: Callable[[str], T], least: str, most: str, example: str) -> Reader[T]:
    bounds: Any = parse(least), parse(most)

    def read(value: object) -> T:
        if type(value) in (int, float):
            raise ValueError(f'needs a unit: write for example "{example}"')
        parsed = parse(_text(value))
        if not bounds[0] <= parsed <= bounds[1]:
            raise ValueError(f"must be {least} to {most}, not {value}")
        return parsed

    return read


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


def _protocols(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of protocols, not {_kind(value)}")
    if not value:
        raise ValueError("is empty; nobody could be served")
    for each in value:
        if each not in PROTOCOLS:
            hint = did_you_mean(str(each), PROTOCOLS)
            raise ValueError(f"{each!r} must be one of {', '.join(PROTOCOLS)}{hint}")
    return tuple(dict.fromkeys(value))


def _ports(value: object) -> range | None:
    text = _text(value)
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


def _reassemble(value: object) -> bool:
    if value not in ("reassemble", "drop"):
        hint = did_you_mean(str(value), ("reassemble", "drop"))
        raise ValueError(f'must be "reassemble" or "drop", not {value!r}{hint}')
    return value == "reassemble"


def _public(value: object, like: str) -> Host | None:
    """Read what clients are told to connect to; *like* says how to write it."""
    text = _text(value)
    if not text:
        return None
    try:
        host = normal_host(text)
    except AddressError as error:
        raise ValueError(f"{error}; write {like}") from None
    if not isinstance(host, str) and host.is_unspecified:
        raise ValueError(f"nobody can reach {text}; leave it out to tell clients nothing new")
    return host


def _advertised(value: object) -> Host | None:
    return _public(value, "an address or a name, without a port")


def _address(value: object) -> IPAddress | None:
    host = _public(value, "an address as 203.0.113.1")
    if isinstance(host, str):
        raise ValueError(f"{host!r} is a name; write an address as 203.0.113.1")
    return host


def _balancers(value: object) -> tuple[IPNetwork, ...] | None:
    if value == "off":
        return None
    form = 'must be "off", or the networks of balancers, as { from = ["10.0.0.2/32"] }'
    if not isinstance(value, dict):
        raise ValueError(f"{form}, not {_kind(value)}")
    for key in value:
        if key != "from":
            raise ValueError(f"{form}; it has no key {key!r}{did_you_mean(key, ['from'])}")
    networks = value.get("from")
    if not isinstance(networks, list) or not networks:
        raise ValueError(form)
    found = tuple(dict.fromkeys(map(_network, networks)))
    for network in found:
        if not network.prefixlen:  # then anybody could say to be anybody
            raise ValueError(f"{str(network)!r} is everybody; name the balancers")
    return found


def _protections(value: object) -> tuple[Protection, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of levels of protection, not {_kind(value)}")
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


def _explicit(value: object) -> bool:
    if value not in ("explicit", "open"):
        raise ValueError(f'must be "explicit" or "open", not {value!r}')
    return value == "explicit"


def _duration(least: str = "1ms", most: str = "720h") -> Reader[float]:
    return _with_unit(duration, least, most, "10s")


@attrs.frozen
class Listener:
    """``[[listener]]``: where clients come in."""

    name: Annotated[str, _name]
    endpoint: Annotated[str, _some_text]  # a Twisted endpoint string, not looked into here
    protocols: Annotated[tuple[str, ...], _protocols] = PROTOCOLS
    # Whose connections begin with a PROXY header, and nobody else may come; None: all may.
    proxy_protocol: Annotated[tuple[IPNetwork, ...] | None, _balancers] = None


@attrs.frozen
class Server:
    """``[server]``: the process."""

    drain: Annotated[float, _duration(least="0s")] = 60.0


@attrs.frozen
class Auth:
    """``[auth]``: who has to log in, and how that is verified."""

    authenticators: tuple[Annotated[str, _some_text], ...] = ()  # strcred strings, not looked into
    anonymous: tuple[Annotated[IPNetwork, _network], ...] = ()
    cache: Annotated[float, _duration(least="0s")] = 300.0
    threads: Annotated[int | None, _number_or_auto(1, 64)] = None  # None: one per CPU, at most 4


@attrs.frozen
class Gssapi:
    """``[gssapi]``: logins with Kerberos tickets (RFC 1961)."""

    keytab: Annotated[str, _file] = ""  # "": no such logins
    service: Annotated[str, _some_text] = "rcmd"  # on any host, or NAME@HOST
    realms: tuple[Annotated[str, _some_text], ...] = ()
    user: Annotated[bool, _whole] = False  # called by the whole principal
    protection: Annotated[tuple[Protection, ...], _protections] = (
        Protection.CONFIDENTIALITY,
        Protection.INTEGRITY,
    )


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

    via: Annotated[str, _some_text] = "system"  # or dns:ADDRESS,...; not looked into here
    threads: Annotated[int, _number(1, 1024)] = 128
    ttl: Annotated[float, _duration(least="0s")] = 60.0
    negative_ttl: Annotated[float, _duration(least="0s")] = 5.0
    entries: Annotated[int, _number(1, 1_000_000)] = 10_000


@attrs.frozen
class Bind:
    """``[bind]``: where we wait for the peers of BIND."""

    ports: Annotated[range | None, _ports] = None  # None: the kernel's choice
    advertise: Annotated[IPAddress | None, _address] = None  # None: the address we listen on


@attrs.frozen
class Deadlines:
    """``[deadlines]``: how long a session may take for what."""

    handshake: Annotated[float, _duration()] = 10.0
    resolve: Annotated[float, _duration()] = 10.0
    connect: Annotated[float, _duration()] = 15.0
    bind: Annotated[float, _duration()] = 60.0
    idle: Annotated[float, _duration()] = 900.0
    linger: Annotated[float, _duration()] = 300.0
    closing: Annotated[float, _duration(most="10s")] = 10.0  # RFC 1928 section 6: not more


@attrs.frozen
class Udp:
    """``[udp]``: how datagrams are relayed."""

    ports: Annotated[range | None, _ports] = None  # where clients send to; None: any
    advertise: Annotated[Host | None, _advertised] = None  # None: the address clients connected to
    fragments: Annotated[bool, _reassemble] = True  # put together; else dropped


@attrs.frozen
class Limits:
    """``[limits]``: how much a session, and all of them, may take."""

    early_data: Annotated[int, _with_unit(size, "1KiB", "1MiB", "64KiB")] = 65536
    sessions: Annotated[int | None, _number_or_auto(1, 1_000_000)] = None  # None: as many as fit


def _access_log(value: object) -> str:
    text = _text(value)
    kind, _, path = text.partition(":")
    if kind != JOURNALD:
        return _file(text)
    if text == JOURNALD:
        return text
    if not path:
        raise ValueError(f'names no socket; write "{JOURNALD}" for the system\'s own')
    return f"{JOURNALD}:{_file(path)}"


def _format(value: object) -> str:
    if value not in ("json", "text"):
        raise ValueError(f'must be "json" or "text", not {value!r}')
    return str(value)


@attrs.frozen
class Limit:
    """``[limit.NAME]``: what holds for the sessions whose rule names it in ``limits``."""

    bandwidth: Annotated[int | None, _with_unit(rate, "1KB/s", "100GB/s", "20MB/s")] = None
    idle: Annotated[float | None, _duration()] = None  # None: as in [deadlines]

    def __attrs_post_init__(self) -> None:
        if self.bandwidth is None and self.idle is None:
            raise ValueError("limits nothing: it needs a bandwidth, an idle time, or both")


@attrs.frozen
class Route:
    """``[route.NAME]``: a way for the sessions whose rule names it in ``route``."""

    source: Annotated[tuple[IPAddress, ...], _sources]  # one of a family, at most


@attrs.frozen
class Log:
    """``[log]``: what is written, and where."""

    # "": nowhere; "-": the standard output; "journald", or "journald:SOCKET"
    access: Annotated[str, _access_log] = ""
    format: Annotated[str, _format] = "json"  # of a file or the standard output


def _refused_sessions(value: object) -> float | None:
    if value == "keep":
        return None
    if value == "cut":
        return 0.0
    try:
        return _duration()(value)
    except ValueError as error:
        raise ValueError(f'{error}; or "keep", or "cut"') from None


@attrs.frozen
class Reload:
    """``[reload]``: what becomes of sessions and of configurations nobody has confirmed."""

    # None: kept; else cut after so many seconds
    refused_sessions: Annotated[float | None, _refused_sessions] = None
    state: Annotated[str, _file] = ""  # a directory; "": --confirm cannot be had


@attrs.frozen
class Control:
    """``[control]``: where the ``socksd`` command reaches the running server."""

    socket: Annotated[str, _file] = ""  # "": nowhere


@attrs.frozen
class Metrics:
    """``[metrics]``: where Prometheus asks how it goes."""

    endpoint: Annotated[str, _text] = ""  # a Twisted endpoint string; "": nowhere


@attrs.frozen
class Dashboard:
    """``[dashboard]``: where people look at the running server, and who may."""

    endpoint: Annotated[str, _text] = ""  # "": nowhere; not looked into here
    users: tuple[Annotated[str, _some_text], ...] = ()
    groups: tuple[Annotated[str, _some_text], ...] = ()  # of [groups], or as authenticators say

    def admits(self, principal: Principal, groups: Mapping[str, Group]) -> bool:
        """Tell whether somebody who has logged in may see it; *groups* are the ``[groups]``."""
        name = principal.name
        return name is not None and (
            name in self.users
            or any(
                group in principal.groups or (group in groups and name in groups[group].users)
                for group in self.groups
            )
        )


@attrs.frozen
class Pac:
    """``[pac]``: where browsers fetch what tells them when to use the gateway."""

    endpoint: Annotated[str, _text] = ""  # "": nowhere; not looked into here
    listener: Annotated[str, _text] = ""  # "": the first one
    host: Annotated[str, _host] = ""  # "": the address by which the browser has reached us


@attrs.frozen
class Config:
    """A whole configuration; without a listener until the command line has added one."""

    version: Annotated[int, _number(1, 1)] = 1
    server: Server = Server()
    listener: tuple[Listener, ...] = ()
    auth: Auth = Auth()
    gssapi: Gssapi = Gssapi()
    # By their names with "@", the built-in ones as well; those differ from host to host.
    sets: Mapping[str, HostSet] = attrs.field(default=SPECIAL, eq=False)
    groups: Mapping[str, Group] = attrs.field(factory=dict)
    guard: Guarded = Guarded()
    rule: tuple[Rule, ...] = ()
    resolver: Resolver = Resolver()
    bind: Bind = Bind()
    deadlines: Deadlines = Deadlines()
    udp: Udp = Udp()
    limits: Limits = Limits()
    limit: Mapping[str, Limit] = attrs.field(factory=dict)
    route: Mapping[str, Route] = attrs.field(factory=dict)
    log: Log = Log()
    reload: Reload = Reload()
    control: Control = Control()
    dashboard: Dashboard = Dashboard()
    pac: Pac = Pac()
    metrics: Metrics = Metrics()
    test: tuple[Case, ...] = ()  # read, but not run yet: what the command line adds counts, too

    def policy(self) -> Policy:
        """Give the policy of the rules, guarded; without any, the built-in one, as it stands."""
        if self.rule:
            never, private = self.guard.never, self.guard.private
            return Policy(self.rule, Guard.of(never, self.sets, private=private))
        return built_in(with_login=bool(self.auth.authenticators or self.gssapi.keytab))


def load_config(path: Path) -> Config:
    """
    Read a configuration from a file.

    Raises:
        ConfigError: It cannot be read, or has problems: all of them.
    """
    return parse_config(read_config(path), str(path))


def read_config(path: Path) -> str:
    """
    Give the text of a configuration file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError([Problem("", f"cannot read {path}: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", f"{path} is not UTF-8 at octet {error.start}")]) from error


def parse_config(text: str, name: str) -> Config:
    """
    Read a configuration.

    What this host's addresses are is asked anew each time.

    Args:
        text: TOML.
        name: The path of its file, for a syntax error, which also says the
            line and the column; names of set files are relative to where it is.

    Raises:
        ConfigError: It has problems: all of them.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(name, str(error))]) from error
    problems: list[Problem] = []
    names = list(_listener_names(tables.get("listener")))
    problems += _repeated(names)
    special: Mapping[str, HostSet] = SPECIAL
    try:
        special = special_sets(own_networks())
    except OSError as error:
        message = f"cannot tell which addresses are this host's own: {error}"
        problems.append(Problem("", message))
    sets = load_sets(
        tables.pop("sets", {}),
        special,
        lambda file: (Path(name).parent / file).read_text("utf-8"),
        problems,
    )
    groups = load_groups(tables.pop("groups", {}), problems)
    listeners = [name for _, name in names]
    rules: tuple[Rule, ...] | None = None
    try:
        rules = load_rules(
            tables.pop("rule", []),
            listeners,
            sets=sets,
            groups=groups,
            routes=dict.fromkeys([DIRECT, *_table_names(tables.get("route"))]),
            limits=_table_names(tables.get("limit")),
        )
    except ConfigError as error:
        problems += error.problems
    tested = None if rules is None else rules or built_in(with_login=True).rules
    cases = load_cases(tables.pop("test", []), listeners, groups, tested, problems)
    try:
        config = _converter.structure(tables, Config)
    except ClassValidationError as error:
        raise ConfigError([*_problems(error, ""), *problems]) from None
    if problems:
        raise ConfigError(problems)
    return attrs.evolve(config, rule=rules or (), sets=sets, groups=groups, test=cases)


def _listener_names(listeners: object) -> Iterator[tuple[int, str]]:
    """Find the names, whatever else is wrong: rules that use them are not."""
    if isinstance(listeners, list):
        for index, table in enumerate(listeners):
            if isinstance(table, dict) and isinstance(table.get("name"), str):
                yield index, table["name"]


def _table_names(tables: object) -> list[str]:
    """Give the names of tables, whatever is wrong in them."""
    return list(tables) if isinstance(tables, dict) else []


def _repeated(names: Collection[tuple[int, str]]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, name in names:
        if first.setdefault(name, index) != index:
            message = f"{name!r} is the name of listener[{first[name]}] already"
            yield Problem(f"listener[{index}].name", message)


# cattrs walks the classes, goes on after a problem, and knows where it was.
# What it would convert in silence (a number into a string, a string into a
# list of its letters) these hooks refuse.
_converter = Converter()


def _form_is(form: object) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is form


@_converter.register_structure_hook_factory(_form_is(Annotated))
def _value(kind: Any) -> Callable[[object, object], Any]:
    read: Reader[Any] = get_args(kind)[1]
    return lambda value, _: read(value)


@_converter.register_structure_hook_factory(_form_is(tuple))
def _list(kind: Any) -> Callable[[object, object], Any]:
    items: Any = GenericAlias(list, get_args(kind)[:1])

    def structure(value: object, _: object) -> Any:
        if isinstance(value, dict):
            raise ValueError("must be a list of tables: write it with two brackets, [[...]]")
        if not isinstance(value, list):
            raise ValueError(f"must be a list, not {_kind(value)}: write [...]")
        return tuple(_converter.structure(value, items))

    return structure


@_converter.register_structure_hook_factory(_form_is(abc.Mapping))
def _named(kind: Any) -> Callable[[object, object], Any]:
    inside = get_args(kind)[1]

    def structure(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must hold tables by their names, not be {_kind(value)}")
        made, wrong = {}, []
        for name, table in value.items():
            try:
                made[_name(name)] = _converter.structure(table, inside)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is about this table
                error.add_note(AttributeValidationNote(f"in {name}", name, inside))
                wrong.append(error)
        if wrong:
            raise ClassValidationError("tables", wrong, inside)
        return made

    return structure


@_converter.register_structure_hook_factory(attrs.has)
def _table(kind: Any) -> Callable[[object, object], Any]:
    read = make_dict_structure_fn(kind, _converter, _cattrs_forbid_extra_keys=True)

    def structure(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {_kind(value)}")
        return read(value, kind)

    return structure


_converter.register_structure_hook(
    Config,
    make_dict_structure_fn(
        Config,
        _converter,
        _cattrs_forbid_extra_keys=True,
        # What the policy is made of has loaders of its own.
        rule=override(omit=True),
        sets=override(omit=True),
        groups=override(omit=True),
        test=override(omit=True),
    ),
)


def _problems(error: Exception, path: str) -> Iterator[Problem]:
    match error:
        case ClassValidationError():
            at_keys, elsewhere = error.group_exceptions()
            for inner, note in at_keys:
                yield from _problems(inner, _below(path, note.name))
            for inner in elsewhere:
                yield from _problems(inner, path)
        case IterableValidationError():
            at_items, _ = error.group_exceptions()
            for inner, item in at_items:
                yield from _problems(inner, f"{path}[{item.index}]")
        case ForbiddenExtraKeysError():
            known = [attribute.name for attribute in attrs.fields(error.cl)]
            for key in sorted(error.extra_fields):
                hint = _home(key) or did_you_mean(key, known)
                if error.cl is Limits and not hint:
                    hint = "; limits that rules name stand under [limit.NAME]"
                yield Problem(_below(path, key), f"there is no such key{hint}")
        case KeyError():
            yield Problem(path, "is missing")
        case _:
            yield Problem(path, str(error))


def _home(key: str) -> str:
    """Say in which table a key stands, as a clause to put behind a message; else ''."""
    for table in attrs.fields(Config):
        kind = type(table.default)
        if attrs.has(kind) and key in attrs.fields_dict(kind):
            return f"; it stands under [{table.name}]"
    for name, kind in (("limit", Limit), ("route", Route)):
        if key in attrs.fields_dict(kind):
            return f"; it stands under [{name}.NAME]"
    return ""


def _below(path: str, key: str) -> str:
    written = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{path}.{written}" if path else written


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")
