"""Entries reach the journal as fields, and nobody waits for it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from socksd.events import Outcome, SessionClosed
from socksd.observe import lines
from socksd.observe.access import record
from socksd.observe.journal import Journal, entry
from tests.observe.closed import DENIED, SERVED
from tests.observe.test_lines import NAMES


def parsed(octets: bytes) -> list[tuple[str, str]]:
    """Read an entry as journald does (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields = []
    while octets:
        name, _, octets = octets.partition(b"\n")
        assert b"=" not in name
        (length,) = struct.unpack("<Q", octets[:8])
        value, rest = octets[8 : 8 + length], octets[8 + length :]
        assert rest[:1] == b"\n"
        fields.append((name.decode("ascii"), value.decode("utf-8")))
        octets = rest[1:]
    return fields


def of(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in fields if key == name]


class Listening:
    """A journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def entries(self) -> list[list[tuple[str, str]]]:
        found = []
        while True:
            try:
                found.append(parsed(self.socket.recv(1 << 20)))
            except BlockingIOError:
                return found


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    found = Listening(tmp_path / "journal")
    yield found
    found.socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(str(tmp_path / "journal"))
    journal.open()
    yield journal
    journal.close()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with capturedLogs() as captured:
        yield cast("list[LogEvent]", captured)


def test_an_entry_has_the_line_for_people_and_every_key_as_a_field() -> None:
    found = parsed(entry(SERVED))
    assert of(found, "MESSAGE") == [lines.session(SERVED)]
    assert of(found, "PRIORITY") == ["6"]
    assert of(found, "SYSLOG_IDENTIFIER") == ["socksd"]
    assert of(found, "SOCKSD_USER") == ["alice"]
    assert of(found, "SOCKSD_UP") == [str(SERVED.up)]
    assert of(found, "SOCKSD_LITERAL") == ["false"]
    assert of(found, "SOCKSD_GROUPS") == ["dba", "ops"]
    assert of(found, "SOCKSD_REPORTS") == ["trial=would_deny"]
    assert of(found, "SOCKSD_ADDRESSES") == list(map(str, SERVED.addresses))
    known = {key: value for key, value in json.loads(record(SERVED)).items() if value is not None}
    keys = {f"SOCKSD_{key.upper()}" for key in known}
    assert {name for name, _ in found if name.startswith("SOCKSD_")} == keys


def test_what_is_null_is_left_out() -> None:
    found = parsed(entry(replace(SERVED, user=None, destination=None, groups=frozenset())))
    for name in ("USER", "HOST", "LITERAL", "GROUPS"):
        assert of(found, f"SOCKSD_{name}") == []


@pytest.mark.parametrize(
    ("outcome", "priority"),
    [(Outcome.ERROR, "3"), (Outcome.DENIED, "4"), (Outcome.LOGIN_FAILED, "4")],
)
def test_what_somebody_should_look_at_has_a_higher_priority(
    outcome: Outcome, priority: str
) -> None:
    assert of(parsed(entry(replace(SERVED, outcome=outcome))), "PRIORITY") == [priority]


@given(name=NAMES, group=st.text(min_size=1))
def test_nothing_that_a_client_chooses_becomes_another_field(name: str, group: str) -> None:
    hostile = replace(SERVED, user=name, groups=frozenset({group}))
    plain = replace(SERVED, user="u", groups=frozenset({"g"}))
    assert [key for key, _ in parsed(entry(hostile))] == [key for key, _ in parsed(entry(plain))]
    (user,) = of(parsed(entry(hostile)), "SOCKSD_USER")
    assert user == json.loads(record(hostile))["user"]


def test_every_session_that_ends_is_an_entry(listening: Listening, journal: Journal) -> None:
    journal(SERVED)
    journal(DENIED)
    journal(replace(SERVED, logged=False))
    (found,) = listening.entries()
    assert found == parsed(entry(SERVED))


def test_a_journal_that_is_not_there_is_said_once_and_found_again(
    journal: Journal, tmp_path: Path, events: list[LogEvent]
) -> None:
    path = tmp_path / "journal"
    for _ in range(3):
        journal(SERVED)
    (event,) = events
    assert event["log_level"] is LogLevel.error
    assert formatEvent(event) == (
        f"access log {path}: No such file or directory;"
        " entries are lost until it can be written again"
    )
    assert journal.lost == 3
    listening = Listening(path)
    for _ in range(2):
        journal(SERVED)
    assert len(listening.entries()) == 2
    assert formatEvent(events[1]) == f"access log {path}: written again; entries lost so far: 3"
    assert len(events) == 2
    listening.socket.close()


def test_a_journal_that_is_stuck_costs_entries_and_nothing_else(
    listening: Listening, journal: Journal, events: list[LogEvent]
) -> None:
    for _ in range(100_000):  # until its queue is full
        journal(SERVED)
        if journal.lost:
            break
    journal(SERVED)
    assert journal.lost == 2
    assert len(events) == 1
    assert len(listening.entries()) > 0
    journal(SERVED)
    assert len(listening.entries()) == 1


def test_what_ends_after_the_end_is_counted(journal: Journal) -> None:
    journal.close()
    journal.close()
    journal(SERVED)
    assert journal.lost == 1


def test_an_entry_that_is_too_long_is_one_that_is_lost(
    listening: Listening, journal: Journal, events: list[LogEvent]
) -> None:
    endless: SessionClosed = replace(SERVED, groups=frozenset({"g" * (1 << 23)}))
    journal(endless)
    assert journal.lost == 1
    assert "Message too long" in formatEvent(events[0])
