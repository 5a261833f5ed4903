"""A configuration without its secrets."""

import json

import pytest

from socksd.app.shown import HIDDEN, shown


@pytest.mark.parametrize(
    ("authenticator", "becomes"),
    [
        ("htpasswd:/etc/socksd/users", "htpasswd:/etc/socksd/users"),
        ("memory:alice:secret", f"memory:{HIDDEN}"),
        ("mine:key=secret", f"mine:{HIDDEN}"),
        ("anonymous", "anonymous"),
    ],
)
def test_what_an_authenticator_is_given_may_be_a_secret(authenticator: str, becomes: str) -> None:
    tables = shown(f'[auth]\nauthenticators = ["{authenticator}"]\ncache = "1m"\n')
    assert tables == {"auth": {"authenticators": [becomes], "cache": "1m"}}
    assert "secret" not in json.dumps(tables)


def test_the_rest_is_as_it_was_written() -> None:
    assert shown('version = 1\n[log]\naccess = "-"\n') == {"version": 1, "log": {"access": "-"}}
