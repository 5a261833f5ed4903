"""The numbers are RFC 1928's, and commands have one word each."""

from __future__ import annotations

from socksd.codes import COMMANDS, AddressType, Command, Method, ReplyCode
from socksd.policy import values


def test_the_numbers_are_those_of_the_rfc() -> None:
    assert [*Method] == [0x00, 0x01, 0x02, 0xFF]  # section 3
    assert [*Command] == [1, 2, 3]  # section 4
    assert [*AddressType] == [1, 3, 4]  # section 5
    assert [*ReplyCode] == [*range(9)]  # section 6


def test_every_command_has_a_word_and_rules_read_it() -> None:
    assert set(COMMANDS) == set(Command)
    assert {values.command(word) for word in COMMANDS.values()} == set(Command)
