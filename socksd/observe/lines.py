r"""
What the log for people says, as pure functions of events.

Each line is plain ASCII. What a client can choose freely, its user name and
the USERID of SOCKS4, is written as it is where it consists of letters, digits
and ``._@-``, and as a JSON string otherwise, so that it can forge neither a
field nor a line. ``-`` is "none" or "not known"; a user who is called that
appears as ``"-"``.

Two forms are fixed, for ``grep`` and fail2ban; new fields would be appended::

    denied client=ADDRESS port=N user=USER command=COMMAND destination=HOST:PORT rule=ID
    login failed client=ADDRESS port=N user=USER reason="TEXT"

The client comes first and the pattern is anchored, so nothing that follows
can stand in its place. A fail2ban filter for twistd's log file::

    [Definition]
    failregex = ^\s*\[socksd#warn\] login failed client=<ADDR> port=\d+ user=
                ^\s*\[socksd#warn\] denied client=<ADDR> port=\d+ user=
    datepattern = ^%%Y-%%m-%%dT%%H:%%M:%%S%%z
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from ipaddress import IPv4Address

from socksd.address import IPAddress, spelled
from socksd.codes import COMMANDS
from socksd.events import (
    DatagramsDropped,
    DatagramTarget,
    Denied,
    LoginRefused,
    Outcome,
    SessionClosed,
    StrangerTurnedAway,
)

_PLAIN = re.compile(r"[A-Za-z0-9._@-]+")


@lru_cache(maxsize=1024)  # names of users and rules, the same few again and again
def word(text: str | None) -> str:
    """Write a value of any origin as one field's value; ``None`` is ``-``."""
    if text is None:
        return "-"
    if text != "-" and _PLAIN.fullmatch(text):
        return text
    return json.dumps(text)


def session(event: SessionClosed) -> str:
    """
    Write the one canonical line of a session.

    The request, ``via`` (the address that was dialled) and ``rule`` are
    missing where the session did not get that far, ``reason`` where there is
    nothing to explain. ``userid`` is what a client of SOCKS4 claims to be.
    ``up`` is octets from the client, ``down`` to it. ``protocol`` is missing
    where the client has spoken none.
    """
    userid = request = via = rule = protocol = reason = ""
    if event.userid:
        userid = f" userid={word(event.userid)}"
    if event.command is not None and event.destination is not None:
        request = f" {COMMANDS[event.command]} {event.destination}"
    if event.address is not None:
        via = f" via={spelled(event.address)}"
    if event.rule is not None:
        rule = f" rule={word(event.rule)}"
    if event.protocol is not None:
        protocol = f" protocol={event.protocol}"
    if event.reason:
        reason = f" reason={json.dumps(event.reason)}"
    return (
        f"session {event.session} client={_endpoint(event.client, event.client_port)}"
        f" user={word(event.user)}{userid}{request}{via}{rule} outcome={event.outcome}"
        f" up={event.up} down={event.down} seconds={event.seconds:.3f}{protocol}{reason}"
    )


def denied(event: Denied) -> str:
    """Write that the policy has refused a client; see this module for the form."""
    command, destination = event.command, event.destination
    return (
        f"denied client={event.client} port={event.client_port} user={word(event.user)}"
        f" command={'-' if command is None else COMMANDS[command]}"
        f" destination={'-' if destination is None else destination}"
        f" rule={word(event.decision.rule)}"
    )


def target(event: DatagramTarget) -> str:
    """Write where a client sends datagrams, or that a name it sends to leads nowhere."""
    fields = [
        f"session {event.session} client={_endpoint(event.client, event.client_port)}",
        f"user={word(event.user)} udp {event.destination}",
    ]
    if event.address is not None:
        fields.append(f"via={event.address} rule={word(event.decision.rule)}")
    if event.reason:
        fields.append(f"outcome={Outcome.FAILED} reason={json.dumps(event.reason)}")
    return " ".join(fields)


def dropped(event: DatagramsDropped) -> str:
    """Write which datagrams of an association were not relayed."""
    counts = " ".join(f"{drop}={count}" for drop, count in sorted(event.counts.items()))
    return f"session {event.session} datagrams dropped: {counts}"


def login_failed(event: LoginRefused) -> str:
    """Write that a login has failed; see this module for the form."""
    return (
        f"login failed client={event.client} port={event.client_port} user={word(event.user)}"
        f" reason={json.dumps(event.reason)}"
    )


def turned_away(event: StrangerTurnedAway) -> str:
    """Write that somebody else than its peer has come to the port of a BIND."""
    stranger = _endpoint(event.address, event.port)
    return f"session {event.session} has turned {stranger} away, which is not its peer"


def hint(client: IPAddress) -> str:
    """Say how to let in a client that no rule speaks of."""
    return (
        f"no rule speaks of {client}: to allow it, write a [[rule]] with"
        f' action = "allow" and from = ["{client}/{client.max_prefixlen}"]'
        " into the file given by --config; see docs/configuration.rst"
    )


def _endpoint(address: IPAddress, port: int) -> str:
    spelt = spelled(address)
    return f"{spelt}:{port}" if isinstance(address, IPv4Address) else f"[{spelt}]:{port}"
