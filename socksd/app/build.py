"""A configuration made into a gateway: the one place that knows every room."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

import attrs
from twisted.internet.error import ReactorNotRunning

from socksd.app.answers import UNWRITTEN, Answers
from socksd.app.collector import calm
from socksd.app.config import Config, Listener
from socksd.app.endpoints import Opening, opening
from socksd.app.making.attempts import attempt
from socksd.app.making.lasting import IReactor, Lasting, Role, lasting
from socksd.app.making.logins import authenticator_of
from socksd.app.making.logs import logs_of
from socksd.app.making.pages import autoconfig_of, control_of, dashboard_of, metrics_of
from socksd.app.making.parts import Parts
from socksd.app.making.relays import budget_of, budgets_of, limited_of, switchboard_of
from socksd.app.making.sharing import unshared
from socksd.app.making.ways import egresses_of, missing_sources, resolver_of
from socksd.app.measures import Measures
from socksd.app.notify import Manager, Notifier
from socksd.app.reload import Commanded, Reloader
from socksd.app.reopen import Reopener
from socksd.app.service import Entrance, Gateway, Generation, Part
from socksd.app.signals import Insistence
from socksd.errors import ConfigError, Problem
from socksd.facts import DIRECT
from socksd.interfaces import IRelay
from socksd.observe.fanout import Observers
from socksd.observe.metrics import ReactorLag
from socksd.policy.cases import failures
from socksd.policy.remembered import Remembered
from socksd.relay.choose import choose
from socksd.relay.readers import Readers
from socksd.relay.udp import associate
from socksd.server.door import Door
from socksd.server.front import Front
from socksd.server.protocol import Sessions
from socksd.server.runtime import Runtime
from socksd.server.spoken import dialogues
from socksd.server.states import Deadlines

__all__ = ["IReactor", "Lasting", "assemble", "build", "lasting"]


def assemble(
    source: Commanded,
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
    config = source.parse(text)
    if config.server.workers > 1:
        from socksd.app.workers import parent  # nothing of it where one process will do

        return parent.assemble(
            source,
            text,
            config,
            cast("parent.IReactorParental", reactor),
            rolled_back=rolled_back,
            manager=manager,
        )

    def made(config: Config, running: Sequence[Part]) -> Generation:
        if config.server.workers > 1:
            message = "a single process cannot become several by a reload: restart the service"
            raise ConfigError([Problem("server.workers", message)])
        return build(config, reactor, common, running)

    common = lasting(reactor)
    generation = made(config, ())
    sessions = Sessions(Door(reactor, generation.config.limits.sessions))
    gateway = Gateway(generation, sessions, reactor)

    reloader = Reloader(
        gateway,
        source,
        made,
        reactor,
        text=text,
        rolled_back=rolled_back,
        adopted=partial(adopted, common),
    )
    complete(gateway, reloader, common, reactor)
    let_leave(gateway, reactor)
    if manager is not None:
        notifier = Notifier(manager, gateway.status, reactor)
        gateway.beside.append(Part(notifier.start, notifier.stop))
        gateway.ends.append(notifier.stopping)
        reloader.begins, reloader.ends = notifier.reloading, notifier.ready
    return gateway


def adopted(common: Lasting, generation: Generation) -> None:
    """Count, from now on, for the rules of *generation*."""
    common.counters.follow([rule for rule, _ in (*generation.rules, *UNWRITTEN)])


def complete(gateway: Gateway, reloader: Reloader, common: Lasting, reactor: IReactor) -> None:
    """Have run beside a *gateway* with sessions of its own what it needs, and let it be asked."""
    gateway.beside.append(Part(reloader.start, reloader.stop))
    reopener = Reopener(gateway, reactor)
    gateway.beside.append(Part(reopener.start, reopener.stop))
    gateway.beside.append(Part(calm))
    common.watching.gateway = gateway
    measures = Measures(gateway, reloader, common.counters, common.metrics)
    answers = Answers(
        gateway,
        reloader,
        common.counters,
        common.leaks,
        common.watching.traffic,
        common.watching.denials,
        measures,
        reactor,
    )
    common.routes.update(answers.routes())
    common.measures.append(measures)


def let_leave(gateway: Gateway, reactor: IReactor) -> None:
    """Have *gateway* end the process, and hurry when a signal comes that would end what ends."""
    insistence = Insistence((signal.SIGTERM, signal.SIGINT), reactor, gateway.hurry)

    def leave() -> None:
        insistence.begin()
        with suppress(ReactorNotRunning):  # a signal was quicker
            reactor.stop()

    gateway.leave = leave
    gateway.ends.append(lambda _: insistence.begin())
    # Begun when Twisted's handlers are there, and stopped when nothing else is left to stop.
    part = Part(lambda: reactor.callWhenRunning(insistence.start), insistence.stop)
    gateway.beside.insert(0, part)


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
    parts = Parts(running)
    openings = _openings(config, reactor, problems)
    authenticator = authenticator_of(config, parts, reactor, problems)
    resolver = resolver_of(config, reactor, problems)
    metrics = metrics_of(config, reactor, lasting, problems)
    dashboard = dashboard_of(config, reactor, lasting, problems)
    autoconfig = autoconfig_of(config, reactor, lasting, problems)
    policy = config.policy()
    problems += failures(policy, config.test)
    problems += missing_sources(config)
    problems += unshared(config)
    if problems or authenticator is None or resolver is None:
        raise ConfigError(problems)
    authenticator = parts.take(
        ("authenticator", config.auth, config.gssapi), lambda: Part(what=authenticator)
    )
    resolver = parts.take(
        ("resolver", config.resolver, config.deadlines.resolve),
        lambda: Part(stop=resolver.stop, what=resolver),
    )
    pages = lasting.role is not Role.WORKER  # what there can be only one of
    switched = switched and lasting.role is not Role.PARENT
    board = parts.take(("switchboard", switched), partial(switchboard_of, reactor, switched))
    deadlines = config.deadlines
    relay: Callable[..., IRelay] = partial(
        choose,
        board=board,
        clock=reactor,
        idle=deadlines.idle,
        linger=deadlines.linger,
        made=None if metrics is None else lasting.metrics.relays,
    )
    listening = logs_of(config, lasting, parts, reactor)
    if config.control.socket and pages:
        parts.take(
            ("control", config.control.socket),
            partial(control_of, config.control.socket, lasting, reactor),
        )
    if metrics is not None:
        listening.append(lasting.metrics)
        lag = ReactorLag(reactor, lasting.metrics.lag)
        parts.take(("reactor lag",), lambda: Part(lag.start, lag.stop))
        if pages:
            parts.take(("metrics", config.metrics), lambda: Part(metrics.open, metrics.close))
    if dashboard is not None:
        watching = lasting.watching
        listening += (watching.traffic, watching.denials)
        parts.take("watching", lambda: Part(watching.start, watching.stop))
        if pages:
            parts.take(
                ("dashboard", config.dashboard.endpoint),
                lambda: Part(dashboard.open, dashboard.close),
            )
    whole = lasting.whole
    if whole is not None:
        parts.take("whole", lambda: Part(whole.start, whole.stop))
    if autoconfig is not None and pages:
        parts.take(("pac", config.pac.endpoint), lambda: Part(autoconfig.open, autoconfig.close))
    egresses = egresses_of(config, board, reactor)
    budgets = budgets_of(config, parts, reactor)
    runtime = Runtime(
        clock=reactor,
        dialogues={each.name: dialogues(each.protocols) for each in config.listener},
        authenticator=authenticator,
        policy=Remembered(policy),
        resolver=resolver,
        egress=egresses.pop(DIRECT),
        relay=relay,
        associate=partial(
            associate,
            watching=board or Readers(reactor),
            clock=reactor,
            idle=deadlines.idle,
            ports=config.udp.ports,
            reassemble=config.udp.fragments,
            sources=config.route[DIRECT].source if DIRECT in config.route else (),
            unasked=any(rule.unasked for rule in policy.rules),
        ),
        advertise=config.udp.advertise,
        observer=Observers(*listening),
        deadlines=Deadlines(**attrs.asdict(deadlines)),
        early_data=config.limits.early_data,
        refusals=lasting.refusals.page,
        routes=egresses,
        limited=limited_of(config, relay, budgets),
        budgets={name: partial(budget_of, each) for name, each in budgets.items()},
    )
    entrances = tuple(
        Entrance(listener.name, made.place, made.endpoint, _front(listener, made))
        for listener, made in zip(config.listener, openings, strict=True)
    )
    rules = tuple(
        (rule.id, f"would {rule.action.value}" if rule.on_trial else rule.action.value)
        for rule in policy.rules
    )
    return Generation(config, rules, entrances, runtime, tuple(parts.taken), board)


def _openings(config: Config, reactor: IReactor, problems: list[Problem]) -> Sequence[Opening]:
    made = [
        attempt(
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
