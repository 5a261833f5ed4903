"""A configuration made into a gateway: the one place that knows every room."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import InvalidAuthType, makeChecker
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamClientEndpoint,
)

from socksd.admin.routes import IReactorControlled, IReactorScraped, Routes
from socksd.app import autoconfig
from socksd.app.answers import UNWRITTEN, Answers
from socksd.app.collector import calm
from socksd.app.config import JOURNALD, Config, Gssapi, Listener
from socksd.app.endpoints import Opening, is_overheard, opened, opening, secured
from socksd.app.measures import Measures
from socksd.app.notify import Manager, Notifier
from socksd.app.reload import IReactorReloading, Reloader, Source
from socksd.app.reopen import Reopener
from socksd.app.service import Entrance, Gateway, Generation, Part
from socksd.app.signals import OnSignal
from socksd.app.watching import Watching
from socksd.egress.cache import CachingResolver
from socksd.egress.dial import DialEndpoint
from socksd.egress.direct import DirectEgress, tcp_endpoint
from socksd.egress.listen import Listening
from socksd.egress.resolve import IReactorResolving, resolver_from
from socksd.egress.sourced import SourcedEgress, try_source
from socksd.errors import ConfigError, Problem
from socksd.events import Observer
from socksd.facts import DIRECT, Facts
from socksd.identity.portal import Authenticator
from socksd.identity.threads import LoginThreads
from socksd.interfaces import IEgress, IEnd, IRelay
from socksd.observe import access
from socksd.observe.access import AccessLog
from socksd.observe.counters import RuleCounters
from socksd.observe.fanout import Observers
from socksd.observe.journal import SOCKET, Journal
from socksd.observe.leaks import Leaks
from socksd.observe.log import PeopleLog
from socksd.observe.metrics import Family, Metrics, ReactorLag
from socksd.observe.refusals import Refusals
from socksd.observe.sinks import OutputLog
from socksd.policy.cases import failures
from socksd.policy.load import below
from socksd.relay.choose import choose, switchboard
from socksd.relay.readers import Readers
from socksd.relay.throttle import Budgets
from socksd.relay.udp import associate
from socksd.server.door import Door
from socksd.server.front import Front
from socksd.server.protocol import Sessions, client_of
from socksd.server.runtime import Runtime
from socksd.server.spoken import dialogues
from socksd.server.states import Deadlines

if TYPE_CHECKING:
    from socksd.admin.autoconfig import Autoconfig
    from socksd.admin.dashboard import Dashboard
    from socksd.admin.scrape import MetricsListener
    from socksd.identity.gssapi import Acceptor

T = TypeVar("T")


class IReactor(
    IReactorCore, IReactorReloading, IReactorControlled, IReactorScraped, IReactorResolving
):
    """What the rooms together take of the reactor."""


@dataclass(frozen=True, slots=True, eq=False)
class Lasting:
    """What outlives every configuration of a process."""

    people: PeopleLog
    counters: RuleCounters
    leaks: Leaks
    refusals: Refusals
    metrics: Metrics
    watching: Watching  # for the dashboard
    routes: Routes  # of the control socket
    measures: list[Callable[[], Iterable[Family]]]  # what a scrape asks


def lasting(reactor: IReactor) -> Lasting:
    """Make what outlives every configuration."""
    counters = RuleCounters(time.time)
    return Lasting(
        PeopleLog(reactor), counters, Leaks(), Refusals(), Metrics(), Watching(reactor), {}, []
    )


def assemble(
    source: Source,
    text: str,
    reactor: IReactor,
    *,
    rolled_back: bool,
    manager: Manager | None = None,
) -> Gateway:
    """
    Make the whole service; nothing listens or runs yet.

    It starts with *text*, and reads later configurations from *source*; if
    what that has now is another one, *text* is the one it was rolled back to.
    A service *manager* is told how it goes.

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
    reopener = Reopener(gateway, reactor)
    gateway.beside.append(Part(reopener.start, reopener.stop))
    insisting = [
        OnSignal(number, reactor, gateway.hurry) for number in (signal.SIGTERM, signal.SIGINT)
    ]

    def listen_to_who_insists(_: float) -> None:
        for each in insisting:
            each.start()

    gateway.ends.append(listen_to_who_insists)
    gateway.beside += [Part(stop=each.stop) for each in insisting]
    if manager is not None:
        notifier = Notifier(manager, gateway.status, reactor)
        gateway.beside.append(Part(notifier.start, notifier.stop))
        gateway.ends.append(notifier.stopping)
        reloader.begins, reloader.ends = notifier.reloading, notifier.ready
    gateway.beside.append(Part(calm))
    common.watching.gateway = gateway
    answers = Answers(
        gateway,
        reloader,
        common.counters,
        common.leaks,
        common.watching.traffic,
        common.watching.denials,
        reactor,
    )
    common.routes.update(answers.routes())
    common.measures.append(Measures(gateway, reloader, common.counters, common.metrics))
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
    openings = _openings(config, reactor, problems)
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
    acceptor = None
    if config.gssapi != Gssapi():
        # Threads of their own: a keytab on a file system that has gone holds no password up.
        tickets: LoginThreads = part(("ticket threads", config.auth.threads), login_threads)
        acceptor = _acceptor(config.gssapi, tickets, problems)
    # Made in any case: it finds what is wrong with the password files now.
    authenticator = _authenticator(config, threads, acceptor, reactor, problems)
    resolver = _resolver(config, reactor, problems)
    scraped = _scraped(config, reactor, lasting, problems)
    dashboard = _dashboard(config, reactor, lasting, problems)
    pac = _pac(config, reactor, lasting, problems)
    policy = config.policy()
    problems += failures(policy, config.test)
    problems += _sources(config)
    if problems or authenticator is None or resolver is None:
        raise ConfigError(problems)
    authenticator = part(
        ("authenticator", config.auth, config.gssapi), lambda: Part(what=authenticator)
    )
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
        listening.append(part(("access log", config.log), lambda: _access_log(config, reactor)))
    if config.control.socket:

        def control() -> Part:
            from socksd.admin.control import ControlSocket  # twisted.web, for those who want it

            control = ControlSocket(config.control.socket, lasting.routes, reactor)
            return Part(control.open, control.close)

        part(("control", config.control.socket), control)
    deadlines = config.deadlines
    relay: Callable[..., IRelay] = partial(
        choose, board=board, clock=reactor, idle=deadlines.idle, linger=deadlines.linger
    )
    if scraped is not None:
        listening.append(lasting.metrics)
        relay = lasting.metrics.counting(relay)
        lag = ReactorLag(reactor, lasting.metrics.lag)
        part(("reactor lag",), lambda: Part(lag.start, lag.stop))
        part(("metrics", config.metrics), lambda: Part(scraped.open, scraped.close))
    if dashboard is not None:
        watching = lasting.watching
        listening += (watching.traffic, watching.denials)
        part("watching", lambda: Part(watching.start, watching.stop))
        part(
            ("dashboard", config.dashboard.endpoint),
            lambda: Part(dashboard.open, dashboard.close),
        )
    if pac is not None:
        part(("pac", config.pac.endpoint), lambda: Part(pac.open, pac.close))
    dialling: Callable[..., IStreamClientEndpoint] = (
        partial(tcp_endpoint, reactor, timeout=deadlines.connect)
        if board is None
        else partial(DialEndpoint, board)
    )
    listening_for_peers = Listening(config.bind.ports, config.bind.advertise)
    direct = partial(DirectEgress, reactor, deadlines.connect, listening=listening_for_peers)
    routes: dict[str, IEgress] = {DIRECT: direct(dialling)} | {
        name: SourcedEgress(route.source, direct, dialling) for name, route in config.route.items()
    }
    limited: dict[str, Callable[[Facts, IEnd, IEnd], IRelay]] = {}
    for name, limit in config.limit.items():
        within = partial(relay, idle=limit.idle or deadlines.idle)
        budgets = None
        if limit.bandwidth is not None:
            made_of = ("limit", name, limit.bandwidth)
            budgets = part(made_of, partial(_budgets, limit.bandwidth, reactor))
        limited[name] = partial(_relay_within, within, budgets)
    runtime = Runtime(
        clock=reactor,
        dialogues={each.name: dialogues(each.protocols) for each in config.listener},
        authenticator=authenticator,
        policy=policy,
        resolver=resolver,
        egress=routes.pop(DIRECT),
        relay=relay,
        associate=partial(
            associate,
            watching=board or Readers(reactor),
            clock=reactor,
            idle=deadlines.idle,
            ports=config.udp.ports,
            reassemble=config.udp.fragments,
            unasked=any(rule.unasked for rule in policy.rules),
        ),
        advertise=config.udp.advertise,
        observer=Observers(*listening),
        deadlines=Deadlines(**attrs.asdict(deadlines)),
        early_data=config.limits.early_data,
        refusals=lasting.refusals.page,
        routes=routes,
        limited=limited,
    )
    entrances = tuple(
        Entrance(listener.name, made.place, made.endpoint, _front(listener, made))
        for listener, made in zip(config.listener, openings, strict=True)
    )
    rules = tuple(
        (rule.id, f"would {rule.action.value}" if rule.on_trial else rule.action.value)
        for rule in policy.rules
    )
    return Generation(config, rules, entrances, runtime, tuple(parts), board)


