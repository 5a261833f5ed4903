from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.app.config import as_rate, duration, rate, size


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1.5MB/s", 1_500_000),
        ("500KB/s", 500_000),
        ("2GB/s", 2 * 10**9),
        ("16KiB/s", 16_384),
        ("16MiB/s", 1 << 24),
        ("1GiB/s", 1 << 30),
        ("64kbit/s", 8_000),
        ("100Mbit/s", 12_500_000),
        ("10Gbit/s", 1_250_000_000),
    ],
)
def test_rates_are_octets_a_second(text: str, octets: int) -> None:
    assert rate(text) == octets


@pytest.mark.parametrize("text", ["1KB/s", "999KB/s", "1.5MB/s", "20MB/s", "100GB/s"])
def test_a_rate_is_written_as_it_is_read(text: str) -> None:
    assert as_rate(rate(text)) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0.0), ("10s", 10.0), ("1.5s", 1.5), ("15m", 900.0), ("2h", 7200.0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@given(
    st.integers(0, 10**9 - 1), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)])
)
def test_every_number_with_a_unit_is_a_duration(number: int, unit: tuple[str, float]) -> None:
    name, factor = unit
    assert duration(f"{number}{name}") == pytest.approx(number * factor)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "10 s",
        "10S",
        "-1s",
        "1e3s",
        "1h30m",
        "1d",
        "10s\n",
        "١s",
        ".5s",
        "1.s",
        "infs",
    ],
)
def test_anything_else_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write one as"):
        duration(text)


@given(st.text() | st.from_regex(r"[0-9.]+(ms|s|m|h)"))
def test_whatever_is_written_it_is_a_finite_number_or_that_error(text: str) -> None:
    try:
        seconds = duration(text)
    except ValueError as error:
        said = str(error)
        seconds = 0.0
    else:
        said = "is not a duration"
    assert "is not a duration" in said
    assert 0 <= seconds < float("inf")


@pytest.mark.parametrize(
    ("text", "octets"), [("512B", 512), ("64KiB", 65536), ("1MiB", 1048576), ("0B", 0)]
)
def test_sizes_are_octets(text: str, octets: int) -> None:
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "64", "64KB", "64k", "64 KiB", "1.5MiB", "-1B", "1GiB"])
def test_anything_else_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write one as"):
        size(text)
