"""The benchmarks measure what they say, and notice what goes wrong; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import load as load_module
from benchmarks import micro, page, plot, run, servers, soak
from benchmarks.figures import FIGURES, tables
from benchmarks.load import Load, LoadError, built, compiler
from benchmarks.processes import running, usage
from benchmarks.servers import NotStartedError, Running, Server
from socksd.identity.htpasswd import set_password
from tests.fakes import Recorder
from tests.functional.process import Gateway, wait_for

BRIEFLY = 0.15  # seconds of a run
COMMON = {"mode", "via", "streams", "seconds", "opened", "failed", "wrong", "missing"}
LATENCY = {"p50_us", "p99_us", "max_us"}
KEYS = {
    "bulk": {"octets", "down", "up", "gb_per_second"},
    "cps": {"connections", "per_second"} | LATENCY,
    "rr": {"operations", "per_second"} | LATENCY,
    "idle": {"alive"},
    "stall": {"operations", "per_second", "sent", "read"} | LATENCY,
    "udp": {"operations", "per_second", "lost", "late"} | LATENCY,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("needs a C compiler")
    return built(tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    yield gateway
    gateway.stop()


@pytest.fixture
def through(program: Path, gateway: Gateway) -> Load:
    return Load(program, gateway.address)


def status(program: Path, *arguments: str) -> tuple[int, str]:
    """Run load.c, give its exit status and what it complains of."""
    done = subprocess.run(
        (program, *arguments), capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stderr


# -- load.c ------------------------------------------------------------------


@pytest.mark.parametrize("mode", KEYS)
def test_each_mode_works_without_a_server(program: Path, mode: str) -> None:
    found = Load(program).run(mode, seconds=BRIEFLY, streams=4)
    assert found["via"] == "direct"
    assert KEYS[mode] | COMMON <= set(found)
    assert found["wrong"] == found["missing"] == found["failed"] == 0


@pytest.mark.parametrize("mode", KEYS)
def test_each_mode_works_through_socksd(through: Load, mode: str) -> None:
    found = through.run(mode, seconds=BRIEFLY, streams=4)
    assert found["via"] == "proxy"
    assert found["wrong"] == found["missing"] == found["failed"] == 0
    assert found["opened"] >= 4
    moved = next(key for key in ("octets", "connections", "operations", "alive") if key in found)
    assert found[moved] > 0


@pytest.mark.parametrize("mode", KEYS)
def test_one_wrong_bit_is_noticed(program: Path, mode: str) -> None:
    process = Load(program).start(mode, seconds=BRIEFLY, corrupt=True)
    assert load_module.report(process, BRIEFLY)["wrong"] > 0
    assert process.returncode == 1


@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_every_octet_is_accounted_for(through: Load, direction: str) -> None:
    """Streams of a given length end with FIN, which passes the gateway each way."""
    octets, streams = 3_000_001, 3
    found = through.run(
        "bulk", seconds=20, streams=streams, octets=octets, direction=direction, full=True
    )
    assert found["wrong"] == found["missing"] == 0
    if direction != "up":
        assert found["down"] == octets * streams
    if direction != "down":
        assert found["up"] == octets * streams


def test_octets_that_did_not_come_are_missing(program: Path) -> None:
    process = Load(program).start("bulk", seconds=BRIEFLY, octets=10**12)
    assert load_module.report(process, BRIEFLY)["missing"] > 10**11
    assert process.returncode == 1


def test_readers_that_trickle_read_what_they_are_told(through: Load) -> None:
    found = through.run("stall", seconds=0.3, streams=2, trickle=20_000)
    assert 0 < found["read"] <= 2 * 20_000
    assert found["read"] < found["sent"]
    assert found["wrong"] == 0


def test_datagrams_keep_to_their_rate(program: Path) -> None:
    found = Load(program).run("udp", seconds=0.2, rate=500)
    assert 0 < found["operations"] <= 100


def test_it_logs_in(program: Path, tmp_path: Path) -> None:
    set_password(tmp_path / "users", "alice", "right", cost=4)
    gateway = Gateway(tmp_path, "--auth", f"htpasswd:{tmp_path / 'users'}")
    try:
        load = Load(program, gateway.address)
        good = load.run("cps", seconds=BRIEFLY, user="alice", password="right")
        assert good["connections"] > 0
        assert good["failed"] == 0
        bad = load.run("idle", seconds=BRIEFLY, user="alice", password="wrong")
        assert (bad["opened"], bad["failed"]) == (0, 1)
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1:1080", "0.0.0.0:1080", "128.0.0.1:1080", "[2001:db8::1]:1080", "localhost:1080"],
)
def test_nothing_but_the_loopback_is_loaded(program: Path, address: str) -> None:
    code, said = status(program, "cps", "--proxy", address)
    assert code == 2
    assert "loopback" in said


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("walk",),
        ("cps", "rr"),
        ("cps", "--streams", "0"),
        ("cps", "--streams", "many"),
        ("cps", "--seconds", "0"),
        ("cps", "--proxy", "127.0.0.1"),
        ("cps", "--proxy", "127.0.0.1:70000"),
        ("bulk", "--direction", "sideways"),
        ("cps", "--user", "alice"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_said(program: Path, arguments: Sequence[str]) -> None:
    code, said = status(program, *arguments)
    assert code == 2
    assert said


def test_a_server_that_is_not_there_is_no_measurement(program: Path) -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    code, _ = status(program, "cps", "--proxy", address, "--seconds", "0.1")
    assert code == 1


def test_load_c_has_no_warnings() -> None:
    cc = compiler()
    if cc is None:
        pytest.skip("needs a C compiler")
    command = (cc, "-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Werror")
    checked = subprocess.run(
        (*command, load_module.SOURCE), capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_it_is_built_once_for_each_version(program: Path) -> None:
    before = program.stat().st_mtime_ns
    assert built(program.parent) == program
    assert program.stat().st_mtime_ns == before


def test_without_a_compiler_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(LoadError, match="compiler"):
        built()


# -- processes ---------------------------------------------------------------


def test_a_tree_is_looked_at_and_ended_whole(tmp_path: Path) -> None:
    """Children count, and those that have outlived their parent end as well."""
    script = "sleep 60 & sh -c 'i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; exec sleep 60'"
    with running(("sh", "-c", f"{script} & wait"), tmp_path) as (process, _):
        wait_for("CPU time", lambda: usage([process.pid]).cpu > 0.01)
        found = usage([process.pid])
        assert found.processes == 3
        assert found.descriptors >= 9
        assert found.rss > 0
        assert usage([process.pid], pss=True).pss > 0
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    wait_for("the end", lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in children))


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = ("sh", "-c", "echo first; echo port in use")
    start = servers.listening(command, tmp_path, servers.free_port())
    with pytest.raises(NotStartedError, match="port in use"), start:
        pass


# -- run ---------------------------------------------------------------------


@pytest.fixture
def here(gateway: Gateway) -> str:
    return f"here={gateway.address}:{gateway.pid}"


@pytest.mark.parametrize("mode", FIGURES)
def test_every_figure_is_measured(program: Path, here: str, mode: str) -> None:
    server = servers.given(here)
    assert server is not None
    measured = run.measure(server, run.Case(mode, 4), program, 0.3)
    assert measured.trouble == ""
    assert set(measured.figures) == {figure.key for figure in FIGURES[mode]}


def test_a_run_leaves_a_table_and_all_figures(
    program: Path,
    here: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "built", lambda: program)
    kept = tmp_path / "run.json"
    arguments = ["--modes", "rr:2", "--servers", "direct", here, "--rounds", "2"]
    assert (
        run.main([*arguments, "--seconds", "0.1", "--baseline", "here", "--json", str(kept)]) == 0
    )
    table = capsys.readouterr().out
    document = json.loads(kept.read_text())
    assert document["cases"] == ["rr:2"]
    assert len(document["samples"]["here"]["rr:2"]["p50_us"]) == 2
    assert document["ratios"]["here"]["rr:2"]["p50_us"] == 1
    assert "cpu_us_per_operation" not in document["medians"]["direct"]["rr:2"]
    assert run.main(["--rst", str(kept)]) == 0
    assert capsys.readouterr().out.strip() == table.strip()


def test_peers_that_are_missing_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_PATH", "/nowhere")
    peer = servers.SERVERS["microsocks"]
    found, troubles = run.compare([peer], [run.Case("cps", 1)], Path("unused"), 2, 0.1)
    assert found == {}
    assert troubles == {"microsocks": ["cps:1: left out: needs microsocks"]}


def test_rounds_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def measure(server: Server, *_: object) -> run.Measured:
        order.append(server.name)
        return run.Measured({"per_second": float(len(order))})

    @contextmanager
    def start(directory: Path) -> Iterator[Running]:
        yield Running(None, ())

    monkeypatch.setattr(run, "measure", measure)
    found, _ = run.compare(
        [Server(name, start) for name in "abc"], [run.Case("cps", 1)], Path("unused"), 3, 0.1
    )
    assert "".join(order) == "abcbcacab"
    assert found["a"]["cps:1"]["per_second"] == [1, 6, 8]


@pytest.mark.parametrize(
    ("texts", "streams", "cases"),
    [
        (["bulk:1,8", "cps"], None, ["bulk:1", "bulk:8", "cps:16"]),
        (["bulk", "rr:2"], [4], ["bulk:4", "rr:2"]),
    ],
)
def test_cases_are_read(texts: list[str], streams: list[int] | None, cases: list[str]) -> None:
    assert [str(case) for case in run.parsed_cases(texts, streams)] == cases


@pytest.mark.parametrize(
    "arguments",
    [
        ("--modes", "walk"),
        ("--modes", "cps:x"),
        ("--servers", "nobody"),
        ("--servers", "x=192.0.2.1:1080"),
        ("--streams", "x"),
    ],
    ids=" ".join,
)
def test_wrong_options_are_said(arguments: Sequence[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


def report(**keys: float) -> dict[str, Any]:
    return {"mode": "rr", "opened": 1, "wrong": 0, "missing": 0, "failed": 0} | keys


@pytest.mark.parametrize(
    ("found", "trouble"),
    [
        (report(operations=1), ""),
        (report(operations=0), "nothing came back"),
        (report(opened=0), "nothing could be opened"),
        (report(wrong=2), "2 wrong"),
        (report(missing=64), "64 missing"),
        (report(failed=1), "1 failed"),
    ],
)
def test_what_went_wrong_is_no_measurement(found: dict[str, Any], trouble: str) -> None:
    assert run._trouble(found) == trouble


def test_socksd_runs_with_twenty_rules_and_an_access_log(program: Path, tmp_path: Path) -> None:
    with servers.SERVERS["socksd-policy"].start(tmp_path) as gateway:
        found = Load(program, gateway.address).run("cps", seconds=BRIEFLY)
    assert found["failed"] == 0
    lines = (tmp_path / "access.jsonl").read_text().splitlines()
    assert servers.POLICY.count("[[rule]]") == 20
    assert json.loads(lines[-1])["rule"] == "benchmark"


def test_socksd_runs_with_nothing_that_looks_on(program: Path, tmp_path: Path) -> None:
    with servers.SERVERS["socksd-bare"].start(tmp_path) as gateway:
        found = Load(program, gateway.address).run("cps", seconds=BRIEFLY)
    assert found["failed"] == 0
    assert not (tmp_path / "access.jsonl").exists()
    assert servers.UNLOGGED.count("log = false") == 20


def test_socksd_runs_with_all_that_can_look_on(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And somebody has the page open, for as long as the server is there."""
    asked: list[str] = []
    request = HTTPConnection.request

    def asking(self: HTTPConnection, method: str, path: str, *rest: Any, **more: Any) -> None:
        asked.append(path)
        request(self, method, path, *rest, **more)

    monkeypatch.setattr(HTTPConnection, "request", asking)
    with servers.SERVERS["socksd-observed"].start(tmp_path) as gateway:
        found = Load(program, gateway.address).run("cps", seconds=BRIEFLY)
        wait_for("the page", lambda: len(asked) >= 2 + len(page.PACE))
    assert found["failed"] == 0
    assert {"/v1/login", "/v1/events", *page.PACE} == set(asked)
    assert (tmp_path / "access.jsonl").stat().st_size


