"""The ``socksd`` command: run the service, ask it, ask about a policy, test a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from getpass import getpass

import socksd
from socksd.app import check, completion, explain, propose, remote, replay
from socksd.errors import SocksdError, did_you_mean


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
    parsed = whole_parser().parse_args(words)
    parsed.do(parsed)


def whole_parser() -> argparse.ArgumentParser:
    """Give what reads a command line."""
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
    replay.add_to(commands)
    propose.add_to(commands)
    keeping = commands.add_parser(
        "passwd", help="set a user's password in an htpasswd file (bcrypt)"
    )
    keeping.add_argument("file", metavar="FILE", help="created where it does not exist")
    keeping.add_argument("user", metavar="USER")
    keeping.set_defaults(do=lambda parsed: passwd(parsed.file, parsed.user))
    testing = commands.add_parser(
        "conformance",
        help="test any SOCKS5 server against the RFCs, octet by octet",
        description="Test any SOCKS5 server against RFC 1928, RFC 1929 and RFC 9293. Status: 0 no"
        " failure, 1 failures, 2 it could not be tested.",
    )
    testing.add_argument("server", metavar="HOST:PORT", nargs="?")
    testing.add_argument("--user", metavar="U", help="a user name to log in with")
    testing.add_argument("--pass", metavar="P", dest="password", help="and its password")
    testing.add_argument("--only", metavar="ID", nargs="+", help="run only these cases")
    testing.add_argument(
        "--slow", action="store_true", help="also wait for the server's own deadlines: minutes"
    )
    testing.add_argument("--json", action="store_true", help="print one JSON object instead")
    testing.add_argument("--list", action="store_true", help="say what the cases are, and end")
    testing.set_defaults(do=lambda parsed: conformance(parsed, testing))
    remote.add_commands(commands)
    completion.add_to(commands, parser)
    return parser


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


def conformance(parsed: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """
    Run the conformance kit, and print what came of it.

    Raises:
        SystemExit: With the status that the parser's description names.
    """
    from socksd.conformance import kit, report
    from socksd.conformance.bench import CannotRun, Pace, survey
    from socksd.conformance.case import Verdict

    by_id = {case.id: case for case in kit.CASES}
    for name in parsed.only or ():
        if name not in by_id:
            parser.error(f"there is no case {name!r}{did_you_mean(name, by_id)}")
    named = [by_id[name] for name in parsed.only or ()]
    cases = named or [case for case in kit.CASES if parsed.slow or not case.slow]
    if parsed.list:
        print(report.listing(named or kit.CASES))
        return
    host, _, port = (parsed.server or "").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        parser.error("name a server as HOST:PORT")
    if (parsed.user is None) is not (parsed.password is None):
        parser.error("--user and --pass go together")
    credentials = None
    if parsed.user is not None:
        credentials = (os.fsencode(parsed.user), os.fsencode(parsed.password))
        if not all(0 < len(octets) < 256 for octets in credentials):
            parser.error("--user and --pass are of 1 to 255 octets each")
    try:
        server = survey(host.strip("[]"), int(port), credentials, Pace())
    except CannotRun as error:
        print(f"socksd: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    results = []
    for result in kit.run(server, cases, Pace()):
        results.append(result)
        if not parsed.json:
            print(report.line(result, colour=sys.stdout.isatty()), flush=True)
    if parsed.json:
        print(json.dumps(report.document(parsed.server, results), indent=2))
    else:
        print(report.summary(results))
    raise SystemExit(int(any(result.verdict is Verdict.FAIL for result in results)))
