from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command, Method, ReplyCode
from socksd.errors import LoginFailed, ProtocolError
from socksd.wire.handshake import ClientHandshake, ServerHandshake, Turn
from socksd.wire.socks5 import (
    UNSPECIFIED,
    Greeting,
    Reply,
    Request,
    Status,
    UsernamePassword,
)
from tests.wire.strategies import (
    Message,
    damaged,
    destinations,
    fields,
    garbage,
    greetings,
    logins,
    replies,
    requests,
    split,
)

EXAMPLE = Destination("example.com", 443)
BOUND = Destination(IPv6Address("2001:db8::7"), 40001)
CREDENTIALS = (b"bob", b"pw")
GREETING = Greeting(b"\x00\x02")
LOGIN = UsernamePassword(*CREDENTIALS)
REQUEST = Request(Command.CONNECT, EXAMPLE)
NO_AUTHENTICATION = b"\x05\x00"
USERNAME_PASSWORD = b"\x05\x02"
SUCCESS = Reply(ReplyCode.SUCCEEDED, BOUND).encode()


def turn_of(side: ServerHandshake | ClientHandshake) -> Turn:
    """Ask anew: a type checker does not see that a call changes an attribute."""
    return side.turn


def at(turn: Turn) -> ServerHandshake:
    """A server's handshake that has come as far as *turn*, with nothing unread."""
    handshake = ServerHandshake()
    if turn is Turn.GREETING:
        return handshake
    if turn is Turn.NEGOTIATION:
        converse(handshake, [GREETING.encode()], stop=Turn.METHOD)
        handshake.choose(Method.GSSAPI)
        return handshake
    converse(handshake, [GREETING.encode()], stop=turn)
    if handshake.turn is not turn:
        converse(handshake, [LOGIN.encode()], stop=turn)
    if handshake.turn is not turn:
        converse(handshake, [REQUEST.encode()], stop=turn)
    if turn is Turn.OVER:
        handshake.reply(ReplyCode.NOT_ALLOWED)
    elif turn is Turn.RELAY:
        handshake.reply(ReplyCode.SUCCEEDED)
    assert handshake.turn is turn
    assert not handshake.unread
    return handshake


def converse(
    handshake: ServerHandshake, segments: Iterable[bytes], stop: Turn = Turn.REPLY
) -> list[Message]:
    """Take what arrives, asking for a login and granting it, up to *stop*."""
    taken: list[Message] = []
    for segment in segments:
        handshake.receive(segment)
        while handshake.turn is not stop:
            if handshake.turn is Turn.METHOD:
                handshake.choose(Method.USERNAME_PASSWORD)
            elif handshake.turn is Turn.STATUS:
                handshake.status(True)
            elif (message := handshake.take()) is not None:
                taken.append(message)
            else:
                break
    return taken


# -- the server ------------------------------------------------------------------


def test_a_login_goes_through_all_turns() -> None:
    server = ServerHandshake()
    assert turn_of(server) is Turn.GREETING
    server.receive(GREETING.encode())
    assert server.take() == GREETING
    assert turn_of(server) is Turn.METHOD
    assert server.choose(Method.USERNAME_PASSWORD) == b"\x05\x02"
    assert turn_of(server) is Turn.LOGIN
    server.receive(LOGIN.encode())
    assert server.take() == LOGIN
    assert turn_of(server) is Turn.STATUS
    assert server.status(True) == b"\x01\x00"
    assert turn_of(server) is Turn.REQUEST
    server.receive(REQUEST.encode())
    assert server.take() == REQUEST
    assert turn_of(server) is Turn.REPLY
    assert server.reply(ReplyCode.SUCCEEDED, BOUND) == SUCCESS
    assert turn_of(server) is Turn.RELAY


def test_without_login_the_request_follows_the_method() -> None:
    server = at(Turn.METHOD)
    assert server.choose(Method.NO_AUTHENTICATION) == b"\x05\x00"
    assert server.turn is Turn.REQUEST


