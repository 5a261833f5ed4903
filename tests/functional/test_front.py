"""The ways in: TLS, certificates of clients, balancers, unix sockets and systemd's."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import stat
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests import authority
from tests.authority import Issued
from tests.functional.conftest import Serve
from tests.functional.dialogue import GREETING, dial, request, take, take_all, take_reply
from tests.functional.origins import PAGE, HTTPOrigin
from tests.functional.process import SCRIPTS, WAIT, needs, run, wait_for

ALLOW = """
[guard]
never = "nothing"
[[rule]]
id = "local"
action = "allow"
from = ["127.0.0.0/8"]
"""
HERE = "interface=127.0.0.1"
GW = authority.server("gw.test")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.rst"


def listener(name: str, endpoint: str) -> str:
    return f'[[listener]]\nname = "{name}"\nendpoint = "{endpoint}"\n'


def over_tls(
    port: int,
    trust: Issued = GW,
    name: str = "gw.test",
    certificate: str | None = None,
    versions: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    source: str = "127.0.0.1",
) -> ssl.SSLSocket:
    """Connect and shake hands."""
    context = ssl.create_default_context(cadata=trust.pem.decode())
    context.maximum_version = versions
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context.wrap_socket(dial(port, source), server_hostname=name)


def page(sock: socket.socket, origin: HTTPOrigin) -> bytes:
    """Fetch the origin's page through a gateway, and close in order."""
    sock.sendall(GREETING)
    assert take(sock, 2) == b"\x05\x00"
    sock.sendall(request("127.0.0.1", origin.server_port))
    assert take_reply(sock) == 0
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = take_all(sock)
    if isinstance(sock, ssl.SSLSocket):
        sock = sock.unwrap()
    sock.close()
    return answer.partition(b"\r\n\r\n")[2]


# -- TLS --------------------------------------------------------------------------


