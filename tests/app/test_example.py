"""The policy of the shipped example, and whether its own tests would notice a mistake in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import attrs

from socksd.app.config import parse_config
from socksd.facts import Verdict
from socksd.policy.cases import failures
from socksd.policy.lint import Code, lint
from socksd.policy.rules import Rule
from tests.app.config.test_tables import TEXT, with_rules

EXAMPLE = parse_config(with_rules(TEXT), "etc/socksd.toml")


def test_the_tests_of_the_example_hold() -> None:
    assert list(failures(EXAMPLE.policy(), EXAMPLE.test)) == []
    assert len(EXAMPLE.test) == TEXT.count("#[[test]]") > 0


def test_each_rule_of_the_example_is_expected_by_a_test() -> None:
    told = {case.rule for case in EXAMPLE.test}
    told |= {report.rule for case in EXAMPLE.test for report in case.reports or ()}
    assert told == {*(rule.id for rule in EXAMPLE.rule), "default"}


def mutants(rules: tuple[Rule, ...]) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    """Flip and delete each rule, and swap each with each."""
    opposite = {Verdict.ALLOW: Verdict.DENY, Verdict.DENY: Verdict.ALLOW}
    for index, rule in enumerate(rules):
        before, after = rules[:index], rules[index + 1 :]
        yield f"flip {rule.id}", (*before, replace(rule, action=opposite[rule.action]), *after)
        yield f"delete {rule.id}", (*before, *after)
    for one, other in combinations(range(len(rules)), 2):
        swapped = list(rules)
        swapped[one], swapped[other] = rules[other], rules[one]
        yield f"swap {rules[one].id} and {rules[other].id}", tuple(swapped)


def test_the_tests_of_the_example_notice_nearly_every_mistake() -> None:
    every = dict(mutants(EXAMPLE.rule))
    unnoticed = [
        name
        for name, rules in every.items()
        if not list(failures(attrs.evolve(EXAMPLE, rule=rules).policy(), EXAMPLE.test))
    ]
    # Their ports are different: no request has both, and either may come first.
    assert unnoticed == ["swap no-mail and databases"]
    assert len(unnoticed) / len(every) <= 0.05


def test_lint_says_of_the_example_only_what_is_so() -> None:
    """Partners' names are not bounded: where those lead is the partners' business."""
    assert [(each.rule, each.code) for each in lint(EXAMPLE.policy(), tested=True)] == [
        ("staff", Code.UNBOUNDED)
    ]
