"""What can be said on the command line."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import bcrypt
import pytest
from twisted.application.service import IService, IServiceMaker
from twisted.plugin import getPlugins

import socksd
from socksd.address import Destination
from socksd.app.service import Gateway
from socksd.app.signals import Early
from socksd.app.tap import Options, makeService
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal, Verdict
from socksd.observe.sinks import Outflow
from tests.server.world import addresses

LOCAL, REMOTE = addresses("127.0.0.1", "192.0.2.1")


def parsed(*words: str) -> Options:
    options = Options()
    options.parseOptions(list(words))
    return options


def endpoints(*words: str) -> list[tuple[str, str]]:
    return [(e.name, e.endpoint) for e in parsed(*words).gateway.generation.config.listener]


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_bytes(b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    return path


def test_sighup_is_held_from_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "socksd.toml"
    path.write_text("version = 2")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.raises(SystemExit):
        parsed("--config", str(path))
    assert isinstance(signal.signal(signal.SIGHUP, before), Early)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param([], [("port", "tcp:1080:interface=127.0.0.1")], id="nothing: loopback"),
        pytest.param(["--port", "81"], [("port", "tcp:81:interface=127.0.0.1")], id="port"),
        pytest.param(["-p", "0", "-i", "::"], [("port", r"tcp:0:interface=\:\:")], id="both"),
        pytest.param(["--interface=0.0.0.0"], [("port", "tcp:1080:interface=0.0.0.0")], id="all"),
        pytest.param(
            ["--listen", "tcp:1", "--listen", "unix:/run/s"],
            [("listen-1", "tcp:1"), ("listen-2", "unix:/run/s")],
            id="endpoints alone",
        ),
        pytest.param(
            ["--port=9", "--listen=tcp:1"],
            [("port", "tcp:9:interface=127.0.0.1"), ("listen-1", "tcp:1")],
            id="a port and an endpoint",
        ),
    ],
)
def test_where_to_listen(words: list[str], expected: list[tuple[str, str]]) -> None:
    assert endpoints(*words) == expected


def test_options_add_to_the_configuration(tmp_path: Path, htpasswd: Path) -> None:
    config = tmp_path / "socksd.toml"
    config.write_text('[[listener]]\nname = "office"\nendpoint = "tcp:7"\n[log]\naccess = "-"\n')
    options = parsed(f"--config={config}", "--port=8", f"--auth=htpasswd:{htpasswd}")
    merged = options.gateway.generation.config
    assert [listener.name for listener in merged.listener] == ["office", "port"]
    assert merged.auth.authenticators == (f"htpasswd:{htpasswd}",)
    assert merged.log.access == "-"


def test_a_configuration_with_listeners_gets_no_other(tmp_path: Path) -> None:
    config = tmp_path / "socksd.toml"
    config.write_text('[[listener]]\nname = "office"\nendpoint = "tcp:7"\n')
    assert endpoints(f"--config={config}") == [("office", "tcp:7")]


def test_the_service_is_what_the_options_have_built(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed("--port=0")
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    service = makeService(options)
    assert isinstance(service, Gateway)
    assert IService.providedBy(service)
    assert service.generation.entrances[0].name == "port"
    assert isinstance(sys.stdout, Outflow), "before twistd's log takes it"


def test_without_login_only_this_host_is_served() -> None:
    policy = parsed().gateway.generation.runtime.policy
    for client, verdict in ((LOCAL, Verdict.ALLOW), (REMOTE, Verdict.DENY)):
        assert policy.decide(Facts(client, "port")).verdict is verdict


def test_with_login_whoever_logs_in_is_served(htpasswd: Path) -> None:
    options = parsed(f"--auth=htpasswd:{htpasswd}")
    policy = options.gateway.generation.runtime.policy
    asking = Facts(REMOTE, "port").known_as(Principal("alice"))
    asking = asking.asking(Command.CONNECT, Destination.named("198.51.100.1", 80))
    assert policy.decide(asking).verdict is Verdict.ALLOW
    assert policy.decide(asking.known_as(ANONYMOUS)).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--prot=1"], "--prot not recognized", id="unknown option"),
        pytest.param(["--port=x"], "--port 'x' is not a port", id="port is a word"),
        pytest.param(["--port=65536"], "'65536' is not a port", id="port too large"),
        pytest.param(["--port=-1"], "'-1' is not a port", id="port negative"),
        pytest.param(["extra"], "unexpected argument 'extra'", id="argument"),
        pytest.param(["--listen=nonsense:1"], "Unknown endpoint type", id="endpoint"),
        pytest.param(["--auth=nonsense:1"], "no authenticator 'nonsense'", id="authenticator"),
        pytest.param(["--auth=htpasswd:/no/such/file"], "/no/such/file", id="password file"),
        pytest.param(["--auth=anonymous"], "takes no user name and password", id="wrong kind"),
        pytest.param(["--config=/no/such/file"], "/no/such/file", id="configuration"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert isinstance(caught.value.code, str), "a string makes the exit status 1"
    assert said in caught.value.code
    assert "\n" not in caught.value.code
    assert caught.value.code.startswith("socks5: ")


def test_every_problem_is_said_each_in_a_line(tmp_path: Path) -> None:
    config = tmp_path / "socksd.toml"
    config.write_text("[limits]\nsesions = 1\n[log]\naccess = 3\n")
    with pytest.raises(SystemExit) as caught:
        parsed(f"--config={config}")
    lines = str(caught.value.code).splitlines()
    assert len(lines) == 2
    assert any("limits.sesions" in line and "did you mean 'sessions'" in line for line in lines)
    config.write_text('[resolver]\nvia = "dns:x"\n')
    with pytest.raises(SystemExit) as caught:
        parsed(f"--config={config}", "--listen=a:1", "--listen=tcp:x", "--auth=b")
    lines = str(caught.value.code).splitlines()
    paths = [line.split(": ")[1] for line in lines]
    assert paths == [
        "listener[0].endpoint",
        "listener[1].endpoint",
        "auth.authenticators[0]",
        "resolver.via",
    ]


def test_two_listeners_of_one_name_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "socksd.toml"
    config.write_text('[[listener]]\nname = "port"\nendpoint = "tcp:7"\n')
    with pytest.raises(SystemExit) as caught:
        parsed(f"--config={config}", "--port=1")
    assert "'port'" in str(caught.value.code)


def test_check_builds_all_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--check")
    assert caught.value.code is None
    assert "good" in capsys.readouterr().out


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--version")
    assert caught.value.code is None
    assert capsys.readouterr().out == f"socksd {socksd.__version__}\n"


def test_twistd_finds_the_plugin() -> None:
    (maker,) = (m for m in getPlugins(IServiceMaker) if m.tapname == "socks5")
    assert maker.options is Options


@pytest.mark.parametrize(("words", "workers"), [([], 0), (["--workers", "1"], 1), (["-w0"], 0)])
def test_the_command_line_says_how_many_workers(words: list[str], workers: int) -> None:
    assert parsed(*words).gateway.generation.config.server.workers == workers


def test_with_workers_it_is_their_parent_that_runs(tmp_path: Path) -> None:
    from socksd.app.workers.parent import Parent

    options = parsed("--workers", "3", "--port", "0")
    assert isinstance(options.gateway, Parent)
    assert options.gateway._words == ["--workers", "3", "--port", "0"]


@pytest.mark.parametrize("number", ["-1", "many", "257", "1.5"])
def test_not_everything_is_a_number_of_workers(number: str) -> None:
    with pytest.raises(SystemExit, match="socks5: --workers must be "):
        parsed(f"--workers={number}")
