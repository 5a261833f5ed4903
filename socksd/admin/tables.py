"""Answers as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def status(answer: dict[str, Any]) -> str:
    """Write what /v1/status answers."""
    rows = [
        ("version", answer["version"]),
        ("process", f"{answer['pid']}, since {_when(answer['started'])}"),
        ("configuration", f"{answer['config'] or '-'}, loaded {_when(answer['loaded'])}"),
        ("reloads", f"{answer['reloads']} done, {answer['failed_reloads']} failed"),
        ("sessions", f"{answer['sessions']} ({answer['older_sessions']} from before a reload)"),
    ]
    rows += [("listener", f"{each['name']} on {each['address']}") for each in answer["listeners"]]
    if answer.get("draining_until") is not None:  # an older server has no such key
        until = _when(answer["draining_until"])
        rows.append(("draining", f"who is left at {until} is cut; nobody else is let in"))
    rows += [
        (
            f"worker {each['number']}",
            f"process {each['pid']}, since {_when(each['started'])}, {each['sessions']} sessions",
        )
        for each in answer.get("workers", ())
    ]
    if answer["unconfirmed_until"] is not None:
        rows.append(("unconfirmed", f"rolled back at {_when(answer['unconfirmed_until'])}"))
    if answer["rolled_back"]:
        rows.append(("rolled back", "the file is not in force: it was not confirmed"))
    return table(rows)


def reloaded(answer: dict[str, Any]) -> str:
    """Write what a reload that has succeeded answers."""
    lines = ["reloaded"]
    refused = answer["refused_sessions"]
    if refused["count"]:
        lines.append(
            f"{refused['count']} live sessions would now be refused: {refused['fate']}"
            " (the log lists them)"
        )
    if answer["unconfirmed_until"] is not None:
        until = _when(answer["unconfirmed_until"])
        lines.append(f"rolled back at {until}, unless you say: socksd confirm")
    return "\n".join(lines) + "\n"


def draining(answer: dict[str, Any]) -> str:
    """Write how far a server is that drains, as it or its status says."""
    until = _when(answer["draining_until"])
    return f"draining: {answer['sessions']} sessions are left, cut at {until}"


def rules(answer: dict[str, Any]) -> str:
    """Write what /v1/rules answers."""
    rows = [("RULE", "ACTION", "HITS", "OPEN", "LAST", "SINCE")]
    rows += [
        (
            rule["id"],
            rule["action"],
            str(rule["hits"]),
            str(rule["open"]),
            _when(rule["last"]),
            _when(rule["since"]),
        )
        for rule in answer["rules"]
    ]
    return table(rows)


def leaks(answer: dict[str, Any]) -> str:
    """Write what /v1/leaks answers."""
    if not answer["leaks"]:
        return f"{answer['clients']} clients seen; all of them send names\n"
    rows = [("CLIENT", "USER", "ADDRESSES", "NAMES", "LAST", "MOST OFTEN")]
    rows += [
        (
            leak["client"],
            "-" if leak["user"] is None else leak["user"],
            str(leak["addresses"]),
            str(leak["names"]),
            _when(leak["last"]),
            ", ".join(top["destination"] for top in leak["top"][:3]),
        )
        for leak in answer["leaks"]
    ]
    return (
        f"rules about names do not protect {len(answer['leaks'])} of {answer['clients']} clients,"
        " which send addresses:\n" + table(rows)
    )


def sessions(answer: dict[str, Any]) -> str:
    """Write what /v1/sessions answers."""
    rows: list[Sequence[str]] = [
        (
            "SESSION",
            "CLIENT",
            "USER",
            "PROTOCOL",
            "STATE",
            "DESTINATION",
            "RULE",
            "AGE",
            "UP",
            "DOWN",
        )
    ]
    rows += [session_row(session) for session in answer["sessions"]]
    more = answer["count"] - len(answer["sessions"])
    return table(rows) + (f"and {more} more; --limit says how many are shown\n" if more else "")


def session_row(session: dict[str, Any]) -> tuple[str, ...]:
    """Write one session of /v1/sessions, a cell for each column."""
    command, destination = session["command"], session["destination"]
    where = destination if command in (None, "connect") else f"{command} {destination}"
    return (
        str(session["session"]),
        session["client"],
        "-" if session["user"] is None else session["user"],
        session.get("protocol") or "-",
        session["state"],
        where or "-",
        session["rule"] or "-",
        age(session["seconds"]),
        octets(session["up"]),
        octets(session["down"]),
    )


def killed(answer: dict[str, Any]) -> str:
    """Write what /v1/kill answers."""
    return f"{answer['killed']} sessions ended\n"


def restarted(answer: dict[str, Any]) -> str:
    """Write what /v1/restart-workers answers."""
    return f"{answer['restarted']} workers restarted\n"


def config(answer: dict[str, Any]) -> str:
    """Write the configuration that /v1/config answers."""
    return json.dumps(answer["config"], indent=2) + "\n"


def octets(number: float) -> str:
    """Write a number of octets in three digits or so."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            decimals = 1 if unit != "B" and number < 100 else 0
            return f"{number:.{decimals}f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age(seconds: float) -> str:
    """Write a duration by its two greatest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def missing(answer: Mapping[str, Any]) -> list[str]:
    """Give the lines that say which workers an answer is without."""
    return [f"worker {number} does not answer" for number in answer.get("missing", ())]


def problems(answer: dict[str, Any]) -> list[str]:
    """Give the lines that say why the server has refused."""
    found = [
        f"{problem['path']}: {problem['message']}" if problem["path"] else problem["message"]
        for problem in answer.get("problems", ())
    ]
    return [shown(line) for line in found or [answer.get("error", "no reason given")]]


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns with two blanks between them."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join(lines) + "\n"


def shown(text: str) -> str:
    """Keep what a client may choose, as its user name, from steering the terminal."""
    return text if text.isprintable() else json.dumps(text)
