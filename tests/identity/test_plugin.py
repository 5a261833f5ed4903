"""What ``--auth htpasswd:FILE`` finds, and at what price."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from socksd.errors import ConfigError
from socksd.identity.checker import HtpasswdChecker
from socksd.identity.plugin import HtpasswdFactory
from tests.identity.fakes import hashed


def test_it_is_a_plugin_of_strcred() -> None:
    factory = HtpasswdFactory()
    verifyObject(IPlugin, factory)
    verifyObject(ICheckerFactory, factory)
    assert factory.authType == "htpasswd"
    assert IUsernamePassword in factory.credentialInterfaces


def test_it_makes_a_checker_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "us:ers"
    path.write_bytes(b"alice:" + hashed())
    assert isinstance(HtpasswdFactory().generateChecker(str(path)), HtpasswdChecker)


def test_a_file_must_be_named() -> None:
    """Not the working directory, which the empty path would be."""
    with pytest.raises(ConfigError, match=r"^no file; write htpasswd:FILE$"):
        HtpasswdFactory().generateChecker("")


def test_every_twistd_imports_it_so_it_brings_little() -> None:
    """Also `twistd web`, on a machine whose bcrypt may be broken."""
    code = (
        "import sys, socksd.identity.plugin;"
        "sys.exit(' '.join({'bcrypt', 'twisted.internet.reactor', 'socksd.identity.checker'}"
        " & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
