"""What Prometheus is given is what was counted."""

from __future__ import annotations

import pytest

from socksd.observe.metrics import BOUNDS, Family, Kind, Times

exposition = pytest.importorskip("socksd.observe.exposition", reason="needs prometheus-client")
parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")


def samples(*families: Family) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = exposition.render(families).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(page)
        for sample in family.samples
    }


def label(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def test_a_counter_ends_in_total() -> None:
    family = Family(Kind.COUNTER, "x", "X.", {("a", "b"): 3}, ("one", "other"))
    assert samples(family)["x_total", label(one="a", other="b")] == 3


def test_a_gauge_is_as_it_is() -> None:
    assert samples(Family(Kind.GAUGE, "x", "X.", {(): 1.5}))["x", label()] == 1.5


def test_a_histogram_is_cumulative_and_infinite_at_its_end() -> None:
    times = Times()
    for seconds in (0.0, BOUNDS[0], BOUNDS[1], 100.0):
        times.add(seconds)
    found = samples(Family(Kind.HISTOGRAM, "x", "X.", {("a",): times.now()}, ("of",)))
    assert found["x_bucket", label(of="a", le=str(BOUNDS[0]))] == 2
    assert found["x_bucket", label(of="a", le=str(BOUNDS[1]))] == 3
    assert found["x_bucket", label(of="a", le=str(BOUNDS[-1]))] == 3
    assert found["x_bucket", label(of="a", le="+Inf")] == 4
    assert found["x_count", label(of="a")] == 4
    assert found["x_sum", label(of="a")] == BOUNDS[0] + BOUNDS[1] + 100.0


def test_a_label_cannot_break_the_page() -> None:
    hostile = 'a"\n} 1\ny 2\\'
    found = samples(Family(Kind.GAUGE, "x", "X.", {(hostile,): 1}, ("rule",)))
    assert found["x", label(rule=hostile)] == 1
    assert "y" not in {name for name, _ in found}
