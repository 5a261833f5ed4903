"""Who a client is by the certificate that it has shown."""

from __future__ import annotations

from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import NameOID

from socksd.errors import LoginFailed
from socksd.facts import Principal

_UNREADABLE = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_LONGEST = 255  # octets: what a user name may have in RFC 1929, too


class NamedBy(StrEnum):
    """What of a certificate is the user's name."""

    CN = "cn"  # the subject's common name
    EMAIL = "email"  # from the subject alternative names, as are the others
    URI = "uri"
    DNS = "dns"


def principal_of(certificate: bytes, by: NamedBy) -> Principal:
    """
    Give whom a verified certificate is for; the groups are the subject's OUs.

    Args:
        certificate: In DER.
        by: Of which kind the name is; there has to be one of it, and no more.

    Raises:
        LoginFailed: It names nobody, or more than one.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = _names(parsed, by)
        groups = _texts(parsed.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except (ValueError, *_UNREADABLE):
        # It comes from a CA that we trust, but what one writes another may not read.
        raise LoginFailed("the client's certificate cannot be read") from None
    if len(names) != 1:
        raise LoginFailed(f"the client's certificate has {len(names)} names of kind {by}, not one")
    (name,) = names
    if not name.isprintable() or not 0 < len(name.encode()) <= _LONGEST:
        raise LoginFailed(f"the client's certificate has no user's name as its {by}")
    return Principal(name, frozenset(groups))


def _names(certificate: x509.Certificate, by: NamedBy) -> list[str]:
    if by is NamedBy.CN:
        return _texts(certificate.subject, NameOID.COMMON_NAME)
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    match by:
        case NamedBy.EMAIL:
            # Hosts are compared without regard to case, what is before the @
            # is not (RFC 5280 section 7.5): one mailbox is to be one user.
            found = [mail.rpartition("@") for mail in others.get_values_for_type(x509.RFC822Name)]
            return [f"{box}{at}{host.lower()}" for box, at, host in found]
        case NamedBy.URI:
            return others.get_values_for_type(x509.UniformResourceIdentifier)
        case _:
            return [name.lower() for name in others.get_values_for_type(x509.DNSName)]


def _texts(subject: x509.Name, kind: x509.ObjectIdentifier) -> list[str]:
    values = [attribute.value for attribute in subject.get_attributes_for_oid(kind)]
    return [value for value in values if isinstance(value, str)]  # of these kinds all are
