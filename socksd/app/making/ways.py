"""How targets are found and reached."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.interfaces import IStreamClientEndpoint

from socksd.app.config import Config
from socksd.app.making.attempts import attempt
from socksd.app.making.lasting import IReactor
from socksd.egress.cache import CachingResolver
from socksd.egress.dial import DialEndpoint
from socksd.egress.direct import DirectEgress, tcp_endpoint
from socksd.egress.listen import Listening
from socksd.egress.resolve import resolver_from
from socksd.egress.sourced import SourcedEgress, try_source
from socksd.errors import Problem
from socksd.facts import DIRECT
from socksd.interfaces import IEgress, ISwitchboard
from socksd.policy.load import below


def resolver_of(
    config: Config, reactor: IReactor, problems: list[Problem]
) -> CachingResolver | None:
    """Make what looks names up."""
    resolver = config.resolver
    return attempt(
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


def egresses_of(
    config: Config, board: ISwitchboard | None, reactor: IReactor
) -> dict[str, IEgress]:
    """Make the ways to targets by their names, of which there is always ``direct``."""
    timeout = config.deadlines.connect
    dialling: Callable[..., IStreamClientEndpoint] = (
        partial(tcp_endpoint, reactor, timeout=timeout)
        if board is None
        else partial(DialEndpoint, board)
    )
    listening = Listening(config.bind.ports, config.bind.advertise)
    direct = partial(DirectEgress, reactor, timeout, listening=listening)
    return {DIRECT: direct(dialling)} | {
        name: SourcedEgress(route.source, direct, dialling) for name, route in config.route.items()
    }


def missing_sources(config: Config) -> Iterator[Problem]:
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
