"""
Time the parts that every session goes through, without a network.

    python -m benchmarks.micro [--json FILE]

Each figure is the median of several repetitions, in microseconds of one
process on an otherwise idle machine; compare them within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from timeit import Timer

from twisted.internet.task import Clock
from twisted.logger import globalLogBeginner, textFileLogObserver

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.events import (
    Connected,
    Decided,
    Event,
    MethodChosen,
    Observer,
    Outcome,
    RequestReceived,
    SessionClosed,
    SessionOpened,
)
from socksd.facts import ANONYMOUS, Decision, Facts, Verdict
from socksd.observe.access import AccessLog
from socksd.observe.fanout import Observers
from socksd.observe.log import PeopleLog
from socksd.observe.metrics import Metrics
from socksd.policy.load import load_rules
from socksd.policy.rules import Policy
from socksd.wire.handshake import ServerHandshake

_REPEAT = 7
_AT_LEAST = 0.05  # seconds of one repetition

CLIENT = ip_address("192.0.2.10")
TARGET = IPv4Address("203.0.113.7")
NAMED = Destination("www.example.com", 443)
BOUND = Destination(IPv4Address("192.0.2.1"), 40000)


def microseconds(work: Callable[[], object]) -> float:
    """Give the median time of one call."""
    timer = Timer(work)
    number = 1
    while (taken := timer.timeit(number)) < _AT_LEAST:
        number = max(number + 1, int(number * min(10.0, 1.2 * _AT_LEAST / max(taken, 1e-9))))
    return median(timer.repeat(_REPEAT, number)) / number * 1e6


# -- policy --------------------------------------------------------------------


def small_policy() -> Policy:
    """Give three rules, the last of which lets the client through."""
    return _policy(
        [
            {"id": "mail", "action": "deny", "ports": [25, 465, 587]},
            {"id": "inside", "action": "deny", "to": ["127.0.0.0/8", "::1", ".internal"]},
            {"id": "staff", "action": "allow", "from": "192.0.2.0/24"},
        ]
    )


def large_policy(rules: int = 1000, entries: int = 100_000) -> Policy:
    """Give *rules* rules; two hold *entries* names and networks, the last one lets through."""
    names = [f"host-{index}.ads-{index % 997}.example" for index in range(entries)]
    networks = [f"{IPv4Address(0x0B000000 + index * 256)}/24" for index in range(entries)]
    tables: list[dict[str, object]] = [
        {"id": "names", "action": "deny", "to": names},
        {"id": "networks", "action": "deny", "to": networks},
    ]
    tables += [
        {
            "id": f"team-{index}",
            "action": "allow",
            "from": f"10.{index // 256}.{index % 256}.0/24",
            "to": [f".team-{index}.example"],
        }
        for index in range(rules - 3)
    ]
    tables.append({"id": "staff", "action": "allow", "from": "192.0.2.0/24"})
    return _policy(tables)


def _policy(tables: list[dict[str, object]]) -> Policy:
    return Policy(load_rules(tables, ["office"]))


def policy_figures() -> Iterator[tuple[str, float]]:
    """Time decide() when a name is asked for, and once its address is known."""
    asked = Facts(CLIENT, "office", ANONYMOUS).asking(Command.CONNECT, NAMED)
    resolved = asked.at(TARGET)
    for name, policy in (
        ("3 rules", small_policy()),
        ("1,000 rules, 100,000 entries", large_policy()),
    ):
        decision = policy.decide(resolved)
        if decision != Decision(Verdict.ALLOW, "staff"):
            raise RuntimeError(f"{name}: {decision}")
        yield f"decide, {name}: a name", microseconds(partial(policy.decide, asked))
        yield f"decide, {name}: its address", microseconds(partial(policy.decide, resolved))


# -- wire ----------------------------------------------------------------------

_BY_ADDRESS = bytes.fromhex("05010001cb00710701bb")
_BY_NAME = b"\5\1\0\3\x0fwww.example.com\1\xbb"


def handshake(request: bytes) -> None:
    """Go through a whole dialogue without login, on the server's side."""
    wire = ServerHandshake()
    wire.receive(b"\5\1\0")
    wire.take()
    wire.choose(Method.NO_AUTHENTICATION)
    wire.receive(request)
    wire.take()
    wire.reply(ReplyCode.SUCCEEDED, BOUND)


def wire_figures() -> Iterator[tuple[str, float]]:
    """Time the parsing and writing of whole dialogues."""
    yield "handshake, an IPv4 address", microseconds(partial(handshake, _BY_ADDRESS))
    yield "handshake, a name", microseconds(partial(handshake, _BY_NAME))


# -- observe -------------------------------------------------------------------


def session_events(number: int) -> Sequence[Event]:
    """Give what a session that is served tells."""
    decision = Decision(Verdict.ALLOW, "staff")
    return (
        SessionOpened(number, CLIENT, 40312, "office"),
        Decided(number, Decision(Verdict.DEFER, "mail"), None),
        MethodChosen(number, Method.NO_AUTHENTICATION, b"\0"),
        RequestReceived(number, Command.CONNECT, Destination(TARGET, 443)),
        Decided(number, decision, TARGET),
        Connected(number, TARGET, 0.012),
        SessionClosed(
            session=number,
            started=1_795_000_000.0,
            seconds=1.25,
            client=CLIENT,
            client_port=40312,
            listener="office",
            user=None,
            command=Command.CONNECT,
            destination=Destination(TARGET, 443),
            address=TARGET,
            rule="staff",
            outcome=Outcome.SERVED,
            reply=ReplyCode.SUCCEEDED,
            reason="",
            up=1021,
            down=6452,
        ),
    )


def told(observer: Observer, events: Sequence[Event]) -> None:
    """Tell *observer* all of them."""
    for event in events:
        observer(event)


@contextmanager
def _text_log() -> Iterator[None]:
    """Let Twisted's log go to a file, as twistd's does."""
    with Path(os.devnull).open("w") as nowhere:
        globalLogBeginner.beginLoggingTo(
            [textFileLogObserver(nowhere)], redirectStandardIO=False, discardBuffer=True
        )
        yield


def event_figures() -> Iterator[tuple[str, float]]:
    """Time a session's events: made, and told to the observers of a gateway."""
    yield "events of a session, made", microseconds(partial(session_events, 1))
    with TemporaryDirectory() as folder, _text_log():
        clock = Clock()
        people, access = PeopleLog(clock), AccessLog(f"{folder}/access.jsonl", clock)
        events = session_events(1)
        access.open()
        for name, tell in (
            ("access log", Observers(access)),
            ("log for people", Observers(people)),
            ("metrics", Observers(Metrics())),
            ("all observers", Observers(people, access, Metrics())),
        ):
            yield f"events of a session, told: {name}", microseconds(partial(told, tell, events))
        people.close()
        access.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    found: dict[str, float] = {}
    for figures in (policy_figures, wire_figures, event_figures):
        for name, value in figures():
            found[name] = value
            print(f"{name:55} {value:10.2f} us", flush=True)
    if options.json:
        kept = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "microseconds": found}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
