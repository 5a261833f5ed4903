r"""
The access log: one session per line, as a JSON object or for people.

Every object has all of these keys, and no others:

============= ===============================================================
``time``        when the session began, the time of every decision in it:
                ISO 8601, UTC, microseconds
``session``     its number, as in the log for people
``client``      its address
``client_port`` its port; 0 for a unix socket
``listener``    the name of the listener it came to
``user``        the user name; null without login
``userid``      what a client of SOCKS4 says it is, unverified; null with others
``command``     connect, bind or udp; null: there was no request
``host``        what was asked for: a normalised name or an address; or null
``port``        the port asked for; or null
``address``     the address that was dialled, or of bind has connected; or null
``rule``        the id of the last rule that spoke; or null
``outcome``     served, reset, idle, denied, failed, login-failed, no-method,
                protocol-error, timed-out, client-left, stopped or error
``reply``       the number of REP that the client was told; or null
``reason``      one clause; empty when served
``up``          octets from the client to the destination
``down``        octets from the destination to the client
``seconds``     how long the session lasted
``groups``      what the authenticator said the user belongs to
``literal``     whether ``host`` is an address; null: there was no request
``asked``       what the last decision was about: client, request (with a
                literal, its address too) or address; null: there was none
``verdict``     the last one: allow, deny, or defer; null: there was none
``reports``     would_allow or would_deny by the ids of rules on trial
``addresses``   where the name has led, in order, 16 at most: of more, those
                that are permitted, if any is
``unlisted``    how many addresses were left out
``certificate`` SHA-256 of the client's verified one, in hex; null: there was none
``protocol``    socks5, socks4a or http-connect; null: the client spoke none of them
============= ===============================================================

The keys from ``groups`` to ``certificate``, with those above, are all that a decision uses:
``socksd replay`` decides again by them.

The text is ASCII. An octet of a user name that is not UTF-8 appears as the
six characters ``\udcXX``: a lone surrogate as such is something that strict
JSON readers refuse, and one hostile name shall not spoil a log. Who is called
by just such six characters has their ``\`` spelled ``\u005c``, as six more.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from socksd.address import spelled
from socksd.codes import COMMANDS, ReplyCode
from socksd.events import Asked, Event, Outcome, SessionClosed
from socksd.facts import Verdict
from socksd.observe import lines
from socksd.observe.batch import Batch

_log = Logger("socksd")

LOOK_EVERY: Final = 1.0  # seconds; whether the file is still there, or writable again

_LIKE_SPELLED = re.compile(r"\\(?=u(?:d[89a-f][0-9a-f]{2}|005c))")

_string = json.encoder.encode_basestring_ascii  # what json.dumps() writes a string by


def record(event: SessionClosed) -> str:
    """Write a session as one JSON object, without the newline."""
    command, destination, address = event.command, event.destination, event.address
    asked_for, literal = '"command":null,"host":null,"port":null', "null"
    if command is not None and destination is not None:
        host = destination.host
        if isinstance(host, str):
            literal = "false"
        else:
            host, literal = spelled(host), "true"
        asked_for = f'"command":"{COMMANDS[command]}","host":"{host}","port":{destination.port}'
    via = "null" if address is None else f'"{spelled(address)}"'
    groups = reports = addresses = ""
    if event.groups:
        groups = ",".join(map(_string, sorted(map(_scalars, event.groups))))
    if event.reports:
        reports = ",".join(
            f'{_string(each.rule)}:"would_{each.verdict.value}"' for each in event.reports
        )
    if event.addresses:
        addresses = ",".join(f'"{spelled(each)}"' for each in event.addresses)
    # Written out, for json.dumps() alone, of a dict that is there, takes three times as
    # long; and what stays the same from session to session is not even written again.
    # What is not looked at for quotes is a number, a word of ours or a host.
    return (
        f'{{"time":"{_began(event.started)}","session":{event.session}'
        f',"client":"{spelled(event.client)}","client_port":{event.client_port}'
        f",{_who(event.listener, event.user, event.userid)},{asked_for}"
        f',"address":{via},{_ending(event.rule, event.outcome, event.reply, event.reason)}'
        f',"up":{event.up},"down":{event.down},"seconds":{event.seconds:.3f}'
        f',"groups":[{groups}],"literal":{literal},{_judged(event.asked, event.verdict)}'
        f',"reports":{{{reports}}},"addresses":[{addresses}],"unlisted":{event.unlisted}'
        f",{_by(event.certificate, event.protocol)}}}"
    )


def text(event: SessionClosed) -> str:
    """Write a session as the log for people does, with the time before it."""
    return f"{_began(event.started)} {lines.session(event)}"


# The same few listeners, users, rules, ... again and again; what a client can choose
# freely passes by.
@lru_cache(maxsize=1024)
def _who(listener: str, user: str | None, userid: str | None) -> str:
    return f'"listener":{_text(listener)},"user":{_text(user)},"userid":{_text(userid)}'


@lru_cache(maxsize=1024)
def _ending(rule: str | None, outcome: Outcome, reply: ReplyCode | None, reason: str) -> str:
    code = "null" if reply is None else int(reply)
    return f'"rule":{_text(rule)},"outcome":"{outcome}","reply":{code},"reason":{_text(reason)}'


@lru_cache(maxsize=64)
def _judged(asked: Asked | None, verdict: Verdict | None) -> str:
    return f'"asked":{_text(asked)},"verdict":{_text(verdict and verdict.value)}'


@lru_cache(maxsize=1024)
def _by(certificate: str | None, protocol: str | None) -> str:
    return f'"certificate":{_text(certificate)},"protocol":{_text(protocol)}'


def _text(text: str | None) -> str:
    return "null" if text is None else _string(_scalars(text))


class AccessLog:
    """
    Append a line to a file for every session that ends.

    The lines of a tenth of a second are one write(2): each is whole when it
    appears, and several processes may share the file. A kill with SIGKILL
    loses those of the last tenth of a second. The file may be renamed or
    removed at any time; within a second a new one is begun.

    Nothing is touched before open() or the first line: privileges may have to
    be dropped first. Trouble with the file never reaches a session. It is said once; lines that
    cannot be written are counted and gone; once a second it is tried again.

    Args:
        path: The file, created with mode 0640 (less the umask).
        line: Writes a session, in ASCII and without the newline.

    Attributes:
        lost: How many lines could not be written.
    """

    hears = (SessionClosed,)

    def __init__(
        self, path: str, clock: IReactorTime, line: Callable[[SessionClosed], str] = record
    ) -> None:
        self.lost = 0
        self._batch = Batch(clock, line, self._append)
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None
        self._closed = False
        self._torn = b""  # the rest of a line whose beginning is in the file
        self._troubled = False  # and it has been said
        self._paused = False  # until the next look
        self._look_from = -math.inf

    def open(self) -> None:
        """Begin, and say so at once if that fails; writing nothing yet, it would show late."""
        self._closed = False
        self._look()

    def reopen(self) -> None:
        """Begin a new file now, if it was moved away; what has the old one may compress it."""
        self._batch.flush()
        self._look()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if not isinstance(event, SessionClosed) or not event.logged:
            return
        if self._closed:
            self.lost += 1
        else:
            self._batch.add(event)

    def close(self) -> None:
        """Close the file; sessions that end after this are lost."""
        self._batch.flush()
        self._closed = True
        if self._descriptor is not None:
            self._torn = self._write(self._descriptor, self._torn)
            self._use(None)

    def _append(self, lines: Sequence[str]) -> None:
        if self._clock.seconds() >= self._look_from:
            self._look()
        if self._descriptor is None or self._paused:
            self.lost += len(lines)
            return
        self._torn = self._write(self._descriptor, self._torn)
        # They are ASCII; were one not, by a bug, the others should not suffer from it.
        octets = "\n".join((*lines, "")).encode("ascii", "backslashreplace")
        rest = octets if self._torn else self._write(self._descriptor, octets)
        written = len(octets) - len(rest)
        if written and octets[written - 1 : written] != b"\n":
            torn, newline, rest = rest.partition(b"\n")
            self._torn = torn + newline
        self.lost += rest.count(b"\n")
        if self._troubled and written and not (self._torn or rest):
            self._troubled = False
            _log.info(
                "access log {path}: written again; lines lost so far: {lost}",
                path=self._path,
                lost=self.lost,
            )

    def _write(self, descriptor: int, octets: bytes) -> bytes:
        """Write what the file takes now, and give the rest back."""
        try:
            while octets:
                octets = octets[os.write(descriptor, octets) :]
        except OSError as error:
            self._pause(error)
        return octets

    def _look(self) -> None:
        """Have the file open that the path names now."""
        self._look_from = self._clock.seconds() + LOOK_EVERY
        self._paused = False
        if self._in_place():
            return
        # O_NONBLOCK: were it a FIFO that nobody reads, we would wait for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        try:
            self._use(os.open(self._path, flags, 0o640))
        except OSError as error:
            self._pause(error)

    def _in_place(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except OSError:
            return False

    def _use(self, descriptor: int | None) -> None:
        """Leave the file in use, with a line that could not be finished, for another."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self.lost += bool(self._torn)
        self._torn = b""

    def _pause(self, error: OSError) -> None:
        self._paused = True
        if not self._troubled:
            self._troubled = True
            _log.error(
                "access log {path}: {error}; lines are lost until it can be written again",
                path=self._path,
                error=error.strerror,
            )


def _began(started: float) -> str:
    """
    Write when a session began.

    Rounded half to even, to microseconds, as datetime.fromtimestamp() does it
    for a rule's ``when``: so both are in the same minute.
    """
    fraction, seconds = math.modf(started)
    microseconds = round(fraction * 1e6)
    if microseconds == 1_000_000:
        seconds, microseconds = seconds + 1, 0
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _scalars(text: str) -> str:
    """Spell surrogates out, and what would look like one; everything else is as it was."""
    if "\\" in text:
        text = _LIKE_SPELLED.sub(r"\\u005c", text)
    if text.isascii():  # without a surrogate
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
