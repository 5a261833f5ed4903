"""What the ends of a case read, send and remember."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from socksd.conformance.case import Failed
from socksd.conformance.sockets import (
    SHOWN,
    Datagrams,
    Ending,
    Listener,
    Stream,
    Transcript,
    carry,
    shown,
)

HERE = ip_address("127.0.0.1")
NOT_OURS = ip_address("192.0.2.77")
PATIENCE = 0.1


@pytest.fixture
def transcript() -> Transcript:
    return Transcript()


@pytest.fixture
def ends(transcript: Transcript) -> Iterator[tuple[Stream, Stream]]:
    """Two ends of one connection, the far one as quiet as its transcript."""
    listener = Listener([HERE], Transcript(), PATIENCE)
    sock = socket.create_connection((str(HERE), listener.port))
    near = Stream(sock, "client", transcript, PATIENCE)
    far = listener.accept()
    yield near, far
    for closable in (near, far, listener):
        closable.close()


def test_a_transcript_joins_what_one_side_says_in_a_row() -> None:
    transcript = Transcript()
    transcript.octets("client ->", b"\x05")
    transcript.octets("client ->", b"\x01\x00")
    transcript.octets("client <-", b"\x05\x00")
    transcript.event("client <-", "FIN")
    assert transcript.lines() == ("client -> 05 01 00", "client <- 05 00", "client <- (FIN)")


def test_a_long_message_is_cut_and_says_how_long_it_was() -> None:
    assert shown(bytes(SHOWN)) == " ".join(["00"] * SHOWN)
    assert shown(bytes(9000)).endswith("00 ... (9000 octets)")


def test_what_comes_short_says_what_was_waited_for(ends: tuple[Stream, Stream]) -> None:
    near, far = ends
    with pytest.raises(Failed, match=r"^no reply within 0\.1 s$"):
        near.take(4, "reply")
    far.send(b"abc")
    far.finish()
    with pytest.raises(Failed, match=r"^3 octets of reply before FIN$"):
        near.take(4, "reply")


def test_a_reset_is_told_from_fin(ends: tuple[Stream, Stream], transcript: Transcript) -> None:
    near, far = ends
    far.reset()
    assert near.rest() == (b"", Ending.RESET)
    assert transcript.lines()[-1] == "client <- (RST)"


def test_other_octets_than_expected_are_shown(ends: tuple[Stream, Stream]) -> None:
    near, far = ends
    far.send(b"\x05\xff")
    with pytest.raises(Failed, match="METHOD: 05 00 expected, 05 ff seen"):
        near.expect(b"\x05\x00", "METHOD")


def test_a_peer_that_does_not_read_is_a_failure(ends: tuple[Stream, Stream]) -> None:
    near, _ = ends
    with pytest.raises(Failed, match="does not read"):
        near.send(bytes(64 << 20))


def test_sending_to_who_has_gone_is_left_to_the_next_read(
    ends: tuple[Stream, Stream], transcript: Transcript
) -> None:
    near, far = ends
    far.reset()
    near.rest()
    near.send(b"too late")
    near.finish()
    assert transcript.lines()[-3:] == (
        "client -> (the connection is gone)",
        "client -> (FIN)",
        "client -> (the connection is gone)",
    )


def test_flows_are_carried_at_once(ends: tuple[Stream, Stream]) -> None:
    near, far = ends
    many = bytes(range(256)) * (8 << 10)
    carry([(near, far, many), (far, near, many[::-1])], 10)


def test_a_flow_that_stalls_is_a_failure(ends: tuple[Stream, Stream]) -> None:
    near, _ = ends
    stalled, other = socket.socketpair()
    with stalled, other:
        sink = Listener([HERE], Transcript(), PATIENCE)
        sock = socket.create_connection((str(HERE), sink.port))
        with sock, pytest.raises(Failed, match=r"^0 of 3 octets in 0\.05 s$"):
            carry([(near, Stream(sock, "sink", Transcript(), PATIENCE), b"abc")], 0.05)
        sink.close()


def test_a_flow_cut_short_is_a_failure(ends: tuple[Stream, Stream]) -> None:
    near, far = ends
    far.finish()
    with pytest.raises(Failed, match="0 octets arrived, not the 3 sent"):
        carry([(near, near, b"abc")], 1)


def test_a_flow_that_breaks_is_a_failure(ends: tuple[Stream, Stream]) -> None:
    near, far = ends
    far.reset()
    with pytest.raises(Failed, match="broke"):
        carry([(near, near, b"abc")], 1)


def test_nobody_listens_on_an_address_that_is_not_ours(transcript: Transcript) -> None:
    with pytest.raises(OSError, match="assign"):
        Listener([HERE, NOT_OURS], transcript, PATIENCE)
    with pytest.raises(OSError, match="assign"):
        Datagrams((NOT_OURS, 0), "target", transcript, PATIENCE)


def test_a_target_that_nobody_comes_to_is_a_failure(transcript: Transcript) -> None:
    listener = Listener([HERE], transcript, PATIENCE)
    with pytest.raises(Failed, match="does not connect"):
        listener.accept()
    listener.close()
