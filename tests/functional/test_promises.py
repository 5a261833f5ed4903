"""
What we promise, held against a real process.

Figures are printed at the end of the run; with ``SOCKSD_PROMISES=exact`` they
bind as they stand, otherwise those in seconds are given some slack for
machines that are busy with something else.
"""

from __future__ import annotations

import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from statistics import median

import pytest

from socksd.identity.htpasswd import COST, set_password
from tests.functional.conftest import Promise, Serve
from tests.functional.dialogue import (
    GREETING,
    LOGIN_GREETING,
    SECONDS,
    Refused,
    answer,
    dial,
    login,
    request,
    reset,
    take,
    take_all,
    take_reply,
    tunnel,
)
from tests.functional.garbage import Case, Ending, cases
from tests.functional.origins import BLOCK, Flood, NameServer, Origin, echo
from tests.functional.process import wait_for
from tests.spellings import SPELLINGS

MIB = 1 << 20
LOGIN_FAILED, NOT_ALLOWED, HOST_UNREACHABLE = 1, 2, 4

Origins = Callable[..., Origin]
Names = Callable[..., NameServer]


def echoed(sock: socket.socket, octets: bytes = b"are you there?") -> bool:
    """Whether a tunnel to an echo server carries octets both ways."""
    sock.sendall(octets)
    return take(sock, len(octets)) == octets


def twins(origin: Origins, *hosts: str) -> list[Origin]:
    """Start echo servers at one port of several addresses, which has to be free at each."""
    for _ in range(50):
        first = origin(echo, hosts[0])
        with suppress(OSError):  # somebody's port, perhaps of an outgoing connection
            return [first, *(origin(echo, host, first.port) for host in hosts[1:])]
    pytest.fail("no port is free at all of the addresses")


def session(port: int, to_port: int) -> None:
    """One whole session: open, carry, close in order."""
    with tunnel(port, "127.0.0.1", to_port) as sock:
        assert echoed(sock)
        sock.shutdown(socket.SHUT_WR)
        assert take_all(sock) == b""


def seconds(call: Callable[..., object], *arguments: object) -> float:
    start = time.monotonic()
    call(*arguments)
    return time.monotonic() - start


def stalled(flood: Flood) -> None:
    """Wait until nothing of a flood has moved for half a second."""
    last, since = -1, time.monotonic()

    def probe() -> bool:
        nonlocal last, since
        if flood.sent != last:
            last, since = flood.sent, time.monotonic()
        return last > 0 and time.monotonic() - since > 0.5

    wait_for("the flood to stall", probe, 60)


@contextmanager
def held(sockets: Iterable[socket.socket]) -> Iterator[None]:
    """Keep connections open while the block lasts."""
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        yield


# -- R2: bad input -----------------------------------------------------------


def misbehave(port: int, case: Case) -> None:
    # Sources differ: one client's tuple of addresses and ports must not run out.
    source = "127.0.0.1" if case.known else "127.0.1.1"
    with dial(port, source) as sock, suppress(ConnectionError):
        for segment in case.segments:
            sock.sendall(segment)
        if case.ending is Ending.FIN:
            sock.shutdown(socket.SHUT_WR)
            take_all(sock)  # a TimeoutError here: the gateway holds on to it
        elif case.ending is Ending.RESET:
            reset(sock)


def test_r2_nothing_that_is_sent_leaves_a_trace(
    serve: Serve, origin: Origins, names: Names, promise: Promise
) -> None:
    """Twenty thousand bad clients: no unhandled error, no descriptor, no memory."""
    target = origin(echo)
    server = names({"echo.test": ["127.0.0.1"]})
    gateway = serve(
        config=f"""
[auth]
authenticators = ["memory:alice:right"]
anonymous = ["127.0.0.1/32"]
[resolver]
via = "dns:127.0.0.1:{server.port}"
[guard]
never = "nothing"
[deadlines]
bind = "1s"  # who half-closes behind early data may still wait for a peer
[[rule]]
id = "echo"
action = "allow"
to = ["127.0.0.1/32"]
ports = [{target.port}]
"""
    )
    with ThreadPoolExecutor(16) as pool:

        def send(seed: int, count: int) -> None:
            for _ in pool.map(lambda case: misbehave(gateway.port, case),
                              cases(seed, count, target.port)):  # fmt: skip
                pass

        send(1, 1000)  # what is cached at all is cached then
        base = gateway.usage()
        send(1928, 20_000)
    now = gateway.settled(base)
    promise("R2 memory after 20,000 bad clients", (now.memory - base.memory) / MIB, 8, "MiB")
    session(gateway.port, target.port)
    outcomes = {entry["outcome"] for entry in gateway.sessions(21_001)}  # a record for each
    assert {"served", "denied", "failed", "protocol-error", "login-failed"} <= outcomes
    assert "error" not in outcomes


