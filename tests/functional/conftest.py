"""Gateways, origins and name servers that end with the test."""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.functional.origins import HTTPOrigin, NameServer, Origin, serving
from tests.functional.process import Gateway

# A promise is held to ten times its figure, for a machine that is busy with
# something else; SOCKSD_PROMISES=exact holds it to the figure itself.
SLACK = 1.0 if os.environ.get("SOCKSD_PROMISES") == "exact" else 10.0
FIGURES = pytest.StashKey[list[str]]()


class Serve(Protocol):
    def __call__(
        self, *options: str, config: str | None = None, descriptors: int | None = None
    ) -> Gateway: ...


class Promise(Protocol):
    def __call__(self, what: str, measured: float, at_most: float, unit: str = "s") -> None: ...


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # 1,000 clients and their origins


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture
def promise(pytestconfig: pytest.Config) -> Promise:
    """Show a figure beside the one we promise, and hold it to that (see SLACK)."""

    def hold(what: str, measured: float, at_most: float, unit: str = "s") -> None:
        line = f"{what}: {measured:.3g} {unit} (promised: {at_most:g})"
        pytestconfig.stash[FIGURES].append(line)
        assert measured <= at_most * (SLACK if unit == "s" else 1.0), line

    return hold


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start gateways; when the test is over none of them may have logged a bug of ours."""
    gateways: list[Gateway] = []

    def start(*options: str, config: str | None = None, descriptors: int | None = None) -> Gateway:
        directory = tmp_path / f"gateway{len(gateways)}"
        directory.mkdir()
        gateway = Gateway(directory, *options, config=config, descriptors=descriptors)
        gateways.append(gateway)
        return gateway

    yield start
    for gateway in gateways:
        gateway.stop()
    for gateway in gateways:
        log = gateway.log()
        if bug := re.search("Traceback|Unhandled|outcome=error", log):
            pytest.fail(f"the log has {bug[0]}:\n{log[max(0, bug.start() - 2000) :][:5000]}")


@pytest.fixture
def during() -> Iterator[ExitStack]:
    """What is entered here ends with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def origin(during: ExitStack) -> Callable[..., Origin]:
    """Start origins that are one function of a socket."""

    def start(
        talk: Callable[[socket.socket], None], host: str = "127.0.0.1", port: int = 0
    ) -> Origin:
        server = Origin(talk, host, port)
        during.enter_context(serving(server))
        return server

    return start


@pytest.fixture
def http(during: ExitStack, tmp_path: Path) -> HTTPOrigin:
    """An HTTP server for the files of the test's directory."""
    server = HTTPOrigin(tmp_path)
    during.enter_context(serving(server))
    return server


@pytest.fixture
def http6(during: ExitStack, tmp_path: Path) -> HTTPOrigin:
    server = HTTPOrigin(tmp_path, "::1")
    during.enter_context(serving(server))
    return server


@pytest.fixture
def names(during: ExitStack) -> Callable[..., NameServer]:
    """Start name servers that know a zone."""

    def start(zone: Mapping[str, Sequence[str]], ttl: int = 60) -> NameServer:
        server = NameServer(zone, ttl)
        during.enter_context(serving(server))
        return server

    return start
