"""A session that has ended, and a refusal, for tests to vary."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from socksd.address import Destination
from socksd.codes import Command, ReplyCode
from socksd.events import Asked, Denied, Outcome, SessionClosed
from socksd.facts import Decision, Report, Verdict

SERVED = SessionClosed(
    session=17,
    started=1767225600.1234,
    seconds=1.23449,
    client=IPv4Address("127.0.0.1"),
    client_port=40312,
    listener="office",
    user="alice",
    command=Command.CONNECT,
    destination=Destination("example.com", 443),
    address=IPv4Address("93.184.216.34"),
    rule="local",
    outcome=Outcome.SERVED,
    reply=ReplyCode.SUCCEEDED,
    reason="",
    up=1234,
    down=56789,
    groups=frozenset({"ops", "dba"}),
    asked=Asked.ADDRESS,
    verdict=Verdict.ALLOW,
    reports=(Report("trial", Verdict.DENY),),
    addresses=(IPv4Address("93.184.216.34"), IPv6Address("2001:db8::1")),
    protocol="socks5",
)

DENIED = Denied(
    session=17,
    started=1767225600.1234,
    client=IPv4Address("127.0.0.1"),
    client_port=40312,
    user="alice",
    command=Command.CONNECT,
    destination=Destination("example.com", 443),
    decision=Decision(Verdict.DENY, "no-web"),
)
