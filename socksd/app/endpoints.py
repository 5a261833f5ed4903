"""Twisted's endpoint strings, with errors a person can use."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory, IReactorCore, IStreamServerEndpoint
from twisted.python.failure import Failure

ENCRYPTED = ("ssl", "tls", "mtls")
# Twisted asks for a queue of 50, which one browser's start-up can fill.
_BACKLOG = "backlog=1024"


def tcp(port: int, interface: str) -> str:
    """Write the endpoint string of a TCP port on one interface."""
    return f"tcp:{port}:interface={quoteStringArgument(interface)}"


def listening_endpoint(reactor: IReactorCore, text: str) -> IStreamServerEndpoint:
    """
    Make the endpoint that *text* describes.

    Any Twisted endpoint string will do; a bare port number is that TCP port
    on the loopback interface.

    Raises:
        ValueError: With what is wrong, in one line.
    """
    if text.isdecimal():
        text = tcp(int(text), "127.0.0.1")
    kind = text.partition(":")[0]
    if kind in ("tcp", "tcp6") and "backlog=" not in text:
        text = f"{text}:{_BACKLOG}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:  # every endpoint plugin raises what it likes
        raise ValueError(_what_is_wrong(kind, error)) from error
    port = getattr(endpoint, "_port", None)
    if kind in ("tcp", "tcp6", "ssl") and isinstance(port, int) and not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port; they go from 0 to 65535")
    return endpoint


def is_overheard(text: str) -> bool:
    """Tell whether others on the network may read what goes over the endpoint *text* describes."""
    kind, _, rest = text.partition(":")
    if kind in ("tcp", "tcp6"):
        found = re.search(r"(?:^|:)interface=((?:[^:\\]|\\.)*)", rest)
        try:
            return found is None or not ip_address(found[1].replace("\\", "")).is_loopback
        except ValueError:
            return True  # a name may lead anywhere
    return not text.isdecimal() and kind not in ("unix", *ENCRYPTED)


def opened(endpoint: IStreamServerEndpoint, factory: IProtocolFactory, what: str) -> Any:
    """
    Give the port (IListeningPort) that listens at *endpoint*.

    Raises:
        OSError: It does not, and why, in one line that begins with *what*.
    """
    result: list[Any] = []
    endpoint.listen(factory).addBoth(result.append)
    if not result:
        raise OSError(None, f"{what} does not get ready")
    if isinstance(result[0], Failure):
        raise OSError(None, f"{what} cannot listen{_why(result[0].value)}")
    return result[0]


def _why(error: BaseException | None) -> str:
    """Say where a port cannot be listened on, and why, as the system says it."""
    where = ""
    if isinstance(error, CannotListenError):
        where = f" on {error.interface or '*'}:{error.port}"
        error = error.socketError
    return f"{where}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"


def _what_is_wrong(kind: str, error: Exception) -> str:
    if isinstance(error, IndexError) and kind == "systemd":
        return "systemd has passed no such socket (LISTEN_FDS)"
    if isinstance(error, ModuleNotFoundError):
        return f"{kind!r} needs the Python package {error.name}"
    if isinstance(error, TypeError):
        return f"wrong or missing arguments for a {kind!r} endpoint"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"not an endpoint ({said}); write for example tcp:1080:interface=127.0.0.1"
