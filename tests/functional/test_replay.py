"""A gateway's own log, decided again by the ``socksd`` command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from socksd.identity.htpasswd import set_password
from tests.functional.conftest import Serve
from tests.functional.dialogue import GREETING, Refused, dial, tunnel
from tests.functional.origins import NameServer, Origin, echo
from tests.functional.process import SCRIPTS, Gateway, run

GUARD = '[guard]\nnever = "nothing"\n'
RULES = """
[[rule]]
id = "not-this-client"
action = "deny"
from = "127.0.0.66"

[[rule]]
id = "not-inside"
action = "deny"
to = ["127.0.0.9", "secret.test"]

[[rule]]
id = "trial"
mode = "report"
action = "deny"
to = ".test"

[[rule]]
id = "alice"
action = "allow"
user = "alice"
to = [".test", "127.0.0.0/8"]

[[rule]]
id = "anybody"
action = "allow"
user = "@none"
to = "open.test"
when = "mon-sun UTC"
"""
LISTENER = 'version = 1\n[[listener]]\nname = "test"\nendpoint = "tcp:0"\n'


def socksd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(SCRIPTS / "socksd", *arguments)


@pytest.fixture
def gateway(
    tmp_path: Path,
    serve: Serve,
    origin: Callable[..., Origin],
    names: Callable[[Mapping[str, Sequence[str]]], NameServer],
) -> Gateway:
    """A gateway that has served, refused and been left by thirteen clients."""
    server = names(
        {
            "open.test": ["127.0.0.1"],
            "secret.test": ["127.0.0.1"],
            "partly.test": ["127.0.0.9", "127.0.0.1"],
            "inside.test": ["127.0.0.9"],
        }
    )
    port = origin(echo).port
    set_password(str(tmp_path / "users"), "alice", "secret", cost=4)
    gateway = serve(
        config=f'[auth]\nauthenticators = ["htpasswd:{tmp_path}/users"]\n'
        f'anonymous = ["127.0.0.0/8"]\n[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n'
        f"{GUARD}{RULES}"
    )
    alice, nobody = ("alice", "secret"), None
    for who, host in [
        *((alice, host) for host in (b"open.test", b"partly.test", "127.0.0.1", b"127.1")),
        *((alice, host) for host in (b"secret.test", b"inside.test", "127.0.0.9", b"none.test")),
        *((nobody, host) for host in (b"open.test", b"partly.test")),
        (("alice", "wrong"), b"open.test"),
    ]:
        with suppress(Refused, EOFError):
            tunnel(gateway.port, host, port, who).close()
    dial(gateway.port).close()
    with dial(gateway.port, "127.0.0.66") as denied:
        denied.sendall(GREETING)
        denied.recv(1)
    gateway.sessions(13)
    return gateway


def changed(gateway: Gateway, tmp_path: Path, rules: str) -> dict[str, Any]:
    """Give what another list of rules would have decided."""
    new = tmp_path / "new.toml"
    new.write_text(LISTENER + GUARD + rules)
    done = socksd("replay", new, "--log", gateway.directory / "access.jsonl", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.reactor_timeout(60)
def test_the_log_of_a_gateway_replays(gateway: Gateway, tmp_path: Path) -> None:
    same = changed(gateway, tmp_path, RULES)
    assert (same["changed"], same["other_rule"], same["groups"]) == (0, 0, [])
    assert (same["sessions"], same["unused"]) == (12, {"not_asked": 1})
    other = changed(gateway, tmp_path, RULES.replace('user = "alice"', 'user = "bob"'))
    asked = gateway.sessions(13)
    by_alice = [line for line in asked if line["rule"] == "alice"]
    # Whose name led nowhere would have been told before the lookup.
    by_alice += [line for line in asked if line["host"] == "none.test"]
    assert len(by_alice) == other["changed"] == 5
    changes = [g for g in other["groups"] if g["before"]["verdict"] != g["after"]["verdict"]]
    assert {group["destination"] for group in changes} == {
        f"{line['host']}:{line['port']}" for line in by_alice
    }
    enforced = changed(gateway, tmp_path, RULES.replace('mode = "report"\n', ""))
    reported = [line for line in asked if line["reports"]]
    assert len(reported) == 3
    assert enforced["changed"] == len(reported) + 1  # and none.test, which was never decided
    assert all(line["reports"] == {"trial": "would_deny"} for line in reported)


@pytest.mark.reactor_timeout(60)
def test_rules_proposed_of_a_log_change_nothing_that_was_allowed(
    gateway: Gateway, tmp_path: Path
) -> None:
    log = gateway.directory / "access.jsonl"
    current = tmp_path / "current.toml"
    current.write_text(LISTENER + GUARD + RULES)
    done = socksd("propose", "--log", log, "--config", current)
    assert done.returncode == 0
    rules = done.stdout.partition("version = 1\n")[2]
    found = changed(gateway, tmp_path, rules)
    assert found["groups"]
    for group in found["groups"]:
        assert group["before"]["verdict"] != "allow" or group["after"]["verdict"] == "allow"
    assert "left out: 5 sessions that were denied\n" in done.stderr


@pytest.mark.reactor_timeout(60)
def test_a_log_may_come_through_a_pipe(gateway: Gateway, tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    new.write_text(LISTENER + GUARD + RULES)
    text = (gateway.directory / "access.jsonl").read_text()
    done = run(SCRIPTS / "socksd", "replay", new, "--log", "-", "--fail-over", "0", stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 of 12 sessions would change")
