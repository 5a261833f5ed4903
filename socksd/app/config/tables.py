"""The whole configuration: its tables by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import attrs

from socksd.app.config.clients import Auth, Gssapi, Listener
from socksd.app.config.limits import Deadlines, Limit, Limits
from socksd.app.config.running import Control, Dashboard, Log, Metrics, Pac, Reload, Server
from socksd.app.config.targets import Bind, Guarded, Resolver, Route, Udp
from socksd.app.config.values import a_number
from socksd.policy.builtin import built_in
from socksd.policy.cases import Case
from socksd.policy.guard import Guard
from socksd.policy.match import Group
from socksd.policy.rules import Policy, Rule
from socksd.policy.sets import HostSet
from socksd.policy.special import SPECIAL


@attrs.frozen
class Config:
    """A whole configuration; without a listener until the command line has added one."""

    version: Annotated[int, a_number(1, 1)] = 1
    server: Server = Server()
    listener: tuple[Listener, ...] = ()
    auth: Auth = Auth()
    gssapi: Gssapi = Gssapi()
    # By their names with "@", the built-in ones as well; those differ from host to host.
    sets: Mapping[str, HostSet] = attrs.field(default=SPECIAL, eq=False)
    groups: Mapping[str, Group] = attrs.field(factory=dict)
    guard: Guarded = Guarded()
    rule: tuple[Rule, ...] = ()
    resolver: Resolver = Resolver()
    bind: Bind = Bind()
    deadlines: Deadlines = Deadlines()
    udp: Udp = Udp()
    limits: Limits = Limits()
    limit: Mapping[str, Limit] = attrs.field(factory=dict)
    route: Mapping[str, Route] = attrs.field(factory=dict)
    log: Log = Log()
    reload: Reload = Reload()
    control: Control = Control()
    dashboard: Dashboard = Dashboard()
    pac: Pac = Pac()
    metrics: Metrics = Metrics()
    test: tuple[Case, ...] = ()  # read, but not run yet: what the command line adds counts, too

    def policy(self) -> Policy:
        """Give the policy of the rules, guarded; without any, the built-in one, as it stands."""
        if self.rule:
            never, private = self.guard.never, self.guard.private
            return Policy(self.rule, Guard.of(never, self.sets, private=private))
        return built_in(with_login=bool(self.auth.authenticators or self.gssapi.keytab))
