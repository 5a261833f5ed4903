"""All that a session uses of the other rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from twisted.internet.interfaces import IReactorTime

from socksd.address import Destination, Host, IPAddress
from socksd.events import Event, Observer, heard
from socksd.facts import Facts
from socksd.interfaces import (
    IAssociation,
    IAuthenticator,
    IBudget,
    IEgress,
    IEnd,
    IPolicy,
    IRelay,
    IResolver,
    ITargets,
)
from socksd.server.dialogue import Dialogues
from socksd.server.states import Deadlines
from socksd.server.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    The seams and settings of one configuration.

    Frozen: a new configuration is a new Runtime, and a session keeps the one
    it began with.

    Attributes:
        dialogues: By a listener's name, what to speak with whom.
        egress: The route that is taken where a rule names no other,
        routes: and the others, by their names.
        relay: Makes the relay between a client's end and a target's,
        limited: and, by the names of limits, that of a client with these facts.
        budgets: What a client with these facts may spend on datagrams, by the
            names of limits; of those that bound it.
        associate: Makes the relay of a client's datagrams, given where they
            will come from, an address and a port or 0, and who judges where
            they may go. Raises OSError where there is no port to be had.
        advertise: Where clients are told to send datagrams, by its addresses;
            ``None``: to the address that they have connected to.
        early_data: Octets a client may send ahead while it is our turn.
        refusals: Writes the page of what a client at this address, with this
            user, has been refused; plain text instead of HTML where it is
            given ``True``.
        waiting: Who waits for what of the deadlines, by their names.
        hears: What of the events the observer wants to hear of; the frequent others are not made.
    """

    clock: IReactorTime
    dialogues: Mapping[str, Dialogues]
    authenticator: IAuthenticator
    policy: IPolicy
    resolver: IResolver
    egress: IEgress
    relay: Callable[[IEnd, IEnd], IRelay]
    associate: Callable[[IEnd, Destination, ITargets], IAssociation]
    advertise: Host | None
    observer: Observer
    deadlines: Deadlines
    early_data: int
    refusals: Callable[[IPAddress, str | None, bool], str]
    routes: Mapping[str, IEgress] = field(default_factory=dict)
    limited: Mapping[str, Callable[[Facts, IEnd, IEnd], IRelay]] = field(default_factory=dict)
    budgets: Mapping[str, Callable[[Facts], IBudget]] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(init=False, repr=False, compare=False)
    hears: frozenset[type[Event]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        waiting = {
            each.name: Waiting(self.clock, getattr(self.deadlines, each.name))
            for each in fields(self.deadlines)
        }
        object.__setattr__(self, "waiting", waiting)
        object.__setattr__(self, "hears", heard(self.observer))
