"""What a scrape says of a whole service, and what alerts and dashboard ask for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from socksd.app.build import assemble, lasting
from socksd.app.config import Config, parse_config
from socksd.app.measures import Measures
from socksd.app.reload import Reloader
from socksd.events import Outcome
from socksd.observe.metrics import Distribution, Family, Kind, Labels
from tests.app.test_service import FakePort
from tests.app.test_service import Scene as ServiceScene
from tests.fakes import outcome
from tests.observe.closed import SERVED

ETC = Path(__file__).parent.parent.parent / "etc"

RULES = """
[log]
access = "journald:/run/no/journal"
[metrics]
endpoint = "tcp:9108:interface=127.0.0.1"
[[rule]]
id = "trial"
action = "deny"
mode = "report"
[[rule]]
id = "local"
action = "allow"
"""


class Source:
    path = None

    def read(self) -> str:
        return RULES

    def parse(self, text: str) -> Config:
        return parse_config(text, "")


class Scene:
    """A whole service that has not begun."""

    def __init__(self) -> None:
        pytest.importorskip("prometheus_client")
        self.reactor: Any = MemoryReactorClock()
        self.common = lasting(self.reactor)
        self.gateway = assemble(Source(), RULES, self.reactor, rolled_back=False)
        for reloader in (getattr(p.start, "__self__", None) for p in self.gateway.beside):
            if isinstance(reloader, Reloader):
                self.reloader = reloader
                reloader._adopted(self.gateway.generation)
        # What assemble() has given to the listener of the metrics.
        (listener,) = (
            part.start.__self__
            for part in self.gateway.generation.parts
            if part.made_of and part.made_of[0] == "metrics"
        )
        self.page = listener._sample

    def families(self) -> dict[str, Family]:
        families = list(*outcome(self.page()).args)
        found = {family.name: family for family in families}
        assert len(found) == len(families)
        return found

    def values(self, name: str) -> dict[Labels, float | Distribution]:
        return dict(self.families()[name].values)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_everything_has_a_name_and_a_help(scene: Scene) -> None:
    for family in scene.families().values():
        assert re.fullmatch(r"(socksd|process)_[a-z_]+", family.name)
        assert family.help.endswith(".")
        assert all(len(labels) == len(family.labels) for labels in family.values)


def test_it_can_be_written(scene: Scene) -> None:
    page = outcome(scene.page())().decode()
    assert "\nsocksd_accepting 1.0\n" in page
    assert '\nsocksd_name_cache_questions_total{result="miss"} 0.0\n' in page
    assert '\nsocksd_login_cache_questions_total{result="hit"} 0.0\n' in page
    assert "\nprocess_open_fds " in page


def test_rules_that_decide_are_apart_from_those_on_trial(scene: Scene) -> None:
    observer = scene.gateway.generation.runtime.observer
    observer(SERVED)
    observer(replace(SERVED, rule="default", outcome=Outcome.DENIED, reports=()))
    assert scene.values("socksd_rule_sessions") == {
        ("local", "served"): 1,
        ("default", "denied"): 1,
    }
    assert scene.values("socksd_trial_sessions") == {("trial",): 1}
    assert scene.values("socksd_sessions_closed")["served",] == 1


def test_what_the_log_has_lost_is_counted(scene: Scene) -> None:
    scene.gateway.generation.runtime.observer(SERVED)
    assert scene.values("socksd_access_log_lines_lost") == {(): 1}


def test_reloads_are_counted(scene: Scene) -> None:
    scene.reloader.reloads, scene.reloader.failed = 3, 2
    assert scene.values("socksd_reloads") == {("done",): 3, ("failed",): 2}
    assert scene.values("socksd_config_unconfirmed") == {(): 0}
    scene.reloader.unconfirmed_until = 1.0
    assert scene.values("socksd_config_unconfirmed") == {(): 1}


def test_live_sessions_count_with_what_they_have_carried() -> None:
    service = ServiceScene(FakePort())
    service.gateway.startService()
    common = lasting(service.clock)  # type: ignore[arg-type]  # of it, what is used
    reloader: Any = type(
        "Reloader",
        (),
        {"reloads": 0, "failed": 0, "loaded": 0.0, "unconfirmed_until": None, "rolled_back": False},
    )
    common.metrics.up, common.metrics.down = 1000, 2000
    # As in a worker, which does not count what its numbers begin with.
    service.gateway.sessions.begun = service.gateway.sessions.before = 10**9
    measures = Measures(service.gateway, reloader, common.counters, common.metrics)
    client = service.connect()
    session = next(iter(service.gateway.sessions))

    def value(name: str) -> dict[Labels, float | Distribution]:
        return dict(next(family.values for family in measures() if family.name == name))

    assert value("socksd_octets") == {("up",): 1000, ("down",): 2000}
    session._relay = type("Relay", (), {"up": 5, "down": 7})()  # type: ignore[assignment]  # all that is asked of one
    assert value("socksd_octets") == {("up",): 1005, ("down",): 2007}
    assert value("socksd_sessions") == {(): 1}
    assert value("socksd_sessions_opened") == {(): 1}
    session._relay = None
    client.receive_reset()
    assert value("socksd_sessions") == {(): 0}
    assert value("socksd_sessions_opened") == {(): 1}
    outcome(service.gateway.stopService())


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"\b(?:socksd|process)_[a-z_]+", text))


def written(families: dict[str, Family]) -> set[str]:
    """The names of the series that Prometheus has of them."""
    names = set()
    for name, family in families.items():
        if family.kind is Kind.HISTOGRAM:
            names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
        else:
            names.add(f"{name}_total" if family.kind is Kind.COUNTER else name)
    return names


@pytest.fixture
def names(scene: Scene) -> set[str]:
    return written(scene.families())


def test_alerts_ask_for_what_there_is(names: set[str]) -> None:
    text = (ETC / "prometheus" / "alerts.yml").read_text()
    expressions = "\n".join(re.findall(r"expr:((?: .*|\n {10}.*)+)", text))
    assert len(asked_for(expressions)) >= 10
    of_a_parent = {"socksd_workers"}  # which tests/app/test_whole.py holds
    assert asked_for(expressions) <= names | of_a_parent


def test_the_dashboard_asks_for_what_there_is_and_for_all_of_it(names: set[str]) -> None:
    dashboard = json.loads((ETC / "grafana" / "socksd.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    asked = asked_for(json.dumps([dashboard["templating"], dashboard["annotations"], targets]))
    assert asked <= names
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    every = {re.sub("_(bucket|count|sum)$", "", name) for name in names}
    assert every - shown == {"process_start_time_seconds"}


def test_no_two_panels_lie_on_each_other() -> None:
    dashboard = json.loads((ETC / "grafana" / "socksd.json").read_text())
    places = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_operators_read_of_every_number(names: set[str]) -> None:
    page = (ETC.parent / "docs" / "operations.rst").read_text()
    told = {re.sub("_(bucket|count|sum)$", "", name) for name in names}
    # SOCKSD_USER is a field of the journal; only a parent counts its workers.
    assert told == asked_for(page) - {"socksd_user", "socksd_workers"}
