"""The process: how it stops and reloads, what it writes, who may ask it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import attrs

from socksd.app.config.values import (
    a_duration,
    a_file,
    a_host,
    a_number,
    a_string,
    some_string,
)
from socksd.facts import Principal
from socksd.policy.match import Group

JOURNALD = "journald"
_MOST_WORKERS = 256


def workers(value: object) -> int:
    """
    Read how many worker processes there are to be; ``"cores"`` is one for each.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, str):
        if value != "cores":
            raise ValueError(f'must be a number or "cores", not {value!r}')
        return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    return a_number(0, _MOST_WORKERS)(value)


@attrs.frozen
class Server:
    """``[server]``: the process, or several."""

    drain: Annotated[float, a_duration(least="0s")] = 60.0
    workers: Annotated[int, workers] = 0  # 0 or 1: a single process


def _access_log(value: object) -> str:
    text = a_string(value)
    kind, _, path = text.partition(":")
    if kind != JOURNALD:
        return a_file(text)
    if text == JOURNALD:
        return text
    if not path:
        raise ValueError(f'names no socket; write "{JOURNALD}" for the system\'s own')
    return f"{JOURNALD}:{a_file(path)}"


def _format(value: object) -> str:
    if value not in ("json", "text"):
        raise ValueError(f'must be "json" or "text", not {value!r}')
    return str(value)


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
        return a_duration()(value)
    except ValueError as error:
        raise ValueError(f'{error}; or "keep", or "cut"') from None


@attrs.frozen
class Reload:
    """``[reload]``: what becomes of sessions and of configurations nobody has confirmed."""

    # None: kept; else cut after so many seconds
    refused_sessions: Annotated[float | None, _refused_sessions] = None
    state: Annotated[str, a_file] = ""  # a directory; "": --confirm cannot be had


@attrs.frozen
class Control:
    """``[control]``: where the ``socksd`` command reaches the running server."""

    socket: Annotated[str, a_file] = ""  # "": nowhere


@attrs.frozen
class Metrics:
    """``[metrics]``: where Prometheus asks how it goes."""

    endpoint: Annotated[str, a_string] = ""  # a Twisted endpoint string; "": nowhere


@attrs.frozen
class Dashboard:
    """``[dashboard]``: where people look at the running server, and who may."""

    endpoint: Annotated[str, a_string] = ""  # "": nowhere; not looked into here
    users: tuple[Annotated[str, some_string], ...] = ()
    groups: tuple[Annotated[str, some_string], ...] = ()  # of [groups], or as authenticators say

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

    endpoint: Annotated[str, a_string] = ""  # "": nowhere; not looked into here
    listener: Annotated[str, a_string] = ""  # "": the first one
    host: Annotated[str, a_host] = ""  # "": the address by which the browser has reached us