def _switchboard(reactor: IReactor, switched: bool) -> Part:
    board = switchboard(reactor) if switched else None
    return Part() if board is None else Part(board.start, board.stop, board)


def _opened(found: Opening, what: str, factory: IProtocolFactory) -> IListeningPort:
    port: IListeningPort = opened(found.endpoint, secured(found, factory), what)
    return port


def _access_log(config: Config, reactor: IReactor) -> Part:
    kind, _, path = config.log.access.partition(":")
    line = access.text if config.log.format == "text" else access.record
    log: AccessLog | Journal | OutputLog
    if kind == JOURNALD:
        log = Journal(path or SOCKET)
    elif kind == "-":
        log = OutputLog(reactor, line)
    else:
        log = AccessLog(config.log.access, reactor, line)
    return Part(log.open, log.close, log)


def _budgets(bandwidth: int, reactor: IReactor) -> Part:
    return Part(what=Budgets(bandwidth, reactor))


def _relay_within(
    relay: Callable[..., IRelay], budgets: Budgets | None, facts: Facts, client: IEnd, target: IEnd
) -> IRelay:
    """Make a relay that shares its budget with all others of the same user, or client."""
    if budgets is None:
        return relay(client, target)
    user = facts.principal.name if facts.principal else None
    return relay(client, target, budget=budgets.of(user or facts.client))


