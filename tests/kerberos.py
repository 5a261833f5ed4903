"""A Kerberos realm for the tests: a KDC on the loopback, users and services."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred

from socksd.address import IPAddress
from socksd.codes import Protection
from socksd.identity.threads import LoginThreads
from socksd.interfaces import Accepted, ISecurityContext
from tests.fakes import outcome
from tests.functional.process import needs, run, wait_for

if TYPE_CHECKING:
    from gssapi import SecurityContext

    from socksd.identity.gssapi import Acceptor, Mapping

T = TypeVar("T")

REALM = "EXAMPLE.TEST"
USERS = ("alice", "bob", "carol/admin")
SERVICES = ("rcmd", "other")  # on localhost
CLIENT = ip_address("192.0.2.1")

_KRB5 = """
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    qualify_shortname = ""
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
"""
_KDC = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {directory}/principal
        key_stash_file = {directory}/stash
        supported_enctypes = aes256-cts:normal
    }}
[logging]
    kdc = FILE:{directory}/kdc.log
"""


class Realm:
    """
    A realm whose KDC runs.

    Attributes:
        keytabs: By service, the file with its key.
        environment: What makes a program, or this one, one of the realm.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.keytabs = {service: directory / f"{service}.keytab" for service in SERVICES}
        self.environment: dict[str, str] = {
            "KRB5_CONFIG": str(directory / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(directory / "kdc.conf"),
            "KRB5RCACHENAME": f"file2:{directory}/rcache",
            "KRB5CCNAME": f"FILE:{directory}/nobody",
        }
        values = {"realm": REALM, "port": port, "directory": directory}
        (directory / "krb5.conf").write_text(_KRB5.format(**values))
        (directory / "kdc.conf").write_text(_KDC.format(**values))

    def populate(self) -> None:
        """Make the database."""
        commands = [f"addprinc -pw {user}-secret {user}" for user in USERS]
        for service, keytab in self.keytabs.items():
            commands += [
                f"addprinc -randkey {service}/localhost",
                f"ktadd -k {keytab} {service}/localhost",
            ]
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
        self._run("kadmin.local", stdin="\n".join(commands))

    def ticket(self, user: str, lifetime: str = "1h") -> dict[str, str]:
        """Log a user in, and give the environment that has the ticket."""
        cache = f"FILE:{self.directory}/{user.replace('/', '-')}-{lifetime}"
        self._run("kinit", "-l", lifetime, "-c", cache, user, stdin=f"{user}-secret\n")
        return {**self.environment, "KRB5CCNAME": cache}

    def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        done = run(needs(program), *arguments, stdin=stdin, **self.environment)
        assert done.returncode == 0, done.stderr


@contextmanager
def realm_in(directory: Path) -> Iterator[Realm]:
    """Run a realm while the block lasts."""
    program = needs("krb5kdc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    realm = Realm(directory, port)
    realm.populate()
    log = directory / "kdc.log"
    with subprocess.Popen(
        [program, "-n"],
        env={**os.environ, **realm.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as kdc:
        try:
            wait_for("the KDC", lambda: log.exists() and "commencing" in log.read_text())
            yield realm
        finally:
            kdc.terminate()


def initiator(
    service: str = "rcmd", *, in_order: bool = True, host: str = "localhost"
) -> SecurityContext:
    """Give a client's context for a service, with the ticket that the environment has."""
    import gssapi

    flags = gssapi.RequirementFlag
    wanted = [flags.mutual_authentication, flags.replay_detection]
    if in_order:
        wanted.append(flags.out_of_sequence_detection)
    name = gssapi.Name(f"{service}@{host}", gssapi.NameType.hostbased_service)
    return gssapi.SecurityContext(
        name=name, mech=gssapi.MechType.kerberos, flags=wanted, usage="initiate"
    )


class Inline:
    """Login threads that are this one."""

    def run(self, client: IPAddress, work: Callable[[], T]) -> Deferred[T]:
        return maybeDeferred(work)


def acceptor(keytab: Path, mapping: Mapping | None = None, service: str = "rcmd") -> Acceptor:
    """Give an acceptor that takes any level of protection."""
    from socksd.identity.gssapi import Acceptor, Mapping

    threads = cast("LoginThreads", Inline())
    return Acceptor(str(keytab), service, mapping or Mapping([REALM]), Protection, threads)


def established(keytab: Path) -> tuple[ISecurityContext, SecurityContext]:
    """Give both sides of a security context: ours, and that of who has the ticket."""
    client, ours = initiator(), acceptor(keytab).context(CLIENT)
    accepted: Accepted = outcome(ours.accept(client.step() or b""))
    client.step(accepted.token)
    return ours, client
