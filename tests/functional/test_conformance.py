"""
The conformance kit against real servers: ours has no failure, others their known ones.

What others fail is written down as docs/conformance.rst shows it, for the
versions in Debian 12.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen

import pytest

from socksd.conformance.kit import CASES
from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.process import SCRIPTS, needs, run, wait_for

PAGE = (Path(__file__).parent.parent.parent / "docs" / "conformance.rst").read_text()
SLOW = {case.id for case in CASES if case.slow}
LOGIN = ("alice", "correct horse")

DANTED = """\
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
external: ::1
external.rotation: route
clientmethod: none
socksmethod: none
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 command: bind connect udpassociate }}
socks pass {{ from: 127.0.0.0/8 to: ::/0 command: bind connect udpassociate }}
socks pass {{ from: 0.0.0.0/0 to: 127.0.0.0/8 command: bindreply udpreply }}
socks pass {{ from: ::/0 to: 127.0.0.0/8 command: bindreply udpreply }}
"""


def documented(server: str) -> set[str]:
    """The cases that a server fails, as the page says."""
    _, _, rest = PAGE.partition(".. comparison begin\n")
    rows = [line.split("  ") for line in rest.partition(".. comparison end\n")[0].splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    head = next(row for row in cells if row and row[0] == "Case")
    column = head.index(server)
    return {row[0].strip("`") for row in cells if row[column : column + 1] == ["**fail**"]}


def free_port() -> int:
    """A port for programs that cannot say which one they were given."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def started(port: int, *command: str | Path) -> Iterator[str]:
    """Run a server in the foreground while the block lasts; give its address."""

    def listens() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    with Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=STDOUT) as process:
        try:
            wait_for(f"{command[0]} to listen", listens)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def verdicts(address: str, *options: str) -> dict[str, set[str]]:
    """Run the command as its user does; give the ids of the cases by verdict."""
    done = run(SCRIPTS / "socksd", "conformance", address, "--json", *options, seconds=300)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, set[str]] = {"fail": set(), "not offered": set(), "skipped": set()}
    for case in json.loads(done.stdout)["cases"]:
        found.setdefault(case["verdict"], set()).add(case["id"])
    assert done.returncode == bool(found["fail"])
    return found


@pytest.mark.reactor_timeout(300)
def test_ours_has_no_failure(serve: Serve) -> None:
    found = verdicts(serve().address)
    assert found["fail"] == set()
    assert found["not offered"] == {"method-02"}
    assert all("login" in name for name in found["skipped"])


@pytest.mark.reactor_timeout(300)
def test_ours_with_a_login_has_no_failure(serve: Serve, tmp_path: Path) -> None:
    users = tmp_path / "users"
    set_password(users, *LOGIN)
    rules = '[guard]\nnever = "nothing"\n[[rule]]\nid = "alice"\naction = "allow"\nuser = "alice"\n'
    gateway = serve("--auth", f"htpasswd:{users}", config=rules)
    found = verdicts(gateway.address, "--user", LOGIN[0], "--pass", LOGIN[1])
    assert found["fail"] == documented("socksd") == set()
    assert found["skipped"] == set()


@pytest.mark.reactor_timeout(300)
def test_known_defects_of_microsocks_show() -> None:
    port = free_port()
    command = (needs("microsocks"), "-i", "127.0.0.1", "-p", str(port))
    user, password = LOGIN
    with started(port, *command, "-u", user, "-P", password) as address:
        found = verdicts(address, "--user", user, "--pass", password)
    assert found["fail"] == documented("microsocks") - SLOW
    assert found["fail"] > {"split-greeting", "early-payload", "half-close-by-client", "bound-port"}


@pytest.mark.reactor_timeout(300)
def test_known_defects_of_dante_show(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "danted.conf"
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    config.write_text(DANTED.format(port=port, user=user))
    with started(port, needs("danted"), "-f", config, "-N", "1") as address:
        found = verdicts(address)
    assert found["fail"] == documented("Dante") - SLOW
    assert found["not offered"] == {"method-02"}