def test_no_acceptable_method_is_the_end() -> None:
    server = at(Turn.METHOD)
    assert server.choose(Method.NO_ACCEPTABLE) == b"\x05\xff"
    assert server.turn is Turn.OVER


def test_gssapi_is_negotiated_by_others_before_the_request() -> None:
    server = at(Turn.METHOD)
    assert server.choose(Method.GSSAPI) == b"\x05\x01"
    server.receive(b"\x01\x01\x00\x00")
    assert server.take() is None
    assert server.unread == b"\x01\x01\x00\x00"
    server.unread.clear()
    server.negotiated()
    server.receive(REQUEST.encode())
    assert server.take() == REQUEST


def test_a_refused_login_is_the_end() -> None:
    server = at(Turn.STATUS)
    assert server.status(False) == b"\x01\x01"
    assert server.turn is Turn.OVER


@pytest.mark.parametrize("code", [code for code in ReplyCode if code])
def test_a_failure_reply_is_the_end_and_binds_nothing(code: ReplyCode) -> None:
    server = at(Turn.REPLY)
    assert server.reply(code) == Reply(code, UNSPECIFIED).encode()
    assert server.turn is Turn.OVER


def asked_to_bind() -> ServerHandshake:
    server = ServerHandshake()
    converse(server, [GREETING.encode(), LOGIN.encode(), Request(Command.BIND, EXAMPLE).encode()])
    return server


def test_a_bind_is_answered_twice() -> None:
    """RFC 1928 section 6: what is between the two replies is not the client's turn."""
    server = asked_to_bind()
    assert server.reply(ReplyCode.SUCCEEDED, BOUND) == SUCCESS
    assert turn_of(server) is Turn.REPLY
    server.receive(b"early")
    assert server.take() is None
    assert server.reply(ReplyCode.SUCCEEDED, BOUND) == SUCCESS
    assert turn_of(server) is Turn.RELAY
    assert server.unread == b"early"


@pytest.mark.parametrize("before", [0, 1])
def test_a_bind_that_fails_is_over_at_either_reply(before: int) -> None:
    server = asked_to_bind()
    for _ in range(before):
        server.reply(ReplyCode.SUCCEEDED, BOUND)
    server.reply(ReplyCode.HOST_UNREACHABLE)
    assert turn_of(server) is Turn.OVER


def test_nothing_said_is_zeros_in_the_reply() -> None:
    """0.0.0.0:0, which every client can read."""
    assert at(Turn.REPLY).reply(ReplyCode.SUCCEEDED) == b"\x05\x00\x00\x01" + bytes(6)


@pytest.mark.parametrize("turn", [Turn.METHOD, Turn.STATUS, Turn.REPLY, Turn.RELAY, Turn.OVER])
def test_what_arrives_out_of_the_clients_turn_waits(turn: Turn) -> None:
    """Sent ahead or payload: it is neither taken nor lost."""
    server = at(turn)
    server.receive(REQUEST.encode())
    server.receive(b"more")
    assert server.take() is None
    assert server.unread == REQUEST.encode() + b"more"
    assert server.turn is turn


def test_a_client_may_send_everything_at_once() -> None:
    server = ServerHandshake()
    everything = b"".join(m.encode() for m in (GREETING, LOGIN, REQUEST)) + b"payload"
    assert converse(server, [everything]) == [GREETING, LOGIN, REQUEST]
    assert server.unread == b"payload"


@given(st.data(), greetings, logins, requests, st.binary(max_size=64))
def test_however_a_dialogue_is_split_the_server_hears_the_same(
    data: st.DataObject,
    greeting: Greeting,
    login: UsernamePassword,
    request: Request,
    payload: bytes,
) -> None:
    octets = greeting.encode() + login.encode() + request.encode() + payload
    server = ServerHandshake()
    assert converse(server, data.draw(split(octets))) == [greeting, login, request]
    assert server.unread == payload
    assert server.turn is Turn.REPLY


