"""The manual pages are there, built, as their sources say, and man finds nothing wrong."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from tests.functional.process import needs, run

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "man").iterdir())


def said(page: Path) -> list[str]:
    """Give what is not a comment; those name the version of docutils."""
    return [line for line in page.read_text().splitlines() if not line.startswith('.\\"')]


def test_they_are_current(tmp_path: Path) -> None:
    """To put it right: python -m sphinx -W -b man docs man, and remove man/.doctrees."""
    pytest.importorskip("sphinx")
    from sphinx.cmd.build import main as sphinx

    assert sphinx(["-q", "-W", "-b", "man", str(ROOT / "docs"), str(tmp_path)]) == 0
    built = sorted(page for page in tmp_path.iterdir() if page.is_file())
    assert [page.name for page in built] == [page.name for page in PAGES]
    for page, new in zip(PAGES, built, strict=True):
        assert said(page) == said(new)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_shows_them_without_a_warning(page: Path) -> None:
    environment = {"MAN_KEEP_STDERR": "1", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"}
    done = run(needs("man"), "--warnings", "--local-file", page, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout


def test_all_of_them_are_installed_where_man_looks() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    installed = {
        file: directory
        for directory, files in config["options.data_files"].items()
        for file in files.split()
    }
    assert all((ROOT / file).is_file() for file in installed)
    for page in PAGES:
        assert installed[f"man/{page.name}"] == f"share/man/man{page.suffix[1:]}"
    shells = {file for file in installed if file.startswith("etc/completion/")}
    shipped = (ROOT / "etc" / "completion").glob("*/*")
    assert shells == {str(path.relative_to(ROOT)) for path in shipped}
