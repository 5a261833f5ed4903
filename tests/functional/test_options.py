"""What a person sees who types: what was wrong in a line, never a traceback."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess, Popen

import pytest

import socksd
from tests.functional.conftest import Serve
from tests.functional.dialogue import Refused, tunnel
from tests.functional.origins import PAGE, HTTPOrigin
from tests.functional.process import LISTEN, SCRIPTS, needs, run, wait_for


def twistd(*options: str | Path) -> CompletedProcess[str]:
    return run(SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "socks5", *options)


def command(*words: str | Path, stdin: str = "") -> CompletedProcess[str]:
    return run(SCRIPTS / "socksd", *words, stdin=stdin)


def complaints(done: CompletedProcess[str]) -> list[str]:
    """
    Give what a program that would not start has said, without twistd's own log.

    It says it to standard error, which is the log from where that begins; it
    fails, and shows no traceback.
    """
    everything = done.stdout + done.stderr
    assert done.returncode not in (0, -15), everything
    assert "Traceback" not in everything
    logged = re.findall(r"^\S+ \[stderr#error\] (.+)$", done.stdout, re.MULTILINE)
    return [*filter(None, done.stderr.splitlines()), *logged]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "socksd.toml"
    path.write_text(f'version = 1\n[[listener]]\nname = "test"\nendpoint = "{LISTEN}"\n')
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--prot", "1080"], "option --prot not recognized", id="unknown option"),
        pytest.param(["--port"], "option --port requires argument", id="no value"),
        pytest.param(["1080"], "unexpected argument '1080'", id="argument"),
        pytest.param(["--port", "socks"], "'socks' is not a port", id="port by name"),
        pytest.param(["--port", "65536"], "'65536' is not a port", id="port too large"),
        pytest.param(["--port", "-1"], "'-1' is not a port", id="port below zero"),
        pytest.param(["--port", ""], "'' is not a port", id="empty port"),
        pytest.param(["--listen", ""], "listen", id="empty endpoint"),
        pytest.param(["--listen", "tpc:1080"], "tpc", id="unknown endpoint type"),
        pytest.param(["--listen", "tcp"], "tcp", id="endpoint without a port"),
        pytest.param(["--listen", "tcp:http-alt:x=1"], "tcp", id="unknown endpoint argument"),
        pytest.param(["--listen", "tcp:70000"], "70000 is not a port", id="endpoint port"),
        pytest.param(["--listen", "systemd:domain=INET:index=0"], "systemd", id="no such socket"),
        pytest.param(["--listen", "ssl:0:privateKey=nowhere.pem"], "nowhere.pem", id="no key"),
        pytest.param(["--auth", "htpaswd:users"], "htpaswd", id="unknown authenticator"),
        pytest.param(["--auth", "htpasswd:nowhere"], "nowhere", id="no password file"),
        pytest.param(["--config", "nowhere.toml"], "nowhere.toml", id="no configuration"),
        pytest.param(["--interface", "203.0.113.7", "--port", "0"], "assign", id="not our address"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_line(options: list[str], says: str) -> None:
    [line] = complaints(twistd(*options))
    assert says in line


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [line] = complaints(twistd("--port", str(port)))
    assert "in use" in line
    assert f"127.0.0.1:{port}" in line


def test_every_problem_of_a_configuration_has_its_line(config: Path) -> None:
    with config.open("a") as file:
        file.write(
            '[deadline]\nhandshake = "10s"\n[limits]\nsesions = 5\n'
            '[[rule]]\nid = "x"\naction = "alow"\n'
        )
    for done in (twistd("--config", config), twistd("--config", config, "--check"),
                 command("check", config)):  # fmt: skip
        lines = complaints(done)
        assert len(lines) == 3
        for key, meant in (("deadline", "deadlines"), ("limits.sesions", "sessions"),
                           ("rule[0].action", "allow")):  # fmt: skip
            assert any(key in line and meant in line for line in lines), lines


def test_a_broken_configuration_says_where(config: Path) -> None:
    config.write_text("version = 1\n[[listener]\n")
    [line] = complaints(twistd("--config", config))
    assert "2" in line


def test_a_good_configuration_passes_the_check(config: Path) -> None:
    for done in (twistd("--config", config, "--check"), command("check", config)):
        assert done.returncode == 0, done.stderr
        assert "good" in done.stdout


def test_checking_does_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = twistd("--port", str(taken.getsockname()[1]), "--check")
    assert done.returncode == 0, done.stderr


def test_versions_are_ours() -> None:
    for done in (twistd("--version"), command("--version"), command("run", "--version")):
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"socksd {socksd.__version__}"


def test_twistd_lists_socks5_and_its_options() -> None:
    listed = run(SCRIPTS / "twistd", "--help")
    assert re.search(r"^\s+socks5\s+\S", listed.stdout, re.MULTILINE)
    options = twistd("--help")
    assert options.returncode == 0
    for name in ("--port", "--interface", "--listen", "--config", "--auth", "--check", "--version"):
        assert name in options.stdout


def test_an_unknown_command_is_one_clear_line() -> None:
    done = command("serve")
    assert done.returncode == 2
    assert "serve" in done.stderr
    assert "Traceback" not in done.stderr


# -- socksd run --------------------------------------------------------------


def test_socksd_run_serves(http: HTTPOrigin, tmp_path: Path) -> None:
    listening = re.compile(r"listening name=\S+ on 127.*:(\d+)")
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = Popen(
            [SCRIPTS / "socksd", "run", "--port", "0"], cwd=tmp_path, stdout=file, stderr=STDOUT
        )
    with process:
        try:
            found = wait_for(
                "the listener",
                lambda: listening.search(log.read_text()),
            )
            fetched = run(
                needs("curl"), "--silent", "--show-error",
                "--socks5", f"127.0.0.1:{found[1]}", f"http://127.0.0.1:{http.port}/",
            )  # fmt: skip
        finally:
            process.terminate()
    assert fetched.stdout.encode() == PAGE, fetched.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log"]  # no pid file


def test_socksd_run_complains_as_twistd_does() -> None:
    [line] = complaints(command("run", "--port", "socks"))
    assert "'socks' is not a port" in line


# -- socksd passwd -----------------------------------------------------------


def test_a_password_that_was_set_logs_in(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    """And one that was changed while the gateway runs replaces the old one."""
    users = tmp_path / "users"
    assert command("passwd", users, "alice", stdin="first\n").returncode == 0
    gateway = serve("--auth", f"htpasswd:{users}")
    tunnel(gateway.port, "127.0.0.1", http.port, ("alice", "first")).close()
    assert command("passwd", users, "alice", stdin="second\n").returncode == 0

    def changed() -> bool:
        try:
            tunnel(gateway.port, "127.0.0.1", http.port, ("alice", "first")).close()
        except Refused:
            return True
        return False

    wait_for("the old password to be refused", changed)
    tunnel(gateway.port, "127.0.0.1", http.port, ("alice", "second")).close()
    assert users.stat().st_mode & 0o777 == 0o600
    assert b"$2y$" in users.read_bytes()


@pytest.mark.parametrize(
    ("user", "password"),
    [
        pytest.param("a:b", "word\n", id="colon in the name"),
        pytest.param("", "word\n", id="no name"),
        pytest.param("alice", "\n", id="empty password"),
        pytest.param("alice", "", id="no password"),
        pytest.param("alice", "x" * 73 + "\n", id="longer than bcrypt reads"),
    ],
)
def test_a_password_that_cannot_be_is_one_clear_line(
    tmp_path: Path, user: str, password: str
) -> None:
    done = command("passwd", tmp_path / "users", user, stdin=password)
    [line] = complaints(done)
    assert "x" * 73 not in line
    assert not (tmp_path / "users").exists()


def test_a_password_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "users"
    [line] = complaints(command("passwd", path, "alice", stdin="word\n"))
    assert str(path.parent) in line


def test_weak_password_hashes_are_refused_at_the_start(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("alice:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")
    [line] = complaints(twistd("--auth", f"htpasswd:{users}"))
    for word in (str(users), "1", "alice", "socksd passwd"):
        assert word in line


# -- safe from the start -----------------------------------------------------


def test_a_gateway_without_options_listens_on_the_loopback_only(tmp_path: Path) -> None:
    with Popen(
        [SCRIPTS / "twistd", "--nodaemon", "--pidfile=", "socks5", "--port", "0"],
        cwd=tmp_path,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout
            for line in process.stdout:
                if "listening name=" in line:
                    break
        finally:
            process.terminate()
    assert re.search(r"listening name=port on 127\.0\.0\.1:\d+", line)
