"""Another configuration, another policy, and nobody notices but who should."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from socksd.admin.client import ask
from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.dialogue import Refused, answer, take, take_all, tunnel
from tests.functional.origins import PAGE, HTTPOrigin, Origin, echo
from tests.functional.process import LISTEN, SCRIPTS, Gateway, needs, run, wait_for
from tests.functional.visitors import Visitors

NOT_ALLOWED = 2
# As many as descriptors allow, for who wants to know; see "Limits" of the docs.
IDLE = int(os.environ.get("SOCKSD_IDLE", "500"))
RELOADS = 100
STORM = 50  # reloads, while this many clients come all the time:
CLIENTS = 16
MIB = 1 << 20

ALLOW = '[[rule]]\nid = "all"\naction = "allow"\n[guard]\nnever = "nothing"\n'
DENY = '[[rule]]\nid = "none"\naction = "deny"\nto = ["127.0.0.0/8"]\n' + ALLOW
BROKEN = '[[rule]]\nid = "all"\naction = "alow"\nprots = [1]\n'


def command(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return run(SCRIPTS / "socksd", *words, "--config", str(gateway.file))


def tables(directory: Path, refused_sessions: str = "keep") -> str:
    """Say where the control socket is, and the state."""
    return (
        f'[control]\nsocket = "{directory}/control.sock"\n'
        f'[reload]\nstate = "{directory}/state"\nrefused_sessions = "{refused_sessions}"\n'
    )


def hang_up(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGHUP)


def echoes(sock: socket.socket) -> bool:
    sock.sendall(b"still there?")
    return take(sock, 12) == b"still there?"


# -- reload ------------------------------------------------------------------


def test_sighup_changes_the_rules_and_cuts_nobody(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    target = origin(echo)
    gateway = serve(config=ALLOW)
    with tunnel(gateway.port, "127.0.0.1", target.port) as before:
        assert echoes(before)
        gateway.configure(DENY)
        hang_up(gateway)
        gateway.logged("reloaded: rules=2 listeners=1")
        assert answer(gateway.port, "127.0.0.1", target.port) == NOT_ALLOWED
        assert echoes(before)
    gateway.logged(r"would now be refused: session 1 .* rule=none \(kept\)")


def test_a_broken_file_changes_nothing_and_every_problem_is_said_once(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    target = origin(echo)
    gateway = serve(config=ALLOW)
    with tunnel(gateway.port, "127.0.0.1", target.port) as before:
        gateway.configure(BROKEN)
        hang_up(gateway)
        gateway.logged("not reloaded: ")
        assert answer(gateway.port, "127.0.0.1", target.port) == 0
        assert echoes(before)
    lines = [line for line in gateway.log().splitlines() if "not reloaded" in line]
    assert len(lines) == 2
    assert any("rule[0].action" in line for line in lines)
    assert any("rule[0].prots" in line for line in lines)


def test_refused_sessions_are_cut_where_it_says_so(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    target = origin(echo)
    gateway = serve(config=tables(tmp_path, "cut") + ALLOW)
    with tunnel(gateway.port, "127.0.0.1", target.port) as cut:
        gateway.configure(tables(tmp_path, "cut") + DENY)
        done = command(gateway, "reload")
        assert "1 live sessions would now be refused: cut" in done.stdout, done
        with pytest.raises(ConnectionResetError):
            take_all(cut)
    (session, *_) = gateway.sessions(1)
    assert session["outcome"] == "stopped"
    assert session["reason"] == "refused by rule none since a reload"


def test_listeners_come_and_go(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    path = tmp_path / "second.sock"
    second = f'[[listener]]\nname = "second"\nendpoint = "unix:{path}"\n'
    gateway.configure(tables(tmp_path) + second + ALLOW)
    assert command(gateway, "reload").returncode == 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"\x05\x01\x00")
        assert take(sock, 2) == b"\x05\x00"
        gateway.configure(tables(tmp_path) + ALLOW)
        assert command(gateway, "reload").returncode == 0
        wait_for("the listener to go", lambda: not path.exists())
        status = json.loads(command(gateway, "status", "--json").stdout)
        assert [each["name"] for each in status["listeners"]] == ["test"]
        assert (status["sessions"], status["older_sessions"]) == (1, 1)


class Holder:
    """Accepts, and holds: an origin for very many idle sessions."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.server.getsockname()[1]
        self.held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            sock = self.server.accept()[0]
            if sock.recv(1) == b"Q":
                sock.close()
                return
            self.held.append(sock)

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(b"Q")
            self._thread.join()
        for sock in self.held:
            sock.close()
        self.server.close()


