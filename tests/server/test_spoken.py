"""Which protocols a listener speaks."""

import pytest
from zope.interface.verify import verifyClass

from socksd.server.dialogue import IDialogue
from socksd.server.spoken import PROTOCOLS, dialogues


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_is_spoken_by_its_name(protocol: str) -> None:
    """What the configuration calls it is what the dialogue calls itself."""
    speakers = set(dialogues({protocol}).values())
    assert len(speakers) == 1
    (speaker,) = speakers
    assert isinstance(speaker, type)
    assert speaker.protocol == protocol  # type: ignore[attr-defined]  # IDialogue has it
    assert verifyClass(IDialogue, speaker, tentative=True)


def test_no_two_protocols_begin_with_the_same_octet() -> None:
    apart = sum(len(dialogues({protocol})) for protocol in PROTOCOLS)
    assert len(dialogues(PROTOCOLS)) == apart


def test_nothing_is_spoken_that_is_not_asked_for() -> None:
    assert not dialogues(())
