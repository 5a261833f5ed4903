"""What can be asked, as a table that knows nothing of HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime, IReactorUNIX

from socksd.errors import SocksdError


class IReactorControlled(IReactorUNIX, IReactorTime):
    """What the control socket takes of the reactor."""


class IReactorScraped(IReactorTime, IReactorFromThreads):
    """What serving metrics takes of the reactor."""


# The JSON object that came with the request, or the parameters of its URL, which
# are strings; empty without one.
Body = Mapping[str, object]

# Gives what JSON can say, or a Deferred of it. Raises BadBody, NotAdmitted or
# Unable; or ConfigError, whose problems are told one by one.
Handler = Callable[[Body], object]

# By method and path: ("GET", "/v1/status").
Routes = dict[tuple[str, str], Handler]


class BadBody(SocksdError):
    """The body of a request does not say what it should."""


class NotAdmitted(SocksdError):
    """Who asks may not; says why, for that person."""


class Unable(SocksdError):
    """What was asked for cannot be done as things stand; says why, for a person."""


def only(body: Body, *known: str) -> None:
    """
    Refuse what nobody has asked for.

    Raises:
        BadBody: *body* has another key than those that are *known*.
    """
    for key in body:
        if key not in known:
            raise BadBody(f"there is no {key!r}")
