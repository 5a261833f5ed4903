"""The authenticator: a twisted.cred portal, and what makes it bearable to ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from zope.interface import Interface, implementer

from socksd.address import IPAddress
from socksd.codes import Method
from socksd.errors import ConfigError, LoginFailed, Problem
from socksd.facts import ANONYMOUS, Principal
from socksd.identity.cache import VerifiedLogins
from socksd.identity.credentials import IVersioned, Login
from socksd.identity.threads import LoginThreads, Source, source_of
from socksd.interfaces import IAuthenticator, IPrincipal, ISecurityContext

if TYPE_CHECKING:
    from socksd.identity.gssapi import Acceptor

WRONG = "wrong user name or password"  # which of the two, nobody is told
BROKEN = "the authenticator failed"  # the log has its traceback

AvatarId = bytes | tuple[()]  # as cred has it; checkers of others answer with str as well


@implementer(ICredentialsChecker)
class Chain:
    """
    Asks checkers in order until one knows the login.

    Portal.registerChecker() keeps only the last checker of an interface. A
    checker that fails in any other way than UnauthorizedLogin ends the
    search: what it would have said is not known.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self._checkers = checkers

    def requestAvatarId(self, credentials: Login) -> Deferred[AvatarId]:
        """Verify a login; fails with UnauthorizedLogin if no checker knows it."""
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Login) -> AvatarId:
        for checker in self._checkers:
            try:
                avatar_id = await maybeDeferred(checker.requestAvatarId, credentials)
            except UnauthorizedLogin:
                continue
            # Many a directory takes an empty password for an anonymous bind,
            # and says yes to whatever name comes with it.
            if credentials.password:
                return avatar_id
        raise UnauthorizedLogin


@implementer(IRealm)
class Realm:
    """Turns what a checker calls a user into a Principal."""

    def requestAvatar(
        self, avatar_id: AvatarId, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """
        Give the principal.

        Raises:
            TypeError: A checker has answered with no name at all, as a broken
                one does that returns ``None``, or an empty one.
        """
        if IPrincipal not in interfaces:
            raise NotImplementedError("only IPrincipal")
        return IPrincipal, _principal(avatar_id), lambda: None


def _principal(avatar_id: object) -> Principal:
    if avatar_id == ():  # cred's own ANONYMOUS
        return ANONYMOUS
    if avatar_id and isinstance(avatar_id, bytes):
        return Principal(avatar_id.decode("utf-8", "surrogateescape"))
    if avatar_id and isinstance(avatar_id, str):
        return Principal(avatar_id)
    raise TypeError(f"a checker gave no name but {type(avatar_id).__name__}")


class _Verification:
    """A login being verified, and all who wait for the same answer."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[Principal]] = []
        self._work: Deferred[Principal] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether anybody still wants to know."""
        return bool(self._waiting)

    def begin(self, work: Deferred[Principal]) -> None:
        """Have all who join told the outcome of *work*, and *work* cancelled when all have left."""
        self._work = work
        work.addBoth(self._ended)

    def join(self) -> Deferred[Principal]:
        """Wait for the outcome; cancelling leaves."""
        waiter: Deferred[Principal] = Deferred(self._leave)
        self._waiting.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[Principal]) -> None:
        self._waiting.remove(waiter)
        if not self._waiting and self._work is not None:
            self._work.cancel()

    def _ended(self, result: Principal | Failure) -> None:
        while self._waiting:
            waiter = self._waiting.pop(0)
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)


