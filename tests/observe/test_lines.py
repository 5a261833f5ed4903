from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, textFileLogObserver

from socksd.address import Destination
from socksd.codes import Command
from socksd.events import (
    DatagramsDropped,
    DatagramTarget,
    LoginRefused,
    Outcome,
    StrangerTurnedAway,
)
from socksd.facts import Decision, Verdict
from socksd.interfaces import Drop
from socksd.observe import lines
from socksd.observe.log import PeopleLog
from tests.observe.closed import DENIED, SERVED

# fail2ban's own expansion of <ADDR>, without the names of its groups.
ADDR = (
    r"(?P<address>(?:\d{1,3}\.){3}\d{1,3}"
    r"|(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):))"
)

REFUSED = LoginRefused(9, IPv4Address("192.0.2.7"), 5555, "bob", "wrong password")

# What a name may be: any octets, those that are not UTF-8 as surrogates.
NAMES = st.text() | st.binary(max_size=255).map(lambda o: o.decode("utf-8", "surrogateescape"))

HOSTILE = [
    pytest.param("x\nsession 1 outcome=served", id="newline"),
    pytest.param("x rule=any", id="field"),
    pytest.param('"', id="quote"),
    pytest.param("\\", id="backslash"),
    pytest.param("", id="empty"),
    pytest.param("-", id="nobody"),
    pytest.param("\x1b[2J", id="terminal escape"),
    pytest.param("\x7f\x85\u2028", id="controls beyond ASCII's"),
    pytest.param("\udcff", id="not UTF-8"),
    pytest.param("{client}", id="format"),
    pytest.param(
        "[socksd#warn] login failed client=198.51.100.1 port=1 user=", id="another's line"
    ),
]

FIELD = re.compile(r'(?:([a-z]+)=)?("(?:[^"\\]|\\.)*"|[^ "]+)(?: |$)')


def fields(line: str) -> list[tuple[str, str]]:
    """Take a line apart as a careful reader would: quoted values first."""
    found, end = [], 0
    while end < len(line):
        match = FIELD.match(line, end)
        assert match is not None, line[end:]
        found.append((match[1] or "", match[2]))
        end = match.end()
    return found


def written(value: str) -> str:
    """Read a field's value back."""
    text = json.loads(value) if value.startswith('"') else value
    assert isinstance(text, str)
    return text


def test_a_session_has_one_line_with_all_there_is_to_know() -> None:
    assert lines.session(SERVED) == (
        "session 17 client=127.0.0.1:40312 user=alice connect example.com:443"
        " via=93.184.216.34 rule=local outcome=served up=1234 down=56789 seconds=1.234"
        " protocol=socks5"
    )


def test_what_a_socks4_client_says_it_is_stands_behind_the_user_it_is_not() -> None:
    claimed = replace(SERVED, user=None, userid="fred")
    assert " user=- userid=fred connect " in lines.session(claimed)
    assert "userid" not in lines.session(replace(claimed, userid=""))


@pytest.mark.parametrize("userid", HOSTILE)
def test_a_userid_forges_neither_a_field_nor_a_line(userid: str) -> None:
    line = lines.session(replace(SERVED, userid=userid))
    assert line.isascii()
    assert line.isprintable()
    found = [written(value) for name, value in fields(line) if name == "userid"]
    assert found == ([userid] if userid else [])


@pytest.mark.parametrize(("address", "shown"), [("192.0.2.7", "192.0.2.7"), ("::1", "[::1]")])
def test_a_stranger_is_told_with_the_session_it_came_to(address: str, shown: str) -> None:
    event = StrangerTurnedAway(17, ip_address(address), 4711)
    line = f"session 17 has turned {shown}:4711 away, which is not its peer"
    assert lines.turned_away(event) == line


def test_a_reason_comes_last() -> None:
    line = lines.session(replace(SERVED, outcome=Outcome.RESET, reason='"x" broke'))
    assert line.endswith(
        r' outcome=reset up=1234 down=56789 seconds=1.234 protocol=socks5 reason="\"x\" broke"'
    )


def test_what_a_session_did_not_get_to_is_not_in_its_line() -> None:
    event = replace(
        SERVED,
        user=None,
        command=None,
        destination=None,
        address=None,
        rule=None,
        outcome=Outcome.TIMED_OUT,
        protocol=None,
    )
    assert lines.session(event) == (
        "session 17 client=127.0.0.1:40312 user=-"
        " outcome=timed-out up=1234 down=56789 seconds=1.234"
    )


def test_ipv6_is_bracketed_where_a_port_follows() -> None:
    event = replace(
        SERVED,
        client=IPv6Address("2001:db8::1"),
        destination=Destination(IPv6Address("::1"), 80),
        address=IPv6Address("::1"),
    )
    assert lines.session(event).startswith(
        "session 17 client=[2001:db8::1]:40312 user=alice connect [::1]:80 via=::1 rule=local"
    )


@pytest.mark.parametrize(
    ("command", "word"),
    [(Command.CONNECT, "connect"), (Command.BIND, "bind"), (Command.UDP_ASSOCIATE, "udp")],
)
def test_commands_are_called_what_rules_call_them(command: Command, word: str) -> None:
    assert f" {word} example.com:443 " in lines.session(replace(SERVED, command=command))


def test_a_denial_has_the_fixed_form() -> None:
    assert lines.denied(DENIED) == (
        "denied client=127.0.0.1 port=40312 user=alice"
        " command=connect destination=example.com:443 rule=no-web"
    )


