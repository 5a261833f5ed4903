from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from socksd.address import Destination
from socksd.events import Outcome, SessionOpened
from socksd.observe import access, lines
from socksd.observe.access import AccessLog, record
from socksd.observe.batch import DELAY
from socksd.policy.match import minute
from socksd.policy.records import moment, unspelled
from tests.observe.closed import SERVED

TEXTS = st.text() | st.binary(max_size=255).map(lambda o: o.decode("utf-8", "surrogateescape"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with capturedLogs() as captured:
        yield cast("list[LogEvent]", captured)


def test_what_there_was_not_is_null_or_empty() -> None:
    """A client that has left at once."""
    left = replace(
        SERVED, user=None, command=None, destination=None, address=None, rule=None, reply=None,
        groups=frozenset(), asked=None, verdict=None, reports=(), addresses=(),
    )  # fmt: skip
    written = json.loads(record(left))
    assert list(written) == list(json.loads(record(SERVED)))
    for key in ("user", "command", "host", "port", "address", "rule", "reply", "literal", "asked"):
        assert written[key] is None
    assert (written["groups"], written["reports"], written["addresses"]) == ([], {}, [])


class Kernel:
    """write(2), with limited room in what is written to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None  # octets
        self.busy = 0  # calls that will fail
        self.calls = 0
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, octets: bytes) -> int:
        self.calls += 1
        if self.busy:
            self.busy -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self.room is None:
            return self._write(descriptor, octets)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = octets[: self.room]
        self.room -= len(taken)
        return self._write(descriptor, taken)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def sessions(path: Path) -> list[int]:
    """Give the numbers of the sessions in a file; every line must be whole."""
    text = path.read_text("ascii")
    assert text == "" or text.endswith("\n")
    return [json.loads(line)["session"] for line in text.splitlines()]


def close(log: AccessLog, clock: Clock, *numbers: int) -> None:
    """Let sessions end, and their lines be written."""
    for number in numbers:
        log(replace(SERVED, session=number))
    clock.advance(DELAY)


def test_a_session_is_one_object() -> None:
    assert json.loads(record(SERVED)) == {
        "time": "2026-01-01T00:00:00.123400Z",
        "session": 17,
        "client": "127.0.0.1",
        "client_port": 40312,
        "listener": "office",
        "user": "alice",
        "userid": None,
        "command": "connect",
        "host": "example.com",
        "port": 443,
        "address": "93.184.216.34",
        "rule": "local",
        "outcome": "served",
        "reply": 0,
        "reason": "",
        "up": 1234,
        "down": 56789,
        "seconds": 1.234,
        "groups": ["dba", "ops"],
        "literal": False,
        "asked": "address",
        "verdict": "allow",
        "reports": {"trial": "would_deny"},
        "addresses": ["93.184.216.34", "2001:db8::1"],
        "unlisted": 0,
        "certificate": None,
        "protocol": "socks5",
    }


def test_the_documented_keys_are_the_keys_in_their_order() -> None:
    documented = re.findall(r"^``(\w+)`` ", access.__doc__ or "", re.MULTILINE)
    assert list(json.loads(record(SERVED))) == documented


def test_every_outcome_is_documented() -> None:
    assert all(re.search(rf"\b{outcome}\b", access.__doc__ or "") for outcome in Outcome)


def test_what_is_not_known_is_null() -> None:
    event = replace(
        SERVED,
        user=None,
        command=None,
        destination=None,
        address=None,
        rule=None,
        reply=None,
        asked=None,
        verdict=None,
        protocol=None,
    )
    parsed = json.loads(record(event))
    nothing = {key for key, value in parsed.items() if value is None}
    assert nothing == {
        *("user", "userid", "command", "host", "port", "address", "rule", "reply"),
        *("literal", "asked", "verdict", "certificate", "protocol"),
    }


@pytest.mark.parametrize(
    ("host", "literal"),
    [("example.com", False), ("192.0.2.1", True), ("::1", True)],
    ids=["name", "IPv4", "IPv6"],
)
def test_a_literal_is_told_from_a_name(host: str, literal: bool) -> None:
    parsed = json.loads(record(replace(SERVED, destination=Destination.named(host, 443))))
    assert (parsed["host"], parsed["literal"]) == (host, literal)


@given(user=TEXTS, reason=TEXTS)
def test_whatever_the_texts_are_the_line_is_strict_json_in_ascii(user: str, reason: str) -> None:
    """A lone surrogate is refused by strict readers: one name would spoil the log."""
    line = record(replace(SERVED, user=user, reason=reason))
    assert re.fullmatch(r"[ -~]+", line)
    parsed = json.loads(line)
    json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    for text, found in ((user, parsed["user"]), (reason, parsed["reason"])):
        assert unspelled(found) == text
    assert parsed | {"user": "", "reason": ""} == json.loads(record(SERVED)) | {"user": ""}


@pytest.mark.parametrize(("userid", "written"), [("", ""), ("fr\udce9d", r"fr\udce9d")])
def test_what_a_socks4_client_says_it_is_is_not_its_user(userid: str, written: str) -> None:
    parsed = json.loads(record(replace(SERVED, user=None, userid=userid)))
    assert (parsed["user"], parsed["userid"]) == (None, written)


def test_an_octet_that_is_not_utf8_is_spelled_out() -> None:
    assert json.loads(record(replace(SERVED, user="caf\udce9")))["user"] == r"caf\udce9"


@pytest.mark.parametrize(
    ("user", "written"),
    [
        pytest.param(r"CORP\alice", r"CORP\alice", id="a backslash"),
        pytest.param(r"caf\udce9", r"caf\u005cudce9", id="what looks like an octet"),
        pytest.param(r"a\u005cb", r"a\u005cu005cb", id="what looks like a backslash"),
        pytest.param("\\\udce9", r"\\udce9", id="a backslash before an octet"),
    ],
)
def test_two_users_are_never_written_the_same(user: str, written: str) -> None:
    """A rule for one of them would seem to speak of the other."""
    shown = json.loads(record(replace(SERVED, user=user)))["user"]
    assert (shown, unspelled(shown)) == (written, user)


def test_groups_are_spelled_as_users_are() -> None:
    groups = frozenset({"caf\udce9", "ops"})
    assert json.loads(record(replace(SERVED, groups=groups)))["groups"] == [r"caf\udce9", "ops"]


@given(st.floats(0, 4e9) | st.integers(0, 10**9).map(lambda n: n - 5e-7))
def test_the_time_is_rounded_as_datetime_does_it(started: float) -> None:
    event = replace(SERVED, started=abs(started))
    usual = datetime.fromtimestamp(event.started, UTC).isoformat(timespec="microseconds")
    written = usual.replace("+00:00", "Z")
    assert json.loads(record(event))["time"] == written
    assert access.text(event).partition(" ")[0] == written


@pytest.mark.parametrize("fraction", [0.0, 0.999_999, 0.999_999_4, 0.999_999_9])
def test_the_time_is_in_the_minute_that_rules_see(fraction: float) -> None:
    """Else a rule's hours would begin for the log when they have not yet for the session."""
    started = 1767225599 + fraction  # 00:00 begins at ...600
    written = json.loads(record(replace(SERVED, started=started)))["time"]
    assert minute(moment(written), UTC) == minute(started, UTC)


def test_a_line_is_there_a_moment_after_the_session_has_ended(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock)
    log.open()
    log(SERVED)
    clock.advance(DELAY * 0.99)
    assert sessions(path) == []
    clock.advance(DELAY * 0.01)
    assert sessions(path) == [SERVED.session]
    close(log, clock, 2)
    log.close()
    assert sessions(path) == [SERVED.session, 2]


def test_the_lines_of_a_moment_are_one_write(clock: Clock, path: Path, kernel: Kernel) -> None:
    log = AccessLog(str(path), clock)
    close(log, clock, *range(50))
    assert kernel.calls == 1
    assert sessions(path) == [*range(50)]
    log.close()


@pytest.mark.parametrize("end", [AccessLog.close, AccessLog.reopen], ids=["stop", "rotation"])
def test_what_waits_is_written_first(
    end: Callable[[AccessLog], None], clock: Clock, path: Path
) -> None:
    """Nothing is lost by an orderly end, nor comes late into a file that was moved away."""
    log = AccessLog(str(path), clock)
    log.open()
    log(SERVED)
    path.rename(path.with_suffix(".1"))
    end(log)
    assert sessions(path.with_suffix(".1")) == [SERVED.session]
    assert not clock.getDelayedCalls()
    log.close()


def test_a_line_that_is_not_ascii_spoils_no_other(clock: Clock, path: Path) -> None:
    """It would be a bug, and the lines of others are written with it."""
    log = AccessLog(str(path), clock, lambda event: "é" if event is SERVED else record(event))
    log(SERVED)
    close(log, clock, 1)
    log.close()
    first, second = path.read_text("ascii").splitlines()
    assert (first, json.loads(second)["session"]) == (r"\xe9", 1)


def test_other_events_write_nothing(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock)
    log.open()
    log(SessionOpened(1, IPv4Address("127.0.0.1"), 40000, "local"))
    log.close()
    assert path.read_bytes() == b""


def test_nothing_is_touched_before_it_is_opened(clock: Clock, path: Path) -> None:
    """Checking a configuration must not create files."""
    AccessLog(str(path), clock)
    assert not path.exists()


def test_what_is_in_the_file_stays(clock: Clock, path: Path) -> None:
    path.write_text('{"session":0}\n')
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    log.close()
    assert sessions(path) == [0, 1]


def test_a_new_file_is_not_for_everybody(clock: Clock, path: Path) -> None:
    umask = os.umask(0)
    try:
        log = AccessLog(str(path), clock)
        log.open()
        log.close()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("away", [Path.rename, lambda path, _: path.unlink()], ids=["mv", "rm"])
def test_a_file_that_is_rotated_away_is_begun_anew(clock: Clock, path: Path, away: Any) -> None:
    old = path.with_suffix(".1")
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    away(path, old)
    clock.advance(1.0)
    close(log, clock, 2)
    log.close()
    assert sessions(path) == [2]
    assert not old.exists() or sessions(old) == [1]


def test_the_file_is_looked_after_once_a_second_not_for_every_line(
    clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AccessLog(str(path), clock)
    log.open()
    path.rename(path.with_suffix(".1"))
    clock.advance(0.8)
    close(log, clock, 1)
    assert not path.exists()
    log.close()


def test_a_file_that_cannot_be_opened_is_said_once_and_tried_again(
    clock: Clock, path: Path, events: list[LogEvent]
) -> None:
    log = AccessLog(str(path / "file"), clock)
    log.open()
    for number in range(3):
        close(log, clock, number)
        clock.advance(1.0)
    (event,) = events
    assert formatEvent(event) == (
        f"access log {path}/file: No such file or directory;"
        " lines are lost until it can be written again"
    )
    assert event["log_level"] is LogLevel.error
    assert log.lost == 3
    path.mkdir()
    close(log, clock, 3)
    assert sessions(path / "file") == [3]
    assert formatEvent(events[1]) == (
        f"access log {path}/file: written again; lines lost so far: 3"
    )
    assert len(events) == 2
    log.close()


def test_a_full_disk_costs_lines_and_nothing_else(
    clock: Clock, path: Path, kernel: Kernel, events: list[LogEvent]
) -> None:
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    kernel.room = 0
    close(log, clock, 2)
    calls = kernel.calls
    close(log, clock, 3, 4)
    assert kernel.calls == calls  # no system call for what would fail
    clock.advance(1.0)
    close(log, clock, 5)
    assert log.lost == 4
    kernel.room = None
    clock.advance(1.0)
    close(log, clock, 6)
    assert sessions(path) == [1, 6]
    assert len(events) == 2
    log.close()


def test_of_lines_that_are_written_in_part_those_behind_the_torn_one_are_lost(
    clock: Clock, path: Path, kernel: Kernel
) -> None:
    length = len(record(replace(SERVED, session=1))) + 1
    log = AccessLog(str(path), clock)
    kernel.room = length + 10
    close(log, clock, 1, 2, 3, 4)
    assert log.lost == 2
    kernel.room = None
    clock.advance(1.0)
    close(log, clock, 5)
    assert sessions(path) == [1, 2, 5]
    kernel.room = length
    close(log, clock, 6, 7)
    assert (sessions(path), log.lost) == ([1, 2, 5, 6], 3)
    log.close()


def test_a_torn_line_is_finished_before_the_next(
    clock: Clock, path: Path, kernel: Kernel, events: list[LogEvent]
) -> None:
    """The disk fills in the middle of a line; no line may begin in another's middle."""
    log = AccessLog(str(path), clock)
    kernel.room = 10
    close(log, clock, 1)
    assert path.stat().st_size == 10
    assert log.lost == 0
    kernel.room = 10
    clock.advance(1.0)
    close(log, clock, 2)  # ten octets more of the first
    assert log.lost == 1
    kernel.room = None
    clock.advance(1.0)
    close(log, clock, 3)
    assert sessions(path) == [1, 3]
    log.close()
    assert log.lost == 1


def test_no_line_begins_in_the_middle_of_a_torn_one(
    clock: Clock, path: Path, kernel: Kernel
) -> None:
    """Even when the file takes octets again a moment after it did not."""
    log = AccessLog(str(path), clock)
    kernel.room = 10
    close(log, clock, 1)
    kernel.room, kernel.busy = None, 1
    clock.advance(1.0)
    close(log, clock, 2)
    clock.advance(1.0)
    close(log, clock, 3)
    assert sessions(path) == [1, 3]
    log.close()


def test_half_a_line_is_not_called_writing_again(
    clock: Clock, path: Path, kernel: Kernel, events: list[LogEvent]
) -> None:
    log = AccessLog(str(path), clock)
    kernel.room = 0
    close(log, clock, 1)
    kernel.room = 10
    clock.advance(1.0)
    close(log, clock, 2)
    assert len(events) == 1
    kernel.room = None
    clock.advance(1.0)
    close(log, clock, 3)
    assert len(events) == 2
    assert sessions(path) == [2, 3]
    log.close()


def test_closing_finishes_a_torn_line(clock: Clock, path: Path, kernel: Kernel) -> None:
    log = AccessLog(str(path), clock)
    kernel.room = 10
    close(log, clock, 1)
    kernel.room = None
    log.close()
    assert sessions(path) == [1]


def test_a_torn_line_is_not_carried_over_to_a_new_file(
    clock: Clock, path: Path, kernel: Kernel
) -> None:
    log = AccessLog(str(path), clock)
    kernel.room = 10
    close(log, clock, 1)
    path.unlink()
    kernel.room = None
    clock.advance(1.0)
    close(log, clock, 2)
    assert sessions(path) == [2]
    assert log.lost == 1
    log.close()


def test_a_fifo_that_nobody_reads_does_not_stop_the_world(
    clock: Clock, path: Path, events: list[LogEvent]
) -> None:
    os.mkfifo(path)
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    assert log.lost == 1
    log.close()


def test_after_close_nothing_is_written_until_it_is_opened_again(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    log.close()
    log.close()
    clock.advance(10.0)
    close(log, clock, 2)
    assert log.lost == 1
    log.open()
    close(log, clock, 3)
    log.close()
    assert sessions(path) == [1, 3]


def test_no_descriptor_is_left_open(clock: Clock, path: Path) -> None:
    before = os.listdir("/dev/fd")
    log = AccessLog(str(path), clock)
    for _ in range(3):
        close(log, clock, 1)
        path.unlink()
        clock.advance(1.0)
    log.close()
    assert len(os.listdir("/dev/fd")) == len(before)


def test_a_file_that_was_moved_is_begun_anew_when_it_is_said(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock)
    close(log, clock, 1)
    path.rename(path.with_suffix(".1"))
    log.reopen()
    assert path.read_text() == ""
    close(log, clock, 2)
    log.close()
    assert sessions(path) == [2]
    assert sessions(path.with_suffix(".1")) == [1]


def test_the_file_can_be_for_people(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock, access.text)
    log(SERVED)
    log.close()
    assert path.read_text() == f"2026-01-01T00:00:00.123400Z {lines.session(SERVED)}\n"


def test_what_a_rule_wants_out_of_the_logs_has_no_line(clock: Clock, path: Path) -> None:
    log = AccessLog(str(path), clock)
    log(replace(SERVED, logged=False))
    log(SERVED)
    log.close()
    assert sessions(path) == [SERVED.session]
    assert log.lost == 0
