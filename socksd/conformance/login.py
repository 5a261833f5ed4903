"""Cases of RFC 1929, the login by user name and password."""

from __future__ import annotations

from socksd.conformance.bench import Bench, connect, login
from socksd.conformance.case import Failed, Sentence, case
from socksd.conformance.sockets import Ending, Stream

SECTION = "RFC 1929 section 2"
VERIFIES = Sentence(
    SECTION,
    "The server verifies the supplied UNAME and PASSWD, and sends the following response",
)
STATUS = Sentence(SECTION, "A STATUS field of X'00' indicates success.")
CLOSES = Sentence(
    SECTION,
    "If the server returns a `failure' (STATUS value other than X'00') status, it MUST close the"
    " connection.",
)
LENGTHS = Sentence(SECTION, "The ULEN field contains the length of the UNAME field that follows.")
VERSION = Sentence(
    SECTION,
    "The VER field contains the current version of the subnegotiation, which is X'01'.",
)
COMPLETED = Sentence(
    "RFC 1928 section 4",
    "Once the method-dependent subnegotiation has completed, the client sends the request details.",
)


def asked_for_login(bench: Bench) -> Stream:
    """Connect, and be asked for a login; only where we could log in."""
    bench.credentials()
    client = bench.dial()
    client.send(b"\x05\x01\x02")
    client.expect(b"\x05\x02", "METHOD selection")
    return client


def refused(bench: Bench, octets: bytes, *, silently: bool = False) -> Stream:
    """Send a login that has to fail; *silently* allows an end without a status."""
    client = asked_for_login(bench)
    client.send(octets)
    if silently:
        answer, ending = client.rest(bench.pace.closing)
        if answer[:2] == b"\x01\x00":
            raise Failed("the login is accepted")
        if ending is Ending.NONE:
            raise Failed(f"the connection is still open after {bench.pace.closing:g} s")
        return client
    answer = client.take(2, "STATUS", bench.pace.lookup)
    if answer[0] != 1:
        raise Failed(f"VER of the status is {answer[0]:02x}, not 01")
    if answer[1] == 0:
        raise Failed("the login is accepted")
    return client


@case(STATUS)
def login_right(bench: Bench) -> None:
    """The right user name and password are accepted, and a request is then served."""
    client = asked_for_login(bench)
    client.send(login(*bench.credentials()))
    client.expect(b"\x01\x00", "STATUS")
    listener = bench.listen()
    client.send(connect(listener))
    bench.accept(listener)


@case(VERIFIES)
def login_wrong_password(bench: Bench) -> None:
    """A wrong password is answered with a status that is not 00."""
    user, password = bench.credentials()
    refused(bench, login(user, password[:-1] + bytes([password[-1] ^ 1])))


@case(VERIFIES)
def login_wrong_user(bench: Bench) -> None:
    """A user that does not exist is answered with a status that is not 00."""
    _, password = bench.credentials()
    refused(bench, login(b"nobody-of-this-name", password))


@case(CLOSES)
def login_failure_closes(bench: Bench) -> None:
    """The connection ends after a failed login, and is not served any more."""
    user, _ = bench.credentials()
    client = refused(bench, login(user, b"wrong"))
    octets, ending = client.rest(bench.pace.closing)
    if octets:
        raise Failed("something follows the status of a failed login")
    if ending is Ending.NONE:
        raise Failed(f"the connection is still open after {bench.pace.closing:g} s")


@case(LENGTHS)
def login_longest(bench: Bench) -> None:
    """A user name and a password of 255 octets each are read whole, and refused."""
    bench.credentials()
    refused(bench, login(b"u" * 255, b"p" * 255))


@case(LENGTHS)
def login_empty_password(bench: Bench) -> None:
    """PLEN 0 does not log in: a status that is not 00, or the end."""
    user, _ = bench.credentials()
    refused(bench, login(user, b""), silently=True)


@case(LENGTHS)
def login_nul_in_user(bench: Bench) -> None:
    """A NUL does not end the user name: another user follows by the length."""
    user, password = bench.credentials()
    refused(bench, login(user + b"\x00x", password))


@case(LENGTHS)
def login_nul_in_password(bench: Bench) -> None:
    """A NUL does not end the password."""
    user, password = bench.credentials()
    refused(bench, login(user, password + b"\x00x"))


@case(VERSION)
def login_version(bench: Bench) -> None:
    """A login whose VER is not 01 is not accepted."""
    refused(bench, b"\x05" + login(*bench.credentials())[1:], silently=True)


@case(COMPLETED)
def login_left_out(bench: Bench) -> None:
    """A request in the place of the login is not served."""
    listener = bench.listen()
    client = asked_for_login(bench)
    client.send(connect(listener))
    client.rest(bench.pace.quiet)
    if listener.accepted("target", 0) is not None:
        raise Failed("the server connects to the target without a login")
