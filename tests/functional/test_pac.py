"""The auto-configuration file, read by a browser."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_address
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socksd.address import Destination
from socksd.codes import Command
from socksd.facts import ANONYMOUS, Facts, Principal, Verdict
from socksd.policy.load import load_rules
from socksd.policy.pac import pac
from socksd.policy.rules import Policy
from tests.functional.chromium import chromium
from tests.functional.conftest import Serve
from tests.functional.origins import HTTPOrigin

CLIENT = ip_address("192.0.2.1")
HOSTS = (
    *("a.example", "b.a.example", "ba.example", "c.test", "intranet", "xn--bcher-kva.example"),
    *("10.0.0.1", "10.255.255.255", "11.0.0.0", "192.0.2.7", "0.0.0.0", "255.255.255.255"),
    *("2001:db8::1", "::1"),
)
PLACES = (
    *("a.example", ".example", "*a.example", "?.test", "c.test", "intranet"),
    *("10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "128.0.0.0/1", "2001:db8::/32", "::/0"),
)
PORTS = (80, 443, 8443)
LEADS = tuple(map(ip_address, ("10.0.0.1", "192.0.2.7", "2001:db8::1")))
WHO = (ANONYMOUS, Principal("alice"), Principal("bob"))

places = st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)
tables = st.fixed_dictionaries(
    {"action": st.sampled_from(["allow", "deny"])},
    optional={
        "to": places,
        "not_to": places,
        "resolves_to": st.lists(
            st.sampled_from([each for each in PLACES if "/" in each]), min_size=1, max_size=2
        ),
        "ports": st.lists(st.sampled_from([80, "400-500", 8443]), min_size=1, max_size=2),
        "user": st.just(["alice"]),
        "require": st.just("hostname"),
        "from": st.sampled_from([["192.0.2.0/24"], ["198.51.100.0/24"]]),
    },
)


def may_be_allowed(policy: Policy, host: str, port: int) -> bool:
    """Whether anybody at the client could get there, wherever the name leads."""
    literal = not any(c.isalpha() for c in host) or ":" in host
    for who in WHO:
        facts = Facts(CLIENT, "office", who)
        asked = facts.asking(Command.CONNECT, Destination.named(host, port))
        for final in [asked] if literal else [asked.at(address) for address in LEADS]:
            if policy.decide(final).verdict is Verdict.ALLOW:
                return True
    return False


def test_nothing_goes_directly_that_the_gateway_might_carry(tmp_path: Path) -> None:
    """And what goes to the gateway is allowed to somebody, or denied by a rule that means it."""
    with chromium(tmp_path / "profile", "") as browser:
        browser.show("about:blank")
        # What browsers give to such files: a glob against the whole string.
        browser.evaluate(
            "shExpMatch = (text, glob) => new RegExp('^' + glob.replace(/[.]/g, '\\\\.')"
            ".replace(/\\*/g, '.*').replace(/\\?/g, '.') + '$').test(text), 0"
        )

        @settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
        @given(st.lists(tables, max_size=4))
        def holds(rules: list[dict[str, object]]) -> None:
            loaded = load_rules([{"id": f"r{n}"} | t for n, t in enumerate(rules)], ["office"])
            policy = Policy(loaded)
            text = pac(policy, Facts(CLIENT, "office", command=Command.CONNECT), ["SOCKS5 gw:1"])
            asked = [(host, port) for host in HOSTS for port in PORTS]
            urls = [
                (f"https://{f'[{host}]' if ':' in host else host}:{port}/x:1@y", host)
                for host, port in asked
            ]
            said = json.loads(
                browser.evaluate(
                    f"(() => {{ {text}; return JSON.stringify({json.dumps(urls)}"
                    ".map(([url, host]) => FindProxyForURL(url, host))); })()"
                )
            )
            for (host, port), how in zip(asked, said, strict=True):
                if how == "DIRECT":
                    assert not may_be_allowed(policy, host, port), (host, port)
                else:
                    assert how == "SOCKS5 gw:1"
                    assert loaded, "no rule speaks of anything"

        holds()


def test_a_browser_finds_out_by_itself(serve: Serve, http: HTTPOrigin, tmp_path: Path) -> None:
    """Chromium fetches the file, asks the gateway why, and leaves the loopback alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    gateway = serve(
        config=f'[pac]\nendpoint = "tcp:{port}:interface=127.0.0.1"\n'
        '[[rule]]\nid = "here"\naction = "allow"\nto = [".example"]\n'
    )
    file = f"http://127.0.0.1:{port}/proxy.pac"
    with chromium(tmp_path / "profile", "", pac=file) as browser:
        assert "127.0.0.1" in browser.show("http://why.socksd/")
        assert "the page behind" in browser.show(f"http://127.0.0.1:{http.port}/")
    gateway.logged(r"connect why\.socksd:80 rule=why")
    assert f":{http.port} " not in gateway.log()
