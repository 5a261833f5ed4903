"""
``socksd completion``: what a shell completes, made of the very definitions of the options.

The scripts that are shipped are what this writes; a test compares them.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from socksd.admin.client import Unreachable, ask

NOTHING: Final = ""  # a flag
TEXT: Final = "text"  # something that nobody can guess
FILE: Final = "file"
_FILES: Final = {"FILE", "CONFIG", "PATH", "NEW", "OLD"}  # as metavars call them
SECONDS: Final = 1.0  # that a running server has to answer: somebody waits at a prompt

# What a running server knows, by the name that options and operands have for it.
LIVE: Final[dict[str, tuple[str, Callable[[Any], Iterable[object]]]]] = {
    "rule": ("/v1/rules", lambda answer: (each["id"] for each in answer["rules"])),
    "listener": ("/v1/status", lambda answer: (each["name"] for each in answer["listeners"])),
    "session": ("/v1/sessions", lambda answer: (each["session"] for each in answer["sessions"])),
}


@dataclass(frozen=True, slots=True)
class Argument:
    """
    An option, or an operand.

    Attributes:
        flags: As ``-c`` and ``--config``; none for an operand.
        kind: ``NOTHING``, ``TEXT``, ``FILE``, a key of ``LIVE``, or words with
            blanks between them.
    """

    flags: tuple[str, ...]
    kind: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """One of the commands."""

    name: str
    help: str
    arguments: tuple[Argument, ...]

    def operands(self) -> list[Argument]:
        """Give what is told by its position; all that are left are like the last."""
        return [each for each in self.arguments if not each.flags]

    def options(self) -> list[Argument]:
        """Give what begins with a dash."""
        return [each for each in self.arguments if each.flags]


def add_to(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Add the command to the parser's, the *whole* of which is what it completes."""
    from socksd.app.remote import add_socket_options

    what = "write what makes a shell complete our options"
    parser = commands.add_parser("completion", help=what, description=what)
    add_socket_options(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("shell", nargs="?", choices=sorted(SCRIPTS))
    which.add_argument(
        "--live", choices=sorted(LIVE), help="list what the running server has of these"
    )
    parser.set_defaults(do=lambda parsed: run(whole, parsed))


def run(whole: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Write a script, or what a running server knows; without one nothing."""
    if parsed.live is None:
        print(SCRIPTS[parsed.shell](tuple(commands_of(whole))), end="")
        return
    from socksd.app.remote import socket_named

    path, values = LIVE[parsed.live]
    try:
        status, answer = ask(socket_named(parsed), "GET", path, seconds=SECONDS)
    except Unreachable:
        return
    if status == 200:
        for value in values(answer):
            print(value)


def commands_of(whole: argparse.ArgumentParser) -> Iterator[Command]:
    """Give the commands of a parser, those of ``run`` included, whose options are twistd's."""
    for action in whole._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for choice in action._choices_actions:
            name, parser = choice.dest, action.choices[choice.dest]
            arguments = _run() if name == "run" else _arguments(parser)
            yield Command(name, choice.help or "", tuple(arguments))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    asks = any(action.dest == "socket" for action in parser._actions)
    for action in parser._actions:
        if action.choices is not None:
            kind = " ".join(map(str, action.choices))
        elif action.nargs == 0:
            kind = NOTHING
        elif asks and action.dest in LIVE:
            kind = action.dest
        else:
            kind = FILE if action.metavar in _FILES or action.dest == "file" else TEXT
        yield Argument(tuple(action.option_strings), kind, action.help or "")


def _run() -> Iterator[Argument]:
    from socksd.app.tap import Options

    options: Any = Options()
    for long in options.longOpt:
        name, takes = long.rstrip("="), long.endswith("=")
        short = [
            f"-{key}" for key, value in options.synonyms.items() if (len(key), value) == (1, name)
        ]
        said = options.docs.get(name) or getattr(options, f"opt_{name.replace('-', '_')}").__doc__
        kind = NOTHING if not takes else FILE if name == "config" else TEXT
        yield Argument((*short, f"--{name}"), kind, " ".join(said.split()))


def bash(commands: Iterable[Command]) -> str:
    """Write the script for bash."""
    commands = tuple(commands)
    after: dict[str, list[str]] = {}
    for command in commands:
        for option in command.options():
            if option.kind != NOTHING:
                patterns = [f"'{command.name} {flag}'" for flag in option.flags]
                after.setdefault(option.kind, []).extend(patterns)
    values = "".join(
        f"        {' | '.join(patterns)}) {_bash_kind(kind)}; return ;;\n"
        for kind, patterns in after.items()
    )
    words = "".join(
        f"        {command.name}) _socksd_words {_flags(command)} ;;\n" for command in commands
    )
    operands = "".join(
        f"        {command.name}) {_bash_kind(command.operands()[0].kind)} ;;\n"
        for command in commands
        if command.operands() and command.operands()[0].kind != TEXT
    )
    return _BASH.format(
        commands=" ".join(command.name for command in commands),
        values=values,
        words=words,
        operands=operands,
    )


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options() for flag in option.flags)


def _bash_kind(kind: str) -> str:
    if kind == TEXT:
        return ":"
    if kind == FILE:
        return "_socksd_files"
    return f"_socksd_live {kind}" if kind in LIVE else f"_socksd_words {kind}"


_BASH: Final = """\
# Completion of socksd for bash, as "socksd completion bash" writes it.

_socksd_words() {{
    local word
    for word; do
        if [[ $word == "$current"* ]]; then COMPREPLY+=("$word"); fi
    done
}}

_socksd_files() {{
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
}}

_socksd_live() {{
    local -a found
    mapfile -t found < <("${{COMP_WORDS[0]}}" completion --live "$1" "${{server[@]}}" 2>/dev/null)
    _socksd_words "${{found[@]}}"
}}

_socksd() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command='' word at
    local -a server=()
    # "=" is a word of its own here.
    if [[ $current == = ]]; then current=''; fi
    if [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${{COMP_WORDS[at]}}
        case $word in
        --config | --socket) server=("$word" "${{COMP_WORDS[at + 1]}}") ;;
        -*) ;;
        *) command=${{command:-$word}} ;;
        esac
    done
    COMPREPLY=()
    case "$command $previous" in
{values}    esac
    if [[ $current == -* ]]; then
        case $command in
        '') _socksd_words --help --version ;;
{words}        esac
        return
    fi
    case $command in
        '') _socksd_words {commands} ;;
{operands}    esac
}}

complete -F _socksd socksd
"""


def zsh(commands: Iterable[Command]) -> str:
    """Write the script for zsh."""
    commands = tuple(commands)
    described = "".join(
        f"      {shlex.quote(command.name + ':' + command.help)}\n" for command in commands
    )
    arguments = "".join(
        f"      {command.name})\n        _arguments -S \\\n"
        + " \\\n".join(f"          {line}" for line in _zsh_arguments(command))
        + "\n        ;;\n"
        for command in commands
    )
    return _ZSH.format(described=described, arguments=arguments)


def _zsh_arguments(command: Command) -> Iterator[str]:
    for option in command.options():
        value = "" if option.kind == NOTHING else f":value:{_zsh_kind(option.kind)}"
        for flag in option.flags:
            equals = "=" if value and flag.startswith("--") else ""
            told = "".join(f"\\{each}" if each in "[]:\\" else each for each in option.help)
            yield shlex.quote(f"*{flag}{equals}[{told}]{value}")
    operands = command.operands()
    for operand in operands[:-1]:
        yield shlex.quote(f":value:{_zsh_kind(operand.kind)}")
    for operand in operands[-1:]:
        yield shlex.quote(f"*:value:{_zsh_kind(operand.kind)}")


def _zsh_kind(kind: str) -> str:
    if kind in (TEXT, NOTHING):
        return " "
    if kind == FILE:
        return "_files"
    # The blank keeps _arguments from putting arguments of its own before ours.
    return f" _socksd_live {kind}" if kind in LIVE else f"({kind})"


_ZSH: Final = """\
#compdef socksd
# Completion of socksd for zsh, as "socksd completion zsh" writes it.

_socksd_live() {{
  local -a found server
  local option
  for option in --socket --config; do
    if (( ${{+opt_args[$option]}} )); then server=($option ${{(Q)opt_args[$option]}}); fi
  done
  found=(${{(f)"$(_call_program values $socksd completion --live $1 $server 2>/dev/null)"}})
  compadd -a found
}}

_socksd() {{
  local context state line socksd=$words[1]
  typeset -A opt_args
  local -a commands
  _arguments -C '(- *)--help[show what there is]' '(- *)--version[print the version]' \\
    '1: :->command' '*:: :->arguments'
  case $state in
  command)
    commands=(
{described}    )
    _describe command commands
    ;;
  arguments)
    case $words[1] in
{arguments}    esac
    ;;
  esac
}}

_socksd "$@"
"""


def fish(commands: Iterable[Command]) -> str:
    """Write the script for fish."""
    lines = [_FISH]
    for command in commands:
        lines.append(
            f"complete -c socksd -n __fish_use_subcommand -a {command.name}"
            f" -d {_fish_quoted(command.help)}\n"
        )
        where = f"complete -c socksd -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options():
            flags = "".join(
                f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}"
                for flag in option.flags
            )
            lines.append(
                f"{where}{flags}{_fish_kind(option.kind)} -d {_fish_quoted(option.help)}\n"
            )
        for kind, _ in groupby(operand.kind for operand in command.operands()):
            if kind != TEXT:
                lines.append(f"{where}{_fish_kind(kind).replace(' -x', '').replace(' -r', '')}\n")
    return "".join(lines)


def _fish_kind(kind: str) -> str:
    if kind == NOTHING:
        return ""
    if kind == FILE:
        return " -r -F"
    if kind == TEXT:
        return " -x"
    return f" -x -a '(__socksd_live {kind})'" if kind in LIVE else f" -x -a '{kind}'"


def _fish_quoted(text: str) -> str:
    """Quote as fish does, in which only these two are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH: Final = """\
# Completion of socksd for fish, as "socksd completion fish" writes it.

function __socksd_live
    set -l words (commandline -opc)
    set -l server
    for at in (seq (count $words))
        if contains -- $words[$at] --socket --config
            set server $words[$at] $words[(math $at + 1)]
        end
    end
    $words[1] completion --live $argv[1] $server 2>/dev/null
end

complete -c socksd -f
complete -c socksd -n __fish_use_subcommand -l help -d 'show what there is'
complete -c socksd -n __fish_use_subcommand -l version -d 'print the version'
"""

SCRIPTS: Final = {"bash": bash, "fish": fish, "zsh": zsh}
