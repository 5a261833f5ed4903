"""Which protocols a listener speaks, told apart by a client's first octet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

from socksd.codes import VERSION
from socksd.server.socks5 import Socks5

if TYPE_CHECKING:
    from socksd.server.dialogue import Dialogues, IDialogue
    from socksd.server.session import Session

# By its name in the configuration: the first octets of a protocol, and who speaks it.
_PROTOCOLS: dict[str, tuple[Collection[int], Callable[[Session], IDialogue]]] = {
    Socks5.protocol: ((VERSION,), Socks5),
}
PROTOCOLS: Final = tuple(_PROTOCOLS)


def dialogues(protocols: Collection[str]) -> Dialogues:
    """Give what to speak with whom, for a listener that speaks *protocols*."""
    spoken: Mapping[int, Callable[[Session], IDialogue]] = {
        octet: speaker
        for name, (octets, speaker) in _PROTOCOLS.items()
        if name in protocols
        for octet in octets
    }
    return spoken
