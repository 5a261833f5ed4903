"""A certification authority for tests; its keys are good for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
YEAR = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, name: str, *, chain: Sequence[Issued] = ()) -> str:
        """Write certificate, *chain* and key into one file, and give its path."""
        path = directory / name
        path.write_bytes(self.pem + b"".join(each.pem for each in chain) + self.key_pem)
        return str(path)


def issue(
    *names: x509.GeneralName,
    cn: str | Sequence[str] = (),
    ou: Sequence[str] = (),
    by: Issued | None = None,
    use: x509.ObjectIdentifier | None = None,
    ca: bool = False,
    days: int = 365,
    key: EllipticCurvePrivateKey | None = None,
) -> Issued:
    """Issue a certificate, signed *by* another or by itself; valid up to *days* from now."""
    key = key or generate_private_key(SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in ou]
        + [
            x509.NameAttribute(NameOID.COMMON_NAME, each)
            for each in ([cn] if isinstance(cn, str) else cn)
        ]
    )
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - YEAR)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if use:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


def authority(cn: str) -> Issued:
    return issue(cn=cn, ca=True)


@cache
def clients_authority() -> Issued:
    return authority("clients' authority")


def server(*hosts: str, by: Issued | None = None, days: int = 365) -> Issued:
    """Issue a certificate for a server that is called by these names."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return issue(*names, cn=hosts[0], by=by, use=SERVER, days=days)


def client(
    cn: str = "alice",
    *names: x509.GeneralName,
    ou: Sequence[str] = (),
    by: Issued | None = None,
) -> Issued:
    """Issue a certificate for a client, by the authority that is asked for clients or another."""
    return issue(*names, cn=cn, ou=ou, by=by or clients_authority(), use=CLIENT)


def revocations(by: Issued, *revoked: Issued, days: int = 30) -> bytes:
    """Write the list of what a CA has revoked, valid for so many *days* from now."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.certificate.subject)
        .last_update(now - YEAR)
        .next_update(now + timedelta(days=days))
    )
    for each in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(one.revocation_date(now - YEAR).build())
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM)
