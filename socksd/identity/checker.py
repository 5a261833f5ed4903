"""The checker of an htpasswd file."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable

import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from socksd.errors import ConfigError, Problem
from socksd.identity import htpasswd
from socksd.identity.credentials import IThreadedUsernamePassword, IVersioned

LOOK_SECONDS = 1.0

# What os.stat() says changes whenever the file does; ctime shows even a
# content put back under an old mtime.
Stamp = tuple[int, int, int, int, int]


@implementer(ICredentialsChecker, IVersioned)
class HtpasswdChecker:
    """
    Verifies users against an htpasswd file, which may change at any time.

    A new version of the file counts from the first login after it, at most a
    second later. One that cannot be used is logged once, and the last good
    version stays in force.

    A login costs one bcrypt verification whatever is wrong with it, so that
    its time does not tell which users there are.
    """

    credentialInterfaces = (IUsernamePassword,)
    _log = Logger()

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        """
        Read the file.

        Args:
            path: Made absolute here, for twistd changes its directory later.
            now: The time in seconds on a clock that never goes back.

        Raises:
            ConfigError: The file cannot be read, or not all of it be used.
        """
        self._path = os.path.abspath(path)
        self._now = now
        self._looked = now()
        self._version = 0
        self._secret = secrets.token_bytes(32)
        self._trouble: str | None = None  # with the file as it is now, as logged
        try:
            self._stamp = self._look()
            self._use(htpasswd.parse(self._read(), self._path))
        except OSError as error:
            raise ConfigError([Problem(self._path, error.strerror or str(error))]) from error

    def version(self) -> int:
        """Give a number that changes when the file has; looks at most once a second."""
        if self._now() - self._looked >= LOOK_SECONDS:
            self._looked = self._now()
            self._reread()
        return self._version

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Verify a login; UnauthorizedLogin alike for no such user and a wrong password."""
        self.version()  # reads the file again if it has changed
        username, password = credentials.username, credentials.password
        hashed = self._users.get(username)
        # bcrypt refuses longer passwords; and it goes round and round the
        # password with a NUL behind it, so that to it "secret" NUL "secret" is
        # "secret". None of these may pass, but all are to take their time.
        possible = 0 < len(password) <= htpasswd.LONGEST_PASSWORD and b"\0" not in password
        tried = password[: htpasswd.LONGEST_PASSWORD]
        against = self._nobody(username) if hashed is None else hashed

        def verify() -> bool:
            return bcrypt.checkpw(tried, against)

        def decide(matches: bool) -> bytes | tuple[()]:
            if matches and possible and hashed is not None:
                return username
            raise UnauthorizedLogin

        if IThreadedUsernamePassword.providedBy(credentials):
            matches = credentials.in_thread(verify)
        else:  # another program than ours, by --auth htpasswd:FILE
            matches = deferToThread(verify)
        return matches.addCallback(decide)

    def _nobody(self, username: bytes) -> bytes:
        """
        Give a hash that no password has, for a user that does not exist.

        Where the file's hashes differ in cost, so do these, in proportion and
        always the same for a name: an unknown user is like any other.
        """
        digest = hmac.digest(self._secret, username, "sha256")
        cost = self._costs[int.from_bytes(digest, "big") % len(self._costs)]
        return b"$2b$%02d$" % cost + b"." * 53

    def _look(self) -> Stamp:
        status = os.stat(self._path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            raise ConfigError([Problem(self._path, "not a regular file")])
        return (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def _read(self) -> bytes:
        with open(self._path, "rb") as file:
            return file.read()

    def _use(self, users: dict[bytes, bytes]) -> None:
        self._users = users
        self._costs = [htpasswd.cost_of(hashed) for hashed in users.values()] or [htpasswd.COST]
        self._version += 1

    def _reread(self) -> None:
        try:
            # Looked at before it is read: what is written meanwhile is seen next time.
            stamp = self._look()
            if stamp != self._stamp:
                octets = self._read()
                self._stamp = stamp  # a broken version is parsed once
                self._use(htpasswd.parse(octets, self._path))
                self._log.info(
                    "{path} has changed: {count} users", path=self._path, count=len(self._users)
                )
            self._trouble = None
        except OSError as error:  # perhaps a passing one: look again, but say it once
            self._keep(f"{self._path}: {error.strerror or error}")
        except ConfigError as error:
            self._keep(str(error))

    def _keep(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.warn(
                "{path} has changed and cannot be used; its last good version stays in force."
                " {trouble}",
                path=self._path,
                trouble=trouble,
            )