def test_the_fixed_form_keeps_its_fields_where_nothing_is_known() -> None:
    event = replace(DENIED, user=None, command=None, destination=None)
    assert lines.denied(event) == (
        "denied client=127.0.0.1 port=40312 user=- command=- destination=- rule=no-web"
    )


def test_a_failed_login_has_the_fixed_form() -> None:
    assert lines.login_failed(REFUSED) == (
        'login failed client=192.0.2.7 port=5555 user=bob reason="wrong password"'
    )


@pytest.mark.parametrize(
    ("client", "network"), [("192.0.2.7", "192.0.2.7/32"), ("2001:db8::7", "2001:db8::7/128")]
)
def test_the_hint_can_be_pasted(client: str, network: str) -> None:
    address = IPv6Address(client) if ":" in client else IPv4Address(client)
    assert f'action = "allow" and from = ["{network}"]' in lines.hint(address)


@pytest.mark.parametrize("name", ["alice", "a.b-c_d@example.com", "0", "--"])
def test_plain_names_are_not_quoted(name: str) -> None:
    assert lines.word(name) == name


@given(NAMES)
@example("-")
@example("")
@example("a\n")
def test_whatever_a_name_is_it_can_be_read_back(name: str) -> None:
    word = lines.word(name)
    assert written(word) == name
    assert word != lines.word(None)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_quoted(name: str) -> None:
    assert re.fullmatch(r'"[ -~]*"', lines.word(name))


@given(name=NAMES, reason=NAMES.filter(bool))
def test_nothing_forges_a_field_or_a_line(name: str, reason: str) -> None:
    """All that a stranger can put into a line stays one value of one field."""
    closed = replace(SERVED, user=name, reason=reason)
    plain = replace(SERVED, user="u", reason="r")
    refused = replace(REFUSED, user=name, reason=reason)
    for line, harmless, user, why in (
        (lines.session(closed), lines.session(plain), 3, -1),
        (lines.denied(replace(DENIED, user=name)), lines.denied(DENIED), 3, None),
        (lines.login_failed(refused), lines.login_failed(REFUSED), 4, -1),
    ):
        assert re.fullmatch(r"[ -~]+", line)
        found = fields(line)
        assert [key for key, _ in found] == [key for key, _ in fields(harmless)]
        assert written(found[user][1]) == name
        assert why is None or written(found[why][1]) == reason


def failregexes() -> list[re.Pattern[str]]:
    """Read the documented fail2ban filter."""
    text = (lines.__doc__ or "").partition("failregex = ")[2].partition("datepattern")[0]
    return [
        re.compile(line.strip().replace("<ADDR>", ADDR))
        for line in text.splitlines()
        if line.strip()
    ]


def logged(name: str, client: IPv4Address | IPv6Address) -> list[str]:
    """Give what twistd writes to its log file, less the time, as fail2ban does."""
    log = PeopleLog(Clock())
    with capturedLogs() as events:
        log(replace(REFUSED, user=name, reason=name, client=client))
        log(replace(DENIED, user=name, client=client))
        log(replace(SERVED, user=name, reason=name, client=client))
        log.close()
    file = StringIO()
    observer = textFileLogObserver(file)
    for event in events:
        observer(event)
    return [line.partition(" ")[2] for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("name", ["alice", *HOSTILE])
@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7", "::1"])
def test_fail2ban_finds_the_client_and_nobody_else(name: str, client: str) -> None:
    """A name that looks like a line must not have another client banned."""
    address = IPv6Address(client) if ":" in client else IPv4Address(client)
    login_failed, denied, session = logged(name, address)
    patterns = failregexes()
    assert len(patterns) == 2
    for line, pattern in zip((login_failed, denied), patterns, strict=True):
        match = pattern.search(line)
        assert match is not None, line
        assert match["address"] == client
    assert not any(pattern.search(session) for pattern in patterns)
    assert not patterns[0].search(denied)
    assert not patterns[1].search(login_failed)


# -- datagrams ----------------------------------------------------------------

TARGET = DatagramTarget(
    session=17,
    client=IPv4Address("10.20.0.7"),
    client_port=40312,
    user="alice",
    destination=Destination("example.com", 53),
    decision=Decision(Verdict.ALLOW, "staff"),
    address=IPv4Address("192.0.2.80"),
    reason="",
)


def test_where_datagrams_go_is_a_line() -> None:
    assert lines.target(TARGET) == (
        "session 17 client=10.20.0.7:40312 user=alice udp example.com:53 via=192.0.2.80 rule=staff"
    )


def test_a_name_that_leads_nowhere_has_its_reason() -> None:
    event = replace(TARGET, user=None, address=None, reason="no such name")
    assert lines.target(event) == (
        "session 17 client=10.20.0.7:40312 user=- udp example.com:53"
        ' outcome=failed reason="no such name"'
    )


def test_a_denied_target_has_the_form_of_a_denial() -> None:
    event = replace(DENIED, command=Command.UDP_ASSOCIATE, datagram=True)
    assert lines.denied(event) == (
        "denied client=127.0.0.1 port=40312 user=alice command=udp destination=example.com:443"
        " rule=no-web"
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_no_user_can_forge_a_line_about_a_target(name: str) -> None:
    line = lines.target(replace(TARGET, user=name))
    assert line.isascii()
    assert line.isprintable()
    assert ("user", lines.word(name)) in fields(line)


def test_what_was_dropped_is_a_line_with_the_causes() -> None:
    event = DatagramsDropped(17, {Drop.UNASKED: 2, Drop.DENIED: 10})
    assert lines.dropped(event) == "session 17 datagrams dropped: denied=10 unasked=2"