# -- R4: nothing stays -------------------------------------------------------


def test_sessions_leave_nothing_behind(serve: Serve, origin: Origins, promise: Promise) -> None:
    """2,000 one after another, then 500 at a time."""
    target = origin(echo)
    gateway = serve()

    def together(count: int) -> None:
        sockets = [tunnel(gateway.port, "127.0.0.1", target.port) for _ in range(count)]
        with held(sockets):
            assert all(echoed(sock) for sock in sockets)

    together(500)
    base = gateway.settled(gateway.usage())
    for _ in range(2000):
        session(gateway.port, target.port)
    after = gateway.settled(base)
    promise("memory after 2,000 sessions", (after.memory - base.memory) / MIB, 8, "MiB")
    together(500)
    after = gateway.settled(base)
    promise("memory after 500 at a time", (after.memory - base.memory) / MIB, 8, "MiB")


# -- R5: silence -------------------------------------------------------------

STAGES = {
    "before the greeting": b"",
    "within the greeting": b"\x05\x03\x00",
    "before the login": LOGIN_GREETING,
    "within the login": LOGIN_GREETING + b"\x01\x05ali",
    "before the request": GREETING,
    "within the request": GREETING + b"\x05\x01\x00\x03\x09echo",
}
DEADLINE = 4.0


def test_r5_silent_clients_are_cut_and_disturb_nobody(
    serve: Serve, origin: Origins, promise: Promise
) -> None:
    """A thousand of them, at every stage of the dialogue."""
    target = origin(echo)
    gateway = serve(
        config=f"""
[auth]
authenticators = ["memory:alice:right"]
anonymous = ["127.0.0.0/8"]
[deadlines]
handshake = "{DEADLINE:g}s"
"""
    )
    base = gateway.usage()
    opened: dict[int, tuple[socket.socket, float]] = {}
    poll = select.poll()
    for number in range(1000):
        sock = dial(gateway.port)
        sock.sendall(list(STAGES.values())[number % len(STAGES)])
        opened[sock.fileno()] = sock, time.monotonic()
        poll.register(sock, select.POLLIN)
    healthy = median(seconds(session, gateway.port, target.port) for _ in range(25))
    lasted = []
    end = time.monotonic() + DEADLINE + SECONDS
    while opened and time.monotonic() < end:
        for descriptor, _ in poll.poll(1000):
            sock, since = opened[descriptor]
            try:
                left = not sock.recv(100)  # else the method selection
            except ConnectionError:
                left = True
            if left:
                lasted.append(time.monotonic() - since)
                poll.unregister(sock)
                sock.close()
                del opened[descriptor]
    assert not opened, f"{len(opened)} are still connected"
    promise("R5 a healthy client beside 1,000 silent ones", healthy, 0.1)
    promise("R5 the longest stay beyond the deadline", max(lasted) - DEADLINE, 1.0)
    gateway.settled(base)


@pytest.mark.parametrize("octets", [b"\x05\xff" + bytes(255), GREETING + b"\x05\x01\x00\x03\xff"])
def test_a_slow_loris_is_cut_at_the_deadline_of_the_whole_handshake(
    serve: Serve, octets: bytes
) -> None:
    """Each octet in time does not make the handshake be in time."""
    gateway = serve(config='[deadlines]\nhandshake = "1s"\n')
    start = time.monotonic()
    with dial(gateway.port) as sock, suppress(ConnectionError):
        sock.settimeout(0.1)
        for octet in octets + b"a" * 250:
            sock.send(bytes([octet]))
            with suppress(TimeoutError):
                if not sock.recv(100):
                    break
    assert 0.9 < time.monotonic() - start < 6
    gateway.logged("session .*outcome=timed-out")