@pytest.mark.parametrize("turn", Turn)
@pytest.mark.parametrize(
    ("call", "due"),
    [
        ("choose", Turn.METHOD),
        ("status", Turn.STATUS),
        ("negotiated", Turn.NEGOTIATION),
        ("reply", Turn.REPLY),
    ],
)
def test_speaking_out_of_turn_is_a_mistake_of_ours(turn: Turn, call: str, due: Turn) -> None:
    server = at(turn)
    calls: dict[str, Callable[[], object]] = {
        "choose": lambda: server.choose(Method.NO_AUTHENTICATION),
        "status": lambda: server.status(True),
        "negotiated": server.negotiated,
        "reply": lambda: server.reply(ReplyCode.SUCCEEDED),
    }
    if turn is due:
        calls[call]()
        assert server.turn is not turn
        return
    with pytest.raises(RuntimeError, match=rf"^{call}\(\) at {turn.name}, not at {due.name}$"):
        calls[call]()
    assert server.turn is turn


@pytest.mark.parametrize(
    ("turn", "octets"),
    [
        pytest.param(Turn.GREETING, b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(Turn.GREETING, b"\x05\x00", id="no methods"),
        pytest.param(Turn.LOGIN, b"\x05\x01\x00\x03", id="a request where a login is due"),
    ],
)
def test_breaking_the_protocol_before_the_request_is_the_end(turn: Turn, octets: bytes) -> None:
    server = at(turn)
    server.receive(octets)
    with pytest.raises(ProtocolError):
        server.take()
    assert server.turn is Turn.OVER
    assert server.take() is None


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"\x01\x03bob\x02pw", id="a login where a request is due"),
        pytest.param(b"\x05\x09", id="CMD"),
        pytest.param(b"\x05\x01\x07", id="RSV"),
        pytest.param(b"\x05\x01\x00\x02", id="ATYP"),
        pytest.param(b"\x05\x01\x00\x03\x00", id="no name"),
        pytest.param(b"\x05\x01\x00\x03\x01\xff", id="not UTF-8"),
        pytest.param(b"\x05\x01\x00\x03\x01 ", id="no host"),
    ],
)
def test_a_bad_request_leaves_us_to_reply(octets: bytes) -> None:
    """Once, with the error's reply; asking for the message again does not raise again."""
    server = at(Turn.REQUEST)
    server.receive(octets)
    with pytest.raises(ProtocolError) as caught:
        server.take()
    assert turn_of(server) is Turn.REPLY
    assert server.take() is None
    assert caught.value.reply is not None
    assert server.reply(caught.value.reply) == Reply(caught.value.reply, UNSPECIFIED).encode()
    assert turn_of(server) is Turn.OVER


@given(st.data(), garbage())
def test_no_octets_make_the_server_raise_anything_but_protocol_error(
    data: st.DataObject, octets: bytes
) -> None:
    """And then it is over or ours to reply, for good."""
    server = ServerHandshake()
    reply = None
    try:
        converse(server, data.draw(split(octets)))
    except ProtocolError as error:
        reply = error.reply
    else:
        return
    assert server.turn is (Turn.OVER if reply is None else Turn.REPLY)
    assert server.take() is None


# -- the client ------------------------------------------------------------------


def started(credentials: tuple[bytes, bytes] | None = CREDENTIALS) -> ClientHandshake:
    client = ClientHandshake(EXAMPLE, credentials)
    client.start()
    return client


@pytest.mark.parametrize(
    ("credentials", "greeting"),
    [
        pytest.param(None, b"\x05\x01\x00", id="without credentials"),
        pytest.param(CREDENTIALS, b"\x05\x02\x00\x02", id="with credentials"),
    ],
)
def test_a_client_offers_what_it_can_do(
    credentials: tuple[bytes, bytes] | None, greeting: bytes
) -> None:
    assert ClientHandshake(EXAMPLE, credentials).start() == greeting


