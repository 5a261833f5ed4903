"""A configuration made into a gateway: the one place that knows every room."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint

from socksd.admin.routes import IReactorControlled, Routes
from socksd.app.answers import UNWRITTEN, Answers
from socksd.app.collector import calm
from socksd.app.config import Config
from socksd.app.endpoints import listening_endpoint
from socksd.app.reload import IReactorReloading, Reloader, Source
from socksd.app.service import Entrance, Gateway, Generation, Part
from socksd.egress.cache import CachingResolver
from socksd.egress.dial import DialEndpoint
from socksd.egress.direct import DirectEgress
from socksd.egress.resolve import IReactorResolving, resolver_from
from socksd.errors import ConfigError, Problem
from socksd.events import Observer
from socksd.identity.portal import Authenticator
from socksd.identity.threads import LoginThreads
from socksd.observe.access import AccessLog
from socksd.observe.counters import RuleCounters
from socksd.observe.fanout import observers
from socksd.observe.leaks import Leaks
from socksd.observe.log import PeopleLog
from socksd.observe.refusals import Refusals
from socksd.policy.cases import failures
from socksd.relay.choose import choose, switchboard
from socksd.server.door import Door
from socksd.server.protocol import Sessions
from socksd.server.runtime import Runtime
from socksd.server.spoken import dialogues
from socksd.server.states import Deadlines

T = TypeVar("T")


class IReactor(IReactorCore, IReactorReloading, IReactorControlled, IReactorResolving):
    """What the rooms together take of the reactor."""


@dataclass(frozen=True, slots=True, eq=False)
class Lasting:
    """What outlives every configuration of a process."""

    people: PeopleLog
    counters: RuleCounters
    leaks: Leaks
    refusals: Refusals
    routes: Routes  # of the control socket


def lasting(reactor: IReactor) -> Lasting:
    """Make what outlives every configuration."""
    return Lasting(PeopleLog(reactor), RuleCounters(time.time), Leaks(), Refusals(), {})


def assemble(source: Source, text: str, reactor: IReactor, *, rolled_back: bool) -> Gateway:
    """
    Make the whole service; nothing listens or runs yet.

    It starts with *text*, and reads later configurations from *source*; if
    what that has now is another one, *text* is the one it was rolled back to.

    Raises:
        ConfigError: See build().
    """
    common = lasting(reactor)

    def made(config: Config, running: Sequence[Part]) -> Generation:
        return build(config, reactor, common, running)

    def adopted(generation: Generation) -> None:
        common.counters.follow([rule for rule, _ in (*generation.rules, *UNWRITTEN)])

    generation = made(source.parse(text), ())
    sessions = Sessions(Door(reactor, generation.config.limits.sessions))
    gateway = Gateway(generation, sessions, reactor)
    reloader = Reloader(
        gateway, source, made, reactor, text=text, rolled_back=rolled_back, adopted=adopted
    )
    gateway.beside.append(Part(reloader.start, reloader.stop))
    gateway.beside.append(Part(calm))
    answers = Answers(gateway, reloader, common.counters, common.leaks, reactor)
    common.routes.update(answers.routes())
    return gateway


def build(
    config: Config,
    reactor: IReactor,
    lasting: Lasting,
    running: Sequence[Part] = (),
    *,
    switched: bool = True,
) -> Generation:
    """
    Make what *config* describes ready to serve; nothing listens or runs yet.

    What outlives configurations is *lasting*. Of the parts that are *running*
    those that would be made of the same are used again, with what they remember.

    Connecting and relaying is done beside the reactor, where that is possible;
    not *switched*, as for tests, it is left to Twisted's own transports.

    Raises:
        ConfigError: With all that is wrong and only shows now: endpoints,
            password files, name servers, and the policy's own tests.
    """
    problems: list[Problem] = []
    endpoints = _endpoints(config, reactor, problems)
    parts: list[Part] = []

    def part(made_of: Hashable, make: Callable[[], Part]) -> Any:
        """Have a part run, the one that runs or a new one, and give the thing itself."""
        same = [part for part in running if part.made_of == made_of]
        parts.append(same[-1] if same else replace(make(), made_of=made_of))
        return parts[-1].what

    def login_threads() -> Part:
        threads = LoginThreads(reactor, config.auth.threads)
        return Part(threads.start, threads.stop, threads)

    threads: LoginThreads = part(("login threads", config.auth.threads), login_threads)
    # Made in any case: it finds what is wrong with the password files now.
    authenticator = _authenticator(config, threads, reactor, problems)
    resolver = _resolver(config, reactor, problems)
    policy = config.policy()
    problems += failures(policy, config.test)
    if problems or authenticator is None or resolver is None:
        raise ConfigError(problems)
    authenticator = part(("authenticator", config.auth), lambda: Part(what=authenticator))
    resolver = part(
        ("resolver", config.resolver, config.deadlines.resolve),
        lambda: Part(stop=resolver.stop, what=resolver),
    )
    board = part(("switchboard", switched), partial(_switchboard, reactor, switched))
    part("log", lambda: Part(stop=lasting.people.close))
    listening: list[Observer] = [
        lasting.people,
        lasting.counters,
        lasting.leaks,
        lasting.refusals,
    ]
    if config.log.access:

        def access_log() -> Part:
            access = AccessLog(config.log.access, reactor)
            return Part(access.open, access.close, access)

        listening.append(part(("access log", config.log.access), access_log))
    if config.control.socket:

        def control() -> Part:
            from socksd.admin.control import ControlSocket  # twisted.web, for those who want it

            control = ControlSocket(config.control.socket, lasting.routes, reactor)
            return Part(control.open, control.close)

        part(("control", config.control.socket), control)
    deadlines = config.deadlines
    runtime = Runtime(
        clock=reactor,
        dialogues={each.name: dialogues(each.protocols) for each in config.listener},
        authenticator=authenticator,
        policy=policy,
        resolver=resolver,
        egress=DirectEgress(
            reactor,
            deadlines.connect,
            partial(DialEndpoint, board) if board is not None else None,
        ),
        relay=partial(
            choose, board=board, clock=reactor, idle=deadlines.idle, linger=deadlines.linger
        ),
        observer=observers(*listening),
        deadlines=Deadlines(**attrs.asdict(deadlines)),
        early_data=config.limits.early_data,
        refusals=lasting.refusals.page,
    )
    entrances = tuple(
        Entrance(listener.name, listener.endpoint, endpoint)
        for listener, endpoint in zip(config.listener, endpoints, strict=True)
    )
    rules = tuple(
        (rule.id, f"would {rule.action.value}" if rule.on_trial else rule.action.value)
        for rule in policy.rules
    )
    return Generation(config, rules, entrances, runtime, tuple(parts), board)


def _switchboard(reactor: IReactor, switched: bool) -> Part:
    board = switchboard(reactor) if switched else None
    return Part() if board is None else Part(board.start, board.stop, board)


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
