"""The dashboard, as a person uses it: clicks and keys in a real browser."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from socksd.identity.htpasswd import set_password
from tests.functional.chromium import Chromium, chromium
from tests.functional.conftest import Serve
from tests.functional.dialogue import answer, take_all, tunnel
from tests.functional.origins import Origin, echo
from tests.functional.process import Gateway

NOT_ALLOWED = 2
# Where to leave a picture of it, for the README.
PICTURE = os.environ.get("SOCKSD_PICTURE")

RULES = """
[[rule]]
id = "no-mail"
action = "deny"
ports = [25]
text = "Mail goes through <b>mail.example.com</b>."
[[rule]]
id = "staff"
action = "allow"
[guard]
never = "nothing"
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def dashboard(directory: Path, port: int, user: str = "alice") -> str:
    users = directory / "users"
    for name in ("alice", "bob"):
        set_password(users, name, f"{name}'s", cost=4)
    return (
        f'[auth]\nauthenticators = ["htpasswd:{users}"]\nanonymous = ["127.0.0.0/8"]\n'
        f'[dashboard]\nendpoint = "tcp:{port}:interface=127.0.0.1"\nusers = ["{user}"]\n'
    )


@contextmanager
def looking(
    serve: Serve, directory: Path, port: int | None = None
) -> Iterator[tuple[Gateway, Chromium]]:
    port = port or free_port()
    gateway = serve(config=dashboard(directory, port) + RULES)
    with chromium(directory / "profile", "") as browser:
        browser.show(f"http://127.0.0.1:{port}/")
        yield gateway, browser


def log_in(browser: Chromium, user: str) -> None:
    """With the keyboard alone: the first field has the focus."""
    browser.wait_for("document.activeElement.name === 'user'")
    browser.type(user)
    browser.press("Tab")
    browser.type(f"{user}'s")
    browser.press("Enter")


def test_who_may_not_look_sees_nothing(serve: Serve, tmp_path: Path) -> None:
    with looking(serve, tmp_path) as (_, browser):
        log_in(browser, "bob")
        said = browser.wait_for("document.querySelector('#login .said').textContent")
        assert said == "bob may not see this: [dashboard] names who may"
        assert browser.evaluate("document.querySelector('main').hidden")
        status = browser.evaluate("fetch('/v1/status').then(answer => answer.status)")
        assert status == 401


def test_sessions_are_seen_and_ended_and_denials_come_by_themselves(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    target = origin(echo)
    with (
        looking(serve, tmp_path) as (gateway, browser),
        tunnel(gateway.port, "localhost", target.port) as sock,
    ):
        sock.sendall(b"x" * 2048)
        log_in(browser, "alice")
        browser.wait_for("getComputedStyle(document.querySelector('#login')).display === 'none'")
        live = browser.wait_for("document.querySelector('#live tbody tr')?.innerText")
        assert f"localhost:{target.port}" in live
        for table, text in (("live", "2.0 KiB"), ("talkers", "localhost")):
            row = f"document.querySelector('#{table} tbody tr')"
            browser.wait_for(f"{row}?.innerText.includes('{text}')")
        assert browser.evaluate("document.querySelector('#user').textContent") == "alice"

        # A denial arrives without anybody asking, and its text is text.
        browser.wait_for("events.readyState === EventSource.OPEN")
        assert answer(gateway.port, "127.0.0.1", 25) == NOT_ALLOWED
        denied = browser.wait_for("document.querySelector('#denials tbody tr')?.innerText")
        assert "127.0.0.1:25" in denied
        assert "no-mail" in denied
        assert "<b>mail.example.com</b>" in denied
        assert not browser.evaluate("document.querySelector('#denials b')")

        # The question whether to end it can be declined; Enter on "End it" ends it.
        browser.evaluate("document.querySelector('#live button').focus()")
        browser.press("Enter")
        browser.wait_for("document.querySelector('#sure').open")
        browser.press("Escape")
        browser.wait_for("!document.querySelector('#sure').open")
        browser.evaluate("document.querySelector('#live button').click()")
        browser.evaluate("document.querySelector('#sure [value=end]').focus()")
        browser.press("Enter")
        with suppress(ConnectionResetError):
            assert take_all(sock) == b"x" * 2048
        browser.wait_for("document.querySelectorAll('#live tbody tr').length === 0")
        browser.wait_for(
            "[...document.querySelectorAll('#rules tbody tr')].some("
            "row => row.cells[0].innerText === 'staff' && row.cells[2].innerText === '1')"
        )
    (closed,) = [each for each in gateway.sessions(2) if each["outcome"] == "stopped"]
    assert closed["reason"] == "ended by hand"


def test_a_question_is_explained_and_a_reload_is_noticed(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with looking(serve, tmp_path, port) as (gateway, browser):
        log_in(browser, "alice")
        browser.wait_for("!document.querySelector('main').hidden")
        browser.evaluate(
            "(() => { const form = document.querySelector('#explain');"
            " form.elements.from.value = '192.0.2.7'; form.elements.to.value = 'a.example:25';"
            " form.requestSubmit(); })()"
        )
        said = browser.wait_for("document.querySelector('#explained').innerText")
        assert said.startswith("deny by no-mail")
        # Whoever is taken off the list is out at once.
        gateway.configure(dashboard(tmp_path, port, "carol") + RULES)
        gateway.process.send_signal(signal.SIGHUP)
        browser.wait_for("!document.querySelector('#login').hidden")
        assert browser.evaluate("document.querySelector('main').hidden")


def test_the_page_asks_for_nothing_from_elsewhere_and_has_a_dark_side(
    serve: Serve, origin: Callable[..., Origin], tmp_path: Path
) -> None:
    target = origin(echo)
    with (
        looking(serve, tmp_path) as (gateway, browser),
        tunnel(gateway.port, "localhost", target.port),
    ):
        log_in(browser, "alice")
        browser.wait_for("!!document.querySelector('#live tbody tr')")
        hosts = browser.evaluate(
            "[...new Set(performance.getEntriesByType('resource')"
            ".map(each => new URL(each.name).host))]"
        )
        assert hosts == [browser.evaluate("location.host")]
        canvas = "getComputedStyle(document.querySelector('th')).backgroundColor"
        light = browser.evaluate(canvas)
        browser.look_dark()
        assert browser.evaluate(canvas) != light
        named = browser.evaluate(
            "[...document.querySelectorAll('input, select, button')].every("
            "each => each.labels?.length || each.getAttribute('aria-label') || each.innerText)"
        )
        assert named, "every control has a name to be read out"
        if PICTURE:
            Path(PICTURE).write_bytes(browser.picture(1200, 900))
