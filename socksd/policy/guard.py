"""
The guard: where nobody is sent, whatever a rule allows.

It stands behind the rules and takes back what they allow; what they deny is
denied already. It judges the address that would be dialled, so there is no
ALLOW before one is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from socksd.address import IPAddress
from socksd.policy.match import Condition, ResolvesTo, ToHost
from socksd.policy.sets import HostSet
from socksd.policy.special import SPECIAL

GUARD = "guard"  # the id of what takes an ALLOW back
PRIVATE = "private"  # the class that a rule has to name

_PRIVATE = SPECIAL[f"@{PRIVATE}"].networks


@dataclass(frozen=True, slots=True)
class Guard:
    """
    What ``[guard]`` says.

    Attributes:
        never: Built-in sets that nobody is sent to.
        private: Whether private space is open only to rules that name it.
    """

    never: tuple[HostSet, ...]
    private: bool

    @classmethod
    def of(cls, classes: Iterable[str], sets: Mapping[str, HostSet], *, private: bool) -> Guard:
        """Make one of the names of built-in sets, without their ``@``."""
        return cls(tuple(sets[f"@{name}"] for name in classes), private)

    def forbids(self, address: IPAddress) -> str:
        """Give the class for which nobody is sent to *address*; else ''."""
        for each in self.never:
            if each.networks.holds(address):
                return each.name.removeprefix("@")
        return ""

    def private_width(self, address: IPAddress) -> int:
        """Give how wide a network may be to name *address*; -1: it need not be named."""
        return _PRIVATE.width(address) if self.private else -1

    def objects(self, address: IPAddress, conditions: Iterable[Condition]) -> str:
        """Give the class for which *address* is refused to a rule of these; else ''."""
        if forbidden := self.forbids(address):
            return forbidden
        width = self.private_width(address)
        if width < 0 or any(names(condition, address, width) for condition in conditions):
            return ""
        return PRIVATE


def names(condition: Condition, address: IPAddress, width: int) -> bool:
    """
    Say whether ``to`` or ``resolves_to`` holds *address* by a network of *width* bits or less.

    To name private space is to write a network that lies in it: ``0.0.0.0/0``
    is "anywhere", and not meant to open what happens to be inside.
    """
    return isinstance(condition, (ToHost, ResolvesTo)) and any(
        each.networks.holds(address, width) for each in condition.sets
    )