# -- R6: back-pressure -------------------------------------------------------


def test_r6_one_stalled_reader_costs_next_to_nothing(
    serve: Serve, origin: Origins, promise: Promise
) -> None:
    flood = Flood(1 << 30)
    target = origin(flood)
    gateway = serve()
    session(gateway.port, origin(echo).port)
    base = gateway.usage()
    with tunnel(gateway.port, "127.0.0.1", target.port) as sock:
        stalled(flood)
        grown = gateway.usage().memory - base.memory
        promise("R6 memory for one stalled reader", grown / MIB, 2, "MiB")
        # What was held back is there and in order once somebody reads.
        assert all(take(sock, MIB) == BLOCK for _ in range(8))
    gateway.settled(base)


def test_r6_a_hundred_stalled_readers_are_bounded(
    serve: Serve, origin: Origins, promise: Promise
) -> None:
    flood = Flood(64 * MIB)
    target = origin(flood)
    gateway = serve()
    base = gateway.usage()
    with held([tunnel(gateway.port, "127.0.0.1", target.port) for _ in range(100)]):
        stalled(flood)
        grown = gateway.usage().memory - base.memory
    promise("R6 memory for 100 stalled readers", grown / MIB, 50, "MiB")
    gateway.settled(base)


def test_r6_a_stalled_origin_holds_its_client_back(
    serve: Serve, origin: Origins, promise: Promise
) -> None:
    """The other way round: what a client uploads to somebody who does not read."""
    released = threading.Event()
    target = origin(lambda sock: released.wait(SECONDS))
    gateway = serve()
    base = gateway.usage()
    try:
        with tunnel(gateway.port, "127.0.0.1", target.port) as sock:
            sock.settimeout(1)
            with pytest.raises(TimeoutError):
                sock.sendall(BLOCK * 64)
            grown = gateway.usage().memory - base.memory
    finally:
        released.set()
    promise("R6 memory for one stalled origin", grown / MIB, 2, "MiB")


def test_r6_early_data_waits_its_turn_within_bounds(
    serve: Serve, origin: Origins, names: Names, promise: Promise
) -> None:
    """Sent while the name is looked up: held up to a bound, then delivered in order."""
    received: list[bytes] = []
    target = origin(lambda sock: received.append(take_all(sock)))
    server = names({"slow.test": ["127.0.0.1"]})
    gateway = serve(config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n')
    base = gateway.usage()
    server.gate.clear()
    try:
        sockets = [dial(gateway.port) for _ in range(20)]
        with held(sockets):
            for sock in sockets:
                sock.sendall(GREETING + request("slow.test", target.port))
                assert take(sock, 2) == b"\x05\x00"
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    for _ in range(64):  # as much as the kernel and the gateway take
                        sock.send(BLOCK)
            time.sleep(0.5)
            grown = gateway.usage().memory - base.memory
            promise("R6 early data held for each client", grown / 20 / 1024, 256, "KiB")
    finally:
        server.gate.set()
    gateway.settled(base)
    with dial(gateway.port) as sock:
        server.gate.clear()
        early = BLOCK[:100_000]
        sock.sendall(GREETING + request("slow.test", target.port) + early)
        server.gate.set()
        assert take(sock, 2) == b"\x05\x00"
        assert take_reply(sock) == 0
        sock.sendall(b"late")
        sock.shutdown(socket.SHUT_WR)
        assert take_all(sock) == b""
    wait_for("the octets", lambda: early + b"late" in received)


# -- R8: nothing lost --------------------------------------------------------


def test_r8_the_counters_are_what_the_origins_saw(serve: Serve, origin: Origins) -> None:
    """200 tunnels of uneven sizes: to the octet, and a record for each."""
    seen = {"up": 0, "down": 0}
    lock = threading.Lock()

    def talk(sock: socket.socket) -> None:
        (down,) = struct.unpack("!Q", take(sock, 8))
        sock.sendall(BLOCK[:down])
        up = 8 + len(take_all(sock))
        with lock:
            seen["up"] += up
            seen["down"] += down

    target = origin(talk)
    gateway = serve(config="")
    random = Random(1928)

    def visit(sizes: tuple[int, int]) -> bool:
        up, down = sizes
        with tunnel(gateway.port, "127.0.0.1", target.port) as sock:
            sock.sendall(struct.pack("!Q", down) + BLOCK[:up])
            sock.shutdown(socket.SHUT_WR)
            return take_all(sock) == BLOCK[:down]

    sizes = [(random.randrange(1 << random.randrange(1, 19)),
              random.randrange(1 << random.randrange(1, 19))) for _ in range(200)]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(visit, sizes))
    sessions = gateway.sessions(200)
    assert sum(entry["up"] for entry in sessions) == seen["up"]
    assert sum(entry["down"] for entry in sessions) == seen["down"]
    assert {entry["outcome"] for entry in sessions} == {"served"}