def test_clients_speak_socks_over_tls(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    own = GW.write(tmp_path, "gw.pem")
    gateway = serve(config=listener("tls", f"ssl:0:privateKey={own}:{HERE}") + ALLOW)
    port = gateway.port_of("tls")
    said = GREETING + request("127.0.0.1", http.server_port) + b"GET / HTTP/1.0\r\n\r\n"
    done = subprocess.run(
        [
            *(needs("openssl"), "s_client", "-quiet", "-verify_return_error", "-CAfile", own),
            *("-servername", "gw.test", "-connect", f"127.0.0.1:{port}"),
        ],
        input=said,
        capture_output=True,
        timeout=WAIT,
        check=False,
    )
    assert done.stdout.startswith(b"\x05\x00\x05\x00"), done.stderr
    assert done.stdout.endswith(PAGE)
    for versions in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert page(over_tls(port, versions=versions), http) == PAGE
    sessions = gateway.sessions(3)
    assert {(each["listener"], each["outcome"]) for each in sessions} == {("tls", "served")}


def test_certificates_are_chosen_by_name_and_read_again_by_a_reload(
    serve: Serve, tmp_path: Path
) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    old, other = authority.server("gw.test"), authority.server("other.test")
    old.write(directory, "gw.pem")
    other.write(directory, "other.pem")
    gateway = serve(config=listener("tls", f"tls:{directory}:port=0:{HERE}") + ALLOW)
    port = gateway.port_of("tls")
    with over_tls(port, old, "gw.test") as standing, over_tls(port, other, "other.test"):
        path = Path(GW.write(directory, "gw.pem"))
        gateway.process.send_signal(signal.SIGHUP)
        gateway.logged("reloaded")
        over_tls(port, GW, "gw.test").close()
        standing.sendall(GREETING)
        assert take(standing, 2) == b"\x05\x00"
    gateway.configure(listener("tls", f"ssl:0:privateKey={path}:{HERE}") + ALLOW)
    gateway.process.send_signal(signal.SIGHUP)
    wait_for("the second reload", lambda: gateway.log().count("reloaded") == 2)
    assert gateway.port_of("tls") == port
    over_tls(port, GW, "gw.test").close()
    path.write_bytes(GW.key_pem)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.logged(r"not reloaded: listener\[1\]\.endpoint: .*gw\.pem has no certificate")
    over_tls(port, GW, "gw.test").close()


# -- certificates of clients --------------------------------------------------------


def mtls(directory: Path, more: str = "") -> str:
    """Write the files of an mtls: endpoint, and give its string."""
    own = GW.write(directory, "gw.pem")
    (directory / "ca.pem").write_bytes(authority.clients_authority().pem)
    return f"mtls:0:privateKey={own}:clientCA={directory}/ca.pem:{HERE}{more}"


STAFF = """
[groups]
staff = []
[guard]
never = "nothing"
[[rule]]
id = "staff"
action = "allow"
user = "alice"
group = "staff"
"""


def test_a_certificate_is_a_login(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    alice = authority.client("alice", ou=["staff"])
    bob = authority.client("bob", ou=["staff"])
    gateway = serve(config=listener("mtls", mtls(tmp_path)) + STAFF)
    port = gateway.port_of("mtls")
    sock = over_tls(port, certificate=alice.write(tmp_path, "alice.pem"))
    assert page(sock, http) == PAGE
    with over_tls(port, certificate=bob.write(tmp_path, "bob.pem")) as sock:
        sock.sendall(GREETING)
        assert take_all(sock) == b""  # no rule could allow bob anything
    for versions in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            page(over_tls(port, versions=versions), http)
    first, second, *others = gateway.sessions(4)
    assert (first["user"], first["groups"], first["rule"]) == ("alice", ["staff"], "staff")
    assert len(first["certificate"]) == 64
    assert (second["user"], second["outcome"]) == ("bob", "denied")
    assert {each["outcome"] for each in others} == {"protocol-error"}
    assert {each["reason"] for each in others} == {"TLS: peer did not return a certificate"}


def test_a_certificate_is_revoked_by_a_reload(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    """With lists as docs/operations.rst has them made."""
    needs("openssl")
    people = {name: authority.client(name, ou=["staff"]) for name in ("alice", "bob")}
    files = {name: each.write(tmp_path, f"{name}.pem") for name, each in people.items()}
    staff = authority.clients_authority()
    (tmp_path / "staff-ca.pem").write_bytes(staff.pem)
    (tmp_path / "staff-ca.key").write_bytes(staff.key_pem)
    (tmp_path / "index.txt").touch()
    text = OPERATIONS.read_text()
    shown = re.search(r"    \[ca\]\n(?:    .*\n)+", text)
    assert shown is not None
    (tmp_path / "ca.cnf").write_text(textwrap.dedent(shown[0]))
    revoke, write = re.findall(r"\$ (openssl ca .*)", text)
    openssl = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True, timeout=30)
    openssl(write.split())
    config = listener("mtls", mtls(tmp_path, f":crl={tmp_path}/staff-crl.pem"))
    gateway = serve(config=config + ALLOW)
    port = gateway.port_of("mtls")
    for file in files.values():
        with over_tls(port, certificate=file) as sock:
            sock.sendall(GREETING)
            assert take(sock, 2) == b"\x05\x00"
    openssl(revoke.split())
    openssl(write.split())
    gateway.process.send_signal(signal.SIGHUP)
    gateway.logged("reloaded")
    with over_tls(port, certificate=files["bob"]) as sock:
        sock.sendall(GREETING)
        assert take(sock, 2) == b"\x05\x00"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        page(over_tls(port, certificate=files["alice"]), http)


def test_where_it_is_optional_the_others_log_in(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    alice = authority.client("x", x509.RFC822Name("alice@example.com"))
    users = tmp_path / "users"
    run(SCRIPTS / "socksd", "passwd", users, "bob", stdin="secret\n")
    config = (
        listener("mtls", mtls(tmp_path, ":clients=optional:user=email"))
        + f'[auth]\nauthenticators = ["htpasswd:{users}"]\n'
        + ALLOW
    )
    gateway = serve(config=config)
    port = gateway.port_of("mtls")
    sock = over_tls(port, certificate=alice.write(tmp_path, "alice.pem"))
    assert page(sock, http) == PAGE
    with over_tls(port) as sock:
        sock.sendall(GREETING)
        assert take(sock, 2) == b"\x05\xff"
    with over_tls(port) as sock:
        sock.sendall(b"\x05\x01\x02")
        assert take(sock, 2) == b"\x05\x02"
        sock.sendall(b"\x01\x03bob\x06secret")
        assert take(sock, 2) == b"\x01\x00"
    users_seen = {session["user"] for session in gateway.sessions(3)}
    assert users_seen == {"alice@example.com", None, "bob"}


# -- balancers ----------------------------------------------------------------------

FROM_HERE = 'proxy_protocol = { from = ["127.0.0.1/32"] }\n'


@contextmanager
def haproxy(directory: Path, gateway_port: int, options: str) -> Iterator[int]:
    """Run HAProxy in front of a gateway, checking it ten times a second; give its port."""
    program = needs("haproxy")
    stats = directory / "haproxy.sock"
    with socket.create_server(("127.0.0.1", 0)) as entrance:
        (directory / "haproxy.cfg").write_text(f"""
global
    maxconn 100
    stats socket {stats}
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend socks
    bind fd@{entrance.fileno()}
    default_backend gateways
backend gateways
    option tcp-check
    tcp-check connect default
    server gateway 127.0.0.1:{gateway_port} check inter 100ms fall 1 {options}
""")
        process = subprocess.Popen(
            [program, "-db", "-f", str(directory / "haproxy.cfg")],
            pass_fds=[entrance.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for("a passed check", lambda: _checked(stats, process))
            yield entrance.getsockname()[1]
            assert _checked(stats, process), "it has not stayed UP"
        finally:
            process.terminate()
            process.wait(WAIT)


def _checked(stats: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether HAProxy has checked the gateway, and found it well."""
    assert process.poll() is None, "HAProxy has ended"
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(stats))
        except OSError:
            return False
        sock.sendall(b"show stat\n")
        lines = take_all(sock).decode().splitlines()
    keys = lines[0].removeprefix("# ").split(",")
    (server,) = (line.split(",") for line in lines if line.startswith("gateways,gateway,"))
    state = dict(zip(keys, server, strict=False))
    return state["status"] == "UP" and state["check_status"] in ("L4OK", "L7OK")


SENDING = ["send-proxy check-send-proxy", "send-proxy-v2 check-send-proxy"]


def test_haproxy_says_who_the_client_is_and_its_checks_leave_no_line(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    gateway = serve(config=FROM_HERE + ALLOW)
    for source, options in zip(("127.0.0.7", "127.0.0.8"), SENDING, strict=True):
        with haproxy(tmp_path, gateway.port, options) as port:
            assert page(dial(port, source), http) == PAGE
    sessions = gateway.sessions(2)
    assert [each["client"] for each in sessions] == ["127.0.0.7", "127.0.0.8"]
    assert {each["outcome"] for each in sessions} == {"served"}
    gateway.logged("session 2 ")  # lines of sessions wait a moment for others
    assert gateway.log().count("session ") == 2
    assert not re.search("warn|error|critical", gateway.log())


def test_tls_comes_behind_the_header_from_the_client_or_from_haproxy(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    """A client's TLS is passed on, so its certificate arrives; the header is in clear, before."""
    alice = authority.client("alice").write(tmp_path, "alice.pem")
    gateway = serve(
        config=listener("mtls", mtls(tmp_path, ":clients=optional")) + FROM_HERE + ALLOW
    )
    with haproxy(tmp_path, gateway.port_of("mtls"), SENDING[1]) as port:
        assert page(over_tls(port, certificate=alice, source="127.0.0.7"), http) == PAGE
    ours = f"ssl ca-file {tmp_path}/gw.pem verifyhost gw.test no-check-ssl"
    with haproxy(tmp_path, gateway.port_of("mtls"), f"{SENDING[1]} {ours}") as port:
        assert page(dial(port, "127.0.0.8"), http) == PAGE
    assert [(each["client"], each["user"]) for each in gateway.sessions(2)] == [
        ("127.0.0.7", "alice"),
        ("127.0.0.8", None),
    ]


def test_who_is_no_balancer_may_not_come_at_all(serve: Serve) -> None:
    gateway = serve(config=FROM_HERE + ALLOW)
    for said in (GREETING, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1080\r\n" + GREETING):
        with dial(gateway.port, "127.0.0.9") as sock:
            sock.sendall(said)
            assert take_all(sock) == b""
    with dial(gateway.port) as sock:  # a balancer, that says nothing of whom it is there for
        sock.sendall(GREETING)
        assert take_all(sock) == b""
    sessions = gateway.sessions(3)
    assert [each["client"] for each in sessions] == ["127.0.0.9", "127.0.0.9", "127.0.0.1"]
    assert {each["outcome"] for each in sessions} == {"protocol-error"}


# -- sockets ------------------------------------------------------------------------


def test_clients_come_by_a_unix_socket_and_as_ipv4_to_an_ipv6_port(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    path = tmp_path / "socks.sock"
    gateway = serve(
        config=listener("unix", f"unix:{path}:mode=660")
        + listener("both", r"tcp6:0:interface=\\:\\:")
        + ALLOW
    )
    gateway.logged(f"listening name=unix on unix:{re.escape(str(path))}")
    gateway.logged(r"listening name=both on \[::\]:\d+")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    done = run(
        *(needs("curl"), "--silent", "--show-error", "--noproxy", ""),
        *("--proxy", f"socks5h://localhost{path}", f"http://127.0.0.1:{http.server_port}/"),
    )
    assert done.stdout.encode() == PAGE, done.stderr
    assert page(dial(gateway.port_of("both"), "127.0.0.7"), http) == PAGE
    by_unix, mapped = gateway.sessions(2)
    assert (by_unix["client"], by_unix["client_port"]) == ("127.0.0.1", 0)
    assert (by_unix["listener"], by_unix["outcome"]) == ("unix", "served")
    assert (mapped["client"], mapped["listener"], mapped["rule"]) == ("127.0.0.7", "both", "local")


def test_systemd_passes_sockets_by_number_and_by_name(
    during: ExitStack, http: HTTPOrigin, tmp_path: Path
) -> None:
    activate = needs("systemd-socket-activate")
    config, access = tmp_path / "socksd.toml", tmp_path / "access.jsonl"
    config.write_text(
        f'version = 1\n[log]\naccess = "{access}"\n'
        + listener("first", "systemd:domain=INET:index=0")
        + listener("second", "systemd:domain=INET:name=socks")
        + ALLOW
    )
    checked = run(SCRIPTS / "socksd", "check", config)
    assert checked.returncode == 0, checked.stderr
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [each.getsockname()[1] for each in (one, two)]
    log = during.enter_context((tmp_path / "log").open("wb"))
    process = subprocess.Popen(
        [
            *(activate, *(f"--listen=127.0.0.1:{port}" for port in ports), "--fdname=any:socks"),
            *(str(SCRIPTS / "twistd"), "--nodaemon", "--pidfile=", "socks5"),
            *("--config", str(config)),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
    )
    during.callback(process.wait, WAIT)
    during.callback(process.terminate)

    def come(port: int) -> socket.socket | None:
        try:
            return dial(port)
        except ConnectionRefusedError:
            return None

    for port in ports:
        assert page(wait_for("the socket", partial(come, port)), http) == PAGE

    def sessions() -> list[dict[str, Any]] | None:
        found = list(map(json.loads, access.read_text().splitlines())) if access.exists() else []
        return found if len(found) == 2 else None

    found = wait_for("two sessions", sessions)
    assert [each["listener"] for each in found] == ["first", "second"]
    said = (tmp_path / "log").read_text()
    for name, port in zip(("first", "second"), ports, strict=True):
        assert f"listening name={name} on 127.0.0.1:{port}" in said
