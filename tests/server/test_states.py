"""The states of a session, as a table."""

import subprocess
import sys
from dataclasses import fields

from socksd.server.states import DEADLINE, TRANSITIONS, Deadlines, State, table


def test_every_state_has_its_transitions_and_its_deadline() -> None:
    assert set(TRANSITIONS) == set(DEADLINE) == set(State)


def test_every_deadline_is_one_of_the_configuration() -> None:
    names = {name for name in DEADLINE.values() if name}
    assert names <= {field.name for field in fields(Deadlines)}


def test_every_state_is_reached_and_leads_to_the_end() -> None:
    reached, ways = set(), [State.OPEN]
    while ways:
        state = ways.pop()
        if state not in reached:
            reached.add(state)
            ways.extend(TRANSITIONS[state])
    assert reached == set(State)
    assert all(State.CLOSED in TRANSITIONS[s] for s in State if s is not State.CLOSED)


def test_nothing_follows_the_end() -> None:
    assert TRANSITIONS[State.CLOSED] == ()


def test_the_table_names_every_state_and_every_deadline() -> None:
    text = table()
    for state in State:
        assert f"- {state.name}\n" in text
    for name in ("handshake (10 s)", "idle (900 s)", "linger (300 s)", "closing (10 s)"):
        assert name in text


def test_the_module_prints_its_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "socksd.server.states"], capture_output=True, text=True, check=True
    )
    assert done.stdout == table()