class NoDashboard(BaseHTTPRequestHandler):
    """Lets nobody in."""

    def do_POST(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep it to itself."""


def test_who_is_not_let_in_does_not_look() -> None:
    with HTTPServer((servers.HOST, 0), NoDashboard) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        with (
            pytest.raises(PermissionError, match="403"),
            page.looking(servers.HOST, server.server_port, "alice", "wrong"),
        ):
            pass
        thread.join()


# -- plot, soak, micro -------------------------------------------------------

DOCUMENT = {
    "when": "2026-01-01T00:00:00Z",
    "baseline": "dante",
    "cases": ["bulk:8", "cps:16"],
    "medians": {
        "direct": {"bulk:8": {"gb_per_second": 8.0}},
        "socksd": {"bulk:8": {"gb_per_second": 4.0, "cpu_s_per_gb": 0.2}},
        "dante": {"bulk:8": {"gb_per_second": 2.0, "cpu_s_per_gb": 0.4}},
    },
    "ratios": {
        "direct": {"bulk:8": {"gb_per_second": 4.0}},
        "socksd": {"bulk:8": {"gb_per_second": 2.0, "cpu_s_per_gb": 0.5}},
        "dante": {"bulk:8": {"gb_per_second": 1.0, "cpu_s_per_gb": 1.0}},
    },
}


def test_a_table_shows_figures_and_ratios() -> None:
    rows = {line.split("  ")[0]: line for line in tables(DOCUMENT).splitlines()}
    assert "4 (2.00x)" in rows["**socksd**"]
    assert "0.2 (0.50x)" in rows["**socksd**"]
    assert rows["direct"].rstrip().endswith("\\-")
    assert "connections" not in tables(DOCUMENT)  # nothing was measured


def test_a_plot_has_a_panel_for_each_figure(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(DOCUMENT))
    plot.main([str(tmp_path / "run.json"), str(tmp_path / "plot.svg")])
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    bars = [one for one in root.iter() if one.get("fill") in (plot.OURS, plot.PEERS, plot.LIMIT)]
    assert len(bars) == 3 + 2
    assert sum(one.get("class") == "title" for one in root.iter()) == 2


def slices(change: Callable[[int, soak.Slice], soak.Slice]) -> list[soak.Slice]:
    flat = soak.Slice(0.0, 0, 0, 50 * soak.MIB, 11, 1.0, 100, 1000, 1.0, 0, 0, 0)
    return [change(index, replace(flat, second=5.0 * index)) for index in range(1, 21)]


@pytest.mark.parametrize(
    ("change", "good"),
    [
        pytest.param(lambda index, one: one, True, id="flat"),
        pytest.param(
            lambda index, one: replace(one, rss=one.rss + min(index, 8) * soak.MIB),
            True,
            id="memory that finds its level",
        ),
        pytest.param(
            lambda index, one: replace(one, rss=one.rss + index % 2 * soak.MIB),
            True,
            id="an arena that comes and goes",
        ),
        pytest.param(
            lambda index, one: replace(one, rss=one.rss + index * 32_000, connections=2000),
            True,
            id="less than a connection could leave",
        ),
        pytest.param(
            lambda index, one: replace(one, rss=one.rss + index * 480_000, connections=20_000),
            False,
            id="24 octets a connection",
        ),
        pytest.param(
            lambda index, one: replace(one, rss=one.rss + index * soak.MIB),
            False,
            id="memory that grows",
        ),
        pytest.param(
            lambda index, one: replace(one, descriptors=11 + index), False, id="descriptors"
        ),
        pytest.param(
            lambda index, one: replace(one, descriptors=27 if index in (2, 15) else 11),
            True,
            id="a pool that is full now and then",
        ),
        pytest.param(lambda index, one: replace(one, wrong=index == 3), False, id="wrong"),
        pytest.param(lambda index, one: replace(one, missing=index == 3), False, id="missing"),
        pytest.param(lambda index, one: replace(one, failed=index == 3), False, id="failed"),
    ],
)
def test_a_soak_is_judged(change: Callable[[int, soak.Slice], soak.Slice], good: bool) -> None:
    assert all(right for right, _ in soak.verdicts(slices(change), 11)) is good


def test_a_soak_that_is_too_short_shows_nothing() -> None:
    assert not all(right for right, _ in soak.verdicts(slices(lambda _, one: one)[:4], 11))


def test_a_slice_carries_everything_at_once(
    program: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "STREAM", 100_000)
    server = Running(gateway.address, (gateway.pid,))
    (found,) = soak.soak(server, program, 0.01, 0.3)
    assert found.octets == 2 * 4 * 100_000
    assert found.connections > 0
    assert found.p99_ms > 0
    assert found.descriptors < found.descriptors_busy
    assert (found.wrong, found.missing, found.failed) == (0, 0, 0)


def test_the_small_benchmarks_do_what_they_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "_AT_LEAST", 1e-6)
    assert len(micro.large_policy(rules=10, entries=20).rules) == 10
    assert all(value > 0 for _, value in micro.wire_figures())
    recorder = Recorder()
    micro.told(recorder, micro.session_events(7))
    assert [type(event).__name__ for event in recorder.events][-1] == "SessionClosed"
