"""Programs that people have, through a real gateway."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, STDOUT, CompletedProcess, Popen

import pytest
import requests

from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.dialogue import tunnel
from tests.functional.origins import PAGE, HTTPOrigin, NameServer, blocks
from tests.functional.process import Gateway, needs, run, wait_for

INTRANET = "intranet.corp.test"  # a name that only the gateway's resolver knows
MANY = 100_000_000

Names = Callable[[Mapping[str, Sequence[str]]], NameServer]


def curl(*arguments: str | Path) -> CompletedProcess[str]:
    return run(needs("curl"), "--silent", "--show-error", "--max-time", "60", *arguments)


@pytest.fixture
def intranet(serve: Serve, names: Names) -> Gateway:
    """A gateway whose resolver knows the intranet."""
    server = names({INTRANET: ["127.0.0.1"]})
    return serve(config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n')


@pytest.fixture
def users(tmp_path: Path) -> str:
    """An authenticator that knows alice."""
    path = tmp_path / "users"
    set_password(path, "alice", "s3cret word")
    return f"htpasswd:{path}"


# -- curl --------------------------------------------------------------------


def test_curl_fetches_by_address(serve: Serve, http: HTTPOrigin) -> None:
    gateway = serve()
    fetched = curl("--socks5", gateway.address, f"http://127.0.0.1:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged(rf"session .*\b127\.0\.0\.1:{http.port}\b.*outcome=served")


def test_curl_fetches_by_name(intranet: Gateway, http: HTTPOrigin) -> None:
    """The gateway looks the name up, and its log shows the name that was asked."""
    fetched = curl("--socks5-hostname", intranet.address, f"http://{INTRANET}:{http.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    intranet.logged(rf"session .*\b{INTRANET}:{http.port}\b.*outcome=served")
    [session] = intranet.sessions(1)
    assert (session["host"], session["address"]) == (INTRANET, "127.0.0.1")


def test_curl_fetches_from_ipv6(serve: Serve, http6: HTTPOrigin) -> None:
    gateway = serve()
    fetched = curl("--socks5", gateway.address, f"http://[::1]:{http6.port}/")
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged(rf"session .*\[::1\]:{http6.port}\b.*outcome=served")


def test_curl_logs_in(serve: Serve, http: HTTPOrigin, users: str) -> None:
    gateway = serve("--auth", users)
    fetched = curl(
        "--socks5", gateway.address, "--proxy-user", "alice:s3cret word",
        f"http://127.0.0.1:{http.port}/",
    )  # fmt: skip
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    gateway.logged("session .*user=alice.*outcome=served")


@pytest.mark.parametrize("password", ["wrong", "", "s3cret word "])
def test_curl_is_told_that_a_login_failed(
    serve: Serve, http: HTTPOrigin, users: str, password: str
) -> None:
    """curl says 97, "proxy handshake error"; the log has the form fail2ban reads."""
    gateway = serve("--auth", users)
    fetched = curl(
        "--socks5", gateway.address, "--proxy-user", f"alice:{password}",
        f"http://127.0.0.1:{http.port}/",
    )  # fmt: skip
    assert fetched.returncode == 97
    gateway.logged(r"login failed client=127\.0\.0\.1 port=\d+ user=alice reason=")
    assert "s3cret" not in gateway.log()


def test_curl_without_a_login_is_turned_away(serve: Serve, http: HTTPOrigin, users: str) -> None:
    gateway = serve("--auth", users)
    fetched = curl("--socks5", gateway.address, f"http://127.0.0.1:{http.port}/")
    assert fetched.returncode == 97
    gateway.logged("session .*outcome=no-method")


def test_curl_is_told_what_became_of_a_request(serve: Serve, names: Names) -> None:
    """REP reaches the user: 0x05 for a refused connection, 0x04 for a name that is not."""
    server = names({})
    gateway = serve(config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n')
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        refused = curl("--socks5", gateway.address, f"http://127.0.0.1:{port}/")
    assert refused.returncode == 97
    assert "(5)" in refused.stderr
    unknown = curl("--socks5-hostname", gateway.address, "http://nowhere.test/")
    assert unknown.returncode == 97
    assert "(4)" in unknown.stderr


def test_curl_downloads_100_mb_unharmed(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    gateway = serve()
    target = tmp_path / "download"
    fetched = curl(
        "--socks5", gateway.address, "--output", target,
        f"http://127.0.0.1:{http.port}/octets/{MANY}",
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    expected = hashlib.sha256()
    for octets in blocks(MANY):
        expected.update(octets)
    with target.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == expected.digest()


def test_curl_uploads_100_mb_unharmed(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    gateway = serve()
    source = tmp_path / "upload"
    expected = hashlib.sha256()
    with source.open("wb") as file:
        for octets in blocks(MANY):
            expected.update(octets)
            file.write(octets)
    sent = curl(
        "--socks5", gateway.address, "--upload-file", source,
        f"http://127.0.0.1:{http.port}/upload",
    )  # fmt: skip
    assert sent.stdout == expected.hexdigest(), sent.stderr


def test_curl_fetches_50_at_once(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    gateway = serve(config="")
    fetched = curl(
        "--socks5", gateway.address, "--parallel", "--parallel-immediate", "--parallel-max", "50",
        "--output", tmp_path / "part#1", f"http://127.0.0.1:{http.port}/octets/[100001-100050]",
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    for size in range(100_001, 100_051):
        assert (tmp_path / f"part{size}").stat().st_size == size
    assert {session["outcome"] for session in gateway.sessions(50)} == {"served"}


def test_a_browsers_fifty_connections_cost_one_hash(
    serve: Serve, http: HTTPOrigin, users: str, tmp_path: Path
) -> None:
    """All at once, and one after another; a hash for each would be three seconds of work."""
    gateway = serve("--auth", users)
    before = gateway.busy()
    fetched = curl(
        "--socks5", gateway.address, "--proxy-user", "alice:s3cret word",
        "--parallel", "--parallel-immediate", "--parallel-max", "50",
        "--output", tmp_path / "part#1", f"http://127.0.0.1:{http.port}/octets/[1-50]",
    )  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    for _ in range(50):
        tunnel(gateway.port, "127.0.0.1", http.port, ("alice", "s3cret word")).close()
    assert gateway.busy() - before < 50 * 0.057 / 2


def test_curl_on_the_wrong_kind_of_proxy_reads_what_this_port_speaks(serve: Serve) -> None:
    gateway = serve(config='protocols = ["socks5"]\n')
    fetched = curl("--proxy", f"http://{gateway.address}", "http://example.test/")
    assert "SOCKS5" in fetched.stdout
    gateway.logged("session .*outcome=protocol-error.*HTTP")


# -- ssh ---------------------------------------------------------------------


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    """An SSH server for whoever runs the tests, with keys of its own; its port."""
    program, keygen = needs("sshd"), needs("ssh-keygen")
    if os.geteuid() == 0:  # sshd's own demand; a distribution's service makes it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        made = run(keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
        assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "user_key.pub",
        "StrictModes": "no",  # the directory belongs to the tests
        "PermitRootLogin": "yes",
        "PidFile": "none",
    }
    with (
        (tmp_path / "sshd.log").open("wb") as log,
        Popen(
            [program, "-D", "-e", "-f", "/dev/null"]
            + [f"-o{name}={value}" for name, value in options.items()],
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
        ) as process,
    ):
        try:
            wait_for("sshd", lambda: "listening" in (tmp_path / "sshd.log").read_text())
            yield port
        finally:
            process.terminate()


@pytest.mark.parametrize("version", [4, 5])
def test_ssh_works_through_netcat(serve: Serve, sshd: int, tmp_path: Path, version: int) -> None:
    gateway = serve()
    netcat = needs("nc")
    spoken = run(
        needs("ssh"), "-F", "none", "-p", str(sshd), "-i", tmp_path / "user_key",
        "-o", f"ProxyCommand={netcat} -X {version} -x {gateway.address} %h %p",
        "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}",
        "-o", "BatchMode=yes", f"{getpass.getuser()}@127.0.0.1",
        "sha256sum",
        stdin="x" * 1_000_000,
    )  # fmt: skip
    assert spoken.stdout.split()[:1] == [hashlib.sha256(b"x" * 1_000_000).hexdigest()], (
        spoken.stderr + (tmp_path / "sshd.log").read_text()
    )
    gateway.logged(rf"session .*\b127\.0\.0\.1:{sshd}\b.*outcome=served")


# -- git ---------------------------------------------------------------------


def test_git_clones(intranet: Gateway, http: HTTPOrigin, tmp_path: Path) -> None:
    program = needs("git")

    def git(*arguments: str | Path) -> None:
        done = run(
            program, "-c", "user.name=A", "-c", "user.email=a@example.test", *arguments,
            HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    git("init", "--quiet", tmp_path / "work")
    (tmp_path / "work" / "file").write_bytes(PAGE)
    git("-C", tmp_path / "work", "add", "file")
    git("-C", tmp_path / "work", "commit", "--quiet", "--message", "One file")
    git("clone", "--quiet", "--bare", tmp_path / "work", tmp_path / "bare.git")
    git("-C", tmp_path / "bare.git", "update-server-info")  # what plain HTTP needs
    git(
        "-c", f"http.proxy=socks5h://{intranet.address}",
        "clone", "--quiet", f"http://{INTRANET}:{http.port}/bare.git", tmp_path / "clone",
    )  # fmt: skip
    assert (tmp_path / "clone" / "file").read_bytes() == PAGE
    intranet.logged(rf"session .*\b{INTRANET}:{http.port}\b.*outcome=served")


# -- others ------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_requests_logs_in_and_fetches(
    serve: Serve, http: HTTPOrigin, users: str, scheme: str
) -> None:
    gateway = serve("--auth", users)
    proxy = f"{scheme}://alice:s3cret%20word@{gateway.address}"
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"http://127.0.0.1:{http.port}/", proxies={"http": proxy}, timeout=20)
    assert answer.content == PAGE


def test_chromium_shows_a_page_whose_name_only_the_gateway_knows(
    intranet: Gateway, http: HTTPOrigin, tmp_path: Path
) -> None:
    shown = run(
        needs("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        f"--proxy-server=socks5://{intranet.address}", "--dump-dom",
        f"http://{INTRANET}:{http.port}/",
    )  # fmt: skip
    assert "the page behind the gateway" in shown.stdout, shown.stderr
    intranet.logged(rf"session .*\b{INTRANET}:{http.port}\b.*outcome=served")


@pytest.mark.parametrize("kind", ["socks4", "socks5"])
def test_proxychains_leaves_names_to_the_gateway(
    intranet: Gateway, http: HTTPOrigin, tmp_path: Path, kind: str
) -> None:
    config = tmp_path / "proxychains.conf"
    config.write_text(f"strict_chain\nproxy_dns\n[ProxyList]\n{kind} 127.0.0.1 {intranet.port}\n")
    fetched = run(
        needs("proxychains4"), "-q", "-f", config,
        needs("curl"), "--silent", "--show-error", f"http://{INTRANET}:{http.port}/",
    )  # fmt: skip
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    intranet.logged(rf"session .*\b{INTRANET}:{http.port}\b.*outcome=served")
