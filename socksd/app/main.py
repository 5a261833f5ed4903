"""The ``socksd`` command: run the service, ask about a configuration, keep a password file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from getpass import getpass

import socksd
from socksd.app import check, explain
from socksd.errors import SocksdError


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Do what the command line says.

    Raises:
        SystemExit: With status 0; or with what is wrong, in one line for each
            problem, and status 1 (2 for the command line itself).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:  # its options are twistd's and ours, not argparse's
        run(words[1:])
        return
    parser = argparse.ArgumentParser(prog="socksd", description=socksd.__doc__)
    parser.add_argument("--version", action="version", version=f"socksd {socksd.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands.add_parser(
        "run",
        add_help=False,
        help="serve, in the foreground; the options are those of twistd socks5 (run --help)",
    )
    check.add_to(commands)
    explain.add_to(commands)
    keeping = commands.add_parser(
        "passwd", help="set a user's password in an htpasswd file (bcrypt)"
    )
    keeping.add_argument("file", metavar="FILE", help="created where it does not exist")
    keeping.add_argument("user", metavar="USER")
    keeping.set_defaults(do=lambda parsed: passwd(parsed.file, parsed.user))
    parsed = parser.parse_args(words)
    parsed.do(parsed)


def run(arguments: Sequence[str]) -> None:
    """Serve, exactly as ``twistd --nodaemon --pidfile= socks5`` does."""
    from twisted.scripts import twistd

    sys.argv[1:] = ["--nodaemon", "--pidfile=", "socks5", *arguments]
    twistd.run()


def passwd(file: str, user: str) -> None:
    """
    Set a user's password, asked for twice at a terminal or read from standard input.

    Raises:
        SystemExit: It cannot be set, and why.
    """
    from socksd.identity.htpasswd import set_password

    if sys.stdin.isatty():
        password = getpass(f"Password for {user}: ")
        if getpass("The same again: ") != password:
            raise SystemExit("socksd: the passwords differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        set_password(file, user, password)
    except (OSError, SocksdError) as error:
        raise SystemExit(f"socksd: {error}") from error
