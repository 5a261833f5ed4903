"""A configuration as it may be shown: without what might be a secret."""

from __future__ import annotations

import tomllib
from typing import Any, Final

HIDDEN: Final = "(not shown)"

# Authenticators whose argument is the name of a file. Any other may be given
# a password or a key there, as Twisted's own "memory:USER:PASSWORD".
_BY_FILE: Final = ("htpasswd", "file", "sshkey", "unix")


def shown(text: str) -> dict[str, Any]:
    """Give the tables of a configuration that has been loaded, for JSON."""
    tables = tomllib.loads(text)
    auth = tables.get("auth", {})
    if "authenticators" in auth:
        auth["authenticators"] = [_authenticator(each) for each in auth["authenticators"]]
    return tables


def _authenticator(description: str) -> str:
    kind, colon, argument = description.partition(":")
    return description if kind in _BY_FILE else kind + colon + (HIDDEN if argument else "")
