"""Imports point one way: the picture of docs/architecture.rst, as a table."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

VOCABULARY = ("frozen", "codes", "errors", "address", "interfaces", "facts", "events")

# What a room may import besides itself and the vocabulary.
MAY_IMPORT = {
    "wire": set(),
    "policy": set(),
    "identity": set(),
    "egress": {"wire"},
    "relay": {"wire"},
    "observe": set(),
    "server": {"wire"},
    "admin": set(),
    "conformance": set(),
    "app": {
        "wire",
        "policy",
        "identity",
        "egress",
        "relay",
        "observe",
        "server",
        "admin",
        "conformance",
    },
}
WITHOUT_TWISTED = {"wire", "policy", "conformance"}


def imports(path: Path) -> set[str]:
    """Every module that *path* imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def rooms_of(modules: set[str]) -> set[str]:
    return {
        parts[1]
        for parts in (module.split(".") for module in modules)
        if parts[0] == "socksd" and len(parts) > 1
    }


def source(room: str) -> list[Path]:
    return sorted((ROOT / "socksd" / room).rglob("*.py"))


def test_every_room_is_in_the_table() -> None:
    rooms = {p.parent.name for p in (ROOT / "socksd").glob("*/__init__.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room} | set(VOCABULARY) | {"__version__"}
    for path in source(room):
        assert rooms_of(imports(path)) <= allowed, path


@pytest.mark.parametrize("room", sorted(WITHOUT_TWISTED))
def test_values_have_not_heard_of_twisted(room: str) -> None:
    for path in source(room):
        assert not any(m and m.split(".")[0] == "twisted" for m in imports(path)), path


@pytest.mark.parametrize("module", VOCABULARY)
def test_the_vocabulary_imports_only_to_its_left(module: str) -> None:
    left = set(VOCABULARY[: VOCABULARY.index(module)])
    path = ROOT / "socksd" / f"{module}.py"
    found = rooms_of(imports(path))
    if module == "interfaces":  # names its values for the type checker only
        found -= {"facts"}
    assert found <= left


def test_nothing_of_ours_shadows_twisted() -> None:
    """An __init__.py here would be installed over Twisted's own."""
    assert [p.name for p in (ROOT / "twisted").rglob("*.py")] == ["socksd_plugin.py"]


def test_no_module_imports_the_reactor_at_its_top() -> None:
    """twistd chooses the reactor after the plugin was imported."""
    for path in (ROOT / "socksd").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                assert "reactor" not in {alias.name for alias in node.names}, path


IGNORE = re.compile(r"# type: ignor[e](?!\[[a-z-]+(, [a-z-]+)*\]  # \S)")


@pytest.mark.parametrize("folder", ["socksd", "tests", "twisted", "docs", "benchmarks"])
def test_what_the_type_checker_is_to_ignore_has_a_code_and_a_reason(folder: str) -> None:
    bare = [
        f"{path}:{number}"
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if IGNORE.search(line)
    ]
    assert not bare
