"""Who hears what happens, and where it is written."""

from __future__ import annotations

from socksd.app.config import JOURNALD, Config
from socksd.app.making.lasting import IReactor, Lasting, Role
from socksd.app.making.parts import Parts
from socksd.app.service import Part
from socksd.events import Observer
from socksd.observe import access
from socksd.observe.access import AccessLog
from socksd.observe.journal import SOCKET, Journal
from socksd.observe.sinks import OutputLog


def logs_of(config: Config, lasting: Lasting, parts: Parts, reactor: IReactor) -> list[Observer]:
    """Make those who listen in any case, and the access log where one is wanted."""
    parts.take("log", lambda: Part(stop=lasting.people.close))
    listening: list[Observer] = [
        lasting.people,
        lasting.counters,
        lasting.leaks,
        lasting.refusals,
    ]
    if config.log.access and lasting.role is not Role.PARENT:
        listening.append(
            parts.take(("access log", config.log), lambda: _access_log(config, reactor))
        )
    return listening


def _access_log(config: Config, reactor: IReactor) -> Part:
    kind, _, path = config.log.access.partition(":")
    line = access.text if config.log.format == "text" else access.record
    log: AccessLog | Journal | OutputLog
    if kind == JOURNALD:
        log = Journal(path or SOCKET)
    elif kind == "-":
        log = OutputLog(reactor, line)
    else:
        log = AccessLog(config.log.access, reactor, line)
    return Part(log.open, log.close, log)
