"""The servers that are measured: how each is started, for the loopback only."""

from __future__ import annotations

import getpass
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.load import cache
from benchmarks.page import looking
from benchmarks.processes import Command, running
from socksd.identity.htpasswd import set_password

HOST = "127.0.0.1"
_START = 15.0  # seconds a server may take to listen
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_GIVEN = re.compile(
    r"(?P<name>[\w.-]+)=(?P<address>(?:127(?:\.\d{1,3}){3}|\[::1\]):\d+)(?::(?P<pid>\d+))?"
)


class MissingError(Exception):
    """A server that is not here, and what it would need."""


class NotStartedError(Exception):
    """A server that is here does not listen."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    address: str | None  # None: no server at all
    pids: tuple[int, ...]  # the roots of its process trees; none: not ours to look at


Start = AbstractContextManager[Running]


@dataclass(frozen=True, slots=True)
class Server:
    """
    A server and how it is started.

    Attributes:
        start: Given an empty folder; raises MissingError and NotStartedError.
    """

    name: str
    start: Callable[[Path], Start]


@contextmanager
def started(server: Server) -> Iterator[Running]:
    """
    Run *server* in a folder of its own.

    Raises:
        MissingError: It is not here.
        NotStartedError: It does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="socksd-benchmark-") as folder:
        directory = Path(folder)
        directory.chmod(0o711)  # some servers give up their privileges
        with server.start(directory) as server_running:
            yield server_running


def given(text: str) -> Server | None:
    """Give the server that ``NAME=HOST:PORT[:PID]`` speaks of; ``None`` for other texts."""
    found = _GIVEN.fullmatch(text)
    if found is None:
        return None
    pids = (int(found["pid"]),) if found["pid"] else ()

    @contextmanager
    def start(directory: Path) -> Iterator[Running]:
        yield Running(found["address"], pids)

    return Server(found["name"], start)


# -- ours ----------------------------------------------------------------------

# Twenty rules, of which the last lets the benchmark in: the others are asked
# each time, and none of them can be left out by what the client is.
POLICY = (
    "".join(
        f'[[rule]]\nid = "deny-{index}"\naction = "deny"\n{condition}\n'
        for index, condition in enumerate(
            [
                "ports = [25, 465, 587]",
                'ports = ["6000-6063"]',
                'to = ["169.254.0.0/16", "fe80::/10"]',
                'to = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]',
                'to = [".internal", ".local"]',
                'to = ["*.example", "ads-*.example.net"]',
                'from = ["192.0.2.0/24", "198.51.100.0/24"]',
                'from = ["2001:db8::/32"]',
                'user = ["mallory"]',
                'command = ["bind"]',
            ]
        )
    )
    + "".join(
        f'[[rule]]\nid = "team-{index}"\naction = "allow"\nfrom = ["10.{index}.0.0/16"]\n'
        f'to = [".team-{index}.example"]\nports = [80, 443]\n'
        for index in range(9)
    )
    + '[[rule]]\nid = "benchmark"\naction = "allow"\nfrom = ["127.0.0.0/8", "::1"]\n'
    # All of the benchmark is on the loopback, which the guard refuses unless told.
    '[guard]\nnever = "nothing"\n'
)


# Nobody is told of a session: what is left is the count of each rule.
UNLOGGED = POLICY.replace("action = ", "log = false\naction = ")

# Asked for by nobody: what is measured is what sessions pay for it.
METRICS = f'[metrics]\nendpoint = "tcp:0:interface={HOST}"\n'


def socksd(directory: Path, *, config: str | None = None, logged: bool = True) -> Start:
    """
    Start this tree's socksd; *config* is TOML, or else the built-in policy decides.

    With *config* there is an access log as well, unless sessions are not to be *logged*.
    """
    twistd = Path(sys.executable).parent / "twistd"
    if not twistd.exists():
        raise MissingError(f"needs {twistd}: run this with the Python that has socksd installed")
    port = free_port()
    endpoint = f"tcp:{port}:interface={HOST}:backlog=1024"
    options = ["--listen", endpoint]
    if config is not None:
        access = f'[log]\naccess = "{directory / "access.jsonl"}"\n' if logged else ""
        (directory / "socksd.toml").write_text(
            f"version = 1\n{access}"
            f'[[listener]]\nname = "benchmark"\nendpoint = "{endpoint}"\n{config}'
        )
        options = ["--config", "socksd.toml"]
    command: Command = (twistd, "--nodaemon", "--pidfile=", "socks5", *options)
    return listening(command, directory, port)


def socksd_bare(directory: Path) -> Start:
    """Start this tree's socksd with nobody who looks on, and else like socksd_observed()."""
    return socksd(directory, config=UNLOGGED + _login(directory), logged=False)


@contextmanager
def socksd_observed(directory: Path) -> Iterator[Running]:
    """Start this tree's socksd with all that can look on, and a dashboard that is open."""
    port = free_port()
    login = _login(directory)
    page = f'[dashboard]\nendpoint = "tcp:{port}:interface={HOST}"\nusers = ["benchmark"]\n'
    with socksd(directory, config=POLICY + METRICS + login + page) as server:
        end = time.monotonic() + _START
        while not _accepts(port):  # which it does a moment after the listeners
            if time.monotonic() > end:
                raise NotStartedError("has no dashboard")
            time.sleep(0.02)
        with looking(HOST, port, "benchmark", "benchmark"):
            yield server


