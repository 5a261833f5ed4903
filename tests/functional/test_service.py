"""Run as a service: watched, logged, rotated, told to stop."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from socksd.admin.client import ask as ask_socket
from tests.functional.conftest import Serve
from tests.functional.dialogue import GREETING, dial, request, take, take_reply, tunnel
from tests.functional.origins import Origin, echo
from tests.functional.process import (
    LISTEN,
    SCRIPTS,
    WAIT,
    Gateway,
    heeds_ctrl_c,
    needs,
    run,
    wait_for,
)
from tests.functional.visitors import Visitors

# For who wants to know: how often, and of how many that come all the time.
RESTARTS = int(os.environ.get("SOCKSD_RESTARTS", "2"))
CLIENTS = 16

ETC = Path(__file__).parent.parent.parent / "etc"
ALLOW = '[[rule]]\nid = "all"\naction = "allow"\n[guard]\nnever = "nothing"\n'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def echoes(sock: socket.socket) -> bool:
    sock.sendall(b"still there?")
    return take(sock, 12) == b"still there?"


def visit(gateway: Gateway, target: Origin) -> None:
    """Make a session that is served, from its beginning to its end."""
    with tunnel(gateway.port, "127.0.0.1", target.port) as client:
        assert echoes(client)


def terminate(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGTERM)


# -- stopping ------------------------------------------------------------------


def test_sigterm_closes_the_port_and_lets_sessions_end(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    gateway = serve(config=ALLOW)
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        terminate(gateway)
        gateway.logged(r"draining: 1 sessions may take 60 s to end; another signal ends them")
        with pytest.raises(ConnectionRefusedError):
            dial(gateway.port)
        assert echoes(client)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.logged("not reloaded: the service is stopping")
        assert echoes(client)
    gateway.process.wait(WAIT)
    assert "drained: 0 sessions are left" in gateway.log()
    (session,) = gateway.sessions(1)
    assert session["outcome"] == "served"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_insists_does_not_wait(
    serve: Serve, origin: Callable[..., Origin], number: signal.Signals
) -> None:
    gateway = serve(config=ALLOW)
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        terminate(gateway)
        gateway.logged("draining: ")
        gateway.process.send_signal(number)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    gateway.process.wait(WAIT)
    (session,) = gateway.sessions(1)
    assert session["outcome"] == "stopped"


@pytest.mark.parametrize("options", ["", "[server]\nworkers = 2\n"], ids=["one", "workers"])
def test_two_signals_at_once_are_one_who_insists(
    serve: Serve, origin: Callable[..., Origin], options: str
) -> None:
    """Both caught in one turn, before anything could be stopped."""
    gateway = serve(config=options + ALLOW)
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            gateway.process.send_signal(number)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert gateway.process.wait(WAIT) in {-signal.SIGTERM, -signal.SIGINT}


def test_sessions_are_ended_when_their_time_is_over(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    gateway = serve(config='[server]\ndrain = "200ms"\n' + ALLOW)
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        terminate(gateway)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    gateway.process.wait(WAIT)


CLOCK = """
import os, time
true = time.time
time.time = lambda: true() + 3600 * os.path.exists({!r})
"""


def test_a_clock_that_is_set_ends_no_tunnel(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour forward, between an octet and the look whether it has been long ago."""
    forward = tmp_path / "forward"
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(str(forward)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    gateway = serve(config='[deadlines]\nidle = "2s"\n' + ALLOW)
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        time.sleep(1)
        assert echoes(client)
        forward.touch()
        time.sleep(1.5)
        assert echoes(client)
    (session,) = gateway.sessions(1)
    assert 2 < session["seconds"] < 60


def test_without_sessions_it_ends_at_once(serve: Serve) -> None:
    gateway = serve(config=ALLOW)
    terminate(gateway)
    gateway.process.wait(WAIT)
    assert "draining" not in gateway.log()


def test_who_drains_it_watches_the_last_session_end(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    """And who stops watching stops nothing else."""
    gateway = serve(config=f'[control]\nsocket = "{tmp_path}/s"\n{ALLOW}')
    wait_for("the control socket", (tmp_path / "s").exists)
    drain = (SCRIPTS / "socksd", "drain", "--socket", f"{tmp_path}/s")
    with tunnel(gateway.port, "127.0.0.1", origin(echo).port) as client:
        said = (tmp_path / "said").open("w+")
        watching = subprocess.Popen((*drain, "--within", "5m"), stdout=said)
        gateway.logged(r"draining: 1 sessions may take 300 s to end")
        with pytest.raises(ConnectionRefusedError):
            dial(gateway.port)
        status = run(SCRIPTS / "socksd", "status", "--socket", f"{tmp_path}/s")
        assert re.search(r"^draining +who is left at ", status.stdout, re.MULTILINE), status
        assert run(*drain, "--within", "1s").returncode == 1
        again = subprocess.Popen(
            drain,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=heeds_ctrl_c,
        )
        assert again.stdout
        assert again.stdout.readline().startswith("draining: 1 sessions are left, cut at ")
        again.send_signal(signal.SIGINT)
        assert again.communicate(timeout=WAIT)[0] == "the server goes on draining\n"
        assert again.returncode == 130
        assert echoes(client)
    assert gateway.process.wait(WAIT) == 0
    assert watching.wait(WAIT) == 0
    with said:
        said.seek(0)
        assert said.read().splitlines()[1:] == ["ended"]
    (session,) = gateway.sessions(1)
    assert session["outcome"] == "served"


def test_a_drain_without_sessions_is_answered_before_it_ends(serve: Serve, tmp_path: Path) -> None:
    gateway = serve(config=f'[control]\nsocket = "{tmp_path}/s"\n{ALLOW}')
    wait_for("the control socket", (tmp_path / "s").exists)
    status, answer = ask_socket(f"{tmp_path}/s", "POST", "/v1/drain")
    assert (status, answer["sessions"]) == (200, 0)
    assert gateway.process.wait(WAIT) == 0
    assert not (tmp_path / "s").exists()


def test_sighup_does_not_end_what_has_not_begun(tmp_path: Path) -> None:
    """Who has changed the file in that moment has it read once more."""
    path, real = tmp_path / "socksd.toml", tmp_path / "real.toml"
    text = f'version = 1\n[[listener]]\nname = "test"\nendpoint = "{LISTEN}"\n'
    real.write_text(text)
    os.mkfifo(path)
    log = tmp_path / "log"
    twistd = SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "socks5", "--config", path
    with log.open("wb") as file:
        process = subprocess.Popen(twistd, stdout=file, stderr=subprocess.STDOUT)
    try:
        with path.open("w") as fifo:  # waits for who reads it
            process.send_signal(signal.SIGHUP)
            real.rename(path)
            fifo.write(text)
        wait_for("the reload", lambda: "reloaded: " in log.read_text() or process.poll())
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(WAIT)


# -- systemd -------------------------------------------------------------------


@contextmanager
def units(directory: Path) -> Iterator[list[str]]:
    """Give copies of the shipped units whose programs are there."""
    copies = []
    for unit in (ETC / "systemd").iterdir():
        copy = directory / unit.name.replace("@.", "@1.")
        copy.write_text(unit.read_text().replace("/opt/socksd/bin", str(SCRIPTS)))
        copies.append(str(copy))
    yield copies


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """It says so only in words: misspelt keys are no error to it."""
    program = needs("systemd-analyze")
    with units(tmp_path) as copies:
        done = run(program, "verify", "--man=no", *copies)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["socksd.service", "socksd@.service"])
def test_the_service_can_do_little_else(name: str) -> None:
    program = needs("systemd-analyze")
    unit = ETC / "systemd" / name
    done = run(program, "security", "--offline=true", "--threshold=18", unit)
    assert done.returncode == 0, done.stdout


def test_an_instance_is_the_service_but_for_what_it_shares_and_what_it_has_of_its_own() -> None:
    service, instance = (
        [
            line
            for line in (ETC / "systemd" / name).read_text().splitlines()
            if line and not line.startswith("#")
        ]
        for name in ("socksd.service", "socksd@.service")
    )
    assert [line for line in service if line not in instance] == [
        "Description=SOCKS5 gateway",
        "RuntimeDirectory=socksd",
        "StateDirectory=socksd",
        "WantedBy=multi-user.target",
    ]
    assert [line for line in instance if line not in service] == [
        "Description=SOCKS5 gateway, instance %i",
        "Conflicts=socksd.service",
        "PartOf=socksd.target",
        "Sockets=socksd.socket",
        "NonBlocking=yes",
        "RuntimeDirectory=socksd-%i",
        "StateDirectory=socksd-%i",
        "BindPaths=%t/socksd-%i:%t/socksd %S/socksd-%i:%S/socksd",
        "WantedBy=socksd.target",
    ]


class Manager:
    """What systemd is to a service."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self.heard: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def hears(self, *lines: str) -> None:
        """Wait until each of *lines* has been heard, in order."""

        def probe() -> bool:
            with suppress(BlockingIOError):
                while True:
                    self.heard += self.socket.recv(4096).decode().splitlines()
            left = iter(self.heard)
            return all(any(line.startswith(wanted) for line in left) for wanted in lines)

        wait_for(f"{lines} of {self.heard}", probe)
        self.heard.clear()


def test_the_service_serves_by_its_unit_and_says_how_it_goes(
    tmp_path: Path, origin: Callable[..., Origin], during: ExitStack
) -> None:
    """Its command line, on a socket that systemd has passed, with a manager that listens."""
    activate = needs("systemd-socket-activate")
    command = exec_start("socksd.service", activated(tmp_path))
    port, manager = free_port(), Manager(tmp_path)
    during.callback(manager.socket.close)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(activate, "--listen", f"127.0.0.1:{port}", "--fdname=socks"),
                *("-E", f"NOTIFY_SOCKET={manager.path}", "-E", "WATCHDOG_USEC=400000"),
                *command,
            ],
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for("the port", lambda: "Listening on" in (tmp_path / "log").read_text())
        # The first connection is what starts the service.
        with tunnel(port, "127.0.0.1", origin(echo).port) as client:
            assert echoes(client)
            manager.hears("READY=1", "WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            manager.hears("RELOADING=1", "MONOTONIC_USEC=", "READY=1", "WATCHDOG=1")
            assert echoes(client)
            process.terminate()
            manager.hears("STOPPING=1", "EXTEND_TIMEOUT_USEC=75000000", "WATCHDOG=1")
            assert echoes(client)
        process.wait(WAIT)
        assert not (tmp_path / "twistd.pid").exists()
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="socks", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Activated:
    """
    A service whose port is held for it, and started as systemd starts it: on descriptor 3.

    Args:
        command: The unit's ExecStart.
        log: Where it writes.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self.command, self.log = command, log
        self.held = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.held.getsockname()[1]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        held = self.held.fileno()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", PASS, str(held), *self.command],
                cwd=self.log.parent,
                pass_fds=[held],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def logged(self, words: str) -> None:
        wait_for(f"{words!r} in the log", lambda: words in self.log.read_text())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.held.close()


def exec_start(unit: str, config: Path) -> list[str]:
    """Give the command line of a shipped unit, for programs and a configuration of ours."""
    text = (ETC / "systemd" / unit).read_text()
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found
    command = found[1].replace("/opt/socksd/bin", str(SCRIPTS))
    return shlex.split(command.replace("/etc/socksd/socksd.toml", str(config)))


def activated(directory: Path) -> Path:
    """Write a configuration that takes the socket unit's port."""
    said = re.search(r'endpoint = ("systemd:.*?")', (ETC / "systemd/socksd.socket").read_text())
    assert said
    config = directory / "socksd.toml"
    config.write_text(f'version = 1\n[[listener]]\nname = "test"\nendpoint = {said[1]}\n{ALLOW}')
    return config


def test_a_restart_refuses_nobody_where_the_port_is_held(
    tmp_path: Path, origin: Callable[..., Origin], during: ExitStack
) -> None:
    """Who lives may end; who comes meanwhile waits in the queue."""
    command = exec_start("socksd.service", activated(tmp_path))
    service = Activated(command, tmp_path / "log")
    during.callback(service.close)
    target = origin(echo)
    with Visitors(service.port, target.port).coming(CLIENTS) as visitors:
        for _ in range(RESTARTS):
            visitors.more(CLIENTS)
            with tunnel(service.port, "127.0.0.1", target.port) as client:
                service.process.terminate()
                service.logged("draining: ")
                assert echoes(client)
            service.process.wait(WAIT)
            service.log.unlink()
            service.process = service.start()
        visitors.more(CLIENTS)


# -- logs ----------------------------------------------------------------------


def test_a_refusal_is_in_the_log_before_the_client_has_left(serve: Serve) -> None:
    gateway = serve(config='[[rule]]\nid = "none"\naction = "deny"\nports = [1]\n' + ALLOW)
    with dial(gateway.port) as client:
        client.sendall(GREETING + request("192.0.2.1", 1))
        take(client, 2)
        assert take_reply(client) == 2
        gateway.logged("denied client=127.0.0.1 .* rule=none")
        assert "session 1" not in gateway.log()
    gateway.logged("session 1 .* outcome=denied")
    assert gateway.log().count("denied client=") == 1


def test_what_a_rule_wants_out_of_the_logs_is_not_there(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    target, other = origin(echo), origin(echo)
    quiet = f'[[rule]]\nid = "quiet"\naction = "allow"\nlog = false\nports = [{target.port}]\n'
    gateway = serve(config=quiet + ALLOW)
    visit(gateway, target)
    visit(gateway, other)
    (session,) = gateway.sessions(1)
    assert (session["rule"], session["session"]) == ("all", 2)
    assert "session 1" not in gateway.log()


@contextmanager
def small_disk(directory: Path, pages: int = 4) -> Iterator[Path]:
    """Give a directory with room for little: a tmpfs, or without root a file that is full."""
    directory.mkdir()
    mounted = (
        os.geteuid() == 0
        and not run(
            "mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", directory
        ).returncode
    )
    if not mounted:
        (directory / "access.jsonl").symlink_to("/dev/full")
    try:
        yield directory
    finally:
        if mounted:
            run("umount", "--lazy", directory)


def test_a_full_disk_stops_no_traffic_and_is_counted_and_said_once(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    pytest.importorskip("prometheus_client")
    target, port = origin(echo), free_port()
    with small_disk(tmp_path / "disk") as disk:
        config = tmp_path / "own.toml"
        config.write_text(
            f'version = 1\n[log]\naccess = "{disk}/access.jsonl"\n'
            f'[metrics]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n{ALLOW}'
        )
        gateway = serve("--config", str(config))
        for _ in range(80):
            visit(gateway, target)
        wait_for("the last session", lambda: "session 80 " in gateway.log())
        page = metrics(port)
        lines = (disk / "access.jsonl").read_bytes().count(b"\n") if os.path.ismount(disk) else 0
        lost = re.search(r"^socksd_access_log_lines_lost_total (\S+)$", page, re.MULTILINE)
        assert lost
        # Of one the beginning may be there, and its rest still be wanted.
        assert int(float(lost[1])) in (80 - lines, 79 - lines)
        assert lines < 79
        assert gateway.log().count("No space left on device; lines are lost") == 1
        if os.path.ismount(disk):
            (disk / "access.jsonl").unlink()
            gateway.process.send_signal(signal.SIGUSR1)
            wait_for("a new file", lambda: (disk / "access.jsonl").exists())
            visit(gateway, target)
            gateway.logged("written again; lines lost so far: ")
        gateway.stop()


def test_a_reader_of_the_log_that_is_stuck_stops_no_traffic(
    origin: Callable[..., Origin], tmp_path: Path
) -> None:
    """Both logs go to a pipe that holds a few lines; then everything is read, and is whole."""
    target, port = origin(echo), free_port()
    config = tmp_path / "own.toml"
    config.write_text(f'version = 1\n[log]\naccess = "-"\n{ALLOW}')
    far, near = os.pipe()
    fcntl.fcntl(near, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [
            *(SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "socks5", "--config", config),
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        ],
        stdout=near,
        stderr=subprocess.STDOUT,
    )
    os.close(near)
    with open(far, "rb", buffering=0) as log:
        try:
            wait_for("the port", lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
            for _ in range(50):
                with tunnel(port, "127.0.0.1", target.port) as client:
                    assert echoes(client)
            read = b""
            while read.count(b"served") < 100:
                read += log.read(4096)
        finally:
            process.kill()
            process.wait()
    lines = read.decode().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    served = [entry["session"] for entry in entries if entry["outcome"] == "served"]
    assert len(served) == 50
    for number in served:
        assert any(f"[socksd#info] session {number} client=" in line for line in lines)


def test_a_pipe_that_nobody_reads_stops_no_traffic_and_is_counted(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path, during: ExitStack
) -> None:
    """First nobody has it open; then somebody who takes nothing out of it."""
    pytest.importorskip("prometheus_client")
    target, port = origin(echo), free_port()
    fifo, config = tmp_path / "access.jsonl", tmp_path / "own.toml"
    os.mkfifo(fifo)
    config.write_text(
        f'version = 1\n[log]\naccess = "{fifo}"\n'
        f'[metrics]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n{ALLOW}'
    )
    gateway = serve("--config", str(config))

    def lost() -> int:
        return int(float(metrics(port).split("socksd_access_log_lines_lost_total ")[-1].split()[0]))

    for _ in range(5):
        visit(gateway, target)
    wait_for("what is lost", lambda: lost() == 5)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    during.callback(os.close, reader)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    gateway.process.send_signal(signal.SIGUSR1)
    visit(gateway, target)
    gateway.logged("written again; lines lost so far: 5")
    for _ in range(30):
        visit(gateway, target)
    wait_for("what is lost", lambda: lost() > 10)
    assert gateway.log().count("lines are lost until it can be written again") == 2
    gateway.logged("session 36 ")
    whole = json.loads(os.read(reader, 4096).splitlines()[0])
    assert whole["outcome"] == "served"


def test_a_full_disk_below_the_log_of_twistd_stops_no_traffic_and_is_counted(
    origin: Callable[..., Origin], tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("needs root, for a small file system")
    target, port = origin(echo), free_port()
    with small_disk(tmp_path / "disk", pages=256) as disk:
        log, rest = disk / "twistd.log", disk / "rest"
        rest.write_bytes(bytes(255 * 4096))  # more than what waits when it is taken away
        process = subprocess.Popen(
            [
                *(SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "--logfile", log, "socks5"),
                *("--listen", f"tcp:{port}:interface=127.0.0.1"),
            ],
        )
        try:
            wait_for("the port", lambda: not socket.socket().connect_ex(("127.0.0.1", port)))

            def full() -> bool:
                with tunnel(port, "127.0.0.1", target.port) as client:
                    assert echoes(client)
                return log.stat().st_size >= 4096

            wait_for("a full disk", full)
            enough = time.monotonic() + 0.5  # lines are written each tenth of a second
            while time.monotonic() < enough:
                full()
            rest.unlink()

            full()
            lost = wait_for(
                "what was lost",
                lambda: re.search(r"(\d+) lines of sessions could not be written", log.read_text()),
            )
            assert int(lost[1]) > 1
        finally:
            process.kill()
            process.wait()


def test_logrotate_rotates_as_shipped(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    logrotate = needs("logrotate")
    target, gateway = origin(echo), serve(config=ALLOW)
    visit(gateway, target)
    gateway.sessions(1)
    path = gateway.directory / "access.jsonl"
    sample = (ETC / "logrotate.d" / "socksd").read_text()
    sample = sample.replace("/var/log/socksd/*.jsonl", str(path), 2)
    ours, count = re.subn(r"systemctl kill .*", f"kill -USR1 {gateway.pid}", sample)
    assert count == 1
    conf = tmp_path / "logrotate.conf"
    conf.write_text(ours.replace(f'"{path}"', "it"))
    conf.chmod(0o644)
    gateway.directory.chmod(0o755)
    done = run(logrotate, "--force", "--state", tmp_path / "state", conf)
    assert done.returncode == 0, done.stderr
    wait_for("a new file", path.exists)
    assert path.read_text() == ""
    assert (gateway.directory / "access.jsonl.1.gz").exists()
    visit(gateway, target)
    (session,) = gateway.sessions(1)
    assert session["session"] == 2


def test_sessions_are_entries_of_the_journal(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path, during: ExitStack
) -> None:
    path = tmp_path / "journal"
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    during.callback(journal.close)
    journal.bind(str(path))
    journal.settimeout(WAIT)
    config = tmp_path / "own.toml"
    config.write_text(f'version = 1\n[log]\naccess = "journald:{path}"\n{ALLOW}')
    gateway = serve("--config", str(config))
    visit(gateway, origin(echo))
    entry = journal.recv(1 << 16)
    assert entry.startswith(b"MESSAGE\n")
    assert b"SOCKSD_RULE\n\x03\0\0\0\0\0\0\0all\n" in entry
    assert b"SOCKSD_OUTCOME\n\x06\0\0\0\0\0\0\0served\n" in entry


# -- metrics -------------------------------------------------------------------


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT) as page:
        text: str = page.read().decode()
        return text


def ask(port: int, path: str, **parameters: str) -> Any:
    """Ask Prometheus; ``None`` while it does not answer."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/v1/{path}?{query}", timeout=WAIT
        ) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        if error.code == 503:  # not ready yet
            return None
        pytest.fail(f"{parameters}: {error.read().decode()}")
    except OSError:
        return None


def test_promtool_finds_nothing_wrong(serve: Serve) -> None:
    pytest.importorskip("prometheus_client")
    promtool, port = needs("promtool"), free_port()
    done = run(promtool, "check", "rules", ETC / "prometheus" / "alerts.yml")
    assert done.returncode == 0, done.stderr
    serve(config=f'[metrics]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n')
    done = run(promtool, "check", "metrics", stdin=metrics(port))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_scrapes_it_and_answers_the_dashboard(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    pytest.importorskip("prometheus_client")
    program, port, own = needs("prometheus"), free_port(), free_port()
    gateway = serve(config=f'[metrics]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n{ALLOW}')
    target = origin(echo)
    visit(gateway, target)
    gateway.sessions(1)
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{ETC}/prometheus/alerts.yml]\n"
        "scrape_configs: [{job_name: socksd, static_configs: "
        f'[{{targets: ["127.0.0.1:{port}"]}}]}}]\n'
    )
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data"),
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        served = 'socksd_sessions_closed_total{outcome="served",job="socksd"}'
        found = wait_for(
            "a scrape", lambda: (ask(own, "query", query=served) or {}).get("result"), 30.0
        )
        assert found[0]["value"][1] == "1"
        dashboard = json.loads((ETC / "grafana" / "socksd.json").read_text())
        expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
        for expression in expressions:
            for variable, value in (
                ("$job", "socksd"),
                ("$instance", ".*"),
                ("$__rate_interval", "1m"),
            ):
                expression = expression.replace(variable, value)
            assert ask(own, "query", query=expression) is not None, expression
        rules = wait_for(
            "the alerts",
            lambda: [
                rule
                for group in (ask(own, "rules") or {"groups": []})["groups"]
                for rule in group["rules"]
                if rule["health"] != "unknown"
            ],
        )
        assert len(rules) == (ETC / "prometheus/alerts.yml").read_text().count("- alert:")
        assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
    finally:
        process.terminate()
        process.wait(WAIT)
