"""PEM files made into contexts of TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from service_identity import CertificateError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, CertificatePattern
from twisted.internet.ssl import CertificateOptions

T = TypeVar("T")

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.+?\n-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Own:
    """A certificate of ours, its key, and the certificates that it rests on."""

    certificate: x509.Certificate
    key: PrivateKeyTypes
    chain: tuple[x509.Certificate, ...] = ()


def own(certificate: str, key: str, chain: str = "") -> Own:
    """
    Read a certificate and its key; what its file has behind it is its chain, too.

    Raises:
        ValueError: They cannot be read, or do not belong together.
    """
    certificates = [*_certificates(certificate), *(_certificates(chain) if chain else ())]
    keys = _keys(Path(key))
    if not keys:
        raise ValueError(f"{key} has no private key")
    if _public(keys[0].public_key()) != _public(certificates[0].public_key()):
        raise ValueError(f"the key in {key} is not that of the certificate in {certificate}")
    return Own(certificates[0], keys[0], tuple(certificates[1:]))


def owns(directory: str) -> tuple[Own, ...]:
    """
    Read all certificates that a directory has the keys of.

    They are found in its ``*.pem`` files and those of directories below it,
    as certbot writes them, in whatever order. Of two for one key the one that
    is valid for longer counts; certificates without a key complete chains.

    Raises:
        ValueError: It cannot be read, a key has no certificate, or there is none.
    """
    files = sorted(Path(directory).rglob("*.pem"))
    everything = [found for file in files for found in _certificates_in(file)]
    by_key: dict[bytes, x509.Certificate] = {}
    for each in sorted(everything, key=lambda found: found.not_valid_after_utc):
        by_key[_public(each.public_key())] = each
    by_subject = {each.subject: each for each in everything}
    found: dict[bytes, Own] = {}
    for file in files:
        for key in _keys(file):
            public = _public(key.public_key())
            if public not in by_key:
                raise ValueError(f"{directory} has no certificate for the key in {file}")
            leaf = by_key[public]
            found[public] = Own(leaf, key, tuple(_chain(leaf, by_subject)))
    if not found:
        raise ValueError(f"{directory} has no *.pem file with a private key")
    return tuple(found.values())


def context(
    ours: Sequence[Own], clients: str = "", *, required: bool = True, revoked: str = ""
) -> SSL.Context:
    """
    Make what TLS is spoken by; 1.2 is the oldest.

    Args:
        ours: What clients are shown: the first whose names hold for the one
            that they ask for (SNI, RFC 6066 section 3), else the very first.
        clients: A file of the CAs whose clients' certificates are taken;
            ``""``: none are asked for.
        required: Whether a client has to have one.
        revoked: A file of the lists of what these CAs have revoked (RFC 5280
            section 5); ``""``: nothing is.

    Raises:
        ValueError: What OpenSSL finds to say of all that.
    """
    first = ours[0]
    # Any: Twisted names the types of pyOpenSSL, which has deprecated its own for these.
    options: dict[str, Any] = {
        "privateKey": first.key,
        "certificate": first.certificate,
        "extraCertChain": first.chain,
    }
    if clients:
        authorities = [X509.from_cryptography(each) for each in _certificates(clients)]
        options |= {"verify": True, "caCerts": authorities, "requireCertificate": required}
    if len(ours) > 1:
        others = [(_names(each), context([each])) for each in ours]
        options["contextForServerName"] = partial(_named, others)
    try:
        made: SSL.Context = CertificateOptions(**options).getContext()
    except (SSL.Error, TypeError) as error:  # a key too short; of a kind that is not for TLS
        raise ValueError(f"OpenSSL does not take the certificate or its key: {error}") from error
    if revoked:
        _revoke(made, _certificates(clients), revoked)
    # Whoever offers protocols by ALPN (RFC 7301) is told of none: which it is,
    # its first octet says. Twisted would answer with an empty name.
    made.set_alpn_select_callback(lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
    return made


def _revoke(made: SSL.Context, authorities: Sequence[x509.Certificate], file: str) -> None:
    """
    Take no certificate of a client's that is on a list in *file*, nor one whose CA's is.

    OpenSSL then takes none whose CA has no list that is valid, either. That
    would be nobody: so what is missing is said now, and what is too old.
    """
    lists = _parsed(Path(file), "X509 CRL", x509.load_pem_x509_crl)
    now = datetime.now(UTC)
    for authority in authorities:
        name, key = authority.subject.rfc4514_string(), cast("Any", authority.public_key())
        theirs = [each for each in lists if each.issuer == authority.subject]
        signed = [each for each in theirs if each.is_signature_valid(key)]
        if not signed:
            raise ValueError(f"{file} has no list of what {name} has revoked")
        if all(each.next_update_utc is not None and each.next_update_utc < now for each in signed):
            raise ValueError(f"the list in {file} of what {name} has revoked is out of date")
    store = made.get_cert_store()
    assert store is not None  # it has the CAs
    for each in lists:
        store.add_crl(each)
    # Else only the client's own would be looked for, and not those between.
    store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)


def _named(
    contexts: Sequence[tuple[Sequence[CertificatePattern], SSL.Context]], server_name: bytes | None
) -> SSL.Context | None:
    """Give the context for a name, by the rules of RFC 6125 section 6.4; None: the first."""
    try:
        wanted = DNS_ID((server_name or b"").decode("ascii"))
    except ValueError:
        return None
    return next((made for names, made in contexts if any(map(wanted.verify, names))), None)


def _names(one: Own) -> Sequence[CertificatePattern]:
    try:
        return extract_patterns(one.certificate)
    except (CertificateError, ValueError) as error:
        raise ValueError(f"a certificate has names that cannot be read: {error}") from error


def _chain(
    leaf: x509.Certificate, by_subject: Mapping[x509.Name, x509.Certificate]
) -> Iterator[x509.Certificate]:
    """Follow the issuers, up to the root, which clients have; as far as they are there."""
    seen = {leaf.subject}
    while (issuer := by_subject.get(leaf.issuer)) is not None:
        if issuer.issuer == issuer.subject or issuer.subject in seen:
            return
        seen.add(issuer.subject)
        yield issuer
        leaf = issuer


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificates(name: str) -> list[x509.Certificate]:
    found = _certificates_in(Path(name))
    if not found:
        raise ValueError(f"{name} has no certificate")
    return found


def _certificates_in(file: Path) -> list[x509.Certificate]:
    return _parsed(file, "CERTIFICATE", x509.load_pem_x509_certificate)


def _keys(file: Path) -> list[PrivateKeyTypes]:
    return _parsed(file, "PRIVATE KEY", partial(load_pem_private_key, password=None))


def _parsed(file: Path, kind: str, load: Callable[[bytes], T]) -> list[T]:
    """Load what a PEM file has of a kind (RFC 7468), whatever else is in it."""
    try:
        octets = file.read_bytes()
        blocks = [found[0] for found in _BLOCK.finditer(octets) if found[1].decode().endswith(kind)]
        return [load(block) for block in blocks]
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise ValueError(f"{file} has a {kind.lower()} that cannot be read: {error}") from error
