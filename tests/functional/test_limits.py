"""Limits and routes that rules name, as clients and origins see them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.functional.conftest import Serve
from tests.functional.origins import HTTPOrigin, Origin
from tests.functional.process import needs, run

RULES = """
[guard]
never = "nothing"
private = "open"
[limit.slow]
bandwidth = "400KB/s"
[route.second]
source = ["127.0.0.9"]
[[rule]]
id = "slow"
action = "allow"
require = "hostname"
limits = "slow"
[[rule]]
id = "second"
action = "allow"
to = "127.0.0.0/8"
route = "second"
"""
SIZE = 250_000


def test_all_downloads_of_a_client_together_have_the_bandwidth(
    serve: Serve, http: HTTPOrigin
) -> None:
    """Both are whole, and take as long as the two of them have to."""
    curl = needs("curl")
    gateway = serve(config=RULES)

    def fetch(_: object) -> int:
        url = f"http://localhost:{http.server_port}/octets/{SIZE}"
        proxy = f"socks5h://127.0.0.1:{gateway.port}"
        size = ("-o", "/dev/null", "-w", "%{size_download}")
        got = run(curl, "-sS", "--fail", *size, "-x", proxy, url)
        assert got.returncode == 0, got.stderr
        return int(got.stdout)

    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(fetch, range(2)))
    seconds = time.monotonic() - began
    assert sizes == [SIZE] * 2
    assert seconds > (2 * SIZE - 100_000) / 400_000  # a quarter of a second's worth comes at once


def test_a_destination_sees_the_source_of_the_route(
    serve: Serve, origin: Callable[..., Origin]
) -> None:
    seen: list[Any] = []
    there = origin(lambda sock: seen.append(sock.getpeername()[0]))
    gateway = serve(config=RULES)
    curl = needs("curl")
    run(curl, "-sS", "-x", f"socks5://127.0.0.1:{gateway.port}", f"http://127.0.0.1:{there.port}/")
    assert seen == ["127.0.0.9"]
