"""A configuration made into a gateway: the one place that knows every room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint

from socksd.app.config import Config
from socksd.app.endpoints import listening_endpoint
from socksd.app.service import Gateway, Part
from socksd.egress.cache import CachingResolver
from socksd.egress.direct import DirectEgress
from socksd.egress.resolve import IReactorResolving, resolver_from
from socksd.errors import ConfigError, Problem
from socksd.events import Observer
from socksd.identity.portal import Authenticator
from socksd.identity.threads import LoginThreads
from socksd.observe.access import AccessLog
from socksd.observe.fanout import observers
from socksd.observe.log import PeopleLog
from socksd.policy.cases import failures
from socksd.relay.pump import Pump
from socksd.server.door import Door
from socksd.server.protocol import Sessions, SocksFactory
from socksd.server.runtime import Runtime
from socksd.server.states import Deadlines

T = TypeVar("T")


class IReactor(IReactorCore, IReactorResolving):
    """What the rooms together take of the reactor."""


def build(config: Config, reactor: IReactor) -> Gateway:
    """
    Make the gateway that *config* describes; nothing listens or runs yet.

    Raises:
        ConfigError: With all that is wrong and only shows now: endpoints,
            password files, name servers, and the policy's own tests.
    """
    problems: list[Problem] = []
    endpoints = _endpoints(config, reactor, problems)
    threads = LoginThreads(reactor, config.auth.threads)
    authenticator = _authenticator(config, threads, reactor, problems)
    resolver = _resolver(config, reactor, problems)
    policy = config.policy()
    problems += failures(policy, config.test)
    if problems or authenticator is None or resolver is None:
        raise ConfigError(problems)
    people = PeopleLog(reactor)
    parts = [Part(threads.start, threads.stop), Part(stop=resolver.stop), Part(stop=people.close)]
    listening: list[Observer] = [people]
    if config.log.access:
        access = AccessLog(config.log.access, reactor)
        listening.append(access)
        parts.append(Part(access.open, access.close))
    deadlines = config.deadlines
    runtime = Runtime(
        clock=reactor,
        authenticator=authenticator,
        policy=policy,
        resolver=resolver,
        egress=DirectEgress(reactor, deadlines.connect),
        relay=partial(Pump, clock=reactor, idle=deadlines.idle, linger=deadlines.linger),
        observer=observers(*listening),
        deadlines=Deadlines(**attrs.asdict(deadlines)),
        early_data=config.limits.early_data,
    )
    sessions = Sessions(Door(reactor, config.limits.sessions))
    factories = [
        (SocksFactory(listener.name, runtime, sessions), endpoint)
        for listener, endpoint in zip(config.listener, endpoints, strict=True)
    ]
    return Gateway(factories, sessions, parts, reactor)


def _endpoints(
    config: Config, reactor: IReactor, problems: list[Problem]
) -> Sequence[IStreamServerEndpoint]:
    made = [
        _attempt(
            partial(listening_endpoint, reactor, listener.endpoint),
            f"listener[{index}].endpoint",
            problems,
        )
        for index, listener in enumerate(config.listener)
    ]
    return [endpoint for endpoint in made if endpoint is not None]


def _authenticator(
    config: Config, threads: LoginThreads, reactor: IReactor, problems: list[Problem]
) -> Authenticator | None:
    checkers = [
        _attempt(partial(_checker, description), f"auth.authenticators[{index}]", problems)
        for index, description in enumerate(config.auth.authenticators)
    ]
    return _attempt(
        lambda: Authenticator(
            [checker for checker in checkers if checker is not None],
            threads,
            reactor,
            anonymous=config.auth.anonymous,
            cache_seconds=config.auth.cache,
        ),
        "auth.authenticators",
        problems,
    )


def _resolver(config: Config, reactor: IReactor, problems: list[Problem]) -> CachingResolver | None:
    resolver = config.resolver
    return _attempt(
        lambda: resolver_from(
            resolver.via,
            reactor,
            # Under the session's own deadline, to have time for saying what went wrong.
            timeout=config.deadlines.resolve * 0.8,
            threads=resolver.threads,
            ttl=resolver.ttl,
            negative_ttl=resolver.negative_ttl,
            entries=resolver.entries,
        ),
        "resolver.via",
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


def _attempt(make: Callable[[], T], path: str, problems: list[Problem]) -> T | None:
    """Make something of the value at *path*; note what is wrong with it instead of raising."""
    try:
        return make()
    except ConfigError as error:
        problems += [Problem(problem.path or path, problem.message) for problem in error.problems]
    except ValueError as error:
        problems.append(Problem(path, str(error)))
    return None
