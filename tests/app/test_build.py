"""A configuration made ready, with what runs already used again."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.address import Destination
from socksd.app.build import Lasting, assemble, build, lasting
from socksd.app.config import Config, Listener, parse_config
from socksd.app.notify import Manager
from socksd.app.service import Gateway, Generation, Part
from socksd.app.whole import Whole
from socksd.codes import Method
from socksd.errors import ConfigError
from socksd.facts import ANONYMOUS, Facts, Principal
from socksd.observe import access
from socksd.observe.access import AccessLog
from socksd.observe.journal import Journal
from socksd.observe.sinks import OutputLog
from socksd.relay.line import Line
from socksd.relay.pump import Pump, ThrottledPump
from socksd.server.door import Door
from socksd.server.ends import End
from socksd.server.front import Front
from socksd.server.protocol import Sessions
from tests import authority
from tests.app.fake_workers import FakeWorkers
from tests.fakes import FakeTransport, outcome
from tests.kerberos import Realm
from tests.observe.closed import DENIED, SERVED
from tests.relay.test_contract import noise

SAME = """
[auth]
authenticators = ["memory:alice:secret"]
[log]
access = "-"
[control]
socket = "/run/no/control.sock"
"""


@pytest.fixture
def reactor() -> Any:
    return MemoryReactorClock()


@pytest.fixture
def common(reactor: Any) -> Lasting:
    return lasting(reactor)


def made(text: str, reactor: Any, common: Lasting, running: Sequence[Part] = ()) -> Generation:
    return build(parse_config(text, ""), reactor, common, running)


def made_of(generation: Generation) -> set[Any]:
    """What the parts of a generation are."""
    return {part.made_of[0] for part in generation.parts}  # type: ignore[index]  # a tuple, or "log"


def test_what_would_be_made_of_the_same_is_used_again(reactor: Any, common: Lasting) -> None:
    """Verified logins, cached names and the open log outlive a reload that changes rules."""
    first = made(SAME, reactor, common)
    rules = '[[rule]]\nid = "all"\naction = "allow"\n'
    second = made(SAME + rules, reactor, common, first.parts)
    assert second.parts == first.parts
    assert second.runtime.authenticator is first.runtime.authenticator
    assert second.runtime.resolver is first.runtime.resolver
    assert second.runtime.policy is not first.runtime.policy
    assert (first.rules[0], second.rules) == (("local", "allow"), (("all", "allow"),))


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ('[auth]\ncache = "1m"\n', {"authenticator"}),
        ("[auth]\nthreads = 3\n", {"login threads", "authenticator"}),
        ('[resolver]\nttl = "2m"\n', {"resolver"}),
        ('[deadlines]\nresolve = "1s"\n', {"resolver"}),
        ('[log]\naccess = "/var/log/other"\n', {"access log"}),
        ('[control]\nsocket = "/run/other"\n', {"control"}),
        ('[log]\naccess = "-"\nformat = "text"\n', {"access log"}),
        ('[metrics]\nendpoint = "9108"\n', {"metrics", "reactor lag"}),
        ('[deadlines]\nidle = "1m"\n', set()),
        ('[limit.bulk]\nbandwidth = "1MB/s"\n', {"limit"}),
        ('[limit.long]\nidle = "1m"\n', set()),
    ],
)
def test_only_what_has_changed_is_made_anew(
    reactor: Any, common: Lasting, text: str, changed: set[str]
) -> None:
    first = made("", reactor, common)
    second = made(text, reactor, common, first.parts)
    fresh = {
        part.made_of[0]
        for part in second.parts
        if part not in first.parts  # type: ignore[index]  # made_of is a tuple, or "log"
    }
    assert fresh == changed


def test_a_password_file_that_is_broken_is_a_problem_although_it_runs(
    reactor: Any, common: Lasting, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("")
    text = f'[auth]\nauthenticators = ["htpasswd:{users}"]\n'
    first = made(text, reactor, common)
    users.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        made(text, reactor, common, first.parts)


@pytest.mark.parametrize(
    ("log", "kind", "line"),
    [
        ('access = "/var/log/x"', AccessLog, access.record),
        ('access = "/var/log/x"\nformat = "text"', AccessLog, access.text),
        ('access = "-"\nformat = "json"', OutputLog, access.record),
        ('access = "-"\nformat = "text"', OutputLog, access.text),
        ('access = "journald"', Journal, None),
        ('access = "journald:/run/j"\nformat = "text"', Journal, None),
    ],
)
def test_the_access_log_goes_where_it_is_said(
    reactor: Any, common: Lasting, log: str, kind: type, line: object
) -> None:
    generation = made(f"[log]\n{log}\n", reactor, common)
    (found,) = (part.what for part in generation.parts if isinstance(part.what, kind))
    batch = getattr(found, "_batch", None)
    assert getattr(batch, "_line", None) is line


METRICS = '[metrics]\nendpoint = "tcp:9108:interface=127.0.0.1"\n'


def test_who_wants_no_metrics_pays_for_none(reactor: Any, common: Lasting) -> None:
    generation = made("", reactor, common)
    generation.runtime.observer(SERVED)
    assert common.metrics.up == 0
    assert not {"metrics", "reactor lag"} & made_of(generation)


def test_metrics_count_from_one_configuration_to_the_next(reactor: Any, common: Lasting) -> None:
    first = made(METRICS, reactor, common)
    assert {"metrics", "reactor lag"} <= made_of(first)
    first.runtime.observer(SERVED)
    second = made(METRICS + '[deadlines]\nidle = "1m"\n', reactor, common, first.parts)
    assert first.parts == second.parts
    second.runtime.observer(SERVED)
    assert common.metrics.up == 2 * SERVED.up


def test_metrics_without_the_package_say_what_to_install(
    reactor: Any, common: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "socksd.observe.exposition", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError) as caught:
        made(METRICS, reactor, common)
    (problem,) = caught.value.problems
    assert str(problem) == (
        "metrics.endpoint: needs the Python package prometheus_client:"
        " pip install 'socksd[metrics]'"
    )


def test_metrics_at_no_endpoint_are_a_problem(reactor: Any, common: Lasting) -> None:
    with pytest.raises(ConfigError, match=r"^metrics.endpoint: 70000 is not a port"):
        made('[metrics]\nendpoint = "tcp:70000"\n', reactor, common)


def test_who_has_to_do_with_a_refusal_hears_of_it(reactor: Any, common: Lasting) -> None:
    with capturedLogs() as events:
        made("", reactor, common).runtime.observer(DENIED)
    common.people.close()
    assert any("denied client=127.0.0.1" in formatEvent(event) for event in events)
    assert common.refusals.of(DENIED.client, DENIED.user)


class Source:
    """A configuration without a file."""

    path = None

    def read(self) -> str:
        return ""

    def parse(self, text: str) -> Config:
        return parse_config(text or ONE, "")


ONE = '[[listener]]\nname = "x"\nendpoint = "tcp:0:interface=127.0.0.1"\n'


async def test_a_service_manager_hears_from_beginning_to_end(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)

        def heard() -> list[str]:
            found = []
            with suppress(BlockingIOError):
                while True:
                    found += manager.recv(4096).decode().splitlines()
            return [line.partition("=")[0] for line in found]

        gateway = assemble(
            Source(), "", real_reactor, rolled_back=False, manager=Manager(path, None)
        )
        gateway.startService()
        await deferLater(real_reactor, 0)
        assert heard() == ["READY", "STATUS"]
        os.kill(os.getpid(), signal.SIGHUP)
        said: list[str] = []
        for _ in range(1000):  # the file is parsed in a thread
            await deferLater(real_reactor, 0.01)
            said += heard()
            if "READY" in said:
                break
        assert said == ["RELOADING", "MONOTONIC_USEC", "READY"]
        await gateway.stopService()
        assert heard() == ["STOPPING", "EXTEND_TIMEOUT_USEC"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_it_stops_has_it_hurry(number: signal.Signals) -> None:
    """And afterwards it is whose it was."""
    gateway = assemble(Source(), "", real_reactor, rolled_back=False)
    before = signal.getsignal(number)
    gateway.startService()
    (listener,) = gateway.listeners
    endpoint = TCP4ClientEndpoint(real_reactor, "127.0.0.1", listener.port.getHost().port)
    client: Client = await endpoint.connect(Factory.forProtocol(Client))
    while not len(gateway.sessions):
        await deferLater(real_reactor, 0)
    stopped = gateway.stopService()
    await deferLater(real_reactor, 0.01)
    assert not stopped.called
    os.kill(os.getpid(), number)
    await stopped
    await client.ended
    assert signal.getsignal(number) == before


# -- limits and routes ----------------------------------------------------------

ALICE = Facts(ip_address("192.0.2.1"), "local", Principal("alice"))
BULK = '[limit.bulk]\nbandwidth = "1MB/s"\nidle = "2h"\n'


def relay_of(generation: Generation, facts: Facts, limits: str = "bulk") -> Any:
    client, target = End(), End()
    for end in (client, target):
        FakeTransport(end)
    return generation.runtime.limited[limits](facts, client, target)


def test_the_sessions_of_a_user_share_a_budget(reactor: Any, common: Lasting) -> None:
    """Wherever they come from; without a login it is the address that counts."""
    generation = made(BULK, reactor, common)
    elsewhere = replace(ALICE, client=ip_address("192.0.2.2"))
    first, second, bob, here, there = (
        relay_of(generation, facts)._budget
        for facts in (
            ALICE,
            elsewhere,
            replace(ALICE, principal=Principal("bob")),
            replace(ALICE, principal=ANONYMOUS),
            replace(elsewhere, principal=ANONYMOUS),
        )
    )
    assert first is second
    assert len({id(budget) for budget in (first, bob, here, there)}) == 4


def test_a_reload_that_leaves_the_bandwidth_leaves_the_budgets(
    reactor: Any, common: Lasting
) -> None:
    first = made(BULK, reactor, common)
    second = made(BULK.replace("2h", "3h"), reactor, common, first.parts)
    third = made(BULK.replace("1MB", "2MB"), reactor, common, second.parts)
    budgets = [relay_of(each, ALICE)._budget for each in (first, second, third)]
    assert budgets[0] is budgets[1]
    assert budgets[0] is not budgets[2]


def test_a_limit_may_have_an_idle_time_of_its_own(reactor: Any, common: Lasting) -> None:
    text = BULK + '[limit.long]\nidle = "10h"\n[limit.slow]\nbandwidth = "1MB/s"\n'
    generation = made(text, reactor, common)
    idle = {name: relay_of(generation, ALICE, name)._idle for name in generation.runtime.limited}
    assert idle == {"bulk": 7200.0, "long": 36_000.0, "slow": 900.0}
    kinds = {name: type(relay_of(generation, ALICE, name)) for name in idle}
    assert kinds == {"bulk": ThrottledPump, "long": Pump, "slow": ThrottledPump}


def dialled_from(egress: Any, reactor: Any, address: str) -> tuple[str, int] | None:
    web = Destination.named("web.example", 80)
    connecting = egress.connect(web, [ip_address(address)], Factory.forProtocol(End))
    connecting.addErrback(lambda _: None).cancel()
    bound: tuple[str, int] | None = reactor.tcpClients[-1][4]
    return bound


@pytest.mark.parametrize(
    ("text", "direct", "second"),
    [
        ("", None, None),
        ('[route.second]\nsource = ["127.0.0.9"]\n', None, ("127.0.0.9", 0)),
        ('[route.direct]\nsource = ["127.0.0.8"]\n', ("127.0.0.8", 0), None),
    ],
)
def test_a_route_has_its_source(
    reactor: Any,
    common: Lasting,
    text: str,
    direct: tuple[str, int] | None,
    second: tuple[str, int] | None,
) -> None:
    runtime = build(parse_config(text, ""), reactor, common, switched=False).runtime
    assert dialled_from(runtime.egress, reactor, "198.51.100.1") == direct
    assert set(runtime.routes) == ({"second"} if second else set())
    if second:
        assert dialled_from(runtime.routes["second"], reactor, "198.51.100.1") == second
    associate: Any = runtime.associate
    assert [str(each) for each in associate.keywords["sources"]] == ([direct[0]] if direct else [])


def test_a_source_that_this_host_does_not_have_is_a_problem(
    reactor: Any, common: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        made('[route."a.b"]\nsource = ["127.0.0.1", "2001:db8::1"]\n', reactor, common)
    assert [str(problem) for problem in caught.value.problems] == [
        'route."a.b".source: 2001:db8::1 is none of this host\'s addresses'
    ]

    def no_ipv6(source: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("socksd.app.making.ways.try_source", no_ipv6)
    with pytest.raises(ConfigError, match=r"cannot connect from ::1: Address family not supp"):
        made('[route.a]\nsource = ["::1"]\n', reactor, common)


def gssapi_problems(text: str, reactor: Any, common: Lasting) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        made(f"[gssapi]\n{text}", reactor, common)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_what_tickets_need_is_said_all_at_once(reactor: Any, common: Lasting) -> None:
    pytest.importorskip("gssapi")
    assert gssapi_problems('user = "principal"', reactor, common) == {
        "gssapi.keytab": "is missing: the file with the service's key",
        "gssapi.realms": "is missing: the realms whose users may log in",
    }
    found = gssapi_problems('realms = ["A.TEST", "B.TEST"]\nkeytab = "/no"', reactor, common)
    assert found.keys() == {"gssapi.user", "gssapi.keytab"}
    assert 'write user = "principal"' in found["gssapi.user"]
    assert found["gssapi.keytab"].startswith("/no has no key for the service 'rcmd': ")


def test_without_its_extra_the_way_to_tickets_is_said(
    reactor: Any, common: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.delitem(sys.modules, "socksd.identity.gssapi", raising=False)
    text = 'keytab = "/etc/krb5.keytab"\nrealms = ["EXAMPLE.COM"]'
    found = gssapi_problems(text, reactor, common)
    assert found.keys() == {"gssapi"}
    assert "pip install 'socksd[gssapi]'" in found["gssapi"]


def test_with_a_keytab_tickets_are_a_method(reactor: Any, common: Lasting, realm: Realm) -> None:
    """And they are looked at in threads of their own; what is the same is used again."""
    pytest.importorskip("gssapi")
    text = f'[gssapi]\nkeytab = "{realm.keytabs["rcmd"]}"\nrealms = ["EXAMPLE.TEST"]\n'
    first = made(text, reactor, common)
    client = ip_address("192.0.2.1")
    assert first.runtime.authenticator.methods(client) == (Method.GSSAPI,)
    kinds = [part.made_of[0] for part in first.parts if isinstance(part.made_of, tuple)]
    assert kinds[:3] == ["login threads", "ticket threads", "authenticator"]
    assert made(text, reactor, common, first.parts).parts == first.parts
    other = made(text + 'user = "principal"\n', reactor, common, first.parts)
    assert other.runtime.authenticator is not first.runtime.authenticator


PAGE = noise(1, 1 << 20)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """Collects what it is told, to its end."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: Deferred[BaseException | None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.value)