def test_r8_the_last_octets_before_fin_arrive(serve: Serve, origin: Origins) -> None:
    """100 of 100, each way: whoever sends and closes at once has been heard."""
    heard: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        sock.sendall(BLOCK[:100_001])  # and FIN, unread octets or none

    speaker = origin(talk)
    listener = origin(lambda sock: heard.append(take_all(sock)))
    gateway = serve()
    for _ in range(100):
        with tunnel(gateway.port, "127.0.0.1", speaker.port) as sock:
            assert take_all(sock) == BLOCK[:100_001]
        with tunnel(gateway.port, "127.0.0.1", listener.port) as sock:
            sock.sendall(BLOCK[:50_001])
    wait_for("100 uploads", lambda: len(heard) == 100)
    assert set(heard) == {BLOCK[:50_001]}


def test_r8_a_half_closed_tunnel_carries_the_answer(serve: Serve, origin: Origins) -> None:
    """As ``ssh host sort < file`` needs it: FIN first, then all of the answer."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(bytes(reversed(take_all(sock))))

    target = origin(talk)
    gateway = serve()
    with tunnel(gateway.port, "127.0.0.1", target.port) as sock:
        sock.sendall(BLOCK)
        sock.shutdown(socket.SHUT_WR)
        assert take_all(sock) == BLOCK[::-1]


def test_r8_a_reset_stays_a_reset(serve: Serve, origin: Origins) -> None:
    """Both ways: a broken transfer must not look like a whole one."""
    ends: list[str] = []

    def broken(sock: socket.socket) -> None:
        take(sock, 1)
        reset(sock)

    def watching(sock: socket.socket) -> None:
        try:
            take_all(sock)
            ends.append("fin")
        except ConnectionResetError:
            ends.append("reset")

    breaker, watcher = origin(broken), origin(watching)
    gateway = serve(config="")
    with tunnel(gateway.port, "127.0.0.1", breaker.port) as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            take_all(sock)
    reset(tunnel(gateway.port, "127.0.0.1", watcher.port))
    wait_for("the watcher", lambda: ends)
    assert ends == ["reset"]
    assert {entry["outcome"] for entry in gateway.sessions(2)} == {"reset"}


# -- R10: stop ---------------------------------------------------------------


def test_r10_sigterm_ends_it_and_its_tunnels(serve: Serve, origin: Origins) -> None:
    target = origin(echo)
    gateway = serve(config="")
    with tunnel(gateway.port, "127.0.0.1", target.port) as sock:
        assert echoed(sock)
        assert gateway.stop() in (0, -15)
        with suppress(ConnectionResetError):
            assert take_all(sock) == b""
    assert [entry["outcome"] for entry in gateway.sessions(1)] == ["stopped"]
    with pytest.raises(ConnectionRefusedError):
        dial(gateway.port)


# -- R11: descriptors --------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known at the start", "lowered later"])
def test_r11_running_out_of_descriptors_harms_no_tunnel(
    serve: Serve, origin: Origins, promise: Promise, known: bool
) -> None:
    """256 descriptors, 400 clients: what works goes on working, and it all comes back."""
    target = origin(echo)
    gateway = serve(descriptors=256 if known else None)
    tunnels = [tunnel(gateway.port, "127.0.0.1", target.port) for _ in range(20)]
    with held(tunnels):
        if not known:
            resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (256, 256))
        crowd = []
        for _ in range(400):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", gateway.port))
            crowd.append(sock)
        with held(crowd):
            for _ in range(20):  # whoever is let in asks; the rest waits or was sent away
                for sock in crowd:
                    with suppress(OSError):
                        if not sock.getpeername() or sock.recv(10):
                            continue
                    with suppress(OSError):
                        sock.send(GREETING + request("127.0.0.1", target.port))
                time.sleep(0.02)
            assert all(echoed(sock) for sock in tunnels)
            before, busy = time.monotonic(), gateway.busy()
            time.sleep(2)
            share = (gateway.busy() - busy) / (time.monotonic() - before)
            assert gateway.usage().descriptors <= 256
            assert all(echoed(sock) for sock in tunnels)

        def served_again() -> bool:
            try:
                session(gateway.port, target.port)
            except (OSError, EOFError, Refused):
                return False
            return True

        relief = seconds(wait_for, "service", served_again)
        assert all(echoed(sock) for sock in tunnels)
    gateway.logged("accepting no more for now")
    promise("R11 processor share while dry", share, 0.3, "of a core")
    promise("R11 service after relief", relief, 1.0)
    assert len(gateway.log().splitlines()) < 2000


# -- R12: names --------------------------------------------------------------


def test_r12_hanging_names_hold_nobody_else_up(
    serve: Serve, origin: Origins, names: Names, promise: Promise
) -> None:
    target = origin(echo)
    server = names({f"good{number}.test": ["127.0.0.1"] for number in range(10)})
    gateway = serve(
        config=f'[resolver]\nvia = "dns:127.0.0.1:{server.port}"\n[deadlines]\nresolve = "4s"\n'
    )
    base = gateway.usage()
    waiting = [dial(gateway.port) for _ in range(60)]
    with held(waiting):
        start = time.monotonic()
        for number, sock in enumerate(waiting):
            sock.sendall(GREETING + request(f"never{number}.test", target.port))
        wait_for("the hanging lookups", lambda: len(set(server.asked)) >= 60)
        address = median(seconds(answer, gateway.port, "127.0.0.1", target.port) for _ in range(10))
        name = max(
            seconds(answer, gateway.port, f"good{number}.test", target.port) for number in range(10)
        )
        promise("R12 an address beside 60 hanging names", address, 0.1)
        promise("R12 a good name beside 60 hanging ones", name, 0.5)
        for sock in waiting:
            assert take(sock, 2) == b"\x05\x00"
            assert take_reply(sock) == HOST_UNREACHABLE
        promise("R12 the last answer beyond the deadline", time.monotonic() - start - 4, 1.0)
    gateway.settled(base)


# -- R13: passwords ----------------------------------------------------------


def test_r13_wrong_passwords_open_nothing_and_block_nobody(
    serve: Serve, origin: Origins, promise: Promise, tmp_path: Path
) -> None:
    """
    A thousand guesses from one address while somebody logs in from another.

    The hash costs an eighth of what ``socksd passwd`` writes, so that the
    guesses take seconds and not minutes.
    """
    users = tmp_path / "users"
    for user in ("alice", "bob"):
        set_password(users, user, "right", cost=COST - 3)
    target = origin(echo)
    gateway = serve("--auth", f"htpasswd:{users}")
    outcomes: list[int] = []

    def guess(number: int) -> None:
        user = "alice" if number % 2 else f"user{number}"
        try:
            tunnel(gateway.port, "127.0.0.1", target.port, (user, f"guess{number}"), "127.0.1.1")
        except Refused as refused:
            outcomes.append(refused.answer)

    def log_in(user: str) -> None:
        # Each user once, so that no login is remembered from the last time.
        sock = tunnel(gateway.port, "127.0.0.1", target.port, (user, "right"))
        with sock:
            assert echoed(sock)

    with ThreadPoolExecutor(16) as pool:
        guesses = [pool.submit(guess, number) for number in range(1000)]
        wait_for("the guessing", lambda: len(outcomes) > 100)
        beside = seconds(log_in, "alice")
        for done in guesses:
            done.result()
    assert outcomes == [LOGIN_FAILED] * 1000
    assert target.accepted == 1
    promise("R13 a healthy login during 1,000 wrong ones", beside, 0.5)
    promise("R13 a healthy login after them", seconds(log_in, "bob"), 0.1)
    gateway.logged("login failed client=127.0.1.1 ")


def test_r13_a_known_user_is_not_told_from_an_unknown_one(
    serve: Serve, promise: Promise, tmp_path: Path
) -> None:
    """
    By the time that a refusal takes: medians of 250 each, in turn.

    The hash is the cheapest there is, for what it does not hide: the more it
    costs, the less any difference beside it shows.
    """
    users = tmp_path / "users"
    set_password(users, "alice", "right", cost=4)
    gateway = serve("--auth", f"htpasswd:{users}")
    taken: dict[str, list[float]] = {"alice": [], "mallory": []}

    def guess(user: str, number: int) -> None:
        with dial(gateway.port) as sock:
            sock.sendall(LOGIN_GREETING)
            take(sock, 2)
            octets = login(user, f"guess{number}")
            begun = time.perf_counter()
            sock.sendall(octets)
            assert take(sock, 2) == bytes([1, LOGIN_FAILED])
            taken[user].append(time.perf_counter() - begun)

    for number in range(250):
        for user in taken:
            guess(user, number)
    known, unknown = map(median, taken.values())
    promise("R13 between a known and an unknown user", abs(known - unknown), 400e-6)


# -- R14: spellings ----------------------------------------------------------


def test_r14_no_spelling_reaches_a_denied_address(
    serve: Serve, origin: Origins, names: Names
) -> None:
    """The same rule allows 127.0.0.1, so it is the address that is denied and no more."""
    forbidden, _ = twins(origin, "127.0.0.2", "127.0.0.1")
    server = names(
        {
            "innocent.test": ["127.0.0.2"],
            "mapped.test": ["::ffff:127.0.0.2"],
            "mixed.test": ["127.0.0.2", "::ffff:127.0.0.2", "127.0.0.1"],
        }
    )
    gateway = serve(
        config=f"""
