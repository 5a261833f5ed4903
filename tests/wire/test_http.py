from __future__ import annotations

import http.client
import io
from base64 import b64encode
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.errors import ProtocolError
from socksd.wire.http import FIELDS, MOST, RequestHead, answer
from tests.wire.strategies import damaged, destinations, split

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"


def taken(octets: bytes) -> RequestHead:
    head = RequestHead.take(bytearray(octets))
    assert head is not None
    return head


def head_of(line: bytes, *fields: bytes, host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *fields, b"", b""])


def status_of(octets: bytes) -> int:
    """What a client is told that sends *octets*."""
    with pytest.raises(ProtocolError) as raised:
        assert RequestHead.take(bytearray(octets)) is not None
    assert raised.value.reply is None
    response = parsed(raised.value.answer)
    assert response.getheader("Connection") == "close"
    return response.status


class _Received:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._octets)


def parsed(octets: bytes, method: str = "GET") -> http.client.HTTPResponse:
    """Read a response as another implementation does."""
    response = http.client.HTTPResponse(_Received(octets), method=method)  # type: ignore[arg-type]  # all it reads from
    response.begin()
    return response


tokens = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~",
    min_size=1,
    max_size=12,
).map(str.encode)
values = st.lists(st.integers(0x20, 0xFF).filter(lambda octet: octet != 0x7F), max_size=20).map(
    bytes
)
SPOKEN_FOR = {b"host", b"content-length", b"transfer-encoding", b"max-forwards"}
fields = st.lists(
    st.tuples(tokens.filter(lambda name: name.lower() not in SPOKEN_FOR), values), max_size=6
)
methods = tokens.filter(lambda method: method not in (b"CONNECT", b"TRACE"))
reached = destinations.filter(lambda destination: destination.port > 0)
paths = st.text("abc/?&=%20;:@~|", max_size=20).map(lambda text: b"/" + text.encode())


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Any head that a proxy takes."""
    to = str(draw(reached)).encode()
    extra = [name + b":" + value for name, value in draw(fields)]
    version = draw(st.sampled_from([b"1.0", b"1.1"]))
    if draw(st.booleans()):
        return head_of(b"CONNECT %b HTTP/%b" % (to, version), *extra)
    line = b"%b http://%b%b HTTP/%b" % (draw(methods), to, draw(paths), version)
    framings = [[], [b"Content-Length: 3"]]
    if version == b"1.1":
        framings.append([b"Transfer-Encoding: chunked"])
    return head_of(line, *extra, *draw(st.sampled_from(framings)))


@given(st.data())
def test_a_head_is_taken_at_its_last_octet(data: st.DataObject) -> None:
    """However it is split; what follows stays in the buffer."""
    octets = data.draw(heads())
    buffer = bytearray()
    for segment in data.draw(split(octets[:-1])):
        buffer += segment
        assert RequestHead.take(buffer) is None
    assert buffer == octets[:-1]
    buffer += octets[-1:] + b"early"
    assert RequestHead.take(buffer) == taken(octets)
    assert buffer == b"early"


@given(st.one_of(st.binary(max_size=300), damaged(heads())))
@example(b"\r\n\r\n")
@example(b"GET http://h/ HTTP/1.1\r\n\r\n")
@example("GET http://\u0660/ HTTP/1.1\r\n".encode())
def test_nothing_but_protocol_error_comes_of_any_octets(octets: bytes) -> None:
    buffer = bytearray()
    told = []
    try:
        for index in range(len(octets)):
            buffer += octets[index : index + 1]
            head = RequestHead.take(buffer)
            if head is not None:
                head.credentials()
                assert isinstance(head.persistent, bool)
                assert isinstance(head.prefers_html, bool)
                head.encode()
    except ProtocolError as error:
        told.append(parsed(error.answer).status)
    assert all(400 <= status < 600 for status in told)


# -- where to -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "destination"),
    [
        (b"example.com:443", Destination("example.com", 443)),
        (b"EXAMPLE.com.:00443", Destination("example.com", 443)),
        (b"[::1]:80", Destination(IPv6Address("::1"), 80)),
        (b"[::ffff:127.0.0.1]:80", Destination(IPv4Address("127.0.0.1"), 80)),
        (b"0x7f.1:80", Destination(IPv4Address("127.0.0.1"), 80)),
    ],
    ids=repr,
)
def test_connect_names_a_destination(target: bytes, destination: Destination) -> None:
    head = taken(head_of(b"CONNECT %b HTTP/1.1" % target))
    assert (head.destination, head.path, head.length) == (destination, b"", 0)


@pytest.mark.parametrize(
    "target",
    [
        b"example.com", b"example.com:", b"example.com:0", b"example.com:65536",
        b"example.com:+80", b"example.com:080080", b":80", b"user@example.com:80",
        b"user:pw@example.com:80", b"::1:80", b"[::1]", b"[::1:80", b"[fe80::1%25eth0]:80",
        b"[127.0.0.1]:80", b"ex%61mple.com:80", b"example.com:80/", b"http://example.com:80",
        b"a..b:80", b"-:80:80", b"/", b"*",
    ],
    ids=repr,
)  # fmt: skip
def test_connect_to_anything_else_is_a_bad_request(target: bytes) -> None:
    assert status_of(head_of(b"CONNECT %b HTTP/1.1" % target)) == 400


@pytest.mark.parametrize(
    ("target", "destination", "path"),
    [
        (b"http://example.com", Destination("example.com", 80), b"/"),
        (b"HTTP://Example.com:/a", Destination("example.com", 80), b"/a"),
        (b"http://example.com:8080?q", Destination("example.com", 8080), b"/?q"),
        (b"http://[::1]/a?b@c#"[:-1], Destination(IPv6Address("::1"), 80), b"/a?b@c"),
        (b"http://2130706433//h/", Destination(IPv4Address("127.0.0.1"), 80), b"//h/"),
        (b"http://h:443/\\x", Destination("h", 443), b"/\\x"),
    ],
    ids=repr,
)
def test_the_absolute_form_names_a_destination_and_a_path(
    target: bytes, destination: Destination, path: bytes
) -> None:
    head = taken(head_of(b"GET %b HTTP/1.1" % target))
    assert (head.destination, head.path) == (destination, path)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/", 400), (b"*", 400), (b"example.com:80", 400), (b"http:/example.com/", 400),
        (b"http:///etc", 400), (b"http://:80/", 400), (b"http://user@example.com/", 400),
        (b"http://good\\@evil/", 400), (b"http://good\\.evil/", 400), (b"http://a#@b/", 400),
        (b"http://a/b#c", 400), (b"http://[::1%25eth0]/", 400), (b"http://a%2fb/", 400),
        (b"http://a,b/", 400), (b"http://a:80:80/", 400), (b"http://a:x/", 400),
        (b"https://example.com/", 501), (b"ftp://example.com/", 501),
    ],
    ids=repr,
)  # fmt: skip
def test_other_targets_are_refused(target: bytes, status: int) -> None:
    assert status_of(head_of(b"GET %b HTTP/1.1" % target)) == status


def test_who_takes_us_for_a_web_server_reads_that_this_is_a_proxy() -> None:
    with pytest.raises(ProtocolError) as raised:
        taken(head_of(b"GET / HTTP/1.1"))
    assert b"curl --proxy http://HOST:PORT URL" in raised.value.answer


# -- what may be understood in two ways ---------------------------------------

GET = b"GET http://example.com/ HTTP/1.1"
POST = b"POST http://example.com/ HTTP/1.1"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        pytest.param(head_of(GET, host=b""), 400, id="no Host"),
        pytest.param(head_of(GET, b"hOST: i"), 400, id="two Hosts"),
        pytest.param(head_of(GET, host=b"Host: a b"), 400, id="no such Host"),
        pytest.param(head_of(GET, host=b"Host: a/b"), 400, id="a Host with a path"),
        pytest.param(head_of(GET, host=b"Host: u@a"), 400, id="a Host with userinfo"),
        pytest.param(head_of(GET, b" folded: 1"), 400, id="obs-fold"),
        pytest.param(head_of(GET, b"\tfolded"), 400, id="obs-fold by HTAB"),
        pytest.param(head_of(GET, host=b" Host: h"), 400, id="a fold of the request line"),
        pytest.param(head_of(GET, b"A : 1"), 400, id="space before the colon"),
        pytest.param(head_of(GET, b": 1"), 400, id="no name"),
        pytest.param(head_of(GET, b"A"), 400, id="no colon"),
        pytest.param(head_of(GET, b"A: 1\nB: 2"), 400, id="bare LF"),
        pytest.param(head_of(GET, b"A: 1\rB: 2"), 400, id="bare CR"),
        pytest.param(head_of(GET, b"A: \x00"), 400, id="NUL"),
        pytest.param(head_of(GET, b"A\x00: 1"), 400, id="NUL in a name"),
        pytest.param(head_of(GET, b"Content-Length: 1", b"Content-Length: 1"), 400, id="two CL"),
        pytest.param(head_of(GET, b"Content-Length: 1, 1"), 400, id="a list of CL"),
        pytest.param(head_of(GET, b"Content-Length: +1"), 400, id="a signed CL"),
        pytest.param(head_of(GET, b"Content-Length: 0x1"), 400, id="a hexadecimal CL"),
        pytest.param(head_of(GET, b"Content-Length:"), 400, id="an empty CL"),
        pytest.param(head_of(GET, b"Content-Length: " + b"9" * 19), 400, id="a long CL"),
        pytest.param(
            head_of(POST, b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400, id="CL.TE"
        ),
        pytest.param(head_of(POST, b"Transfer-Encoding: x", b"content-length: 1"), 400, id="TE.CL"),
        pytest.param(head_of(POST, b"Transfer-Encoding: gzip, chunked"), 501, id="two codings"),
        pytest.param(
            head_of(POST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            501,
            id="TE.TE",
        ),
        pytest.param(head_of(POST, b"Transfer-Encoding: identity"), 501, id="identity"),
        pytest.param(head_of(POST, b"Transfer-Encoding:"), 501, id="an empty TE"),
        pytest.param(
            head_of(b"POST http://h/ HTTP/1.0", b"Transfer-Encoding: chunked"),
            400,
            id="chunked in HTTP/1.0",
        ),
        pytest.param(head_of(b"CONNECT h:1 HTTP/1.1", b"Content-Length: 1"), 400, id="content"),
        pytest.param(
            head_of(b"CONNECT h:1 HTTP/1.1", b"Transfer-Encoding: chunked"), 400, id="chunks"
        ),
        pytest.param(head_of(b"GET  http://h/ HTTP/1.1"), 400, id="two spaces"),
        pytest.param(head_of(b"GET http://h/"), 400, id="HTTP/0.9"),
        pytest.param(head_of(b"GET http://h/ a HTTP/1.1"), 400, id="a space in the target"),
        pytest.param(head_of(b"GET http://h/ http/1.1"), 400, id="a lower-case version"),
        pytest.param(head_of(b"G@T http://h/ HTTP/1.1"), 400, id="no method"),
        pytest.param(head_of(b"GET http://h/\xc3\xbc HTTP/1.1"), 400, id="not ASCII"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="HTTP/2"),
        pytest.param(head_of(b"GET http://h/ HTTP/1.2"), 505, id="HTTP/1.2"),
        pytest.param(head_of(b"TRACE http://h/ HTTP/1.1"), 501, id="TRACE"),
        pytest.param(
            head_of(b"OPTIONS http://h/ HTTP/1.1", b"Max-Forwards: 0"), 501, id="Max-Forwards"
        ),
        pytest.param(head_of(GET, *[b"A: 1"] * FIELDS), 431, id="too many fields"),
        pytest.param(
            GET + b"\r\n" + b"A:\r\n" * (FIELDS + 1), 431, id="too many fields, without an end"
        ),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", 400, id="another protocol's first line"),
        pytest.param(GET + b"\nHost: h\n\n", 400, id="lines that end without CR"),
        pytest.param(GET + b"\r\nA: " + bytes(MOST), 431, id="a head without an end"),
        pytest.param(b"GET http://h/" + b"a" * MOST, 414, id="a target without an end"),
    ],
)
def test_what_may_be_understood_in_two_ways_is_refused(octets: bytes, status: int) -> None:
    """And what is no HTTP/1.1 that a proxy forwards; RFC 9112 says what is which."""
    assert status_of(octets) == status


def test_a_head_may_be_as_long_as_it_may() -> None:
    """And one octet longer is refused, whether its end is there or not."""
    whole = head_of(GET, b"A: ")
    longest = head_of(GET, b"A: " + b"a" * (MOST - len(whole)))
    assert len(longest) == MOST
    assert taken(longest)
    assert RequestHead.take(bytearray(longest[:-1])) is None
    assert status_of(longest.replace(b"A: ", b"A: a")) == 431


def test_what_a_client_sent_is_not_in_the_error() -> None:
    """The error goes to the log, and a login may stand on the line that is wrong."""
    with pytest.raises(ProtocolError) as raised:
        taken(head_of(GET, b"Proxy-Authorization : Basic c2VjcmV0"))
    assert "c2VjcmV0" not in str(raised.value) + raised.value.answer.decode()
    assert "c2VjcmV0" not in repr(taken(head_of(GET, b"Proxy-Authorization: Basic c2VjcmV0")))


# -- what the target is sent --------------------------------------------------


def test_the_target_is_sent_what_was_judged() -> None:
    head = taken(
        head_of(
            b"POST http://EXAMPLE.com:8080/a?b HTTP/1.1",
            b"X-A: 1",
            b"Proxy-Authorization: Basic YTpi",
            b"proxy-connection: keep-alive",
            b"Connection: close, X-B, content-length",
            b"Connection: x-c",
            b"x-b: 2",
            b"X-C: 3",
            b"Keep-Alive: 5",
            b"TE: trailers",
            b"Trailer: X-D",
            b"Upgrade: websocket",
            b"Content-Length: 5",
            b"X-A: 4",
            host=b"Host: other",
        )
    )
    assert head.encode() == (
        b"POST /a?b HTTP/1.1\r\nHost: example.com:8080\r\nX-A: 1\r\nContent-Length: 5\r\n"
        b"X-A: 4\r\nVia: 1.1 socksd\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://h:80/", b"h"),
        (b"http://h:180/", b"h:180"),
        (b"http://[2001:db8::80]/", b"[2001:db8::80]"),
        (b"http://[2001:db8::80]:81/", b"[2001:db8::80]:81"),
        (b"http://0x7f.1/", b"127.0.0.1"),
    ],
)
def test_host_is_the_destination(target: bytes, host: bytes) -> None:
    assert b"\r\nHost: %b\r\n" % host in taken(head_of(b"GET %b HTTP/1.1" % target)).encode()


@pytest.mark.parametrize(
    ("target", "line"),
    [(b"http://h", b"OPTIONS * HTTP/1.1"), (b"http://h/", b"OPTIONS / HTTP/1.1")],
)
def test_options_of_a_whole_server_ends_in_a_star(target: bytes, line: bytes) -> None:
    encoded = taken(head_of(b"OPTIONS %b HTTP/1.1" % target)).encode()
    assert encoded.split(b"\r\n")[0] == line


@given(heads().filter(lambda octets: not octets.startswith(b"CONNECT")))
def test_what_the_target_is_sent_says_one_thing(octets: bytes) -> None:
    """To our own reader as well: one Host, one framing, nothing that is for us."""
    head = taken(octets)
    again = head.encode()
    method, path, rest = again.split(b" ", 2)
    to = str(head.destination).encode()
    read = taken(b"%b http://%b%b %b" % (method, to, path.replace(b"*", b""), rest))
    assert (read.destination, read.path, read.length) == (head.destination, head.path, head.length)
    names = [name.lower() for name, _ in read.fields]
    assert names.count(b"host") == 1
    assert not any(name.startswith(b"proxy-") for name in names)


# -- who asks, and how --------------------------------------------------------


@pytest.mark.parametrize(
    ("given_fields", "credentials"),
    [
        ([b"Proxy-Authorization: Basic YWxpY2U6czNjcmV0"], (b"alice", b"s3cret")),
        ([b"proxy-authorization: bAsIc  YTpiOmM="], (b"a", b"b:c")),
        ([b"Proxy-Authorization: Basic w7w6/w=="], ("ü".encode(), b"\xff")),
        ([b"Proxy-Authorization: Basic Og=="], (b"", b"")),
        ([], None),
        ([b"Authorization: Basic YTpi"], None),
        ([b"Proxy-Authorization: Basic YTpi"] * 2, None),
        ([b"Proxy-Authorization: Basic YWI="], None),
        ([b"Proxy-Authorization: Basic YTpi YTpi"], None),
        ([b"Proxy-Authorization: Basic YTp"], None),
        ([b"Proxy-Authorization: Basic \xff"], None),
        ([b"Proxy-Authorization: Basic"], None),
        ([b"Proxy-Authorization: Negotiate YTpi"], None),
        ([b"Proxy-Authorization: Basic " + b"YWFh" * 86], None),
        ([b"Proxy-Authorization: Basic OmFh" + b"YWFh" * 85], None),
    ],
    ids=repr,
)
def test_a_login_is_read(
    given_fields: list[bytes], credentials: tuple[bytes, bytes] | None
) -> None:
    assert taken(head_of(GET, *given_fields)).credentials() == credentials


def test_a_login_has_as_much_room_as_with_socks() -> None:
    longest = b64encode(b"a" * 255 + b":" + b"b" * 255)
    found = taken(head_of(GET, b"Proxy-Authorization: Basic " + longest)).credentials()
    assert found == (b"a" * 255, b"b" * 255)


@pytest.mark.parametrize(
    ("octets", "persistent"),
    [
        (head_of(GET), True),
        (head_of(GET, b"Connection: x, Close"), False),
        (head_of(GET, b"Proxy-Connection: close"), False),
        (head_of(POST, b"Content-Length: 0"), True),
        (head_of(POST, b"Content-Length: 1"), False),
        (head_of(POST, b"Transfer-Encoding: chunked"), False),
        (head_of(b"CONNECT h:1 HTTP/1.0"), False),
        (head_of(b"CONNECT h:1 HTTP/1.0", b"Proxy-Connection: Keep-Alive"), True),
        (head_of(b"CONNECT h:1 HTTP/1.0", b"Connection: keep-alive"), True),
    ],
    ids=repr,
)
def test_who_reads_another_answer_is_known(octets: bytes, persistent: bool) -> None:
    assert taken(octets).persistent is persistent


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ([], False),
        ([b"Accept: */*"], False),
        ([b"Accept: Text/HTML,application/xhtml+xml,*/*;q=0.8"], True),
        ([b"Accept: text/plain, text/html"], False),
        ([b"X: text/html"], False),
    ],
    ids=repr,
)
def test_a_browser_is_known_by_what_it_accepts(accept: list[bytes], html: bool) -> None:
    assert taken(head_of(GET, *accept)).prefers_html is html


# -- what we answer -----------------------------------------------------------


def test_an_answer_is_framed_and_not_kept_by_anybody() -> None:
    octets = answer(HTTPStatus.FORBIDDEN, "No <b>.\n\nÜbel.", "X-A: 1")
    response = parsed(octets)
    assert response.getheader("Content-Type") == "text/plain; charset=utf-8"
    assert response.getheader("Cache-Control") == "no-store"
    assert response.getheader("Connection") == "close"
    assert response.getheader("X-A") == "1"
    body = "403 Forbidden\n\nNo <b>.\n\nÜbel.\n".encode()
    assert (response.length, response.read()) == (len(body), body)


def test_a_page_shows_what_it_is_given_as_text() -> None:
    response = parsed(answer(HTTPStatus.FORBIDDEN, "No <b>.\n\n\udcffWhy", html=True, close=False))
    assert response.getheader("Content-Type") == "text/html; charset=utf-8"
    assert response.getheader("Connection") is None
    page = response.read()
    assert b"<p>No &lt;b&gt;.\n<p>?Why\n" in page


def test_after_head_there_is_no_body() -> None:
    octets = answer(HTTPStatus.FORBIDDEN, "No.", body=False)
    assert octets.endswith(b"\r\n\r\n")
    assert parsed(octets, "HEAD").getheader("Content-Length") == str(len(b"403 Forbidden\n\nNo.\n"))
