"""How clients prove who they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthType, makeChecker

from socksd.app.config import Config, Gssapi
from socksd.app.making.attempts import attempt
from socksd.app.making.lasting import IReactor
from socksd.app.making.parts import Parts
from socksd.app.service import Part
from socksd.errors import ConfigError, Problem
from socksd.identity.portal import Authenticator
from socksd.identity.threads import LoginThreads

if TYPE_CHECKING:
    from socksd.identity.gssapi import Acceptor


def authenticator_of(
    config: Config, parts: Parts, reactor: IReactor, problems: list[Problem]
) -> Authenticator | None:
    """Make what verifies logins, in any case: that finds what is wrong with password files now."""
    threads: LoginThreads = parts.take(
        ("login threads", config.auth.threads), partial(_threads, config, reactor)
    )
    acceptor = None
    if config.gssapi != Gssapi():
        # Threads of their own: a keytab on a file system that has gone holds no password up.
        tickets: LoginThreads = parts.take(
            ("ticket threads", config.auth.threads), partial(_threads, config, reactor)
        )
        acceptor = _acceptor(config.gssapi, tickets, problems)
    checkers = [
        attempt(partial(_checker, description), f"auth.authenticators[{index}]", problems)
        for index, description in enumerate(config.auth.authenticators)
    ]
    return attempt(
        lambda: Authenticator(
            [checker for checker in checkers if checker is not None],
            threads,
            reactor,
            acceptor=acceptor,
            anonymous=config.auth.anonymous,
            cache_seconds=config.auth.cache,
        ),
        "auth.authenticators",
        problems,
    )


def _checker(description: str) -> ICredentialsChecker:
    kind = description.partition(":")[0]
    try:
        checker: ICredentialsChecker = makeChecker(description)
    except InvalidAuthType:
        raise ValueError(
            f"no authenticator {kind!r}; twistd socks5 --help-auth lists them"
        ) from None
    except ConfigError:
        raise
    except Exception as error:  # a checker plugin raises what it likes
        raise ValueError(f"{kind}: {error}") from error
    return checker


def _threads(config: Config, reactor: IReactor) -> Part:
    threads = LoginThreads(reactor, config.auth.threads)
    return Part(threads.start, threads.stop, threads)


def _acceptor(gssapi: Gssapi, threads: LoginThreads, problems: list[Problem]) -> Acceptor | None:
    if not gssapi.keytab:
        problems.append(Problem("gssapi.keytab", "is missing: the file with the service's key"))
    if not gssapi.realms:
        problems.append(Problem("gssapi.realms", "is missing: the realms whose users may log in"))
    elif len(gssapi.realms) > 1 and not gssapi.user:
        message = (
            '"short" would make one user of alice in one realm and alice in the other;'
            ' write user = "principal"'
        )
        problems.append(Problem("gssapi.user", message))
    try:
        from socksd.identity.gssapi import Acceptor, Mapping
    except ImportError as error:
        message = f"needs the Python package gssapi: pip install 'socksd[gssapi]' ({error})"
        problems.append(Problem("gssapi", message))
        return None
    if not gssapi.keytab:
        return None
    mapping = Mapping(gssapi.realms, whole=gssapi.user)
    return attempt(
        lambda: Acceptor(gssapi.keytab, gssapi.service, mapping, gssapi.protection, threads),
        "gssapi.keytab",
        problems,
    )
