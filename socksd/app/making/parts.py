"""The parts of a generation, made or used again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from socksd.app.service import Part


class Parts:
    """
    The parts of one generation.

    Of the parts that are *running* those that would be made of the same are
    used again, with what they remember.
    """

    def __init__(self, running: Sequence[Part]) -> None:
        self.taken: list[Part] = []
        self._running = running

    def take(self, made_of: Hashable, make: Callable[[], Part]) -> Any:
        """Have a part run, the one that runs or a new one, and give the thing itself."""
        same = [part for part in self._running if part.made_of == made_of]
        self.taken.append(same[-1] if same else replace(make(), made_of=made_of))
        return self.taken[-1].what