def test_a_client_logs_in_when_it_is_asked_to() -> None:
    client = started()
    assert turn_of(client) is Turn.METHOD
    assert client.receive(USERNAME_PASSWORD) == LOGIN.encode()
    assert turn_of(client) is Turn.STATUS
    assert client.receive(b"\x01\x00") == REQUEST.encode()
    assert turn_of(client) is Turn.REPLY
    assert client.reply is None
    assert client.receive(SUCCESS + b"payload") == b""
    assert turn_of(client) is Turn.RELAY
    assert client.reply == Reply(ReplyCode.SUCCEEDED, BOUND)
    assert client.unread == b"payload"
    assert client.receive(b", more") == b""
    assert client.unread == b"payload, more"


@pytest.mark.parametrize("credentials", [None, CREDENTIALS], ids=["without", "with credentials"])
def test_a_client_asks_at_once_where_no_login_is_wanted(
    credentials: tuple[bytes, bytes] | None,
) -> None:
    client = started(credentials)
    assert client.receive(NO_AUTHENTICATION) == REQUEST.encode()
    assert client.turn is Turn.REPLY


def test_a_client_asks_for_the_command_it_was_given() -> None:
    client = ClientHandshake(EXAMPLE, command=Command.BIND)
    client.start()
    assert client.receive(NO_AUTHENTICATION) == Request(Command.BIND, EXAMPLE).encode()


@pytest.mark.parametrize("code", [code for code in ReplyCode if code])
def test_a_failure_reply_is_kept(code: ReplyCode) -> None:
    """What the upstream says is what our own client can be told."""
    client = started()
    client.receive(NO_AUTHENTICATION)
    client.receive(Reply(code, UNSPECIFIED).encode())
    assert client.reply == Reply(code, UNSPECIFIED)
    assert client.turn is Turn.OVER


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        pytest.param(b"\x05\xff", "accepts none of the methods", id="no acceptable method"),
        pytest.param(USERNAME_PASSWORD + b"\x01\x01", "refuses", id="login refused"),
        pytest.param(USERNAME_PASSWORD + b"\x01\xff", "refuses", id="login refused, otherwise"),
    ],
)
def test_a_server_that_does_not_want_us_is_a_failed_login(octets: bytes, reason: str) -> None:
    client = started()
    with pytest.raises(LoginFailed, match=reason):
        client.receive(octets)
    assert client.turn is Turn.OVER
    assert client.reply is None
    assert client.receive(SUCCESS) == b""
    assert client.reply is None


