"""Somebody who has the dashboard open, without a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from threading import Event, Thread
from typing import Final

# What the page asks for, and each how many seconds.
PACE: Final = {
    "/v1/status": 2.0,
    "/v1/sessions?limit=100": 2.0,
    "/v1/talkers": 5.0,
    "/v1/rules": 5.0,
    "/v1/traffic": 10.0,
}
_WAITS = 10.0  # seconds for an answer


@contextmanager
def looking(host: str, port: int, user: str, password: str) -> Iterator[None]:
    """
    Log in, listen to the events, and ask at the page's pace until the end.

    Raises:
        OSError: There is no dashboard.
        PermissionError: It lets nobody in by this name and password.
    """
    page, events = (HTTPConnection(host, port, timeout=_WAITS) for _ in range(2))
    closed = Event()
    asking = Thread(target=_asks, args=(page, closed, _logged_in(page, user, password), events))
    asking.start()
    try:
        yield
    finally:
        closed.set()
        asking.join()
        page.close()
        events.close()


def _logged_in(page: HTTPConnection, user: str, password: str) -> str:
    """Give the cookie of who has logged in."""
    body = json.dumps({"user": user, "password": password})
    page.request("POST", "/v1/login", body, {"Content-Type": "application/json"})
    answer = page.getresponse()
    answer.read()
    cookie = answer.headers.get("Set-Cookie")
    if cookie is None:
        raise PermissionError(f"the dashboard has answered {answer.status} to the login")
    return cookie.partition(";")[0]


def _asks(page: HTTPConnection, closed: Event, cookie: str, events: HTTPConnection) -> None:
    headers = {"Cookie": cookie}
    due = dict.fromkeys(PACE, time.monotonic())
    with suppress(OSError, HTTPException):  # the server has ended: so has this
        events.request("GET", "/v1/events", headers=headers)  # read by nobody; they are few
        while True:
            path = min(due, key=due.__getitem__)
            if closed.wait(max(0.0, due[path] - time.monotonic())):
                return
            page.request("GET", path, headers=headers)
            page.getresponse().read()
            due[path] += PACE[path]
