"""BIND with those who use it: FTP in active mode."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from ftplib import FTP
from ipaddress import ip_address
from pathlib import Path
from random import Random
from subprocess import DEVNULL, STDOUT, Popen
from typing import NamedTuple

import pytest

from tests.functional import dialogue
from tests.functional.conftest import Serve
from tests.functional.dialogue import GREETING, SECONDS, dial, request, take, tunnel
from tests.functional.origins import NameServer
from tests.functional.process import Gateway, needs, run, wait_for

OCTETS = Random(959).randbytes(3_000_000)

# It serves whoever runs the tests, and nobody else. A data connection goes to
# where the control connection comes from, or it is refused: an FTP server that
# does not look cannot show that the gateway has listened on the right address.
VSFTPD = """\
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
allow_writeable_chroot=YES
write_enable=YES
anon_upload_enable=YES
local_enable=NO
connect_from_port_20=NO
port_promiscuous=NO
secure_chroot_dir={empty}
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
"""

# socksify, which is to take loopback for as far away as any other network.
SOCKS_CONF = """\
logoutput: /dev/null
route {{
  from: 0.0.0.0/0 to: 127.0.0.0/8 via: 127.0.0.1 port = {port}
  proxyprotocol: socks_v{version}
  command: bind connect
  method: none
}}
"""


class FTPServer(NamedTuple):
    """vsftpd on the loopback."""

    root: Path
    port: int


@pytest.fixture
def ftpd(tmp_path: Path) -> Iterator[FTPServer]:
    program = needs("vsftpd")
    root, empty, config = tmp_path / "ftp", tmp_path / "empty", tmp_path / "vsftpd.conf"
    root.mkdir()
    empty.mkdir(mode=0o555)
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = FTPServer(root, free.getsockname()[1])
    config.write_text(VSFTPD.format(port=server.port, root=root, empty=empty))
    with Popen((program, config), stdin=DEVNULL, stdout=DEVNULL, stderr=STDOUT) as process:

        def answers() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", server.port)) == 0

        try:
            wait_for("vsftpd", answers)
            yield server
        finally:
            process.terminate()


@pytest.mark.parametrize("version", [4, 5])
def test_an_ftp_client_in_active_mode_works_through_socksify(
    serve: Serve, ftpd: FTPServer, tmp_path: Path, version: int
) -> None:
    """The classical pair: Dante's client library under an FTP client that has not heard of it."""
    gateway = serve(config="")
    config = tmp_path / "socks.conf"
    config.write_text(SOCKS_CONF.format(port=gateway.port, version=version))
    (ftpd.root / "there").write_bytes(OCTETS)
    (tmp_path / "here").write_bytes(OCTETS[::-1])
    commands = ("user anonymous", "passive off", "binary", "dir", "get there", "put here", "bye")
    done = run(
        "env", "-C", tmp_path,
        needs("socksify"), needs("tnftp"), "-n", "-v", "127.0.0.1", str(ftpd.port),
        stdin="\n".join(commands) + "\n",
        SOCKS_CONF=str(config), SOCKS_AUTOADD_LANROUTES="no",
    )  # fmt: skip
    assert "there" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "there").read_bytes() == OCTETS, done.stdout + done.stderr
    assert (ftpd.root / "here").read_bytes() == OCTETS[::-1], done.stdout + done.stderr
    sessions = gateway.sessions(4)  # the control connection, a listing, and two files
    assert sorted(session["command"] for session in sessions) == ["bind"] * 3 + ["connect"]
    assert {session["outcome"] for session in sessions} == {"served"}
    assert {session["address"] for session in sessions} == {"127.0.0.1"}
    assert {session["userid"] is None for session in sessions} == {version == 5}


class SocksFTP(FTP):
    """An FTP client in active mode that listens by SOCKS5, and says who may connect by name."""

    def __init__(self, gateway: Gateway, host: bytes, port: int) -> None:
        super().__init__(timeout=SECONDS)
        self.gateway = gateway
        self.peer = host
        self.passiveserver = False
        self.sock = tunnel(gateway.port, host, port)
        self.af = self.sock.family
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, None]:
        listening, host, port = bound(self.gateway, self.peer)
        self.sendport(host, port)
        self.sendcmd(cmd)
        take_bound(listening)  # the second reply: it has connected
        return listening, None


def bound(gateway: Gateway, host: str | bytes, port: int = 0) -> tuple[socket.socket, str, int]:
    """Ask for a connection from *host*, and give where it is to connect to."""
    sock = dial(gateway.port)
    try:
        sock.sendall(GREETING)
        assert take(sock, 2) == b"\x05\x00"
        sock.sendall(request(host, port, command=2))
        return sock, *take_bound(sock)
    except BaseException:
        sock.close()
        raise


