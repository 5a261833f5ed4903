"""Commands that ask the running server: ``socksd reload`` and its kin."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from socksd.admin import tables
from socksd.admin.client import Unreachable, ask
from socksd.app.config import duration

REFUSED: Final = 1  # the server will not, and has said why; 2 is argparse's
UNREACHABLE: Final = 3
DEFAULT_SOCKET: Final = "/run/socksd/control.sock"


def add_commands(commands: Any) -> None:
    """Add the commands to the parser's."""
    reload = _add(
        commands,
        "reload",
        "have the server load its configuration again; what is wrong changes nothing",
        ("POST", "/v1/reload"),
        tables.reloaded,
    )
    reload.add_argument(
        "--confirm",
        metavar="TIME",
        type=_duration,
        help='roll back by itself after this time ("5m") unless "socksd confirm" comes',
    )
    _add(
        commands,
        "confirm",
        "keep the configuration that was loaded with --confirm",
        ("POST", "/v1/confirm"),
        lambda _: "confirmed\n",
    )
    _add(commands, "status", "say what runs", ("GET", "/v1/status"), tables.status)
    _add(commands, "rules", "say how often each rule decides", ("GET", "/v1/rules"), tables.rules)
    _add(
        commands,
        "leaks",
        "say which clients send addresses, so that rules about names do not find them",
        ("GET", "/v1/leaks"),
        tables.leaks,
    )


def _add(
    commands: Any,
    name: str,
    what: str,
    request: tuple[str, str],
    written: Callable[[dict[str, Any]], str],
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="find the socket in this configuration")
    where.add_argument("--socket", metavar="PATH", help=f"default: {DEFAULT_SOCKET}")
    parser.add_argument("--json", action="store_true", help="write what the server answers")
    parser.set_defaults(do=lambda parsed: _ask(parsed, *request, written))
    return parser


def _ask(
    parsed: argparse.Namespace, method: str, path: str, written: Callable[[dict[str, Any]], str]
) -> None:
    """
    Ask the server, and write its answer.

    Raises:
        SystemExit: There is none, or it will not.
    """
    confirm = getattr(parsed, "confirm", None)
    body = {"confirm": confirm} if confirm is not None else None
    try:
        socket = parsed.socket or (socket_of(parsed.config) if parsed.config else DEFAULT_SOCKET)
        status, answer = ask(socket, method, path, body)
    except Unreachable as error:
        print(f"socksd: {error}", file=sys.stderr)
        raise SystemExit(UNREACHABLE) from error
    if parsed.json:
        print(json.dumps(answer))
    elif status == 200:
        print(written(answer), end="")
    else:
        for line in tables.problems(answer):
            print(f"socksd: {line}", file=sys.stderr)
    if status != 200:
        raise SystemExit(REFUSED)


def socket_of(config: str) -> str:
    """
    Find the control socket that a configuration names, whatever else is wrong with it.

    Raises:
        Unreachable: It names none, or cannot be read.
    """
    try:
        tables = tomllib.loads(Path(config).read_text("utf-8"))
    except OSError as error:
        raise Unreachable(f"cannot read {config}: {error.strerror}") from error
    except ValueError as error:  # TOML that is none, or not UTF-8
        raise Unreachable(f"cannot read {config}: {error}; use --socket") from error
    control = tables.get("control")
    path = control.get("socket") if isinstance(control, dict) else None
    if not isinstance(path, str) or not path:
        raise Unreachable(f"{config} names no [control] socket")
    return path


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