def _login(directory: Path) -> str:
    """Let one user in to the dashboard, and clients in without a login."""
    users = directory / "users"
    set_password(users, "benchmark", "benchmark", cost=4)
    return f'[auth]\nauthenticators = ["htpasswd:{users}"]\nanonymous = ["127.0.0.0/8"]\n'


# -- the peers -----------------------------------------------------------------


def microsocks(directory: Path) -> Start:
    """Start microsocks: a thread for each session."""
    port = free_port()
    command = (program("microsocks"), "-i", HOST, "-p", str(port))
    return listening(command, directory, port)


def dante(directory: Path) -> Start:
    """Start Dante: a process for each 32 clients, forked as they come."""
    port = free_port()
    users = "user.privileged: root\nuser.unprivileged: nobody\n" if os.geteuid() == 0 else ""
    (directory / "danted.conf").write_text(
        f"logoutput: stderr\ninternal: {HOST} port = {port}\nexternal: {HOST}\n"
        f"clientmethod: none\nsocksmethod: none\n{users}"
        "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
        "socks pass { from: 0.0.0.0/0 to: 127.0.0.0/8 }\n"
    )
    command = (program("danted"), "-f", "danted.conf", "-p", "danted.pid")
    return listening(command, directory, port)


@contextmanager
def ssh(directory: Path) -> Iterator[Running]:
    """Start ``ssh -D`` to an sshd of its own; both together are the server."""
    sshd, client, keygen = program("sshd"), program("ssh"), program("ssh-keygen")
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        raise MissingError("needs /run/sshd (as root: mkdir --mode=0755 /run/sshd)")
    for key in ("host", "user"):
        subprocess.run((keygen, "-q", "-t", "ed25519", "-N", "", "-f", directory / key), check=True)
    (directory / "authorized").write_bytes((directory / "user.pub").read_bytes())
    ssh_port, port = free_port(), free_port()
    (directory / "sshd_config").write_text(
        f"ListenAddress {HOST}:{ssh_port}\nHostKey {directory / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {directory / 'authorized'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    there = (sshd, "-D", "-e", "-f", directory / "sshd_config")
    here = (
        *(client, "-F", "none", "-N", "-D", f"{HOST}:{port}", "-p", str(ssh_port)),
        *("-i", directory / "user", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
        *("-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"),
        f"{getpass.getuser()}@{HOST}",
    )
    with ExitStack() as stack:
        server = stack.enter_context(listening(there, directory, ssh_port))
        tunnel = stack.enter_context(listening(here, directory, port))
        yield Running(tunnel.address, tunnel.pids + server.pids)


def asyncio_socks_server(directory: Path) -> Start:
    """Start asyncio-socks-server: one asyncio loop."""
    port = free_port()
    executable = from_pypi("asyncio-socks-server", "asyncio_socks_server")
    command = (executable, "--host", HOST, "--port", str(port))
    return listening(command, directory, port)


def pproxy(directory: Path) -> Start:
    """Start pproxy: one asyncio loop."""
    port = free_port()
    command = (from_pypi("pproxy", "pproxy"), "-l", f"socks5://{HOST}:{port}")
    return listening(command, directory, port)


@contextmanager
def direct(directory: Path) -> Iterator[Running]:
    """Start nothing: clients go to their targets themselves."""
    yield Running(None, ())


SERVERS = {
    server.name: server
    for server in (
        Server("direct", direct),
        Server("socksd", socksd),
        Server("socksd-bare", socksd_bare),
        Server("socksd-policy", partial(socksd, config=POLICY)),
        Server("socksd-metrics", partial(socksd, config=POLICY + METRICS)),
        Server("socksd-observed", socksd_observed),
        Server("microsocks", microsocks),
        Server("dante", dante),
        Server("ssh-D", ssh),
        Server("asyncio-socks-server", asyncio_socks_server),
        Server("pproxy", pproxy),
    )
}


# -- what they need ------------------------------------------------------------


def program(name: str) -> str:
    """Give the path of an installed program."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise MissingError(f"needs {name}")
    return path


def from_pypi(package: str, executable: str) -> Path:
    """Give a program of a package on PyPI, installed into an environment of its own."""
    environment = cache() / f"venv-{package}"
    path = environment / "bin" / executable
    if not path.exists():
        for command in (
            (sys.executable, "-m", "venv", "--clear", str(environment)),
            (str(environment / "bin" / "pip"), "install", "--quiet", package),
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr or done.stdout).strip().rpartition("\n")[2]
                raise MissingError(f"cannot install {package}: {reason}")
        if not path.exists():
            raise MissingError(f"{package} has no program {executable}")
    return path


def free_port() -> int:
    """
    Give a port that nobody listens on; the server takes it a moment later.

    Below those that the kernel gives to connections: there one of thousands
    that come and go might have taken it by then.
    """
    for _ in range(100):
        port = random.randrange(20_000, 30_000)
        with socket.socket() as sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, port))
            return port
    raise NotStartedError("no port is free from 20000 to 29999")


@contextmanager
def listening(command: Command, directory: Path, port: int) -> Iterator[Running]:
    """
    Run a server and wait until it accepts connections.

    Raises:
        NotStartedError: It does not; with the end of what it has said.
    """
    with running(command, directory) as (process, log):
        end = time.monotonic() + _START
        while not _accepts(port):
            if time.monotonic() > end or process.poll() is not None:
                said = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise NotStartedError(f"does not listen: {said or 'and does not say why'}")
            time.sleep(0.02)
        yield Running(f"{HOST}:{port}", (process.pid,))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
