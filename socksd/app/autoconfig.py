"""What ``/proxy.pac`` says, by the configuration in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IAddress

from socksd.app.config import Config, Listener
from socksd.app.endpoints import ENCRYPTED
from socksd.app.service import Gateway
from socksd.codes import Command
from socksd.errors import Problem, did_you_mean
from socksd.facts import Facts
from socksd.policy.pac import pac
from socksd.server.protocol import client_of

if TYPE_CHECKING:
    from socksd.policy.remembered import Remembered

_HTTP = "http-connect"


def problems(config: Config) -> Iterator[Problem]:
    """Say why browsers could not be told of the listener that ``[pac]`` means."""
    names = [listener.name for listener in config.listener]
    if config.pac.listener and config.pac.listener not in names:
        name = config.pac.listener
        message = f"no listener is named {name!r}{did_you_mean(name, names)}"
        yield Problem("pac.listener", message)
        return
    listener = meant(config)
    kind = listener.endpoint.partition(":")[0]
    if kind in ENCRYPTED and _HTTP not in listener.protocols:
        message = f"browsers speak {_HTTP!r} over TLS and no SOCKS; {listener.name!r} does not"
        yield Problem("pac.listener", message)
    elif kind == "unix":
        yield Problem("pac.listener", f"{listener.name!r} is no port that a browser could reach")


def meant(config: Config) -> Listener:
    """Give the listener that browsers are told of: the first one unless it is named."""
    wanted = config.pac.listener or config.listener[0].name
    return next(listener for listener in config.listener if listener.name == wanted)


def via(config: Config, host: str, port: int) -> list[str]:
    """
    Name the gateway as browsers do, in the order to try.

    Browsers send no password by SOCKS5, so where a login is needed they are
    told of HTTP alone, if that is spoken.
    """
    listener, where = meant(config), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    http = _HTTP in listener.protocols
    if listener.endpoint.partition(":")[0] in ENCRYPTED:
        return [f"HTTPS {where}"]
    socks = [f"SOCKS5 {where}"] if "socks5" in listener.protocols else []
    if config.auth.authenticators and http:
        return [f"PROXY {where}"]
    return socks + ([f"PROXY {where}"] if http else [])


def write(gateway: Gateway, client: IAddress, here: IAddress) -> str:
    """
    Write the file for a client.

    Args:
        gateway: Whose configuration in force, and whose ports, count.
        client: The client's address.
        here: The address by which it has reached us: the gateway's name for it
            unless the configuration says another one.
    """
    config = gateway.generation.config
    listener = meant(config)
    port = next(
        each.port.getHost().port
        for each in gateway.listeners
        if each.factory.listener == listener.name
    )
    host = config.pac.host or str(client_of(here)[0])
    facts = Facts(client_of(client)[0], listener.name, command=Command.CONNECT)
    remembered = cast("Remembered", gateway.generation.runtime.policy)  # so build() makes it
    return pac(remembered.policy, facts, via(config, host, port))
