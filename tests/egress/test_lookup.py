"""What a lookup may say."""

from __future__ import annotations

from socksd.codes import ReplyCode
from socksd.egress.lookup import NoSuchName
from socksd.errors import Refused


def test_that_there_is_no_such_name_may_be_remembered() -> None:
    """ILookup: HOST_UNREACHABLE tells of the name, anything else of us."""
    error = NoSuchName()
    assert isinstance(error, Refused)
    assert error.reply is ReplyCode.HOST_UNREACHABLE
    assert error.reason == "no such name"
