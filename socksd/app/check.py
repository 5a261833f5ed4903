"""
``socksd check``: all that is wrong with a configuration, and what is probably not meant.

With ``--json`` one object is written, whose shape is stable; new keys may come::

    {"good": true, "tests": 3,
     "problems": [{"path": "rule[3].to[1]", "message": "..."}],
     "warnings": [{"code": "unreachable", "rule": "web", "message": "...", "because": ["all"]}]}
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from socksd.app.build import IReactor, build, lasting
from socksd.app.config import Config
from socksd.app.logged import question_of
from socksd.app.tap import configured
from socksd.errors import ConfigError, Problem
from socksd.facts import Facts
from socksd.policy.lint import Finding, lint

if TYPE_CHECKING:
    from argparse import _SubParsersAction

STRICT = 2  # the status of a configuration with warnings, where that was asked for


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``socksd``."""
    parser = commands.add_parser(
        "check", help="say everything that is wrong with a configuration, and run its tests"
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--log", metavar="FILE", help="an access log: do clients send addresses?")
    parser.add_argument(
        "--strict", action="store_true", help=f"status {STRICT} where there are warnings"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.set_defaults(do=check)


def check(parsed: argparse.Namespace) -> None:
    """
    Check a configuration by the road the server takes, and lint its rules.

    Raises:
        SystemExit: With status 1 and the problems; or with that of warnings.
    """
    try:
        config = _built(parsed.config)
    except ConfigError as error:
        if not parsed.json:
            raise SystemExit("\n".join(f"socksd: {each}" for each in error.problems)) from error
        _write(_object(None, error.problems, ()))
        raise SystemExit(1) from error
    findings: list[Finding] = []
    if config.rule:
        requests = _requests(parsed.log) if parsed.log else ()
        findings = lint(config.policy(), tested=bool(config.test), requests=requests)
    if parsed.json:
        _write(_object(config, (), findings))
    else:
        for finding in findings:
            sys.stdout.write(f"warning: {finding} [{finding.code}]\n")
        sys.stdout.write("socksd: the configuration is good\n")
    if findings and parsed.strict:
        raise SystemExit(STRICT)


def _built(path: str) -> Config:
    """
    Make what would run, and run the tests.

    Raises:
        ConfigError: With all that is wrong.
    """
    from twisted.internet import reactor

    config = configured(path)
    running = cast("IReactor", reactor)
    build(config, running, lasting(running))
    return config


def _requests(log: str) -> Iterator[Facts]:
    """
    Read what was asked for from an access log; lines that are none are left out.

    Raises:
        SystemExit: The file cannot be read.
    """
    try:
        with open(log, encoding="ascii", errors="replace") as lines:
            for line in lines:
                with suppress(ValueError):
                    yield question_of(line).facts
    except OSError as error:
        raise SystemExit(f"socksd: cannot read {log}: {error.strerror}") from error


def _object(
    config: Config | None, problems: tuple[Problem, ...], findings: list[Finding] | tuple[()]
) -> dict[str, Any]:
    return {
        "good": config is not None,
        "tests": len(config.test) if config else 0,
        "problems": [{"path": each.path, "message": each.message} for each in problems],
        "warnings": [
            {
                "code": each.code,
                "rule": each.rule,
                "message": each.message,
                "because": list(each.because),
            }
            for each in findings
        ],
    }


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