@pytest.mark.parametrize(
    ("credentials", "octets", "message"),
    [
        pytest.param(None, b"H", "VER is 0x48", id="another protocol"),
        pytest.param(None, b"\x05\x80", "METHOD is 0x80", id="a method nobody knows"),
        pytest.param(
            None, b"\x05\x02", "USERNAME_PASSWORD, which was not offered", id="an unoffered login"
        ),
        pytest.param(
            CREDENTIALS, b"\x05\x01", "GSSAPI, which was not offered", id="an unoffered method"
        ),
        pytest.param(CREDENTIALS, USERNAME_PASSWORD + b"\x05", "status", id="no status"),
        pytest.param(CREDENTIALS, NO_AUTHENTICATION + b"\x01", "reply", id="no reply"),
        pytest.param(None, NO_AUTHENTICATION + b"\x05\x09", "REP is 0x09", id="no such reply"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_the_end(
    credentials: tuple[bytes, bytes] | None, octets: bytes, message: str
) -> None:
    """Told at the octet that settles it, and told once."""
    client = started(credentials)
    for octet in octets[:-1]:
        client.receive(bytes((octet,)))
    assert turn_of(client) is not Turn.OVER
    with pytest.raises(ProtocolError, match=message):
        client.receive(octets[-1:])
    assert turn_of(client) is Turn.OVER
    assert client.receive(SUCCESS) == b""
    assert client.reply is None


def test_a_client_starts_once_and_first() -> None:
    client = ClientHandshake(EXAMPLE)
    with pytest.raises(RuntimeError, match=r"^receive\(\) at GREETING"):
        client.receive(b"")
    client.start()
    with pytest.raises(RuntimeError, match=r"^start\(\) at METHOD"):
        client.start()


@pytest.mark.parametrize(
    "credentials",
    [(b"u" * 256, b""), (b"", b"p" * 256)],
    ids=["user name", "password"],
)
def test_credentials_that_do_not_fit_are_known_before_anything_is_sent(
    credentials: tuple[bytes, bytes],
) -> None:
    with pytest.raises(ValueError, match="range"):
        ClientHandshake(EXAMPLE, credentials)


@given(st.data(), st.booleans(), replies, st.binary(max_size=64))
def test_however_a_dialogue_is_split_the_client_says_the_same(
    data: st.DataObject, login: bool, reply: Reply, payload: bytes
) -> None:
    answers = USERNAME_PASSWORD + Status(True).encode() if login else NO_AUTHENTICATION
    client = started()
    said = b"".join(map(client.receive, data.draw(split(answers + reply.encode() + payload))))
    assert said == (LOGIN.encode() if login else b"") + REQUEST.encode()
    assert client.reply == reply
    assert client.unread == payload
    assert client.turn is (Turn.RELAY if reply.code is ReplyCode.SUCCEEDED else Turn.OVER)


server_octets = st.builds(
    lambda method, status, reply: method + status + reply.encode(),
    st.sampled_from([NO_AUTHENTICATION, USERNAME_PASSWORD]),
    st.sampled_from([b"", b"\x01\x00", b"\x01\x01"]),
    replies,
)


@given(st.data(), st.sampled_from([None, CREDENTIALS]), garbage() | damaged(server_octets))
def test_no_octets_make_the_client_raise_anything_but_its_two_errors(
    data: st.DataObject, credentials: tuple[bytes, bytes] | None, octets: bytes
) -> None:
    client = started(credentials)
    try:
        for segment in data.draw(split(octets)):
            client.receive(segment)
    except (LoginFailed, ProtocolError):
        assert client.turn is Turn.OVER
        assert client.receive(octets) == b""


# -- both ------------------------------------------------------------------------


@given(
    fields,
    fields,
    st.sampled_from(Command),
    destinations,
    destinations,
    st.sampled_from([Method.NO_AUTHENTICATION, Method.USERNAME_PASSWORD]),
    st.sampled_from(ReplyCode),
)
def test_both_sides_understand_each_other_octet_by_octet(
    username: bytes,
    password: bytes,
    command: Command,
    destination: Destination,
    bound: Destination,
    method: Method,
    code: ReplyCode,
) -> None:
    client = ClientHandshake(destination, (username, password), command)
    server = ServerHandshake()
    to_server, to_client = client.start(), b""
    heard: list[Message] = []
    for _ in range(2000):  # the longest conversation is shorter
        if to_server:
            server.receive(to_server[:1])
            to_server = to_server[1:]
        elif to_client:
            to_server += client.receive(to_client[:1])
            to_client = to_client[1:]
        else:
            break
        message = server.take()
        if message is not None:
            heard.append(message)
            if isinstance(message, Greeting):
                to_client += server.choose(method)
            elif isinstance(message, UsernamePassword):
                to_client += server.status(True)
            else:
                to_client += server.reply(code, bound)
    twice = command is Command.BIND and code is ReplyCode.SUCCEEDED
    second = server.reply(code, bound) if twice else b""
    assert client.receive(second) == b""
    logged_in = [UsernamePassword(username, password)]
    assert heard == [
        Greeting(b"\x00\x02"),
        *(logged_in if method is Method.USERNAME_PASSWORD else []),
        Request(command, destination),
    ]
    assert client.reply == Reply(code, bound)
    assert client.turn is server.turn
    assert client.turn in (Turn.RELAY, Turn.OVER)
    assert client.unread == second
    assert not server.unread
