"""Lines of the access log, as questions to the policy."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from socksd.address import Destination
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.policy import values
from socksd.policy.cases import address
from socksd.policy.explain import Question
from socksd.policy.values import Wrong


def question_of(line: str) -> Question:
    """
    Read what the policy was asked about a session.

    Where the line does not say all addresses of a name it is the one that was
    dialled.

    Raises:
        ValueError: It is no line of the access log.
    """
    record: Any = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"{line[:80]!r} is no object")
    try:
        user, host = record["user"], record["host"]
        groups = frozenset(map(str, record.get("groups") or ()))
        principal = ANONYMOUS if user is None else Principal(values.some_text(user), groups)
        facts = Facts(
            address(record["client"]),
            str(record["listener"]),
            principal,
            time=datetime.fromisoformat(record["time"]).timestamp(),
        )
        if record["command"] is None:
            return Question(facts)
        destination = Destination.named(values.some_text(host), int(record["port"]))
        facts = facts.asking(values.command(record["command"]), destination)
        if facts.address is not None:
            return Question(facts)
        found = record.get("addresses") or [record["address"]]
        return Question(facts, tuple(map(address, found)) if found != [None] else None)
    except KeyError as error:
        raise ValueError(f"the line has no {error}") from error
    except (Wrong, TypeError) as error:
        raise ValueError(f"no line of the access log: {error}") from error
