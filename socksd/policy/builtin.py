"""The policy of a gateway that has no rules of its own."""

from __future__ import annotations

from typing import Any

from socksd.policy.load import load_rules
from socksd.policy.rules import Policy

_LOCAL: dict[str, Any] = {
    "id": "local",
    "action": "allow",
    "from": ["127.0.0.0/8", "::1"],
}
# Whoever has logged in may go out through this host; what listens on its
# loopback trusts that nobody comes from elsewhere.
_INSIDE: dict[str, Any] = {
    "id": "loopback-and-link-local",
    "action": "deny",
    "to": ["127.0.0.0/8", "0.0.0.0/8", "::1", "169.254.0.0/16", "fe80::/10"],
}
_AUTHENTICATED: dict[str, Any] = {
    "id": "authenticated",
    "action": "allow",
    "user": "@any",
}


def built_in_tables(*, with_login: bool) -> list[dict[str, Any]]:
    """Give the built-in rules as one would write them in a configuration."""
    tables = [_LOCAL, _INSIDE, _AUTHENTICATED] if with_login else [_LOCAL]
    return [dict(table) for table in tables]


def built_in(*, with_login: bool) -> Policy:
    """
    Make the built-in policy: clients on this host may go anywhere.

    Args:
        with_login: Whether there are authenticators; then whoever has logged
            in may go anywhere but to the inside of this host. Without them
            everybody else is refused: never an open proxy by accident.
    """
    return Policy(load_rules(built_in_tables(with_login=with_login), listeners=()))