def take_bound(sock: socket.socket) -> tuple[str, int]:
    """Read a reply with an IPv4 address; a failure raises."""
    version, code, _, kind = take(sock, 4)
    address, port = struct.unpack("!4sH", take(sock, 6))
    if code:
        raise dialogue.Refused(code)
    assert (version, kind) == (5, 1)
    return str(ip_address(address)), port


def test_ftplib_in_active_mode_works_by_name(
    serve: Serve,
    ftpd: FTPServer,
    names: Callable[[Mapping[str, Sequence[str]]], NameServer],
) -> None:
    """A name that leads to IPv6 as well; PORT can tell the server no such address."""
    server = names({"ftp.corp.test": ["::1", "127.0.0.1"]})
    gateway = serve(config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n')
    (ftpd.root / "there").write_bytes(OCTETS)
    received = bytearray()
    with closing(SocksFTP(gateway, b"ftp.corp.test", ftpd.port)) as ftp:
        ftp.login()
        ftp.retrbinary("RETR there", received.extend)
        with (ftpd.root / "there").open("rb") as file:
            ftp.storbinary("STOR back", file)
    assert received == OCTETS
    assert (ftpd.root / "back").read_bytes() == OCTETS
    sessions = gateway.sessions(3)
    assert [session["host"] for session in sessions] == ["ftp.corp.test"] * 3
    assert {session["address"] for session in sessions} == {"127.0.0.1"}


def test_a_stranger_is_turned_away_and_the_peer_still_gets_in(serve: Serve) -> None:
    gateway = serve(config="")
    client, host, port = bound(gateway, "127.0.0.3")
    with client:
        stranger = socket.create_connection((host, port), SECONDS, ("127.0.0.2", 0))
        with stranger:
            assert stranger.recv(1) == b""
            number = stranger.getsockname()[1]
        gateway.logged(rf"session 1 has turned 127\.0\.0\.2:{number} away")
        with socket.create_connection((host, port), SECONDS, ("127.0.0.3", 0)) as peer:
            assert take_bound(client) == peer.getsockname()
            peer.sendall(b"from the peer")
            assert take(client, 13) == b"from the peer"
            client.sendall(b"from the client")
            assert take(peer, 15) == b"from the client"
        assert client.recv(1) == b"", "FIN goes through"
    gateway.logged(r"session 1 .*bind 127\.0\.0\.3:0 via=127\.0\.0\.3 .*outcome=served")


def test_ports_are_those_of_the_range_and_free_again_when_the_client_has_left(
    serve: Serve,
) -> None:
    ports = free_range(4)
    config = f'[bind]\nports = "{ports[0]}-{ports[-1]}"\nadvertise = "203.0.113.1"\n'
    gateway = serve(config=config)
    base = gateway.usage()
    for time, leave in enumerate((socket.socket.close, dialogue.reset), start=1):
        with ExitStack() as stack:
            for _ in ports:
                client, host, port = bound(gateway, "127.0.0.1")
                stack.callback(leave, client)
                assert (host, port in ports) == ("203.0.113.1", True)
            with pytest.raises(dialogue.Refused) as refused:
                bound(gateway, "127.0.0.1")
            assert refused.value.answer == 1
        sessions = gateway.sessions(time * (len(ports) + 1))
        assert sum(each["outcome"] == "client-left" for each in sessions) == time * len(ports)
        assert sum(each["outcome"] == "failed" for each in sessions) == time
        gateway.settled(base)


def free_range(count: int) -> range:
    """Ports in a row that are free, outside of those that the kernel gives out."""
    for first in range(20000 + os.getpid() % 1000 * 8, 30000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return range(first, first + count)
    pytest.fail("no free ports in a row")


def test_a_bind_that_a_rule_denies_opens_no_port(serve: Serve) -> None:
    gateway = serve(
        config='[guard]\nnever = "nothing"\n'
        '[[rule]]\nid = "no-bind"\naction = "deny"\ncommand = "bind"\nto = "127.0.0.0/8"\n'
        '[[rule]]\nid = "rest"\naction = "allow"\n'
    )
    for host in ("127.0.0.1", b"localhost"):
        with pytest.raises(dialogue.Refused) as refused:
            bound(gateway, host)
        assert refused.value.answer == 2
    with pytest.raises(dialogue.Refused) as refused:
        bound(gateway, "0.0.0.0")
    assert refused.value.answer == 2
    assert [session["rule"] for session in gateway.sessions(3)][:2] == ["no-bind"] * 2
