"""What is served over HTTP beside the gateway: metrics, dashboard, /proxy.pac, control."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory

from socksd.app import autoconfig
from socksd.app.config import Config
from socksd.app.endpoints import Opening, is_overheard, opened, opening, secured
from socksd.app.making.attempts import attempt
from socksd.app.making.lasting import IReactor, Lasting
from socksd.app.service import Part
from socksd.errors import Problem
from socksd.observe.process import process
from socksd.server.protocol import client_of

if TYPE_CHECKING:
    from socksd.admin.autoconfig import Autoconfig
    from socksd.admin.dashboard import Dashboard
    from socksd.admin.scrape import MetricsListener


def metrics_of(
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

    endpoint = attempt(partial(opening, reactor, config.metrics.endpoint), path, problems)
    if endpoint is None:
        return None

    def sample() -> Deferred[Callable[[], bytes]]:
        if lasting.whole is not None:
            return lasting.whole.sample(render)
        families = tuple(chain.from_iterable(ask() for ask in lasting.measures))
        return succeed(partial(render, chain(families, process())))

    return MetricsListener(partial(_opened, endpoint, "metrics"), sample, CONTENT_TYPE, reactor)


def dashboard_of(
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

    endpoint = attempt(partial(opening, reactor, wanted.endpoint), "dashboard.endpoint", problems)
    if endpoint is None:
        return None
    watching = lasting.watching
    subscribe = watching.subscribe
    if lasting.whole is not None:
        from socksd.app.following import Following

        subscribe = Following(lasting.whole.rounds, reactor).subscribe
    return Dashboard(
        partial(_opened, endpoint, "dashboard"),
        lasting.routes,
        Gate(watching.log_in, watching.admits, lambda peer: client_of(cast("IAddress", peer))[0]),
        subscribe,
        reactor,
    )


def autoconfig_of(
    config: Config, reactor: IReactor, lasting: Lasting, problems: list[Problem]
) -> Autoconfig | None:
    """Make what answers browsers that ask for /proxy.pac; ``None`` where nobody wants it."""
    if not config.pac.endpoint:
        return None
    from socksd.admin.autoconfig import Autoconfig  # twisted.web, for those who want it

    problems += autoconfig.problems(config)
    endpoint = attempt(partial(opening, reactor, config.pac.endpoint), "pac.endpoint", problems)
    if endpoint is None:
        return None
    return Autoconfig(
        partial(_opened, endpoint, "pac"),
        lambda client, here: autoconfig.write(lasting.watching.gateway, client, here),
        reactor,
    )


def control_of(path: str, lasting: Lasting, reactor: IReactor) -> Part:
    """Make the control socket."""
    from socksd.admin.control import ControlSocket  # twisted.web, for those who want it

    control = ControlSocket(path, lasting.routes, reactor)
    return Part(control.open, control.close)


def _opened(found: Opening, what: str, factory: IProtocolFactory) -> IListeningPort:
    port: IListeningPort = opened(found.endpoint, secured(found, factory), what)
    return port
