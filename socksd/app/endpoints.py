"""Endpoint strings: Twisted's, and TLS of our own; with errors a person can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.app.certificates import context, own, owns
from socksd.errors import did_you_mean
from socksd.identity.certificate import NamedBy, principal_of
from socksd.server.secure import Security

ENCRYPTED = ("ssl", "tls", "mtls")
# Twisted asks for a queue of 50, which one browser's start-up can fill.
_QUEUE = 1024

_NAMED = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)
_QUOTED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Opening:
    """
    What an endpoint string describes.

    Attributes:
        endpoint: Listens, in clear.
        place: Where, as an endpoint string; what else is written is not of
            the port, which a reload that changes it leaves open.
        security: What TLS is then spoken by; ``None``: it is not.
    """

    endpoint: IStreamServerEndpoint
    place: str
    security: Security | None = None


def tcp(port: int, interface: str) -> str:
    """Write the endpoint string of a TCP port on one interface."""
    return f"tcp:{port}:interface={quoteStringArgument(interface)}"


def opening(reactor: IReactorCore, text: str) -> Opening:
    """
    Read an endpoint string.

    TLS is ours (``ssl:``, ``tls:`` and ``mtls:``): a reload reads certificates
    again, and a PROXY header has to come before it. Else any Twisted endpoint
    string will do; a bare port number is that TCP port on the loopback
    interface.

    Raises:
        ValueError: With what is wrong, in one line.
    """
    kind, *arguments = _arguments(text)
    if kind in _OURS:
        named = {found[1]: found[2] for each in arguments if (found := _NAMED.fullmatch(each))}
        others = [each for each in arguments if not _NAMED.fullmatch(each)]
        parse, parameters = _OURS[kind]
        return parse(reactor, _given(kind, parameters, others, named))
    return Opening(_in_clear(reactor, text, kind), text)


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


def secured(opening: Opening, factory: IProtocolFactory) -> IProtocolFactory:
    """Give what to listen with for *factory* to be spoken to by TLS, where the endpoint says so."""
    if opening.security is None:
        return factory
    return TLSMemoryBIOFactory(opening.security, False, factory)


def _in_clear(reactor: IReactorCore, text: str, kind: str) -> IStreamServerEndpoint:
    if text.isdecimal():
        text = tcp(int(text), "127.0.0.1")
        kind = "tcp"
    if kind in ("tcp", "tcp6") and "backlog=" not in text:
        text = f"{text}:backlog={_QUEUE}"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:  # every endpoint plugin raises what it likes
        raise ValueError(_what_is_wrong(kind, error)) from error
    port = getattr(endpoint, "_port", None)
    if kind in ("tcp", "tcp6") and isinstance(port, int):
        _check_port(port)
    return endpoint


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port; they go from 0 to 65535")


def _what_is_wrong(kind: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{kind!r} needs the Python package {error.name}"
    if isinstance(error, TypeError):
        return f"wrong or missing arguments for a {kind!r} endpoint"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"not an endpoint ({said}); write for example tcp:1080:interface=127.0.0.1"


# -- strings --------------------------------------------------------------------


def _arguments(text: str) -> list[str]:
    """Part a string at its colons, but not at those behind a backslash, as Twisted does."""
    parts = [""]
    octets = iter(text)
    for octet in octets:
        if octet == ":":
            parts.append("")
        else:
            parts[-1] += octet + (next(octets, "") if octet == "\\" else "")
    return parts


def _given(
    kind: str, parameters: dict[str, str | None], others: Iterable[str], named: dict[str, str]
) -> dict[str, str]:
    """
    Give the arguments of an endpoint by their names, with the defaults of its *parameters*.

    Raises:
        ValueError: There are others, or one without a default (``None``) is missing.
    """
    others = list(others)
    if len(others) > len(parameters):
        raise ValueError(f"too many arguments for a {kind!r} endpoint")
    given = named | dict(zip(parameters, others, strict=False))
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise ValueError(f"a {kind!r} endpoint has no argument {name!r}{hint}")
    settled = {name: given.get(name, default) for name, default in parameters.items()}
    for name, value in settled.items():
        if value is None:
            raise ValueError(f"a {kind!r} endpoint needs {name}")
    return {name: _QUOTED.sub(r"\1", value) for name, value in settled.items() if value is not None}


def _number(kind: str, name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} of a {kind!r} endpoint is a number, not {text!r}")
    return int(text)


def _one_of(name: str, text: str, words: Iterable[str]) -> str:
    words = list(words)
    if text not in words:
        raise ValueError(f"{name} is one of {', '.join(words)}, not {text!r}")
    return text


# -- TLS ------------------------------------------------------------------------

_PORT: dict[str, str | None] = {"port": None}
_FILES: dict[str, str | None] = {"privateKey": "server.pem", "certKey": "", "extraCertChain": ""}
_WHERE: dict[str, str | None] = {"interface": "", "backlog": str(_QUEUE)}
_CLIENTS: dict[str, str | None] = {"clientCA": None, "clients": "required", "user": "cn"}


def _ssl(reactor: IReactorCore, given: dict[str, str]) -> Opening:
    """One certificate, for clients of which none is asked for."""
    mine = own(
        given["certKey"] or given["privateKey"], given["privateKey"], given["extraCertChain"]
    )
    return _secure(reactor, "ssl", given, Security(context([mine])))


def _mtls(reactor: IReactorCore, given: dict[str, str]) -> Opening:
    """One certificate, for clients that have some of their own."""
    clients = _one_of("clients", given["clients"], ("required", "optional"))
    by = NamedBy(_one_of("user", given["user"], NamedBy))
    mine = own(
        given["certKey"] or given["privateKey"], given["privateKey"], given["extraCertChain"]
    )
    made = context([mine], given["clientCA"], required=clients == "required", revoked=given["crl"])
    return _secure(reactor, "mtls", given, Security(made, partial(principal_of, by=by)))


def _tls(reactor: IReactorCore, given: dict[str, str]) -> Opening:
    """A directory of certificates, of which the client names one."""
    return _secure(reactor, "tls", given, Security(context(owns(given["path"]))))


def _secure(reactor: IReactorCore, kind: str, given: dict[str, str], security: Security) -> Opening:
    port = _number(kind, "port", given["port"])
    backlog = _number(kind, "backlog", given["backlog"])
    _check_port(port)
    interface = given["interface"]
    listens = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return Opening(listens(reactor, port, backlog, interface), tcp(port, interface), security)


# -- systemd --------------------------------------------------------------------


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True, slots=True)
class _Inherited:
    """
    A socket that systemd passes.

    Which one that is, is found when it is listened on: whoever only checks a
    configuration, as ExecStartPre= does, has been passed none.
    """

    reactor: IReactorCore
    text: str

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Adopt the socket; fails with OSError where there is none."""
        return maybeDeferred(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        try:
            endpoint = serverFromString(self.reactor, self.text)
        except LookupError:
            raise OSError(None, "systemd has passed no such socket (LISTEN_FDS)") from None
        listening: Deferred[IListeningPort] = endpoint.listen(factory)
        return listening


def _systemd(reactor: IReactorCore, given: dict[str, str]) -> Opening:
    """Whatever socket has this number or, better, this name."""
    domain = _one_of("domain", given["domain"], ("INET", "INET6", "UNIX"))
    index, name = given["index"], given["name"]
    if bool(index) == bool(name):
        raise ValueError("a 'systemd' endpoint needs either index or name")
    which = (
        f"name={quoteStringArgument(name)}"
        if name
        else f"index={_number('systemd', 'index', index)}"
    )
    text = f"systemd:domain={domain}:{which}"
    return Opening(_Inherited(reactor, text), text)


# What each kind takes, in order, with its defaults; None: it has to be given.
_OURS: dict[
    str, tuple[Callable[[IReactorCore, dict[str, str]], Opening], dict[str, str | None]]
] = {
    "ssl": (_ssl, {**_PORT, **_FILES, **_WHERE}),
    "tls": (_tls, {"path": None, "port": "443", "interface": "::", "backlog": str(_QUEUE)}),
    "mtls": (_mtls, {**_PORT, **_FILES, **_CLIENTS, **_WHERE, "crl": ""}),
    "systemd": (_systemd, {"domain": None, "index": "", "name": ""}),
}
