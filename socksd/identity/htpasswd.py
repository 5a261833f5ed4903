"""
The htpasswd file: a line ``user:hash`` for each user, hashed with bcrypt.

Nothing weaker is read. What Apache's ``htpasswd`` writes without ``-B`` falls
to a graphics card in hours, and a gateway's password opens a network.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import stat
import tempfile
from contextlib import suppress

import bcrypt

from socksd.errors import ConfigError, Problem

# 57 ms on one core. 12 would take 226 ms, and a login has to be done within
# 100 ms beside somebody who tries passwords; `htpasswd -B` uses 5.
COST = 10
# 2 s. A login has 10 s, and a stopping service waits for the ones in hand.
HIGHEST_COST = 15
LONGEST_PASSWORD = 72  # octets; bcrypt ignores what follows
LONGEST_NAME = 255  # octets; ULEN, RFC 1929 section 2

# 22 characters of salt, the last with its four low bits clear; 31 of digest.
_BCRYPT = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_OTHER_FORMATS = (
    (re.compile(rb"\$apr1\$|\$1\$"), "an MD5 hash"),
    (re.compile(rb"\{SHA\}"), "an unsalted SHA-1 hash"),
    (re.compile(rb"\$[56]\$"), "a SHA-crypt hash"),
    (re.compile(rb"\$2"), "a damaged bcrypt hash"),
    (re.compile(rb"[./A-Za-z0-9]{13}\Z"), "a DES crypt hash"),
)


def parse(octets: bytes, path: str) -> dict[bytes, bytes]:
    """
    Read the users and their hashes, in the file's order.

    Args:
        octets: The whole file; lines that begin with # or are blank count for
            nothing.
        path: For the messages.

    Raises:
        ConfigError: All that is wrong in it, by file and line. No hash, nor
            what may be a plain password, is ever in a message.
    """
    users: dict[bytes, bytes] = {}
    lines: dict[bytes, int] = {}
    problems: list[Problem] = []
    for number, line in enumerate(octets.splitlines(), 1):
        if _is_comment(line):
            continue
        name, colon, hashed = line.partition(b":")
        if not colon:
            message: str | None = "a line is user:hash, and this has no colon"
        elif name in lines:
            message = f"user {_shown(name)} is on line {lines[name]} already; remove one of them"
        else:
            lines[name] = number
            message = _wrong_name(name) or _wrong_hash(name, hashed, path)
        if message is None:
            users[name] = hashed
        else:
            problems.append(Problem(f"{path}:{number}", message))
    if problems:
        raise ConfigError(problems)
    return users


def cost_of(hashed: bytes) -> int:
    """Give the cost of a hash that parse() has let pass: the binary logarithm of its rounds."""
    return int(hashed[4:6])


def set_password(
    path: str | os.PathLike[str], user: str, password: str, *, cost: int = COST
) -> None:
    """
    Give *user* a password in an htpasswd file; make the file if there is none.

    The file is replaced in one step and keeps its mode and, as far as we may,
    its owner; a new one is for its owner only. Other lines, the order and the
    comments stay as they are, also those that parse() would refuse: this is
    how they are put right, one user at a time.

    Raises:
        ConfigError: A name or a password that could never log in.
        OSError: The file cannot be read or replaced.
    """
    name = user.encode("utf-8", "surrogateescape")
    octets = password.encode("utf-8", "surrogateescape")
    if message := _wrong_name(name) or _wrong_password(octets):
        raise ConfigError([Problem("", message)])
    # $2y$ and $2b$ are one algorithm; older htpasswd(1) knows only $2y$.
    hashed = bcrypt.hashpw(octets, bcrypt.gensalt(cost)).replace(b"$2b$", b"$2y$", 1)

    path = os.path.realpath(path)  # replace the file, not a link to it
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # two at once would lose one's change
        _replace(path, name, name + b":" + hashed)
        os.fsync(directory)
    finally:
        os.close(directory)


def _replace(path: str, name: bytes, entry: bytes) -> None:
    """Put *entry* in the place of the lines of *name*, in a new file that becomes *path*."""
    try:
        with open(path, "rb") as old:
            content, status = old.read(), os.fstat(old.fileno())
    except FileNotFoundError:
        content, status = b"", None
    descriptor, new_path = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".htpasswd-")
    try:
        with open(descriptor, "wb") as new:
            if status is not None:
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(new.fileno(), status.st_uid, status.st_gid)
                os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
            new.write(_with_entry(content, name, entry))
            new.flush()
            os.fsync(new.fileno())
        os.replace(new_path, path)
    except BaseException:
        os.unlink(new_path)
        raise


def _with_entry(content: bytes, name: bytes, entry: bytes) -> bytes:
    lines: list[bytes] = []
    placed = False
    for line in content.splitlines():
        if _is_comment(line) or line.partition(b":")[0] != name:
            lines.append(line)
        elif not placed:
            lines.append(entry)
            placed = True
    if not placed:
        lines.append(entry)
    return b"".join(line + b"\n" for line in lines)


def _is_comment(line: bytes) -> bool:
    return not line.strip() or line.lstrip().startswith(b"#")


def _wrong_name(name: bytes) -> str | None:
    if not name:
        return "the user name is empty"
    if len(name) > LONGEST_NAME:
        return f"a user name of {len(name)} octets; {LONGEST_NAME} is the longest"
    if b":" in name or _CONTROL.search(name):
        return f"user name {_shown(name)} has a colon or a control character in it"
    if name != name.strip() or name.startswith(b"#"):
        return f"user name {_shown(name)} begins or ends with a blank, or begins with #"
    return None


def _wrong_password(password: bytes) -> str | None:
    if not password:
        return "the password is empty"
    if len(password) > LONGEST_PASSWORD:
        return f"a password of {len(password)} octets; bcrypt takes {LONGEST_PASSWORD}"
    if b"\0" in password:
        return "the password has a NUL in it"
    return None


def _wrong_hash(name: bytes, hashed: bytes, path: str) -> str | None:
    if match := _BCRYPT.fullmatch(hashed):
        if 4 <= int(match[1]) <= HIGHEST_COST:
            return None
        found = f"a bcrypt hash of cost {int(match[1])}, not 4 to {HIGHEST_COST}"
    else:
        found = "no bcrypt hash"
        for pattern, format_name in _OTHER_FORMATS:
            if pattern.match(hashed):
                found = f"{format_name}, not bcrypt"
                break
    arguments = shlex.join([path, name.decode("utf-8", "backslashreplace")])
    return (
        f"user {_shown(name)} has {found}; set it anew with"
        f" `socksd passwd {arguments}` or `htpasswd -B {arguments}`"
    )


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
