from __future__ import annotations

from ipaddress import ip_address

import pytest

from socksd.app.config import Limit, Route, parse_config
from tests.app.config.told import LISTENER, problem

NAMED = """
[limit.bulk]
bandwidth = "20MB/s"
idle = "2h"
[limit.long]
idle = "10h"
[route.direct]
source = ["192.0.2.9"]
[route.second]
source = ["::ffff:192.0.2.10", "2001:db8::9"]
"""


def test_limits_and_routes_go_by_their_names() -> None:
    config = parse_config(NAMED, "x")
    assert config.limit == {"bulk": Limit(20_000_000, 7200.0), "long": Limit(None, 36_000.0)}
    assert config.route == {
        "direct": Route((ip_address("192.0.2.9"),)),
        "second": Route((ip_address("192.0.2.10"), ip_address("2001:db8::9"))),
    }


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ('[limit.a]\nbandwidth = "20Mb/s"', "limit.a.bandwidth", "'20Mb/s' is not a rate; write"),
        ('[limit.a]\nbandwidth = "20MB"', "limit.a.bandwidth", "'20MB' is not a rate; write"),
        ("[limit.a]\nbandwidth = 20", "limit.a.bandwidth", 'needs a unit: write for example "20MB'),
        ('[limit.a]\nbandwidth = "7kbit/s"', "limit.a.bandwidth", "must be 1KB/s to 100GB/s, not"),
        ('[limit.a]\nidle = "0s"', "limit.a.idle", "must be 1ms to 720h, not 0s"),
        ('[limit.a]\nidel = "1s"', "limit.a.idel", "there is no such key; did you mean 'idle'?"),
        ("[limit.a]", "limit.a", "limits nothing: it needs a bandwidth, an idle time, or both"),
        ('[limit."a b"]\nidle = "1s"', 'limit."a b"', "'a b' is no name: letters, digits"),
        ('[limit]\nidle = "1s"', "limit.idle", "must be a table, not a string"),
        ("limit = 1", "limit", "must hold tables by their names, not be a whole number"),
        ('[limits]\nbandwidth = "1MB/s"', "limits.bandwidth", "there is no such key; it stands un"),
        ('[limits.a]\nidle = "1s"', "limits.a", "there is no such key; limits that rules name st"),
        ("[route.a]", "route.a.source", "is missing"),
        ("[route.a]\nsource = []", "route.a.source", "is empty; without the table the system"),
        (
            '[route.a]\nsource = "::1"',
            "route.a.source",
            "must be a list, not a string: write [...]",
        ),
        ("[route.a]\nsource = [1]", "route.a.source", "must be a string, not a whole number"),
        ('[route.a]\nsource = ["eth0"]', "route.a.source", "'eth0' is not an address; write one"),
        ('[route.a]\nsource = ["::"]', "route.a.source", "'::' is no address of a host"),
        ('[route.a]\nsource = ["224.0.0.1"]', "route.a.source", "'224.0.0.1' is no address of a"),
        (
            '[route.a]\nsource = ["::1", "::2"]',
            "route.a.source",
            "has two of IPv6, ::1 and ::2; one of each is taken",
        ),
    ],
)
def test_a_mistake_in_a_table_with_a_name_is_told_with_its_path(
    text: str, path: str, message: str
) -> None:
    found, told = problem(text)
    assert found == path
    assert told.startswith(message)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        pytest.param(
            "deadlines.idle = 900",
            "deadlines.idle",
            'needs a unit: write for example "10s"',
            id="bare duration",
        ),
        pytest.param(
            "limits.early_data = 65536",
            "limits.early_data",
            'needs a unit: write for example "64KiB"',
            id="bare size",
        ),
        pytest.param(
            'deadlines.closing = "11s"',
            "deadlines.closing",
            "must be 1ms to 10s, not 11s",
            id="longer than RFC 1928 allows",
        ),
        pytest.param("version = 2", "version", "must be 1, not 2", id="another version"),
        pytest.param(
            "resolver.threads = true",
            "resolver.threads",
            "must be a whole number, not a boolean",
            id="a boolean is no number",
        ),
        pytest.param(
            "resolver.threads = 1.0",
            "resolver.threads",
            "must be a whole number, not a fraction",
            id="nor is a fraction",
        ),
        pytest.param(
            'limits.sessions = "many"',
            "limits.sessions",
            "must be a number or \"auto\", not 'many'",
            id="auto misspelled",
        ),
        pytest.param(
            'auth.authenticators = "htpasswd:f"',
            "auth.authenticators",
            "must be a list, not a string: write [...]",
            id="a string is no list",
        ),
        pytest.param(
            'auth.authenticators = ["a", ""]',
            "auth.authenticators[1]",
            "must not be empty",
            id="an item",
        ),
        pytest.param(
            f"{LISTENER}protocols = []",
            "listener[0].protocols",
            "is empty; nobody could be served",
            id="no protocol",
        ),
        pytest.param("auth = []", "auth", "must be a table, not a list", id="no table"),
        pytest.param(
            '[listener]\nname = "a"\nendpoint = "tcp:1"',
            "listener",
            "must be a list of tables: write it with two brackets, [[...]]",
            id="single brackets",
        ),
        pytest.param(
            '[[listener]]\nname = "a"', "listener[0].endpoint", "is missing", id="missing"
        ),
        pytest.param(
            f"{LISTENER}{LISTENER}",
            "listener[1].name",
            "'local' is the name of listener[0] already",
            id="two of a name",
        ),
        pytest.param(
            'log.access = "a\\u0000b"', "log.access", "no file has a NUL in its name", id="NUL"
        ),
        pytest.param(
            "deadline.idle = 1",
            "deadline",
            "there is no such key; did you mean 'deadlines'?",
            id="table misspelled",
        ),
        pytest.param(
            '[resolver]\nnegativ_ttl = "1s"',
            "resolver.negativ_ttl",
            "there is no such key; did you mean 'negative_ttl'?",
            id="key misspelled",
        ),
        pytest.param(
            '[auth]\nidle = "5m"',
            "auth.idle",
            "there is no such key; it stands under [deadlines]",
            id="wrong table",
        ),
        pytest.param('"a b" = 1', '"a b"', "there is no such key", id="unheard-of key"),
        pytest.param("rule = 1", "rule", "must be a list of tables: write [[rule]]", id="rule"),
    ],
)
def test_a_problem_says_where_and_what_to_write_instead(text: str, path: str, message: str) -> None:
    assert problem(text) == (path, message)