def _sources(config: Config) -> Iterator[Problem]:
    """Find source addresses that this host does not have."""
    for name, route in config.route.items():
        for source in route.source:
            try:
                try_source(source)
            except OSError as error:
                reason = f"cannot connect from {source}: {error.strerror}"
                if error.errno == errno.EADDRNOTAVAIL:
                    reason = f"{source} is none of this host's addresses"
                yield Problem(f"{below('route', name)}.source", reason)


def _openings(config: Config, reactor: IReactor, problems: list[Problem]) -> Sequence[Opening]:
    made = [
        _attempt(
            partial(opening, reactor, listener.endpoint),
            f"listener[{index}].endpoint",
            problems,
        )
        for index, listener in enumerate(config.listener)
    ]
    return [each for each in made if each is not None]


def _front(listener: Listener, made: Opening) -> Front | None:
    if listener.proxy_protocol is None and made.security is None:
        return None
    return Front(listener.proxy_protocol, made.security)


def _scraped(
    config: Config, reactor: IReactor, lasting: Lasting, problems: list[Problem]
) -> MetricsListener | None:
    """Make what answers Prometheus; ``None`` where nobody wants it."""
    if not config.metrics.endpoint:
        return None
    path = "metrics.endpoint"
    try:
        from socksd.observe.exposition import CONTENT_TYPE, render
    except ModuleNotFoundError as error:
        message = f"needs the Python package {error.name}: pip install 'socksd[metrics]'"
        problems.append(Problem(path, message))
        return None
    from socksd.admin.scrape import MetricsListener  # twisted.web, for those who want it

    endpoint = _attempt(partial(opening, reactor, config.metrics.endpoint), path, problems)
    if endpoint is None:
        return None

    def sample() -> Callable[[], bytes]:
        return partial(render, tuple(chain.from_iterable(ask() for ask in lasting.measures)))

    return MetricsListener(partial(_opened, endpoint, "metrics"), sample, CONTENT_TYPE, reactor)


def _dashboard(
    config: Config, reactor: IReactor, lasting: Lasting, problems: list[Problem]
) -> Dashboard | None:
    """Make the dashboard; ``None`` where nobody wants it."""
    wanted = config.dashboard
    if not wanted.endpoint:
        return None
    if is_overheard(wanted.endpoint):
        message = "passwords would be read by others: use TLS, unix:, or interface=127.0.0.1"
        problems.append(Problem("dashboard.endpoint", message))
    if not wanted.users and not wanted.groups:
        problems.append(Problem("dashboard", "nobody may see it: name users or groups"))
    if not config.auth.authenticators:
        message = "needs [auth] authenticators, for nobody could log in"
        problems.append(Problem("dashboard", message))
    from socksd.admin.dashboard import Dashboard, Gate  # twisted.web, for those who want it

    endpoint = _attempt(partial(opening, reactor, wanted.endpoint), "dashboard.endpoint", problems)
    if endpoint is None:
        return None
    watching = lasting.watching
    return Dashboard(
        partial(_opened, endpoint, "dashboard"),
        lasting.routes,
        Gate(watching.log_in, watching.admits, lambda peer: client_of(cast("IAddress", peer))[0]),
        watching.subscribe,
        reactor,
    )


def _pac(
    config: Config, reactor: IReactor, lasting: Lasting, problems: list[Problem]
) -> Autoconfig | None:
    """Make what answers browsers that ask for /proxy.pac; ``None`` where nobody wants it."""
    if not config.pac.endpoint:
        return None
    from socksd.admin.autoconfig import Autoconfig  # twisted.web, for those who want it

    problems += autoconfig.problems(config)
    endpoint = _attempt(partial(opening, reactor, config.pac.endpoint), "pac.endpoint", problems)
    if endpoint is None:
        return None
    return Autoconfig(
        partial(_opened, endpoint, "pac"),
        lambda client, here: autoconfig.write(lasting.watching.gateway, client, here),
        reactor,
    )


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
    return _attempt(
        lambda: Acceptor(gssapi.keytab, gssapi.service, mapping, gssapi.protection, threads),
        "gssapi.keytab",
        problems,
    )


def _authenticator(
    config: Config,
    threads: LoginThreads,
    acceptor: Acceptor | None,
    reactor: IReactor,
    problems: list[Problem],
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
            acceptor=acceptor,
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
