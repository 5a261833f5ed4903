"""The recipes of packages say what the tree says; .ci/deb builds one and tries it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import socksd
from socksd.app.tap import configured
from tests.functional.process import needs, run

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RULES = (ROOT / "debian" / "rules").read_text()


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions, without comments and continued lines as one."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, rest in lines]


def test_the_debian_package_is_of_this_version() -> None:
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    assert re.match(r"socksd \((.*?)\) ", first)[1] == socksd.__version__  # type: ignore[index]  # it is there


def test_the_debian_package_has_the_units_and_the_samples() -> None:
    found = {path for words in re.findall(r"(?<= )etc/\S+", RULES) for path in ROOT.glob(words)}
    shipped = {path for path in (ROOT / "etc").rglob("*") if path.is_file()}
    elsewhere = {ROOT / "etc" / "docker.toml"}  # of the image; and what the wheel has already
    assert shipped - found == elsewhere | set((ROOT / "etc" / "completion").glob("*/*"))


@pytest.mark.parametrize("script", ["socksd.postinst", "socksd.prerm", "socksd.postrm"])
def test_what_the_debian_package_runs_has_no_faults_that_can_be_found(script: str) -> None:
    done = run(needs("shellcheck"), ROOT / "debian" / script)
    assert done.returncode == 0, done.stdout


def test_the_image_is_nobodys_and_says_how_it_is() -> None:
    said = dict(instructions()[::-1])  # the first of each, of those of which there is one
    last = [name for name, _ in instructions()]
    assert last.count("FROM") == 2, "what builds it is not in it"
    assert said["USER"] == "10800:10800"
    assert last.index("USER") > max(n for n, name in enumerate(last) if name == "RUN")
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["HEALTHCHECK"].endswith('CMD ["socksd", "status"]')
    assert said["ENTRYPOINT"] == '["socksd", "run"]'


def test_the_image_primes_the_plugin_cache_before_it_is_read_only() -> None:
    build = next(rest for name, rest in instructions() if name == "RUN")
    assert build.endswith("&& /opt/socksd/bin/twistd --help >/dev/null")


def test_the_image_is_given_all_that_the_wheel_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    given = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    assert {"setup.cfg", "pyproject.toml", "README.rst", "LICENSE", "socksd", "twisted"} <= given
    data = re.findall(r"^share/\S+ = (\w+)/", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert set(data) <= given
    assert all((ROOT / name).exists() for name in given)


def test_the_configuration_of_the_image_is_good_and_its_own_status_answers() -> None:
    config = configured(str(ROOT / "etc" / "docker.toml"))
    assert config.control.socket == "/run/socksd/control.sock"  # where the health check asks
    assert [each.endpoint for each in config.listener] == ["tcp:1080:interface=0.0.0.0"]
    copied = [rest for name, rest in instructions() if name == "COPY"]
    assert "etc/docker.toml /etc/socksd/socksd.toml" in copied