@contextmanager
def holder() -> Iterator[Holder]:
    held = Holder()
    try:
        yield held
    finally:
        held.close()


def idle(gateway: Gateway, to: Holder, number: int) -> socket.socket:
    sock = tunnel(gateway.port, "127.0.0.1", to.port, source=f"127.0.1.{number % 100 + 1}")
    sock.sendall(b"!")
    return sock


def test_a_hundred_reloads_half_of_them_broken_cut_nobody_and_leave_nothing(serve: Serve) -> None:
    """SOCKSD_IDLE says how many sessions look on."""
    gateway = serve(config=ALLOW)
    other = ALLOW + '[deadlines]\nidle = "2h"\n[resolver]\nttl = "{}s"\n'
    with holder() as target, ExitStack() as stack:
        with ThreadPoolExecutor(8) as pool:
            sessions = [
                stack.enter_context(sock)
                for sock in pool.map(lambda n: idle(gateway, target, n), range(IDLE))
            ]
        wait_for("all sessions", lambda: len(target.held) == IDLE)

        def reloaded(done: int, failed: int) -> None:
            def told() -> bool:
                log = gateway.log()
                return log.count("] reloaded: ") == done and log.count("rule[0].action") == failed

            wait_for(f"reload {done + failed}", told)

        def twice(number: int) -> None:
            gateway.configure(BROKEN)
            hang_up(gateway)
            reloaded(number, number + 1)
            gateway.configure(other.format(number + 1))
            hang_up(gateway)
            reloaded(number + 1, number + 1)

        warm_up = 10
        for number in range(warm_up):
            twice(number)
        base = gateway.usage()
        for number in range(warm_up, RELOADS // 2):
            twice(number)
        end = gateway.usage()
        assert end.descriptors == base.descriptors
        assert end.memory - base.memory < 2 * MIB
        for sock in sessions:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        for far in target.held:  # in an order of its own
            far.sendall(b"x")
        for sock in sessions:
            sock.setblocking(True)
            assert take(sock, 1) == b"x"
        assert f"session {IDLE}" not in gateway.log()


def test_a_storm_of_reloads_fails_no_session(serve: Serve, origin: Callable[..., Origin]) -> None:
    """Every third file is broken; signals that come while one is read are one more reload."""
    target = origin(echo)
    gateway = serve(config=ALLOW)
    storm = Visitors(gateway.port, target.port)
    with tunnel(gateway.port, "127.0.0.1", target.port) as before, storm.coming(CLIENTS):
        for number in range(STORM):
            gateway.configure(BROKEN if number % 3 == 2 else f"# {number}\n{ALLOW}")
            hang_up(gateway)
            storm.more(2)
        gateway.configure(f'{ALLOW}[[listener]]\nname = "last"\nendpoint = "{LISTEN}"\n')
        hang_up(gateway)
        last = gateway.port_of("last")
        storm.more(CLIENTS)
        assert echoes(before)
    assert answer(last, "127.0.0.1", target.port) == 0
    log = gateway.log()
    assert log.count("] reloaded: ") + log.count("rule[0].action") <= STORM + 1
    assert log.count("rule[0].action") > 1, "files were broken when they were read"


# -- on trial ----------------------------------------------------------------


def test_what_nobody_confirms_is_rolled_back(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    gateway.configure(tables(tmp_path) + DENY)
    done = command(gateway, "reload", "--confirm", "2s")
    assert "unless you say: socksd confirm" in done.stdout, done
    assert answer(gateway.port, "127.0.0.1", http.port) == NOT_ALLOWED
    gateway.logged("not confirmed in time: rolled back")
    assert answer(gateway.port, "127.0.0.1", http.port) == 0
    hang_up(gateway)
    gateway.logged("not reloaded: the file was never confirmed")
    assert answer(gateway.port, "127.0.0.1", http.port) == 0


def killed(gateway: Gateway) -> None:
    gateway.process.kill()
    gateway.process.wait()


@pytest.mark.parametrize("seconds", ["1s", "24h"], ids=["time is over", "time is left"])
def test_a_kill_in_between_brings_the_confirmed_one_back(
    serve: Serve, http: HTTPOrigin, tmp_path: Path, seconds: str
) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    gateway.configure(tables(tmp_path) + DENY)
    assert command(gateway, "reload", "--confirm", seconds).returncode == 0
    killed(gateway)
    again = Gateway(gateway.directory, config=tables(tmp_path) + DENY)
    try:
        again.logged("the configuration file was never confirmed: in force is the last confirmed")
        assert answer(again.port, "127.0.0.1", http.port) == 0
        assert json.loads(command(again, "status", "--json").stdout)["rolled_back"]
        assert command(again, "reload").returncode == 0
        assert answer(again.port, "127.0.0.1", http.port) == NOT_ALLOWED
    finally:
        again.stop()


def test_what_is_confirmed_is_started_with(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    gateway.configure(tables(tmp_path) + DENY)
    assert command(gateway, "reload", "--confirm", "24h").returncode == 0
    assert command(gateway, "confirm").stdout == "confirmed\n"
    killed(gateway)
    again = Gateway(gateway.directory, config=tables(tmp_path) + DENY)
    try:
        assert answer(again.port, "127.0.0.1", http.port) == NOT_ALLOWED
        assert "never confirmed" not in again.log()
    finally:
        again.stop()


# -- the control socket ------------------------------------------------------


def test_the_control_socket_is_for_owner_and_group(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    path = tmp_path / "control.sock"
    wait_for("the socket", path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert "listener       test on 127.0.0.1:" in command(gateway, "status").stdout
    fetched = run(needs("curl"), "--silent", "--unix-socket", str(path), "http://socksd/v1/status")
    assert json.loads(fetched.stdout)["pid"] == gateway.pid
    gateway.stop()
    assert not path.exists()
    done = command(gateway, "status")
    assert (done.returncode, done.stderr) == (3, f"socksd: no server listens at {path}\n")


def test_what_does_not_load_is_told_to_who_asks(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    gateway.configure(tables(tmp_path) + BROKEN)
    done = command(gateway, "reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    assert all(line.startswith("socksd: rule[0].") for line in done.stderr.splitlines())


def test_a_second_server_does_not_take_the_socket(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    done = run(
        SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "socks5", "--config", str(gateway.file)
    )
    assert done.returncode != 0
    assert "another server listens there" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert command(gateway, "status").returncode == 0


# -- live sessions -----------------------------------------------------------


def test_sessions_are_listed_watched_and_ended_by_what_they_are(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    target = origin(echo)
    gateway = serve(config=tables(tmp_path) + ALLOW)
    with (
        tunnel(gateway.port, "127.0.0.1", target.port) as one,
        tunnel(gateway.port, "localhost", target.port) as other,
    ):
        assert echoes(one)
        assert echoes(other)
        (first, second) = json.loads(command(gateway, "sessions", "--json").stdout)["sessions"]
        assert (first["destination"], first["state"]) == (f"127.0.0.1:{target.port}", "relaying")
        assert (second["up"], second["down"]) == (12, 12)
        listed = command(gateway, "sessions", "--to", "localhost").stdout
        assert f"localhost:{target.port}" in listed
        assert f"127.0.0.1:{target.port}" not in listed
        assert f"localhost:{target.port}" in command(gateway, "top", "--times", "1").stdout
        assert command(gateway, "kill", "--user", "alice").stdout == "0 sessions ended\n"
        assert command(gateway, "kill", "--to", "localhost").stdout == "1 sessions ended\n"
        with pytest.raises(ConnectionResetError):
            take_all(other)
        assert echoes(one)
    refused = command(gateway, "kill")
    assert (refused.returncode, refused.stderr.split(":")[1]) == (1, " say which sessions")
    gateway.logged("1 sessions ended by hand: to=localhost")


def test_a_running_server_explains_by_its_own_policy(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    gateway.configure(tables(tmp_path) + DENY)  # not loaded
    question = {"from": "192.0.2.1", "connect": "127.0.0.1:80"}
    control = tmp_path / "control.sock"
    wait_for("the control socket", control.exists)  # a moment behind the listeners
    status, said = ask(str(control), "POST", "/v1/explain", question)
    assert (status, said["verdict"], said["rule"]) == (200, "allow", "all")
    assert json.loads(command(gateway, "config").stdout)["guard"] == {"never": "nothing"}


# -- counters, leaks, why ----------------------------------------------------


def curl(gateway: Gateway, how: str, url: str, *more: str) -> str:
    return run(
        needs("curl"), "--silent", "--noproxy", "", "--max-time", "20", how, gateway.address,
        *more, url,
    ).stdout  # fmt: skip


def test_rules_count_and_names_are_told_from_addresses(
    serve: Serve, http: HTTPOrigin, tmp_path: Path
) -> None:
    gateway = serve(config=tables(tmp_path) + ALLOW)
    url = f"http://localhost:{http.port}/"
    assert curl(gateway, "--socks5-hostname", url) == PAGE.decode()
    gateway.sessions(1)
    assert command(gateway, "leaks").stdout == "1 clients seen; all of them send names\n"
    assert curl(gateway, "--socks5", url, "--ipv4") == PAGE.decode()
    gateway.sessions(2)
    (leak,) = json.loads(command(gateway, "leaks", "--json").stdout)["leaks"]
    assert (leak["client"], leak["names"], leak["addresses"]) == ("127.0.0.1", 1, 1)
    assert leak["top"] == [{"destination": f"127.0.0.1:{http.port}", "count": 1}]
    assert "rules about names do not protect 1 of 1 clients" in command(gateway, "leaks").stdout
    assert command(gateway, "reload").returncode == 0
    rules = {r["id"]: r for r in json.loads(command(gateway, "rules", "--json").stdout)["rules"]}
    assert (rules["all"]["hits"], rules["all"]["outcomes"]) == (2, {"served": 2})
    assert rules["default"]["hits"] == 0


def test_why_shows_callers_their_own_refusals_and_nobody_elses(
    serve: Serve, tmp_path: Path
) -> None:
    """Two users and somebody without login, all at one address."""
    users = tmp_path / "users"
    for user in ("alice", "bob"):
        set_password(str(users), user, "secret")
    gateway = serve(
        config=f"""
[auth]
authenticators = ["htpasswd:{users}"]
anonymous = ["127.0.0.1/32"]
[[rule]]
id = "nowhere"
action = "deny"
to = [".example"]
[[rule]]
id = "in"
action = "allow"
"""
    )
    callers = {"alice": ("alice", "secret"), "bob": ("bob", "secret"), "nobody": None}
    for name, credentials in callers.items():
        with pytest.raises(Refused):
            tunnel(gateway.port, f"{name}.example".encode(), 80, credentials)
    gateway.sessions(3)

    def page(credentials: tuple[str, str] | None) -> str:
        with tunnel(gateway.port, b"why.socksd", 80, credentials) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: why.socksd\r\nAccept: text/plain\r\n\r\n")
            return take_all(sock).decode()

    for name, credentials in callers.items():
        seen = page(credentials)
        assert f"{name}.example:80  rule nowhere" in seen
        for other in set(callers) - {name}:
            assert f"{other}.example" not in seen
    with tunnel(gateway.port, b"why.socksd", 80, None) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert b"<!DOCTYPE html>" in take_all(sock)
    fetched = curl(gateway, "--socks5-hostname", "http://why.socksd/", "-U", "bob:secret")
    assert "nobody.example" in fetched, "curl offers to come without login, so it does"
    gateway.logged(r"connect why\.socksd:80 rule=why outcome=served up=[1-9]\d* down=[1-9]")
