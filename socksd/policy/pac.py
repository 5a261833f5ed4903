"""
A proxy auto-configuration file that says what the policy says.

What a browser knows is a URL and no more: not what a name leads to, not who its
user is to us. So the file asks the rules as far as that goes, in their order:

* what a rule may allow goes to the gateway;
* what a rule denies for sure goes to the gateway, too, which says why;
* what no rule speaks of goes directly, as does what a deny rule without any
  condition on the destination leaves over: that is how a default is written.

It is advice to a browser. Whoever ignores it meets the policy all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from socksd.facts import Facts, Verdict
from socksd.policy.match import Condition, Hostname, NotTo, ResolvesTo, ToHost, ToPorts
from socksd.policy.rules import Policy, Rule
from socksd.policy.sets import HostSet

MOST: Final = 5000  # names and networks in one file; browsers give up at a mebibyte

_MAYBE: Final = ["maybe"]
_WHERE: Final = (ToHost, NotTo, ResolvesTo, ToPorts, Hostname)  # what a URL can be asked


def pac(policy: Policy, facts: Facts, via: Sequence[str]) -> str:
    """
    Write the file for one client.

    Args:
        policy: Whose rules decide; those on trial do not.
        facts: The client's address and the listener it would use, and nothing
            that may change until the file is fetched again.
        via: The gateway, as ``SOCKS5 gw.example:1080``, in the order to try.
    """
    budget = [MOST]
    rules = [
        written
        for rule in policy.rules
        if not rule.on_trial and (written := _rule(rule, facts, budget)) is not None
    ]
    return (
        f"// Made of the gateway's listeners and policy, for {facts.client}.\n"
        f"var VIA = {json.dumps('; '.join(via))};\n"
        f"var RULES = {json.dumps(rules, separators=(',', ':'))};\n{_script()}"
    )


@cache
def _script() -> str:
    return (files("socksd.policy") / "find_proxy.js").read_text("ascii")


def _rule(rule: Rule, facts: Facts, budget: list[int]) -> list[Any] | None:
    """Write a rule as the script reads it; ``None`` where it cannot match this client."""
    written: list[Any] = []
    for condition in rule.conditions:
        if isinstance(condition, _WHERE):
            written.append(_where(condition, budget))
        elif condition.key == "when":
            written.append(_MAYBE)  # the file may be used for longer than the hour
        else:
            known = condition.matches(facts)
            if known is False:
                return None
            if known is None:
                written.append(_MAYBE)
    if rule.action is Verdict.ALLOW:
        return ["allow", *written]
    everywhere = not any(isinstance(each, _WHERE) for each in rule.conditions)
    return ["leave" if everywhere else "deny", *written]


def _where(condition: Condition, budget: list[int]) -> list[Any]:
    if isinstance(condition, ToPorts):
        return ["ports", list(condition.edges)]
    if isinstance(condition, Hostname):
        return ["require"]
    assert isinstance(condition, ToHost | NotTo | ResolvesTo)  # the others of _WHERE
    found = _hosts(condition.sets)
    budget[0] -= found["size"]
    return _MAYBE if budget[0] < 0 else [condition.key, found]


def _hosts(sets: Iterable[HostSet]) -> dict[str, Any]:
    exact: set[str] = set()
    suffixes: set[str] = set()
    globs: set[str] = set()
    v4: dict[int, set[int]] = {}
    some = False  # whether there are networks at all, which a name may lead into
    for each in sets:
        exact |= each.names.exact
        suffixes |= each.names.suffixes
        globs |= each.names.globs
        some = some or bool(each.networks)
        for shift, leading in each.networks.v4:
            v4.setdefault(1 << shift, set()).update(leading)
    size = len(exact) + len(suffixes) + len(globs) + sum(map(len, v4.values()))
    return {
        "names": {
            "exact": dict.fromkeys(sorted(exact), 1),
            "suffix": dict.fromkeys(sorted(suffixes), 1),
            "globs": sorted(globs),
        },
        "v4": [[width, dict.fromkeys(sorted(leading), 1)] for width, leading in sorted(v4.items())],
        "some": some,
        "size": size,
    }
