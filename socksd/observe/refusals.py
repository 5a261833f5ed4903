"""What each caller has been refused, as a page for that caller and nobody else."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

from socksd.address import Destination, IPAddress
from socksd.events import Denied, Event

CALLERS: Final = 5_000  # remembered; the one refused least recently goes first
EACH: Final = 10  # remembered of each

Caller = tuple[IPAddress, str | None]

_STYLE = (
    "<style>body{font:1rem sans-serif;margin:2rem}\n"
    "td,th{text-align:left;padding:.2rem 1rem .2rem 0}</style>\n"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request that the policy has refused."""

    time: float  # seconds since the epoch
    destination: Destination
    rule: str
    text: str  # what the rule says about it; or empty


class Refusals:
    """
    Remember the last refusals of each caller.

    A caller is an address together with a user: of two users behind one
    address neither sees what the other was refused, nor does anybody who has
    not logged in; those are one caller for each address. What happened before
    it was known who asks is nobody's, and not kept.
    """

    hears = (Denied,)

    def __init__(self) -> None:
        self._callers: OrderedDict[Caller, deque[Refusal]] = OrderedDict()

    def __call__(self, event: Event) -> None:
        """Observe *event*."""
        if isinstance(event, Denied) and event.destination is not None:
            decision = event.decision
            refusal = Refusal(event.started, event.destination, decision.rule, decision.text)
            self._remember((event.client, event.user), refusal)

    def of(self, client: IPAddress, user: str | None) -> Sequence[Refusal]:
        """Give the last refusals of one caller, the latest first."""
        return tuple(reversed(self._callers.get((client, user), ())))

    def page(self, client: IPAddress, user: str | None, plain: bool) -> str:
        """Write what one caller may know; as HTML, or as *plain* text."""
        write = text_page if plain else html_page
        return write(client, user, self.of(client, user))

    def _remember(self, caller: Caller, refusal: Refusal) -> None:
        self._callers.setdefault(caller, deque(maxlen=EACH)).append(refusal)
        self._callers.move_to_end(caller)
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)


def text_page(client: IPAddress, user: str | None, refusals: Sequence[Refusal]) -> str:
    """Write refusals for a terminal."""
    lines = [f"You are {_who(client, user)}.", ""]
    if not refusals:
        lines.append("Nothing has been refused to you lately.")
    for refusal in refusals:
        lines.append(f"{_when(refusal)}  {refusal.destination}  rule {refusal.rule}")
        if refusal.text:
            lines.append(f"    {_printable(refusal.text)}")
    return "\n".join(lines) + "\n"


def html_page(client: IPAddress, user: str | None, refusals: Sequence[Refusal]) -> str:
    """Write refusals for a browser: one document that asks nobody else for anything."""
    rows = "".join(
        f"<tr><td>{_when(refusal)}<td>{escape(str(refusal.destination))}"
        f"<td>{escape(refusal.rule)}<td>{escape(_printable(refusal.text))}</tr>\n"
        for refusal in refusals
    )
    table = (
        f"<table>\n<tr><th>When<th>Where to<th>Rule<th>Why</tr>\n{rows}</table>"
        if refusals
        else "<p>Nothing has been refused to you lately."
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Why?</title>\n{_STYLE}'
        "<h1>What the gateway has refused to you</h1>\n"
        f"<p>You are {escape(_who(client, user))}.\n{table}\n</html>\n"
    )


def _who(client: IPAddress, user: str | None) -> str:
    return f"{client}, without login" if user is None else f"{_printable(user)} at {client}"


def _when(refusal: Refusal) -> str:
    return datetime.fromtimestamp(refusal.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _printable(text: str) -> str:
    """Keep text on its line, and surrogates out of UTF-8."""
    return "".join(c if c.isprintable() else "�" for c in text)