@implementer(IHalfCloseableProtocol)
class Echoing(Echo):
    """Sends back what it is told, and its end behind it."""

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...


@asynccontextmanager
async def listening(factory: Factory[Any]) -> AsyncIterator[int]:
    port = await TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


@pytest.mark.parametrize(
    ("switched", "kind"),
    [pytest.param(True, Line, id="switched"), pytest.param(False, Pump, id="by Twisted")],
)
async def test_a_client_is_carried_to_its_target_and_back(
    switched: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = []
    join = kind.join  # type: ignore[attr-defined]  # of a relay's class
    monkeypatch.setattr(kind, "join", lambda *it: joined.append(it[0]) or join(*it))
    config = Config(listener=(Listener(name="here", endpoint="tcp:0:interface=127.0.0.1"),))
    made = build(config, real_reactor, lasting(real_reactor), switched=switched)
    gateway = Gateway(made, Sessions(Door(real_reactor, None)), real_reactor)
    gateway.startService()
    try:
        (port,) = (each.port.getHost().port for each in gateway.listeners)
        async with listening(Factory.forProtocol(Echoing)) as echo:
            endpoint = TCP4ClientEndpoint(real_reactor, "127.0.0.1", port)
            client: Client = await endpoint.connect(Factory.forProtocol(Client))
            request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + echo.to_bytes(2, "big")
            client.transport.write(b"\x05\x01\x00" + request + PAGE)
            client.transport.loseWriteConnection()
            reason = await client.ended
        assert isinstance(reason, ConnectionDone)
        assert client.received[:4] == b"\x05\x00\x05\x00"
        assert client.received[12:] == PAGE
        (relay,) = joined
        assert (relay.up, relay.down) == (len(PAGE), len(PAGE))
        for _ in range(100):
            if not len(gateway.sessions):
                break
            await deferLater(real_reactor, 0)
        assert not len(gateway.sessions)
    finally:
        await gateway.stopService()


def test_a_listener_has_what_comes_before_its_sessions(
    tmp_path: Path, reactor: Any, common: Lasting
) -> None:
    own = authority.server("gw.example").write(tmp_path, "gw.pem")
    balancers = (ip_network("10.0.0.2"),)
    plain, proxied, secure, both = (
        Listener("plain", "tcp:1"),
        Listener("proxied", "tcp:2", proxy_protocol=balancers),
        Listener("secure", f"ssl:3:privateKey={own}"),
        Listener("both", f"ssl:4:privateKey={own}", proxy_protocol=balancers),
    )
    generation = build(Config(listener=(plain, proxied, secure, both)), reactor, common)
    fronts = [entrance.front for entrance in generation.entrances]
    assert fronts[0] is None
    assert fronts[1] == Front(balancers)
    assert [each is not None and each.balancers for each in fronts[2:]] == [None, balancers]
    assert all(each is not None and each.security for each in fronts[2:])


def test_the_pages_of_a_parent_are_those_of_its_workers(reactor: Any) -> None:
    """Metrics, denials as they happen, and what is kept of those who are gone."""
    pytest.importorskip("prometheus_client")
    workers = FakeWorkers({1: {("GET", "/v1/denials"): lambda _: {"count": 0, "denials": []}}})
    whole = Whole(workers.addresses, reactor)
    whole.rounds._asking = workers  # type: ignore[assignment]  # takes its place
    generation = made(
        SAME + '[metrics]\nendpoint = "unix:/m"\n'
        '[dashboard]\nendpoint = "unix:/d"\nusers = ["alice"]\n',
        reactor,
        lasting(reactor, whole=whole),
    )
    parts: dict[str, Any] = {
        what if isinstance(what, str) else what[0]: part
        for part in generation.parts
        if (what := part.made_of)
    }
    assert parts["whole"].start == whole.start
    workers.silent = {1}
    page = outcome(parts["metrics"].start.__self__._sample())()
    assert b'\nsocksd_workers{state="silent"} 1.0\n' in page
    assert b'\nprocess_open_fds{worker="parent"} ' in page
    workers.asked.clear()
    parts["dashboard"].start.__self__._resource._subscribe(lambda name, what: None)()
    assert [path for _, _, path, _ in workers.asked] == ["/v1/denials"]