@implementer(IAuthenticator)
class Authenticator:
    """
    Who are they? Asks the checkers, each login as seldom as it can.

    A login that has succeeded is taken as verified for *cache_seconds*, and
    the same login from the same source is verified once however many
    connections bring it: a browser opens fifty at a time. Our own checker
    notices a change of its file behind the cache's back; what changes behind
    another one is noticed when the time is up.
    """

    _log = Logger()

    def __init__(
        self,
        checkers: Sequence[ICredentialsChecker],
        threads: LoginThreads,
        clock: IReactorTime,
        *,
        acceptor: Acceptor | None = None,
        anonymous: Sequence[IPv4Network | IPv6Network] = (),
        cache_seconds: float = 300.0,
    ) -> None:
        """
        Set up.

        Args:
            checkers: Asked in this order; without any, and without an
                *acceptor*, nobody logs in and nobody has to.
            threads: For checkers that know IThreadedUsernamePassword; the
                caller starts and stops them.
            clock: For the age of verified logins.
            acceptor: For logins by GSS-API; ``None``: there are none.
            anonymous: Where clients may come from without a login.
            cache_seconds: 0 verifies every login anew.

        Raises:
            ConfigError: A checker that takes no user name and password, so
                would never be asked.
        """
        problems = [
            Problem("", f"{qual(type(checker))} takes no user name and password")
            for checker in checkers
            if not any(i.implementedBy(Login) for i in checker.credentialInterfaces)
        ]
        if problems:
            raise ConfigError(problems)
        self._acceptor = acceptor
        self._logins = (
            *((Method.GSSAPI,) if acceptor is not None else ()),
            *((Method.USERNAME_PASSWORD,) if checkers else ()),
        )
        self._anonymous = tuple(anonymous)
        self._threads = threads
        self._portal = Portal(Realm(), [Chain(checkers)])
        self._versioned = [c for c in checkers if IVersioned.providedBy(c)]
        self._verified = VerifiedLogins(cache_seconds, clock.seconds)
        self._under_way: dict[tuple[Source, bytes], _Verification] = {}

    @property
    def verified(self) -> VerifiedLogins:
        """The logins that are remembered."""
        return self._verified

    def methods(self, client: IPAddress) -> Sequence[Method]:
        """Name the methods that would do for a client at this address, the best first."""
        if not self._logins or any(client in network for network in self._anonymous):
            return (Method.NO_AUTHENTICATION, *self._logins)
        return self._logins

    def security_context(self, client: IPAddress) -> ISecurityContext:
        """Begin GSS-API with a client; see IAuthenticator."""
        if self._acceptor is None:
            raise RuntimeError("GSS-API was not among the methods")
        return self._acceptor.context(client)

    def login(self, username: bytes, password: bytes, client: IPAddress) -> Deferred[Principal]:
        """Verify a user name and a password; see IAuthenticator."""
        versions = [checker.version() for checker in self._versioned]
        key = self._verified.key(username, password, versions)
        principal = self._verified.get(key)
        if principal is not None:
            return succeed(principal)
        # By source, so that nobody's login waits in another's queue.
        place = (source_of(client), key)
        under_way = self._under_way.get(place)
        if under_way is not None and under_way.is_awaited:
            return under_way.join()
        under_way = self._under_way[place] = _Verification()
        waiter = under_way.join()
        credentials = Login(username, password, client, self._threads)
        under_way.begin(Deferred.fromCoroutine(self._verify(credentials, place, under_way)))
        return waiter

    async def _verify(
        self, credentials: Login, place: tuple[Source, bytes], under_way: _Verification
    ) -> Principal:
        try:
            _, avatar, _ = await self._portal.login(credentials, None, IPrincipal)
        except UnauthorizedLogin:
            raise LoginFailed(WRONG) from None
        except LoginFailed:
            raise
        except Exception as error:
            # Whatever a checker comes up with, it is not a yes. With nobody
            # waiting it is our own cancellation, and no news.
            if under_way.is_awaited:
                self._log.failure("A checker has failed; the login is refused")
            raise LoginFailed(BROKEN) from error
        finally:
            if self._under_way.get(place) is under_way:
                del self._under_way[place]
        principal = cast("Principal", avatar)  # our realm has no others
        self._verified.put(place[1], principal)
        return principal
