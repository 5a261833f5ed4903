"""How octets are carried, and within what limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from socksd.app.config import Config
from socksd.app.making.lasting import IReactor
from socksd.app.making.parts import Parts
from socksd.app.service import Part
from socksd.facts import Facts
from socksd.interfaces import IEnd, IRelay
from socksd.relay.choose import switchboard
from socksd.relay.throttle import Budget, Budgets


def switchboard_of(reactor: IReactor, switched: bool) -> Part:
    """Make the switchboard; nothing where it is not *switched*, or cannot be."""
    board = switchboard(reactor) if switched else None
    return Part() if board is None else Part(board.start, board.stop, board)


def budgets_of(config: Config, parts: Parts, reactor: IReactor) -> dict[str, Budgets]:
    """Make, by the names of limits that bound it, what there is of bandwidth."""
    return {
        name: parts.take(
            ("limit", name, limit.bandwidth), partial(_budgets, limit.bandwidth, reactor)
        )
        for name, limit in config.limit.items()
        if limit.bandwidth is not None
    }


def limited_of(
    config: Config, relay: Callable[..., IRelay], budgets: Mapping[str, Budgets]
) -> dict[str, Callable[[Facts, IEnd, IEnd], IRelay]]:
    """Make, by the names of limits, what makes relays that keep within them."""
    limited: dict[str, Callable[[Facts, IEnd, IEnd], IRelay]] = {}
    for name, limit in config.limit.items():
        within = partial(relay, idle=limit.idle or config.deadlines.idle)
        limited[name] = partial(_relay_within, within, budgets.get(name))
    return limited


def budget_of(budgets: Budgets, facts: Facts) -> Budget:
    """Give what the user may spend, who is the address where nobody has logged in."""
    user = facts.principal.name if facts.principal else None
    return budgets.of(user or facts.client)


def _budgets(bandwidth: int, reactor: IReactor) -> Part:
    return Part(what=Budgets(bandwidth, reactor))


def _relay_within(
    relay: Callable[..., IRelay], budgets: Budgets | None, facts: Facts, client: IEnd, target: IEnd
) -> IRelay:
    """Make a relay that shares its budget with all others of the same user, or client."""
    if budgets is None:
        return relay(client, target)
    return relay(client, target, budget=budget_of(budgets, facts))
