"""
What trial does and pytest-twisted does not: a test that leaves something in
the reactor, or an error in the log, fails; and one that hangs is stopped.

pytest-timeout cannot break pytest_twisted's greenlet switch, so the time-out
is a Deferred's (two private names of pytest-twisted 1.14, hence its pin).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet import defer, reactor, task
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.kerberos import Realm, realm_in

TIMEOUT = 10.0

settings.register_profile("socksd", deadline=None)
settings.load_profile("socksd")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "reactor_timeout(seconds): fail the test after that long instead of 10 s"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if getattr(function, "hypothesis", None) is not None:
        # Not through pytest_twisted, which would wrap the inner test once for
        # each parametrised case, and hop to the reactor for every example.
        names = pyfuncitem._fixtureinfo.argnames
        function(**{name: pyfuncitem.funcargs[name] for name in names})
        return True
    marker = pyfuncitem.get_closest_marker("reactor_timeout")
    seconds = marker.args[0] if marker else TIMEOUT

    def call(**arguments: Any) -> defer.Deferred[Any]:
        return defer.maybeDeferred(function, **arguments).addTimeout(seconds, reactor)

    pytest_twisted._run_inline_callbacks(
        pytest_twisted._async_pytest_pyfunc_call, pyfuncitem, call, {}
    )
    return True


def _selectables() -> set[Any]:
    internal = getattr(reactor, "_internalReaders", set())
    return {s for s in (*reactor.getReaders(), *reactor.getWriters()) if s not in internal}


@pytest.fixture
def logged_errors() -> list[dict[str, Any]]:
    """Give the errors logged during the test; one that expects some clears the list."""
    return []


@pytest.fixture(autouse=True)
def _clean_reactor(logged_errors: list[dict[str, Any]]) -> Iterator[None]:
    def observe(event: dict[str, Any]) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            logged_errors.append(event)

    globalLogPublisher.addObserver(observe)
    selectables, calls = _selectables(), set(reactor.getDelayedCalls())
    yield
    for _ in range(2):  # let connectionLost() be delivered
        pytest_twisted.blockon(task.deferLater(reactor, 0, lambda: None))
    gc.collect(0)  # unhandled errors of Deferreds are logged by a finaliser
    globalLogPublisher.removeObserver(observe)
    left_calls = set(reactor.getDelayedCalls()) - calls
    left = _selectables() - selectables
    for call in left_calls:
        call.cancel()
    for selectable in left:
        reactor.removeReader(selectable)
        reactor.removeWriter(selectable)
        selectable.connectionLost(Failure(defer.CancelledError()))
    bad = [f"logged error: {e.get('log_failure') or e}" for e in logged_errors]
    bad += [f"left on the reactor: {x}" for x in (*left_calls, *left)]
    if bad:
        pytest.fail("\n".join(bad), pytrace=False)


@pytest.fixture(scope="session")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """A Kerberos realm; its KDC takes a tenth of a second to start."""
    with realm_in(tmp_path_factory.mktemp("realm")) as realm:
        yield realm
