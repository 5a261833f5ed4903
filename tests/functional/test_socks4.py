"""Clients that speak SOCKS4 and 4A, on the port where others speak SOCKS5."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.dialogue import dial, take, take_all
from tests.functional.origins import PAGE, HTTPOrigin, NameServer, Origin, echo
from tests.functional.process import needs, run

NAME = "intranet.corp.test"  # which only the gateway's resolver knows


def curl(*arguments: str) -> CompletedProcess[str]:
    return run(needs("curl"), "--silent", "--show-error", "--max-time", "60", *arguments)


def request(host: bytes, port: int, command: int = 1, userid: bytes = b"") -> bytes:
    """Spell a request of SOCKS4A."""
    head = bytes([4, command]) + port.to_bytes(2, "big")
    return head + b"\0\0\0\1" + userid + b"\0" + host + b"\0"


def test_curl_fetches_by_address(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve(config="")
    fetched = curl("--socks4", gateway.address, f"http://127.0.0.1:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    [session] = gateway.sessions(1)
    assert (session["host"], session["outcome"]) == ("127.0.0.1", "served")
    assert (session["user"], session["userid"]) == (None, "")


def test_curl_leaves_names_to_the_gateway(
    serve: Serve,
    http: HTTPOrigin,
    names: Callable[[Mapping[str, Sequence[str]]], NameServer],
) -> None:
    server = names({NAME: ["127.0.0.1"]})
    gateway = serve(config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n')
    fetched = curl("--proxy", f"socks4a://fred@{gateway.address}", f"http://{NAME}:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged(rf"session 1 .* user=- userid=fred connect {NAME}:{http.port} .*outcome=served")


def test_a_port_serves_both_at_once(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve(config="")
    url = f"http://127.0.0.1:{http.port}/"
    for option in ("--socks4", "--socks4a", "--socks5", "--socks5-hostname"):
        assert curl(option, gateway.address, url).stdout.encode() == PAGE
    assert {session["outcome"] for session in gateway.sessions(4)} == {"served"}


def test_curl_is_rejected_where_a_login_is_required(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    """Also by the name of somebody who could log in; and curl says what 91 is."""
    set_password(tmp_path / "users", "alice", "secret")
    gateway = serve("--auth", f"htpasswd:{tmp_path / 'users'}", config="")
    proxy = f"socks4a://alice:secret@{gateway.address}"
    fetched = curl("--proxy", proxy, f"http://127.0.0.1:{http.port}/")
    assert fetched.returncode == 97
    assert "(91)" in fetched.stderr
    gateway.logged("session 1 .*userid=alice .*outcome=no-method .*has to log in, which SOCKS4")
    assert "secret" not in gateway.log()


def test_a_client_that_may_come_without_login_is_served(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    set_password(tmp_path / "users", "alice", "secret")
    gateway = serve(
        "--auth",
        f"htpasswd:{tmp_path / 'users'}",
        config='[auth]\nanonymous = ["127.0.0.0/8"]\n',
    )
    fetched = curl("--socks4", gateway.address, f"http://127.0.0.1:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr


def test_curl_is_rejected_where_only_socks5_is_spoken(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve(config='protocols = ["socks5"]\n')
    url = f"http://127.0.0.1:{http.port}/"
    assert "(91)" in curl("--socks4", gateway.address, url).stderr
    gateway.logged("session 1 .*outcome=protocol-error .*it seems to be SOCKS4")
    assert curl("--socks5", gateway.address, url).stdout.encode() == PAGE


def test_a_userid_forges_no_line(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve(config="")
    hostile = b"x outcome=served\nsession 9 \x1b[2J\xff"
    with dial(gateway.port) as client:
        client.sendall(request(b"127.0.0.1", http.port, userid=hostile))
        assert take(client, 8)[:2] == b"\x00\x5a"
    line = gateway.logged("session 1 client=")
    assert r'userid="x outcome=served\nsession 9 \u001b[2J\udcff" connect' in line


def test_what_is_sent_ahead_arrives_and_half_close_goes_both_ways(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    gateway = serve()
    octets = bytes(range(256)) * 100
    with dial(gateway.port) as client:
        client.sendall(request(b"localhost", origin(echo).port) + octets)
        client.shutdown(socket.SHUT_WR)
        assert take(client, 8)[:2] == b"\x00\x5a"
        assert take_all(client) == octets


def test_what_cannot_be_done_is_91_and_then_the_end(serve: Serve) -> None:
    gateway = serve()
    for octets in (
        b"\x04\x09",  # a CD that is none
        b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * 300,
        request(b"a b", 80),
        request(b"no-such-host.invalid", 80),
        request(b"0.0.0.0", 80, command=2),
    ):
        with dial(gateway.port) as client:
            client.sendall(octets)
            assert take_all(client) == b"\x00\x5b" + bytes(6), octets
