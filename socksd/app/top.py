"""``socksd top``: the live sessions that move most, on a terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from socksd.admin.client import Unreachable, ask
from socksd.admin.tables import missing, octets, session_row, shown

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROWS: Final = 200  # asked for; the terminal shows as many as fit
# The column that /v1/sessions is asked to sort by; what moves most is not the
# same as what has moved most, so the rates are sorted here.
_SORTS: Final = ("rate", "octets", "seconds", "session")


class Rates:
    """Octets a second of each session, from one look to the next."""

    def __init__(self) -> None:
        self._at = 0.0
        self._before: dict[int, int] = {}

    def look(self, sessions: list[Mapping[str, Any]], now: float) -> dict[int, float]:
        """
        Give the rate of each session since the last look; 0 for what was not there.

        Args:
            sessions: Rows of /v1/sessions.
            now: In seconds, by a clock that only goes forward.
        """
        seconds, before = max(now - self._at, 1e-6), self._before
        after = {each["session"]: each["up"] + each["down"] for each in sessions}
        self._at, self._before = now, after
        return {
            number: (total - before.get(number, total)) / seconds for number, total in after.items()
        }


def add_to(commands: Any, options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the command; *options* adds those that say which server."""
    what = "show the sessions that move most, live (extra: tui)"
    parser = commands.add_parser("top", help=what, description=what)
    options(parser)
    parser.add_argument("--sort", choices=_SORTS, default=_SORTS[0])
    parser.add_argument("--every", metavar="SECONDS", type=_seconds, default=1.0, help="default: 1")
    parser.add_argument(
        "--times", metavar="N", type=int, help="end after so many looks; else at Ctrl-C"
    )
    parser.set_defaults(do=run)


def run(parsed: argparse.Namespace) -> None:
    """
    Show until told to end.

    Raises:
        SystemExit: There is no server to ask, or the extra is not installed.
    """
    from socksd.app.remote import UNREACHABLE, socket_named

    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        raise SystemExit("socksd: top needs the extra: pip install 'socksd[tui]'") from None
    console = Console()
    try:
        looks = _looks(socket_named(parsed), parsed.sort, parsed.every, parsed.times)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            for look in looks:
                live.update(look, refresh=True)
    except KeyboardInterrupt:
        return
    except Unreachable as error:
        print(f"socksd: {error}", file=sys.stderr)
        raise SystemExit(UNREACHABLE) from error


def _looks(socket: str, sort: str, every: float, times: int | None) -> Iterator[RenderableType]:
    """Look at a server again and again, *times* times or for ever."""
    rates, first = Rates(), True
    while times is None or times > 0:
        if not first:
            time.sleep(every)
        first = False
        by = "-octets" if sort == "rate" else f"-{sort}"
        _, status = ask(socket, "GET", "/v1/status")
        _, answer = ask(socket, "GET", "/v1/sessions", {"sort": by, "limit": _ROWS})
        yield frame(status, answer, rates.look(answer["sessions"], time.monotonic()), sort)
        times = None if times is None else times - 1


def frame(
    status: Mapping[str, Any], answer: Mapping[str, Any], rate: Mapping[int, float], sort: str
) -> RenderableType:
    """Draw one look."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (f"socksd {status['version']}", "bold"),
        f"  {answer['count']} sessions  {octets(sum(rate.values()))}/s"
        f"  {status['reloads']} reloads",
    )
    if status["unconfirmed_until"] is not None:
        head.append("  configuration on trial", "bold yellow")
    for line in missing(answer):
        head.append(f"  {line}", "bold yellow")
    table = Table(box=None, expand=True, header_style="reverse", pad_edge=False)
    for name in ("SESSION", "CLIENT", "USER", "PROTOCOL", "STATE", "DESTINATION", "RULE"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in ("AGE", "UP", "DOWN", "RATE"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = answer["sessions"]
    if sort == "rate":
        rows = sorted(rows, key=lambda each: -rate[each["session"]])
    for each in rows:
        moving = rate[each["session"]]
        cells = [Text(shown(cell)) for cell in session_row(each)]
        table.add_row(*cells, f"{octets(moving)}/s", style="" if moving else "dim")
    return Group(head, table)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0.1 to 3600 seconds")
    return seconds
