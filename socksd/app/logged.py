"""A line of the access log, as a question to the policy."""

from __future__ import annotations

from socksd.policy.explain import Question
from socksd.policy.records import Unusable, moment, read, record


def question_of(line: str) -> Question:
    """
    Read what the policy was asked about a session, as ``replay`` reads it.

    Where the line does not say all addresses of a name it is the one that was
    dialled.

    Raises:
        ValueError: There is nothing in it to explain.
    """
    try:
        written, key = read(line)
        found, time = record(key), moment(written.get("time"))
    except Unusable as error:
        raise ValueError(f"nothing to explain: a line {error}") from error
    if found.command is None:
        return Question(found.connecting(time))
    facts = found.asking(time)
    if facts.destination is None or facts.address is not None:
        return Question(facts)
    dialled = () if found.dialled is None else (found.dialled,)
    return Question(facts, found.addresses or dialled or None)
