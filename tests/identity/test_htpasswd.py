"""The file: bcrypt or nothing, all that is wrong at once, replaced in one step."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import bcrypt
import pytest

from socksd.errors import ConfigError
from socksd.identity import htpasswd
from socksd.identity.htpasswd import cost_of, parse, set_password
from tests.identity.fakes import SECRET, hashed

HASH = hashed()
# As `htpasswd -nbB` of Apache 2.4 wrote it, for the password "correct horse".
APACHE = b"$2y$05$wg2z95UbbWr0DAnS2.6eNOphFXTpMaxLRvTCLspgIKNkx97lRU8s."


def problems(content: bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(content, "users")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("prefix", [b"$2y$", b"$2b$", b"$2a$"])
def test_users_are_read_in_order_whatever_bcrypt_is_called(prefix: bytes) -> None:
    one, other = hashed(prefix=prefix), hashed(cost=5)
    content = b"# staff\n\nzoe:%b\n  # guests\r\n\xff\xe9:%b\r\n   \n" % (one, other)
    users = parse(content, "users")
    assert list(users.items()) == [(b"zoe", one), (b"\xff\xe9", other)]
    assert [cost_of(value) for value in users.values()] == [4, 5]


def test_what_htpasswd_writes_is_taken() -> None:
    assert parse(b"alice:" + APACHE, "users") == {b"alice": APACHE}
    assert bcrypt.checkpw(SECRET, APACHE)


def test_a_file_may_be_empty_or_lack_its_last_newline() -> None:
    assert parse(b"", "users") == {}
    assert parse(b"a:" + HASH, "users") == {b"a": HASH}


@pytest.mark.parametrize(
    ("value", "format_name"),
    [
        pytest.param(b"$apr1$zQ8eWq5b$k0Xzm8gFy7Yt3s8lX0m4B.", "an MD5 hash, not", id="apr1"),
        pytest.param(b"$1$zQ8eWq5b$k0Xzm8gFy7Yt3s8lX0m4B.", "an MD5 hash, not", id="md5-crypt"),
        pytest.param(b"{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "an unsalted SHA-1 hash", id="sha1"),
        pytest.param(b"$5$salt$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY", "a SHA-crypt hash", id="sha256"),
        pytest.param(b"$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdid", "a SHA-crypt hash", id="sha512"),
        pytest.param(b"rqXexS6ZhobKA", "a DES crypt hash", id="crypt"),
        pytest.param(HASH[:-1], "a damaged bcrypt hash", id="cut off"),
        pytest.param(HASH + b" ", "a damaged bcrypt hash", id="blank behind it"),
        pytest.param(HASH[:28] + b"/" + HASH[29:], "a damaged bcrypt hash", id="impossible salt"),
        pytest.param(b"$2x$" + HASH[4:], "a damaged bcrypt hash", id="2x, of the broken crypt"),
        pytest.param(HASH + b":x", "a damaged bcrypt hash", id="third field"),
        pytest.param(b"correct horse", "no bcrypt hash", id="plain"),
        pytest.param(b"", "no bcrypt hash", id="nothing"),
        pytest.param(b"$2y$03$" + HASH[7:], "a bcrypt hash of cost 3, not 4 to 15", id="cheap"),
        pytest.param(b"$2y$16$" + HASH[7:], "a bcrypt hash of cost 16, not 4 to 15", id="dear"),
    ],
)
def test_what_is_not_bcrypt_is_refused_with_what_to_do(value: bytes, format_name: str) -> None:
    [problem] = problems(b"# first\nalice:" + value)
    assert problem.startswith(f"users:2: user 'alice' has {format_name}")
    assert problem.endswith(
        "; set it anew with `socksd passwd users alice` or `htpasswd -B users alice`"
    )
    assert not value or value.decode() not in problem, "it may be a plain password"


def test_commands_to_copy_are_quoted() -> None:
    with pytest.raises(ConfigError, match=r"`socksd passwd '/etc/my users' 'al ice'`"):
        parse(b"al ice:x", "/etc/my users")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"hunter2", "a line is user:hash, and this has no colon", id="no colon"),
        pytest.param(b":" + HASH, "the user name is empty", id="no name"),
        pytest.param(b"a\x07b:" + HASH, r"user name 'a\x07b' has a colon or a", id="control"),
        pytest.param(b" alice:" + HASH, "user name ' alice' begins or ends", id="blank"),
        pytest.param(b"a" * 256 + b":" + HASH, "a user name of 256 octets; 255", id="too long"),
        pytest.param(b"\xff:", r"user '\\xff' has no bcrypt hash", id="not UTF-8"),
    ],
)
def test_malformed_lines_are_refused(line: bytes, message: str) -> None:
    [problem] = problems(line)
    assert problem.startswith(f"users:1: {message}")
    assert "hunter2" not in problem


def test_the_longest_name_that_can_log_in_is_taken() -> None:
    assert list(parse(b"a" * 255 + b":" + HASH, "users")) == [b"a" * 255]


def test_everything_wrong_is_told_at_once() -> None:
    content = b"a:%b\nb:plain\na:%b\nnothing\nb:%b\n" % (HASH, HASH, HASH)
    assert [problem.split(";")[0] for problem in problems(content)] == [
        "users:2: user 'b' has no bcrypt hash",
        "users:3: user 'a' is on line 1 already",
        "users:4: a line is user:hash, and this has no colon",
        "users:5: user 'b' is on line 2 already",
    ]


# -- set_password -------------------------------------------------------------


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "users"
    set_password(path, "alice", SECRET.decode())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [(name, value)] = parse(path.read_bytes(), "users").items()
    assert name == b"alice"
    assert value.startswith(b"$2y$10$")
    assert bcrypt.checkpw(SECRET, value)
    assert os.listdir(tmp_path) == ["users"]


def test_the_other_lines_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"# staff\nbob:plain\n\nalice:$apr1$x$y\n#alice:old\nalicex:z\nalice:again")
    path.chmod(0o640)
    set_password(path, "alice", "new", cost=4)
    lines = path.read_bytes().split(b"\n")
    assert lines[:3] == [b"# staff", b"bob:plain", b""]
    assert lines[3].startswith(b"alice:$2y$04$")
    assert lines[4:] == [b"#alice:old", b"alicex:z", b""]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_user_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"# no newline at its end")
    set_password(path, "J\u00f6rg\udcff", "p\u00e4ss", cost=4)
    comment, entry, end = path.read_bytes().split(b"\n")
    assert (comment, end) == (b"# no newline at its end", b"")
    name, value = entry.split(b":")
    assert name == b"J\xc3\xb6rg\xff"
    assert bcrypt.checkpw(b"p\xc3\xa4ss", value)


def test_the_file_is_replaced_and_a_link_to_it_stays(tmp_path: Path) -> None:
    """A server reads either the old version or the new one, whole."""
    path, link = tmp_path / "real" / "users", tmp_path / "users"
    path.parent.mkdir()
    path.write_bytes(b"a:x\n")
    link.symlink_to(path)
    with path.open("rb") as old:
        set_password(link, "alice", "new", cost=4)
        assert old.read() == b"a:x\n"
    assert link.is_symlink()
    assert path.read_bytes().startswith(b"a:x\nalice:")


def test_two_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for the lock sees what was written meanwhile."""
    path = tmp_path / "users"
    monkeypatch.setattr(fcntl, "flock", lambda *_: path.write_bytes(b"bob:x\n"))
    set_password(path, "alice", "new", cost=4)
    assert path.read_bytes().startswith(b"bob:x\nalice:")


