"""Programs that take the gateway for their HTTP proxy, and heads that nobody should send."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import requests

from socksd.identity.htpasswd import set_password
from tests.functional.chromium import chromium
from tests.functional.conftest import Serve
from tests.functional.dialogue import dial, take_all, tunnel
from tests.functional.origins import BLOCK, PAGE, HTTPOrigin, NameServer, blocks, serving
from tests.functional.process import Gateway, needs, run, wait_for

INTRANET = "intranet.corp.test"  # a name that only the gateway's resolver knows
MANY = 30_000_000
USER, PASSWORD = "alice", "s3cret word"
LOGIN = "alice:s3cret%20word"
FREE = "127.0.0.2"
MAIL = 2525  # 25 no browser asks for


def curl(*arguments: str | Path) -> CompletedProcess[str]:
    return run(needs("curl"), "--silent", "--show-error", "--max-time", "60", *arguments)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all: it knows the intranet, and alice; from 127.0.0.2 nobody need log in."""
    directory = tmp_path_factory.mktemp("gateway")
    set_password(directory / "users", USER, PASSWORD)
    names = NameServer({INTRANET: ["127.0.0.1"]})
    config = (
        f'[auth]\nauthenticators = ["htpasswd:{directory}/users"]\nanonymous = ["{FREE}/32"]\n'
        f'[resolver]\nvia = "dns:127.0.0.1:{names.port}"\n[guard]\nnever = "nothing"\n'
        f'[[rule]]\nid = "no-mail"\naction = "deny"\nports = [{MAIL}]\ntext = "Use <b>."\n'
        '[[rule]]\nid = "here"\naction = "allow"\nto = "127.0.0.0/8"\n'
    )
    with serving(names):
        running = Gateway(directory, config=config)
        yield running
        running.stop()
    assert not re.search("Traceback|Unhandled|outcome=error", running.log()), running.log()


@pytest.fixture
def proxy(gateway: Gateway) -> str:
    return f"http://{LOGIN}@{gateway.address}"


