"""Twisted's endpoint strings, with errors a person can use."""

from __future__ import annotations

from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint

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


def _what_is_wrong(kind: str, error: Exception) -> str:
    if isinstance(error, IndexError) and kind == "systemd":
        return "systemd has passed no such socket (LISTEN_FDS)"
    if isinstance(error, ModuleNotFoundError):
        return f"{kind!r} needs the Python package {error.name}"
    if isinstance(error, TypeError):
        return f"wrong or missing arguments for a {kind!r} endpoint"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"not an endpoint ({said}); write for example tcp:1080:interface=127.0.0.1"