def test_the_owner_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"")
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: owners.append((uid, gid)))
    set_password(path, "alice", "new", cost=4)
    assert owners == [(path.stat().st_uid, path.stat().st_gid)]


def test_an_owner_that_cannot_be_kept_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "users"
    path.write_bytes(b"")
    monkeypatch.setattr(os, "fchown", refuse)
    set_password(path, "alice", "new", cost=4)
    assert path.read_bytes().startswith(b"alice:")


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "users"
    path.write_bytes(b"a:x\n")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        set_password(path, "alice", "new", cost=4)
    assert os.listdir(tmp_path) == ["users"]
    assert path.read_bytes() == b"a:x\n"


def test_no_directory_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        set_password(tmp_path / "none" / "users", "alice", "new", cost=4)


@pytest.mark.parametrize(
    ("user", "password", "message"),
    [
        pytest.param("", "x", "the user name is empty", id="no name"),
        pytest.param("a:b", "x", "user name 'a:b' has a colon", id="colon"),
        pytest.param("a\nb", "x", "has a colon or a control character", id="newline"),
        pytest.param("a\x7f", "x", "has a colon or a control character", id="delete"),
        pytest.param("#a", "x", "begins with #", id="comment"),
        pytest.param("a ", "x", "begins or ends with a blank", id="blank"),
        pytest.param("a" * 256, "x", "a user name of 256 octets", id="long name"),
        pytest.param("a", "", "the password is empty", id="no password"),
        pytest.param("a", "\u00e4" * 37, "a password of 74 octets; bcrypt takes 72", id="long"),
        pytest.param("a", "hunter\0two", "the password has a NUL in it", id="NUL"),
    ],
)
def test_what_could_never_log_in_is_not_written(
    tmp_path: Path, user: str, password: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        set_password(tmp_path / "users", user, password)
    assert "hunter" not in str(caught.value)
    assert not (tmp_path / "users").exists()


def test_seventy_two_octets_are_taken(tmp_path: Path) -> None:
    set_password(tmp_path / "users", "a", "x" * htpasswd.LONGEST_PASSWORD, cost=4)
    [value] = parse((tmp_path / "users").read_bytes(), "users").values()
    assert bcrypt.checkpw(b"x" * 72, value)