@pytest.fixture
def https(during: ExitStack, tmp_path: Path) -> HTTPOrigin:
    """The same files over TLS, with a certificate that nobody has signed."""
    certificate = tmp_path / "origin.pem"
    made = run(
        needs("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
        "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={INTRANET}",
        "-keyout", certificate, "-out", tmp_path / "certificate.pem",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", certificate)
    server = HTTPOrigin(tmp_path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    during.enter_context(serving(server))
    return server


def sessions_to(gateway: Gateway, port: int, count: int = 1) -> list[dict[str, Any]]:
    """Wait for the access log's entries of sessions that asked for *port*."""

    def probe() -> list[dict[str, Any]] | None:
        log = gateway.directory / "access.jsonl"
        entries = map(json.loads, log.read_text().splitlines() if log.exists() else [])
        found = [entry for entry in entries if entry["port"] == port]
        return found if len(found) >= count else None

    return wait_for(f"{count} sessions to {port}", probe)


# -- curl --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["forwarded", "tunnelled"])
def test_curl_logs_in_and_fetches(gateway: Gateway, http: HTTPOrigin, proxy: str, how: str) -> None:
    tunnelled = ["--proxytunnel"] if how == "tunnelled" else []
    fetched = curl("--proxy", proxy, *tunnelled, f"http://{INTRANET}:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged(rf"session .*user=alice connect {INTRANET}:{http.port}\b.*outcome=served")
    [session] = sessions_to(gateway, http.port)
    assert (session["address"], session["rule"]) == ("127.0.0.1", "here")


def test_curl_fetches_over_tls(gateway: Gateway, https: HTTPOrigin, proxy: str) -> None:
    fetched = curl("--proxy", proxy, "--insecure", f"https://{INTRANET}:{https.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr


def test_curl_downloads_and_uploads_unharmed(
    gateway: Gateway, http: HTTPOrigin, proxy: str, tmp_path: Path
) -> None:
    """By forwarding, where octets are taken out of one framing and put into another."""
    url = f"http://127.0.0.1:{http.port}/octets/{MANY}"
    fetched = curl("--proxy", proxy, "--output", tmp_path / "download", url)
    assert fetched.returncode == 0, fetched.stderr
    expected = hashlib.sha256()
    for octets in blocks(MANY):
        expected.update(octets)
    assert hashlib.sha256((tmp_path / "download").read_bytes()).digest() == expected.digest()
    sent = curl("--proxy", proxy, "--upload-file", tmp_path / "download", url)
    assert sent.stdout == expected.hexdigest(), sent.stderr
    down, up = sessions_to(gateway, http.port, 2)
    assert down["down"] > MANY
    assert up["up"] > MANY


@pytest.mark.parametrize("login", ["", "alice:wrong@"])
@pytest.mark.parametrize("tunnelled", [[], ["--proxytunnel"]], ids=["forwarded", "tunnelled"])
def test_curl_is_asked_for_a_login(
    gateway: Gateway, http: HTTPOrigin, login: str, tunnelled: list[str]
) -> None:
    fetched = curl(
        "--proxy", f"http://{login}{gateway.address}", *tunnelled,
        "--write-out", "%{http_code} %{http_connect}", f"http://127.0.0.1:{http.port}/",
    )  # fmt: skip
    assert "407" in fetched.stdout
    if login:
        gateway.logged(r"login failed client=127\.0\.0\.1 port=\d+ user=alice reason=")
        gateway.logged("session .*user=alice outcome=login-failed")
    else:
        gateway.logged("session .*user=- outcome=client-left .*waiting for the login")
    assert not re.search(rf":{http.port}\b", gateway.log())
    assert "wrong@" not in gateway.log()


def test_curl_shows_why_it_was_refused(gateway: Gateway, proxy: str) -> None:
    mail = f"http://127.0.0.1:{MAIL}/"
    shown = curl("--proxy", proxy, "--write-out", "%{http_code}", mail)
    assert shown.stdout.endswith("403")
    assert "Rule no-mail does not allow this.\n\nUse <b>." in shown.stdout
    page = curl("--proxy", proxy, "--header", "Accept: text/html", mail)
    assert "<p>Use &lt;b&gt;." in page.stdout
    why = curl("--proxy", proxy, "--header", "Accept: text/plain", "http://why.socksd/")
    assert why.stdout.startswith("You are alice at 127.0.0.1.")
    assert why.stdout.count(f"127.0.0.1:{MAIL}") == 2
    gateway.logged(r"denied client=127\.0\.0\.1 port=\d+ user=alice .* rule=no-mail")


def test_curl_is_told_what_became_of_a_request(gateway: Gateway, proxy: str) -> None:
    status = ["--write-out", "%{http_code} %{http_connect}"]
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        assert "502" in curl("--proxy", proxy, *status, f"http://127.0.0.1:{port}/").stdout
        assert "502" in curl("--proxy", proxy, *status, "-p", f"http://127.0.0.1:{port}/").stdout
    assert "502" in curl("--proxy", proxy, *status, "http://nowhere.test/").stdout


def test_curl_keeps_to_one_connection_to_log_in(gateway: Gateway, http: HTTPOrigin) -> None:
    """With --proxy-anyauth it asks without a login first."""
    fetched = curl(
        "--write-out", "%{num_connects}",
        "--proxy", f"http://{gateway.address}", "--proxy-user", f"{USER}:{PASSWORD}",
        "--proxy-anyauth", "--proxytunnel", f"http://127.0.0.1:{http.port}/",
    )  # fmt: skip
    assert fetched.stdout == PAGE.decode() + "1", fetched.stderr
    [session] = sessions_to(gateway, http.port)
    assert (session["outcome"], session["user"]) == ("served", "alice")


def test_socks_is_spoken_on_the_same_port(gateway: Gateway, http: HTTPOrigin, proxy: str) -> None:
    assert curl("--proxy", proxy, f"http://127.0.0.1:{http.port}/").stdout.encode() == PAGE
    with tunnel(gateway.port, "127.0.0.1", http.port, (USER, PASSWORD)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert take_all(sock).endswith(PAGE)


# -- others ------------------------------------------------------------------


def test_git_clones(gateway: Gateway, http: HTTPOrigin, proxy: str, tmp_path: Path) -> None:
    program = needs("git")

    def git(*arguments: str | Path) -> None:
        done = run(
            program, "-c", "user.name=A", "-c", "user.email=a@example.test", *arguments,
            HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    git("init", "--quiet", tmp_path / "work")
    git("-C", tmp_path / "work", "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    git("clone", "--quiet", "--bare", tmp_path / "work", tmp_path / "bare.git")
    git("-C", tmp_path / "bare.git", "update-server-info")  # what plain HTTP needs
    git(
        "-c", f"http.proxy={proxy}",
        "clone", "--quiet", f"http://{INTRANET}:{http.port}/bare.git", tmp_path / "clone",
    )  # fmt: skip
    assert (tmp_path / "clone" / ".git").is_dir()
    gateway.logged(rf"session .*user=alice connect {INTRANET}:{http.port}\b.*outcome=served")


def test_pip_downloads(gateway: Gateway, http: HTTPOrigin, proxy: str, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    done = run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--proxy", proxy,
        "download", "--quiet", "--no-cache-dir", "--no-index", "--no-deps", "--retries", "0",
        "--find-links", f"http://{INTRANET}:{http.port}/wheels/", "--trusted-host", INTRANET,
        "--dest", tmp_path / "got", "tiny",
        PIP_CONFIG_FILE="/dev/null",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / "tiny-1.0-py3-none-any.whl").exists()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_requests_logs_in_and_fetches(
    gateway: Gateway, http: HTTPOrigin, https: HTTPOrigin, proxy: str
) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.verify = False
        proxies = {"http": proxy, "https": proxy}
        for url in (f"http://{INTRANET}:{http.port}/", f"https://{INTRANET}:{https.port}/"):
            assert session.get(url, proxies=proxies, timeout=20).content == PAGE
        answer = session.post(
            f"http://{INTRANET}:{http.port}/", data=iter([b"in", b"chunks"]), proxies=proxies
        )
        assert answer.status_code == 501, "the origin's answer, which knows no POST"


def test_netcat_speaks_http_1_0(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve()
    spoken = run(
        needs("nc"), "-X", "connect", "-x", gateway.address, "127.0.0.1", str(http.port),
        stdin="GET / HTTP/1.0\r\n\r\n",
    )  # fmt: skip
    assert spoken.stdout.encode().endswith(PAGE), spoken.stderr


def test_chromium_logs_in(
    gateway: Gateway, http: HTTPOrigin, https: HTTPOrigin, tmp_path: Path
) -> None:
    """What no browser does with SOCKS; asked once, it logs in for every connection."""
    with chromium(tmp_path / "profile", gateway.address, (USER, PASSWORD)) as browser:
        for scheme, port in (("http", http.port), ("https", https.port)):
            assert "the page behind" in browser.show(f"{scheme}://{INTRANET}:{port}/")
        assert "You are alice at 127.0.0.1." in browser.show("http://why.socksd/")
        denied = browser.show(f"http://{INTRANET}:{MAIL}/")
        assert "Rule no-mail does not allow this." in denied
        assert browser.asked == [("Proxy", "socksd")]
    for port in (http.port, https.port):
        gateway.logged(rf"session .*user=alice connect {INTRANET}:{port}\b.*outcome=served")


# -- what nobody should send -------------------------------------------------


class _Telling(BaseHTTPRequestHandler):
    """Writes down what it understands, with a parser that is not ours."""

    protocol_version = "HTTP/1.1"
    server: Told

    def _tell(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        hosts = self.headers.get_all("Host", [])
        self.server.told.append((self.command, self.path, hosts, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = _tell

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Told(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, list[str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Telling)
        self.port: int = self.server_address[1]


@pytest.fixture
def told(during: ExitStack) -> Told:
    server = Told()
    during.enter_context(serving(server))
    return server


EVIL = b"DELETE /evil HTTP/1.1\r\nHost: evil\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HEADS = {
    "pipelined": (b"GET {} HTTP/1.1\r\nHost: h\r\n\r\n" + EVIL, b""),
    "pipelined in absolute-form": (
        b"GET {} HTTP/1.1\r\nHost: h\r\n\r\n" + EVIL.replace(b"/evil", b"{}evil"),
        b"",
    ),
    "a body of a GET": (b"GET {} HTTP/1.1\r\nHost: h\r\nContent-Length: 37\r\n\r\n" + EVIL, EVIL),
    "behind chunks": (
        b"POST {} HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"\r\n1\r\na\r\n0\r\n\r\n" + EVIL,
        b"a",
    ),
    "in a trailer": (
        b"POST {} HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"\r\n0\r\nHost: evil\r\nA: b\r\n\r\n",
        b"",
    ),
    "chunk extensions": (
        b"POST {} HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"\r\n1;a=\r\na\r\n0\r\n\r\n" + EVIL,
        b"a",
    ),
    "Host of another": (b"GET {} HTTP/1.1\r\nHost: evil\r\n\r\n", b""),
    "Host named by Connection": (b"GET {} HTTP/1.1\r\nConnection: Host\r\nHost: h\r\n\r\n", b""),
    "a length named by Connection": (
        b"POST {} HTTP/1.1\r\nHost: h\r\nConnection: Content-Length\r\nContent-Length: 37\r\n\r\n"
        + EVIL,
        EVIL,
    ),
    "chunks named by Connection": (
        b"POST {} HTTP/1.1\r\nHost: h\r\nConnection: Transfer-Encoding\r\n"
        + CHUNKED + b"\r\n25\r\n" + EVIL + b"\r\n0\r\n\r\n",
        EVIL,
    ),
    "a length of HTTP/1.0": (b"POST {} HTTP/1.0\r\nContent-Length: 1\r\n\r\na" + EVIL, b"a"),
}  # fmt: skip
REFUSED = {
    "CL.TE": b"POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "two lengths": b"GET {} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 7\r\n\r\n",
    "TE in HTTP/1.0": b"POST {} HTTP/1.0\r\nHost: h\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "TE with a space": b"POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n",
    "TE with a fold": b"POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
    "TE with VT": b"POST {} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    "TE twice": b"POST {} HTTP/1.1\r\nHost: h\r\n" + CHUNKED + b"Transfer-Encoding: x\r\n\r\n",
    "TE behind a bare LF": b"POST {} HTTP/1.1\r\nHost: h\r\nA: b\nTransfer-Encoding: x\r\n\r\n",
    "TE behind a bare CR": b"POST {} HTTP/1.1\r\nHost: h\r\nA: b\rTransfer-Encoding: x\r\n\r\n",
    "a request behind LF LF": b"GET {} HTTP/1.1\r\nHost: h\n\n" + EVIL,
    "a request in the line": b"GET {}\tHTTP/1.1\r\nX: HTTP/1.1\r\nHost: h\r\n\r\n",
    "two Hosts": b"GET {} HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n",
    "userinfo": b"GET {@} HTTP/1.1\r\nHost: h\r\n\r\n",
    "a backslash": b"GET {\\} HTTP/1.1\r\nHost: h\r\n\r\n",
    "a fragment": b"GET {}#@evil/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "NUL": b"GET {} HTTP/1.1\r\nHost: h\r\nA: \x00\r\n\r\n",
    "no version": b"GET {}\r\nHost: h\r\n\r\n",
}


def spelled(octets: bytes, port: int) -> bytes:
    here = b"127.0.0.1:%d" % port
    for pattern, url in (
        (b"{}", b"http://%b/" % here),
        (b"{@}", b"http://%b@evil/" % here),
        (b"{\\}", b"http://%b\\@evil/" % here),
    ):
        octets = octets.replace(pattern, url)
    return octets


def said(gateway: Gateway, octets: bytes) -> bytes:
    """Send octets, and give all that comes back."""
    with dial(gateway.port, FREE) as sock:
        sock.sendall(octets)
        return take_all(sock)


def test_the_origin_is_told_what_was_judged(gateway: Gateway, told: Told) -> None:
    """One request for each question to the policy, whatever else is on the wire."""
    for octets, body in HEADS.values():
        answer = said(gateway, spelled(octets, told.port))
        assert answer.startswith(b"HTTP/1.1 200 "), (octets, answer)
        method = octets.split()[0].decode()
        assert told.told == [(method, "/", [f"127.0.0.1:{told.port}"], body)], octets
        told.told.clear()
    judged = sessions_to(gateway, told.port, len(HEADS))
    assert [each["host"] for each in judged] == ["127.0.0.1"] * len(HEADS)


def test_the_origin_hears_nothing_of_what_is_ambiguous(gateway: Gateway, told: Told) -> None:
    for octets in REFUSED.values():
        answer = said(gateway, spelled(octets, told.port))
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), (octets, answer)
    assert not told.told
    assert not re.search(rf":{told.port}\b", gateway.log())


def test_what_a_client_does_not_read_is_not_kept(gateway: Gateway, http: HTTPOrigin) -> None:
    """A response is read from the origin as it is taken."""
    base = gateway.usage()
    with ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(dial(gateway.port, FREE))
            url = b"http://127.0.0.1:%d/octets/%d" % (http.port, 64 * len(BLOCK))
            sock.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % url)
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert gateway.usage().memory - base.memory < 20 * len(BLOCK)
    gateway.settled(base)
