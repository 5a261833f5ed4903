"""Kerberos logins, with a KDC, through a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.functional.conftest import Serve
from tests.functional.origins import PAGE, HTTPOrigin
from tests.functional.process import Gateway, needs, run
from tests.kerberos import REALM, Realm


@pytest.fixture
def kerberised(
    serve: Serve, realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Gateway]:
    pytest.importorskip("gssapi")
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)

    def start(config: str = "") -> Gateway:
        return serve(
            config=f'[guard]\nnever = "nothing"\n[gssapi]\nkeytab = "{realm.keytabs["rcmd"]}"\n'
            f'realms = ["{REALM}"]\n{config}'
        )

    return start


def curl(gateway: Gateway, *arguments: str | Path, **environment: str) -> CompletedProcess[str]:
    return run(
        needs("curl"), "--silent", "--show-error", "--max-time", "20", "-v",
        "--socks5-gssapi", "--proxy", f"socks5h://localhost:{gateway.port}",
        *arguments, LD_PRELOAD="/tmp/shim/wait.so", **environment,
    )  # fmt: skip


def test_curl(kerberised, realm, http) -> None:
    gateway = kerberised('protection = ["none"]\n')
    fetched = curl(gateway, f"http://127.0.0.1:{http.port}/", **realm.ticket("alice"))
    print(fetched.stderr, gateway.log())
    assert fetched.stdout.encode() == PAGE
    gateway.logged("session .*user=alice.*outcome=served")