[resolver]
via = "dns:127.0.0.1:{server.port}"
[guard]
never = "nothing"
[[rule]]
id = "forbidden"
action = "deny"
to = ["127.0.0.2/32"]
[[rule]]
id = "rest"
action = "allow"
"""
    )
    assert answer(gateway.port, "127.0.0.1", forbidden.port) == 0
    hosts: list[str | bytes] = ["127.0.0.2", "::ffff:127.0.0.2"]  # as ATYP 1 and 4
    hosts += [spelling.encode() for spelling in SPELLINGS["127.0.0.2"]]
    assert len(hosts) >= 80
    for host in hosts:
        assert answer(gateway.port, host, forbidden.port) in (NOT_ALLOWED, HOST_UNREACHABLE), host
    for name in (b"innocent.test", b"mapped.test"):
        assert answer(gateway.port, name, forbidden.port) == NOT_ALLOWED
    assert answer(gateway.port, b"mixed.test", forbidden.port) == 0  # by 127.0.0.1
    assert forbidden.accepted == 0


def test_a_name_that_is_bound_anew_never_gets_a_connection(
    serve: Serve, origin: Origins, names: Names
) -> None:
    """DNS rebinding: a permitted address first, then this host's own, with no TTL at all."""
    inside, _ = twins(origin, "127.0.0.2", "127.0.0.3")
    zone = {"attacker.test": ["127.0.0.3"]}
    server = names(zone, ttl=0)
    gateway = serve(
        config=f"""
[resolver]
via = "dns:127.0.0.1:{server.port}"
[sets]
outside = ["127.0.0.3"]
[guard]
never = "nothing"
[[rule]]
id = "outside"
action = "allow"
to = ".test"
resolves_to = "@outside"
"""
    )
    assert answer(gateway.port, b"attacker.test", inside.port) == 0
    zone["attacker.test"] = ["127.0.0.2"]

    def bound_anew() -> bool:
        rep = answer(gateway.port, b"attacker.test", inside.port)
        assert rep in (0, NOT_ALLOWED)  # 0 while the gateway goes by the first address
        return rep == NOT_ALLOWED

    wait_for("the second address", bound_anew)
    zone["attacker.test"] = ["127.0.0.2", "127.0.0.3"]
    wait_for("both", lambda: answer(gateway.port, b"attacker.test", inside.port) == 0)
    assert inside.accepted == 0
