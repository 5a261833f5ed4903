"""Tests stand where what they test stands: socksd/wire/socks5.py, tests/wire/test_socks5.py."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Modules without a file of their own, and what has their tests instead.
ELSEWHERE = {
    "interfaces.py": "tests",  # the seams: verifyObject() at whatever has one
    "events.py": "tests/observe/test_lines.py",  # values, by what is said of them
    "admin/routes.py": "tests/admin/test_control.py",  # types, and errors by their statuses
    "app/making/lasting.py": "tests/app/test_build.py",  # what build() asks of its makers,
    "app/making/logins.py": "tests/app/test_build.py",  # by what it makes of a configuration
    "app/making/logs.py": "tests/app/test_build.py",
    "app/making/pages.py": "tests/app/test_build.py",
    "app/making/relays.py": "tests/app/test_build.py",
    "app/making/ways.py": "tests/app/test_build.py",
    "server/dialogue.py": "tests/server/test_spoken.py",  # a seam
    "server/runtime.py": "tests/server/world.py",  # a bundle, which every session is given
    "server/connect.py": "tests/server/test_session.py",  # sessions of one kind,
    "server/socks5.py": "tests/server/test_session.py",  # by what client and target hear
} | {
    # Cases of one kit, each by a server that does it right and by those that do not.
    f"conformance/{name}.py": "tests/conformance/test_kit.py"
    for name in (
        *("bind", "case", "endurance", "framing", "login", "negotiation", "relaying"),
        *("replies", "requests", "udp"),
    )
}


def modules() -> list[str]:
    package = ROOT / "socksd"
    found = (each.relative_to(package) for each in package.rglob("*.py"))
    return sorted(str(each) for each in found if not each.name.startswith("__"))


def mirrored(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}"


@pytest.mark.parametrize("module", [each for each in modules() if each not in ELSEWHERE])
def test_a_module_has_its_tests_where_one_looks_for_them(module: str) -> None:
    assert mirrored(module).exists()


@pytest.mark.parametrize("module", ELSEWHERE)
def test_an_exception_is_one(module: str) -> None:
    assert module in modules()
    assert not mirrored(module).exists()
    assert (ROOT / ELSEWHERE[module]).exists()
