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
from socksd.app import drain, top
from socksd.app.config import duration
from socksd.app.live import ORDERS, USUAL

REFUSED: Final = 1  # the server will not, and has said why; 2 is argparse's
UNREACHABLE: Final = 3
DEFAULT_SOCKET: Final = "/run/socksd/control.sock"
# What a command line may say that is a key of the body, by the same name.
_SAID: Final = (
    *("confirm", "session", "client", "user", "rule", "listener", "to", "state"),
    *("sort", "limit", "seconds"),
)


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
    sessions = _add(
        commands, "sessions", "list live sessions", ("GET", "/v1/sessions"), tables.sessions
    )
    _add_choice(sessions)
    sessions.add_argument(
        "--sort",
        metavar="KEY",
        help=f"{', '.join(ORDERS)}; --sort=-KEY for the greatest first (default: session)",
    )
    sessions.add_argument("--limit", metavar="N", type=int, help=f"default: {USUAL}")
    kill = _add(commands, "kill", "end live sessions", ("POST", "/v1/kill"), tables.killed)
    kill.add_argument("session", metavar="SESSION", type=int, nargs="*", help="by their numbers")
    _add_choice(kill)
    _add(
        commands,
        "config",
        "write the configuration in force, as JSON, without secrets",
        ("GET", "/v1/config"),
        tables.config,
    )
    _add(
        commands,
        "restart-workers",
        "replace the worker processes one by one; nobody is refused",
        ("POST", "/v1/restart-workers"),
        tables.restarted,
    )
    draining = _add(
        commands,
        "drain",
        "have the server let nobody in, let its sessions end, and then end itself",
        ("POST", "/v1/drain"),
        lambda _: "",
    )
    draining.add_argument(
        "--within",
        metavar="TIME",
        type=_duration,
        dest="seconds",
        help='how long sessions may take to end ("5m"; default: [server] drain)',
    )
    draining.set_defaults(do=_drain)
    top.add_to(commands, add_socket_options)
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
    add_socket_options(parser)
    parser.add_argument("--json", action="store_true", help="write what the server answers")
    parser.set_defaults(do=lambda parsed: _ask(parsed, *request, written))
    return parser


def add_socket_options(parser: argparse.ArgumentParser) -> None:
    """Let the command line say which server is asked; see socket_named()."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", metavar="FILE", help="find the socket in this configuration")
    where.add_argument("--socket", metavar="PATH", help=f"default: {DEFAULT_SOCKET}")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client", metavar="NETWORK", help="whose client is there")
    parser.add_argument("--user", help='who have logged in as this; "@none": without login')
    parser.add_argument("--rule", metavar="ID", help="which this rule has decided")
    parser.add_argument("--listener", metavar="NAME", help="that came in there")
    parser.add_argument("--to", metavar="HOST", help="a name, .suffix or address asked for")
    parser.add_argument("--state", help="as relaying, or connecting")


def _ask(
    parsed: argparse.Namespace, method: str, path: str, written: Callable[[dict[str, Any]], str]
) -> None:
    """
    Ask the server, and write its answer.

    Raises:
        SystemExit: There is none, or it will not.
    """
    given = ((key, getattr(parsed, key, None)) for key in _SAID)
    body = {key: value for key, value in given if value not in (None, [])}
    try:
        status, answer = ask(socket_named(parsed), method, path, body or None)
    except Unreachable as error:
        print(f"socksd: {error}", file=sys.stderr)
        raise SystemExit(UNREACHABLE) from error
    if parsed.json:
        print(json.dumps(answer))
    elif status == 200:
        print(written(answer), end="")
        for line in tables.missing(answer):
            print(f"socksd: {line}", file=sys.stderr)
    else:
        for line in tables.problems(answer):
            print(f"socksd: {line}", file=sys.stderr)
    if status != 200:
        raise SystemExit(REFUSED)


def _drain(parsed: argparse.Namespace) -> None:
    _ask(parsed, "POST", "/v1/drain", lambda _: "")  # what follows says it
    if not parsed.json:
        drain.follow(socket_named(parsed))


def socket_named(parsed: argparse.Namespace) -> str:
    """
    Find the control socket that the command line means.

    Raises:
        Unreachable: See socket_of().
    """
    return parsed.socket or (socket_of(parsed.config) if parsed.config else DEFAULT_SOCKET)


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
