"""Durations as seconds, sizes and rates as octets."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB)")
_OCTETS = {"B": 1, "KiB": 1024, "MiB": 1024**2}
_A_SECOND = {  # octets
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "kbit": 125,
    "Mbit": 125_000,
    "Gbit": 125_000_000,
}
_RATE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)({'|'.join(_A_SECOND)})/s")


def duration(text: str) -> float:
    """
    Give the seconds that a duration as ``"1.5s"`` or ``"15m"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a duration; write one as "500ms", "10s", "15m" or "2h"')
    return float(found[1]) * _SECONDS[found[2]]


def size(text: str) -> int:
    """
    Give the octets that a size as ``"64KiB"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a size; write one as "512B", "64KiB" or "1MiB"')
    return int(found[1]) * _OCTETS[found[2]]


def rate(text: str) -> int:
    """
    Give the octets a second that a rate as ``"20MB/s"`` or ``"100Mbit/s"`` stands for.

    Raises:
        ValueError: It is not one.
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f'{text!r} is not a rate; write one as "500KB/s", "20MB/s", "16MiB/s" or "100Mbit/s"'
        )
    return int(float(found[1]) * _A_SECOND[found[2]])


def as_rate(octets: int) -> str:
    """Write octets a second as rate() reads them, to six digits."""
    unit = next((unit for unit in ("GB", "MB") if octets >= _A_SECOND[unit]), "KB")
    return f"{octets / _A_SECOND[unit]:g}{unit}/s"
