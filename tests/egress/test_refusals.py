from __future__ import annotations

import errno
from ipaddress import ip_address
from itertools import permutations

import pytest
from twisted.internet import error

from socksd.codes import ReplyCode
from socksd.egress.refusals import refusal
from socksd.errors import TimedOut

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::2")


def connect_error(number: int) -> Exception:
    """What a Twisted reactor makes of an errno."""
    return error.getConnectError((number, "words that nobody should read"))


@pytest.mark.parametrize(
    ("failure", "reply", "reason"),
    [
        (errno.ECONNREFUSED, ReplyCode.CONNECTION_REFUSED, "connection refused by 192.0.2.1"),
        (errno.EACCES, ReplyCode.NOT_ALLOWED, "this host does not permit connecting to 192.0.2.1"),
        (errno.EPERM, ReplyCode.NOT_ALLOWED, "this host does not permit connecting to 192.0.2.1"),
        (errno.EHOSTUNREACH, ReplyCode.HOST_UNREACHABLE, "host unreachable: 192.0.2.1"),
        (errno.EHOSTDOWN, ReplyCode.HOST_UNREACHABLE, "host unreachable: 192.0.2.1"),
        (errno.ETIMEDOUT, ReplyCode.HOST_UNREACHABLE, "no answer in time from 192.0.2.1"),
        (errno.ENETUNREACH, ReplyCode.NETWORK_UNREACHABLE, "network unreachable: 192.0.2.1"),
        (errno.ENETDOWN, ReplyCode.NETWORK_UNREACHABLE, "network unreachable: 192.0.2.1"),
        (errno.EAFNOSUPPORT, ReplyCode.NETWORK_UNREACHABLE, "network unreachable: 192.0.2.1"),
        (errno.EMFILE, ReplyCode.GENERAL_FAILURE, "cannot connect to 192.0.2.1: EMFILE"),
        (9999, ReplyCode.GENERAL_FAILURE, "cannot connect to 192.0.2.1: 9999"),
    ],
)
def test_an_errno_becomes_the_reply_that_says_it(
    failure: int, reply: ReplyCode, reason: str
) -> None:
    for raised in (connect_error(failure), OSError(failure, ""), error.ConnectBindError(failure)):
        refused = refusal([(ONE, raised)])
        assert (refused.reply, refused.reason) == (reply, reason)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        pytest.param(
            error.ConnectBindError(errno.EADDRNOTAVAIL),
            "the source address for 192.0.2.1 is none of this host's (EADDRNOTAVAIL)",
            id="by bind(2)",
        ),
        pytest.param(
            connect_error(errno.EADDRNOTAVAIL),
            "no port is left to connect to 192.0.2.1 from (EADDRNOTAVAIL)",
            id="by connect(2)",
        ),
    ],
)
def test_an_address_that_is_not_available_is_ours(raised: BaseException, reason: str) -> None:
    refused = refusal([(ONE, raised)])
    assert (refused.reply, refused.reason) == (ReplyCode.GENERAL_FAILURE, reason)


def test_our_own_deadline_is_host_unreachable() -> None:
    """Not TTL_EXPIRED: nobody has told us of a TTL, and peers answer 4 as well."""
    refused = refusal([(ONE, error.TimeoutError())])
    assert refused.reply is ReplyCode.HOST_UNREACHABLE
    assert refused.reason == "no answer in time from 192.0.2.1"


def test_silence_is_told_from_what_somebody_has_said() -> None:
    """Both are 0x04; HTTP has a status of its own for silence."""
    assert isinstance(refusal([(ONE, error.TimeoutError())]), TimedOut)
    assert isinstance(refusal([(ONE, connect_error(errno.ETIMEDOUT))]), TimedOut)
    assert not isinstance(refusal([(ONE, connect_error(errno.EHOSTUNREACH))]), TimedOut)


def test_an_error_without_errno_goes_by_its_class() -> None:
    refused = refusal([(ONE, error.NoProtocol())])
    assert refused.reply is ReplyCode.GENERAL_FAILURE
    assert refused.reason == "cannot connect to 192.0.2.1: NoProtocol"


MOST_TELLING_FIRST = [
    errno.ECONNREFUSED,
    errno.EPERM,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.EADDRNOTAVAIL,
    errno.EMFILE,
    errno.ENETUNREACH,
]


@pytest.mark.parametrize("position", range(len(MOST_TELLING_FIRST) - 1))
def test_the_most_telling_failure_speaks_for_all(position: int) -> None:
    """In whatever order they came; and the log learns how many there were."""
    better, worse = MOST_TELLING_FIRST[position : position + 2]
    expected = refusal([(ONE, connect_error(better))])
    for failures in permutations([(ONE, connect_error(better)), (TWO, connect_error(worse))]):
        refused = refusal(failures)
        assert refused.reply is expected.reply
        assert refused.reason == f"{expected.reason} (2 addresses tried)"


def test_of_equals_the_first_speaks() -> None:
    failures = [(TWO, connect_error(errno.ECONNREFUSED)), (ONE, connect_error(errno.ECONNREFUSED))]
    assert refusal(failures).reason == "connection refused by 2001:db8::2 (2 addresses tried)"
