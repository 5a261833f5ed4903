"""
A rule list made of what was seen: an access log in, rules and their tests out.

Nobody is given what only others have used: users stand in one list where they
went to the same hosts, and ports in one where they were used at each of these.
Only hosts are folded (see :mod:`socksd.policy.fold`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from socksd.address import IPAddress, embedded, reached
from socksd.codes import COMMANDS, Command
from socksd.facts import Verdict
from socksd.policy.fold import Domains, fold_addresses, fold_names
from socksd.policy.guard import Guard
from socksd.policy.load import load_rules
from socksd.policy.match import ByUser, Group
from socksd.policy.records import Key, Record, Unusable, Unused, read, record
from socksd.policy.replay import again
from socksd.policy.rules import Policy

Host = str | IPAddress
Who = str | IPAddress  # a user, or where somebody without login came from


class LeftOut(StrEnum):
    """Why a session gives no reason for a rule."""

    DENIED = "were denied"
    UNSETTLED = "never came to a decision about an address"
    GUARDED = "led where the guard sends nobody, whatever a rule says"
    UNWRITABLE = "were of users whose names no rule can hold"
    OTHERS = "were of others"


@dataclass(frozen=True, slots=True)
class Proposed:
    """
    One rule.

    Attributes:
        rule: As one would write it in a configuration.
        test: Likewise: a session of the log, which this rule decides.
        sessions: How many of the log it decides.
        seen: How many hosts they went to.
        unseen: How many more the rule holds, as fold counts.
    """

    rule: Mapping[str, object]
    test: Mapping[str, object]
    sessions: int
    seen: int
    unseen: int


@dataclass(slots=True)
class Proposal:
    """
    What has come of a log.

    Attributes:
        rules: In the order in which they should stand.
        sessions: How many sessions they allow: all that are not left out.
        left_out: How many are, by reason.
        unused: How many lines of the log were no decisions, by reason.
    """

    rules: tuple[Proposed, ...] = ()
    sessions: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    unused: Counter[Unused] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Place:
    """
    Where somebody went.

    Attributes:
        inside: Whether it is a name that leads into private space.
    """

    command: Command
    inside: bool
    host: Host


@dataclass(frozen=True, slots=True)
class _Draft:
    """A rule, before hosts are folded: everybody went to each host at each port."""

    people: frozenset[Who]
    command: Command
    inside: bool
    hosts: frozenset[Host]
    ports: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Barred:
    """
    What stands against a fold.

    Attributes:
        asked: Names that somebody has asked for.
        names, addresses: What was denied.
    """

    asked: Domains
    names: Domains
    addresses: list[IPAddress]


def propose(
    lines: Iterable[str],
    bound: float,
    guard: Guard | None,
    user: str | None = None,
    group: Group | None = None,
) -> Proposal:
    """
    Make the smallest rule list that allows what was allowed.

    Args:
        lines: As :mod:`socksd.observe.access` writes them.
        bound: How many unseen hosts a fold may admit for each that was seen.
        guard: What will stand behind the rules.
        user: Only this one's sessions count.
        group: Only its members' sessions count, and each member may do what
            any of them has done.
    """
    proposal = Proposal()
    seen = _Seen(bound, guard, user, group)
    keys: Counter[Key] = Counter()
    for line in lines:
        try:
            keys[read(line)[1]] += 1
        except Unusable as unusable:
            proposal.unused[unusable.why] += 1
    for key, count in keys.items():
        try:
            found = record(key)
        except Unusable as unusable:
            proposal.unused[unusable.why] += count
            continue
        why = seen.add(found, count)
        if why is None:
            proposal.sessions += count
        else:
            proposal.left_out[why] += count
    proposal.rules = seen.rules()
    return proposal


class _Seen:
    """The sessions that a rule list has to allow."""

    def __init__(
        self, bound: float, guard: Guard | None, user: str | None, group: Group | None
    ) -> None:
        self._bound = bound
        self._guard = guard
        self._user = user
        self._group = group
        self._sessions: list[tuple[Record, int]] = []
        self._ports: dict[tuple[Who, _Place], set[int]] = {}
        self._lands: dict[Host, set[IPAddress]] = {}
        self._asked: set[str] = set()
        self._denied: set[Host] = set()

    def add(self, session: Record, count: int) -> LeftOut | None:
        """Take a session that *count* others are like, or say why not."""
        destination, principal, command = session.destination, session.principal, session.command
        if destination is None or principal is None or command is None:
            return LeftOut.DENIED if session.verdict is Verdict.DENY else LeftOut.UNSETTLED
        host = destination.host
        if isinstance(host, str):
            self._asked.add(host)
        who: Who = session.client if principal.name is None else principal.name
        if not self._is_meant(session):
            return LeftOut.OTHERS
        if session.verdict is Verdict.DENY:
            self._denied.add(session.literal or host)
            return LeftOut.DENIED
        if not session.settled:
            return LeftOut.UNSETTLED
        if self._group is None and isinstance(who, str) and not _is_writable(who):
            return LeftOut.UNWRITABLE
        readings = [(each, *map(reached, embedded(each))) for each in _led(session)]
        allowed = [some for some in readings if not any(map(self._is_forbidden, some))]
        if not allowed:
            return LeftOut.GUARDED
        addresses = {each for some in allowed for each in some}
        inside = isinstance(host, str) and any(map(self._is_private, addresses))
        written = host if session.literal is None else session.literal
        place = _Place(command, inside, written)
        person: Who = who if self._group is None else self._group.name
        self._ports.setdefault((person, place), set()).add(destination.port)
        self._lands.setdefault(written, set()).update(addresses)
        self._sessions.append((session, count))
        return None

    def rules(self) -> tuple[Proposed, ...]:
        """Give the rules, the ones of most hosts first; none that decides nothing."""
        drafts = [
            draft
            for is_user in (True, False)
            for draft in _fewest(
                {
                    (who, place): frozenset(ports)
                    for (who, place), ports in self._ports.items()
                    if isinstance(who, str) is is_user
                }
            )
        ]
        barred = _Barred(
            Domains(self._asked),
            Domains(host for host in self._denied if isinstance(host, str)),
            [host for host in self._denied if not isinstance(host, str)],
        )
        folded = (self._folded(draft, barred) for draft in drafts)
        made = sorted(folded, key=lambda each: (-each[1], str(each[0])))
        # Where one holds by a fold all that another one does, the first decides.
        examples: dict[str, Record] = {}
        sessions: Counter[str] = Counter()
        policy = self._policy(rule for rule, _, _ in made)
        for session, count in self._sessions:
            decided = again(policy, session, 0.0).rule
            examples.setdefault(decided, session)
            sessions[decided] += count
        needed = [(each, f"{n}") for n, each in enumerate(made) if f"{n}" in examples]
        return tuple(
            Proposed(
                {"id": f"seen-{number}"} | rule,
                self._test(examples[name], f"seen-{number}"),
                sessions[name],
                seen,
                unseen,
            )
            for number, ((rule, seen, unseen), name) in enumerate(needed, 1)
        )

    def _folded(self, draft: _Draft, barred: _Barred) -> tuple[dict[str, object], int, int]:
        """Give a rule without its id, how many hosts it is for, and how many more it holds."""
        names = fold_names(
            {host for host in draft.hosts if isinstance(host, str)},
            self._bound,
            barred.asked,
            barred.names,
        )
        literals = [host for host in draft.hosts if not isinstance(host, str)]
        networks = fold_addresses(self._landing(literals), self._bound, barred.addresses)
        rule: dict[str, object] = {"action": "allow", **self._who(draft.people)}
        rule["command"] = COMMANDS[draft.command]
        rule["to"] = [*names.hosts, *networks.hosts]
        if draft.inside:
            lands = fold_addresses(self._landing(draft.hosts), self._bound, barred.addresses)
            rule["resolves_to"] = list(lands.hosts)
        rule["ports"] = list(_ranges(draft.ports))
        return rule, len(draft.hosts), names.unseen + networks.unseen

    def _landing(self, hosts: Iterable[Host]) -> set[IPAddress]:
        return {address for host in hosts for address in self._lands[host]}

    def _who(self, people: frozenset[Who]) -> dict[str, object]:
        if self._group is not None:
            return {"group": self._group.name}
        clients = [who for who in people if not isinstance(who, str)]
        if clients:
            return {"user": ByUser.NONE, "from": list(fold_addresses(clients, 0).hosts)}
        return {"user": sorted(map(str, people))}

    def _policy(self, rules: Iterable[Mapping[str, object]]) -> Policy:
        tables = [{"id": str(number), **rule} for number, rule in enumerate(rules)]
        groups = {} if self._group is None else {self._group.name: self._group}
        return Policy(load_rules(tables, (), groups=groups), self._guard)

    def _test(self, session: Record, rule: str) -> dict[str, object]:
        assert session.command is not None  # add() has seen to that
        assert session.principal is not None
        asking: dict[str, object] = {"from": str(session.client)}
        if session.principal.name is not None:
            asking["user"] = session.principal.name
        if self._group is not None and self._group.name in session.principal.groups:
            asking["group"] = self._group.name
        asking[COMMANDS[session.command]] = str(session.destination)
        test: dict[str, object] = {"as": asking}
        if session.literal is None:
            test["resolves"] = list(map(str, _led(session)))
        return test | {"expect": {"action": "allow", "rule": rule}}

    def _is_meant(self, session: Record) -> bool:
        assert session.principal is not None  # add() has seen to that
        name = session.principal.name
        if self._group is not None:
            return name in self._group.users or self._group.name in session.principal.groups
        return self._user is None or name == self._user

    def _is_forbidden(self, address: IPAddress) -> bool:
        return self._guard is not None and bool(self._guard.forbids(address))

    def _is_private(self, address: IPAddress) -> bool:
        return self._guard is not None and self._guard.private_width(address) >= 0


def _led(session: Record) -> tuple[IPAddress, ...]:
    """Give where a session went, or might have gone."""
    if session.literal is not None:
        return (session.literal,)
    return session.addresses if session.dialled is None else (session.dialled,)


def _fewest(access: Mapping[tuple[Who, _Place], frozenset[int]]) -> list[_Draft]:
    """Write who went where as rules that say just that: by people or by hosts, what takes fewer."""
    by_place: dict[tuple[_Place, frozenset[int]], set[Who]] = {}
    by_who: dict[tuple[Who, Command, bool, frozenset[int]], set[Host]] = {}
    for (who, place), ports in access.items():
        by_place.setdefault((place, ports), set()).add(who)
        by_who.setdefault((who, place.command, place.inside, ports), set()).add(place.host)
    hosts: dict[tuple[frozenset[Who], Command, bool, frozenset[int]], set[Host]] = {}
    for (place, ports), whos in by_place.items():
        key = frozenset(whos), place.command, place.inside, ports
        hosts.setdefault(key, set()).add(place.host)
    people: dict[tuple[Command, bool, frozenset[Host], frozenset[int]], set[Who]] = {}
    for (who, command, inside, ports), some in by_who.items():
        people.setdefault((command, inside, frozenset(some), ports), set()).add(who)
    by_hosts = [
        _Draft(whos, command, inside, frozenset(some), ports)
        for (whos, command, inside, ports), some in hosts.items()
    ]
    by_people = [
        _Draft(frozenset(whos), command, inside, some, ports)
        for (command, inside, some, ports), whos in people.items()
    ]
    return min(by_people, by_hosts, key=len)


def _ranges(ports: Iterable[int]) -> Iterator[int | str]:
    """Write ports, three and more in a row as a range."""
    for _, row in groupby(enumerate(sorted(ports)), key=lambda each: each[1] - each[0]):
        some = [port for _, port in row]
        if len(some) > 2:
            yield f"{some[0]}-{some[-1]}"
        else:
            yield from some


def _is_writable(user: str) -> bool:
    """Say whether a rule can name a user: in UTF-8, and unlike a reserved word."""
    return user.isprintable() and user != "" and not user.startswith("@")
