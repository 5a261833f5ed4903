"""How long, how much and how many."""

from __future__ import annotations

from typing import Annotated

import attrs

from socksd.app.config.units import rate, size
from socksd.app.config.values import a_duration, a_number_or_auto, with_unit


@attrs.frozen
class Deadlines:
    """``[deadlines]``: how long a session may take for what."""

    handshake: Annotated[float, a_duration()] = 10.0
    resolve: Annotated[float, a_duration()] = 10.0
    connect: Annotated[float, a_duration()] = 15.0
    bind: Annotated[float, a_duration()] = 60.0
    idle: Annotated[float, a_duration()] = 900.0
    linger: Annotated[float, a_duration()] = 300.0
    closing: Annotated[float, a_duration(most="10s")] = 10.0  # RFC 1928 section 6: not more


@attrs.frozen
class Limits:
    """``[limits]``: how much a session, and all of them, may take."""

    early_data: Annotated[int, with_unit(size, "1KiB", "1MiB", "64KiB")] = 65536
    sessions: Annotated[int | None, a_number_or_auto(1, 1_000_000)] = None  # None: as many as fit


@attrs.frozen
class Limit:
    """``[limit.NAME]``: what holds for the sessions whose rule names it in ``limits``."""

    bandwidth: Annotated[int | None, with_unit(rate, "1KB/s", "100GB/s", "20MB/s")] = None
    idle: Annotated[float | None, a_duration()] = None  # None: as in [deadlines]

    def __attrs_post_init__(self) -> None:
        if self.bandwidth is None and self.idle is None:
            raise ValueError("limits nothing: it needs a bandwidth, an idle time, or both")
