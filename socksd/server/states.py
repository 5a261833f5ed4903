"""
The states of a session, as a table.

``python -m socksd.server.states`` prints it for docs/architecture.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final


class State(Enum):
    """Where a session is; the value says what it waits for."""

    OPEN = "the client's first octet"
    NEGOTIATING = "the rest of the greeting"
    AUTHENTICATING = "the login, then its verification"
    REQUESTING = "the request"
    RESOLVING = "the addresses of a name"
    CONNECTING = "the first permitted address that answers"
    BINDING = "the peer to connect to the port we have opened for it"
    ASSOCIATING = "the address that clients are told, where that is given by name"
    RELAYING = "the end of both directions, or of the association"
    CLOSING = "our last octets to leave, and the client to close"
    CLOSED = "nothing"

    # Each is there once. Enum's own hashes the name in Python, for each look at a table.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a session may take for what, in seconds."""

    handshake: float = 10.0  # from the connection to the whole request; octets do not renew it
    resolve: float = 10.0
    connect: float = 15.0  # for all addresses together
    bind: float = 60.0  # from the first reply to the peer's connection
    idle: float = 900.0  # without one octet in either direction
    linger: float = 300.0  # the same, once one direction has ended
    closing: float = 10.0  # RFC 1928 section 6: not more than 10 seconds


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.OPEN: (State.NEGOTIATING, State.CLOSING, State.CLOSED),
    State.NEGOTIATING: (State.AUTHENTICATING, State.REQUESTING, State.CLOSING, State.CLOSED),
    State.AUTHENTICATING: (State.REQUESTING, State.CLOSING, State.CLOSED),
    State.REQUESTING: (
        State.RESOLVING,
        State.CONNECTING,
        State.BINDING,
        State.ASSOCIATING,
        State.CLOSING,
        State.CLOSED,
    ),
    State.RESOLVING: (State.CONNECTING, State.BINDING, State.CLOSING, State.CLOSED),
    State.CONNECTING: (State.RELAYING, State.CLOSING, State.CLOSED),
    State.BINDING: (State.RELAYING, State.CLOSING, State.CLOSED),
    State.ASSOCIATING: (State.RELAYING, State.CLOSING, State.CLOSED),
    State.RELAYING: (State.CLOSING, State.CLOSED),
    State.CLOSING: (State.CLOSED,),
    State.CLOSED: (),
}

# One deadline per state, by its name in Deadlines. Neighbours with the same
# name share one that is never renewed: a client that sends an octet now and
# then gets no further than one that sends none. A relay keeps its own time.
DEADLINE: dict[State, str | None] = {
    State.OPEN: "handshake",
    State.NEGOTIATING: "handshake",
    State.AUTHENTICATING: "handshake",
    State.REQUESTING: "handshake",
    State.RESOLVING: "resolve",
    State.CONNECTING: "connect",
    State.BINDING: "bind",
    State.ASSOCIATING: "resolve",
    State.RELAYING: None,
    State.CLOSING: "closing",
    State.CLOSED: None,
}

# From each state to each that may follow: the deadline that begins then, None
# for none; SAME where the one that holds goes on.
SAME: Final = ""
STEPS: Final[Mapping[State, Mapping[State, str | None]]] = {
    before: {
        after: SAME if DEADLINE[after] == DEADLINE[before] else DEADLINE[after]
        for after in following
    }
    for before, following in TRANSITIONS.items()
}


def table() -> str:
    """Give the states as an rst list-table."""
    defaults = {field.name: field.default for field in fields(Deadlines)}
    rows = [("State", "Waits for", "Deadline", "Then")]
    for state in State:
        name = DEADLINE[state]
        if state is State.RELAYING:
            deadline = f"idle ({defaults['idle']:g} s), linger ({defaults['linger']:g} s)"
        else:
            deadline = f"{name} ({defaults[name]:g} s)" if name else "\\-"
        then = ", ".join(after.name for after in TRANSITIONS[state]) or "\\-"
        rows.append((state.name, state.value, deadline, then))
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'*' if first else ' '} - {cell}" for first, cell in _numbered(row)]
    return "\n".join(lines) + "\n"


def _numbered(row: tuple[str, ...]) -> list[tuple[bool, str]]:
    return [(index == 0, cell) for index, cell in enumerate(row)]


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201 -- this is what the module is run for
