"""PEM files, and what TLS is spoken by."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey

from socksd.app.certificates import context, own, owns
from tests import authority
from tests.authority import Issued

ROOT = authority.authority("root")
BETWEEN = authority.issue(cn="between", by=ROOT, ca=True)
GATEWAY = authority.server("gw.example", by=BETWEEN)
OTHER = authority.server("*.other.example", "other.example")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pyOpenSSL's, of itself


def shake(client: SSL.Connection, server: SSL.Connection) -> None:
    for _ in range(4):
        for here, there in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                here.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                there.bio_write(here.bio_read(65536))


def shown(made: SSL.Context, name: str | None = None, protocols: list[bytes] | None = None) -> str:
    """Shake hands as a client, and give the common name that is shown."""
    server, client = SSL.Connection(made), SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    server.set_accept_state()
    client.set_connect_state()
    if name is not None:
        client.set_tlsext_host_name(name.encode())
    if protocols:
        client.set_alpn_protos(protocols)
    shake(client, server)
    assert client.get_alpn_proto_negotiated() == b""
    chain = client.get_peer_cert_chain()
    assert chain
    return " < ".join(str(each.get_subject().CN) for each in chain)


def test_a_file_may_have_all_of_it(tmp_path: Path) -> None:
    path = GATEWAY.write(tmp_path, "gw.pem", chain=[BETWEEN])
    assert shown(context([own(path, path)])) == "gw.example < between"


def test_or_three_may(tmp_path: Path) -> None:
    (tmp_path / "cert").write_bytes(GATEWAY.pem)
    (tmp_path / "key").write_bytes(GATEWAY.key_pem)
    (tmp_path / "chain").write_bytes(b"some words\n" + BETWEEN.pem.replace(b"\n", b"\r\n"))
    mine = own(str(tmp_path / "cert"), str(tmp_path / "key"), str(tmp_path / "chain"))
    assert shown(context([mine])) == "gw.example < between"


def test_who_offers_protocols_is_told_of_none(tmp_path: Path) -> None:
    """Which one it is, the first octet says; a client that insists on one would go otherwise."""
    path = GATEWAY.write(tmp_path, "gw.pem")
    made = context([own(path, path)])
    assert shown(made, protocols=[b"h2", b"http/1.1"]) == "gw.example"


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("gw.example", "gw.example < between"),
        ("GW.Example", "gw.example < between"),
        ("other.example", "*.other.example"),
        ("a.other.example", "*.other.example"),
        ("a.b.other.example", "gw.example < between"),
        ("elsewhere.example", "gw.example < between"),
        ("192.0.2.1", "gw.example < between"),
        ("b\u00fc.example", "gw.example < between"),
        (None, "gw.example < between"),
    ],
)
def test_the_name_a_client_asks_for_chooses_from_a_directory(
    tmp_path: Path, name: str | None, certificate: str
) -> None:
    """By the rules of RFC 6125; the first file's, where there is none."""
    (tmp_path / "live").mkdir()
    (tmp_path / "a-cert.pem").write_bytes(GATEWAY.pem)
    (tmp_path / "a-key.pem").write_bytes(GATEWAY.key_pem)
    (tmp_path / "chain.pem").write_bytes(BETWEEN.pem + ROOT.pem)
    OTHER.write(tmp_path / "live", "other.pem")
    (tmp_path / "README").write_bytes(b"not for us")
    assert shown(context(owns(str(tmp_path))), name) == certificate


def test_of_two_for_one_key_the_one_that_is_valid_for_longer_counts(tmp_path: Path) -> None:
    old = authority.server("gw.example", days=-1)
    new = authority.issue(x509.DNSName("gw.example"), cn="renewed", key=old.key)
    new.write(tmp_path, "1.pem")
    old.write(tmp_path, "2.pem")
    assert shown(context(owns(str(tmp_path)))) == "renewed"


def test_a_chain_that_goes_round_has_an_end(tmp_path: Path) -> None:
    one, two = authority.issue(cn="one", ca=True), authority.issue(cn="two", ca=True)
    ring = [authority.issue(cn="one", by=two, ca=True), authority.issue(cn="two", by=one, ca=True)]
    authority.issue(cn="leaf", by=one).write(tmp_path, "leaf.pem", chain=ring)
    assert shown(context(owns(str(tmp_path)))) == "leaf < one < two"


ENCRYPTED = GATEWAY.key.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        pytest.param(None, b"", "cannot read .*cert: No such file", id="no file"),
        pytest.param(b"", b"", "cert has no certificate", id="empty"),
        pytest.param(GATEWAY.key_pem, b"", "cert has no certificate", id="a key only"),
        pytest.param(GATEWAY.pem, GATEWAY.pem, "key has no private key", id="no key"),
        pytest.param(GATEWAY.pem, OTHER.key_pem, "is not that of the certificate", id="another"),
        pytest.param(
            GATEWAY.pem.replace(b"MII", b"AAA", 1),
            b"",
            "cert has a certificate that cannot be read",
            id="damaged",
        ),
        pytest.param(
            GATEWAY.pem, ENCRYPTED, "key has a private key that cannot be read", id="encrypted"
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, certificate: bytes | None, key: bytes, said: str
) -> None:
    if certificate is not None:
        (tmp_path / "cert").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(ValueError, match=said):
        own(str(tmp_path / "cert"), str(tmp_path / "key"))


def test_a_key_that_is_too_short_is_said(tmp_path: Path) -> None:
    key = generate_private_key(65537, 1024)
    weak = authority.issue(cn="weak")
    builder = x509.CertificateBuilder().subject_name(weak.certificate.subject)
    builder = builder.issuer_name(weak.certificate.subject).public_key(key.public_key())
    builder = builder.serial_number(1)
    builder = builder.not_valid_before(weak.certificate.not_valid_before_utc)
    builder = builder.not_valid_after(weak.certificate.not_valid_after_utc)
    path = tmp_path / "weak.pem"
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM) + octets)
    with pytest.raises(ValueError, match="OpenSSL does not take the certificate or its key"):
        context([own(str(path), str(path))])


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({}, r"no \*.pem file with a private key", id="nothing"),
        pytest.param({"a.pem": GATEWAY.pem}, r"no \*.pem file with a private key", id="no key"),
        pytest.param(
            {"a.pem": GATEWAY.pem, "k.pem": OTHER.key_pem},
            "no certificate for the key in .*k.pem",
            id="a key without",
        ),
    ],
)
def test_what_is_wrong_with_a_directory_is_said(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    for name, octets in files.items():
        (tmp_path / name).write_bytes(octets)
    with pytest.raises(ValueError, match=said):
        owns(str(tmp_path))


def test_names_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    authority.issue(x509.DNSName("*.*.example"), cn="odd").write(tmp_path, "odd.pem")
    GATEWAY.write(tmp_path, "gw.pem")
    with pytest.raises(ValueError, match="names that cannot be read"):
        context(owns(str(tmp_path)))


def test_an_authority_that_is_no_certificate_is_said(tmp_path: Path) -> None:
    path = GATEWAY.write(tmp_path, "gw.pem")
    (tmp_path / "ca.pem").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ca.pem has no certificate"):
        context([own(path, path)], str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("required", "issued", "welcome"),
    [
        pytest.param(True, authority.client(), True, id="one of theirs"),
        pytest.param(True, None, False, id="none"),
        pytest.param(False, None, True, id="none, and none is required"),
        pytest.param(False, authority.server("alice"), False, id="another's, and none is required"),
    ],
)
@pytest.mark.parametrize("versions", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_clients_are_asked_for_a_certificate_of_their_authority(
    tmp_path: Path, required: bool, issued: Issued | None, welcome: bool, versions: int
) -> None:
    path = GATEWAY.write(tmp_path, "gw.pem")
    (tmp_path / "ca.pem").write_bytes(authority.clients_authority().pem)
    made = context([own(path, path)], str(tmp_path / "ca.pem"), required=required)
    wanted = SSL.Context(SSL.TLS_METHOD)
    wanted.set_max_proto_version(versions)
    if issued is not None:
        wanted.use_certificate(X509.from_cryptography(issued.certificate))
        wanted.use_privatekey(PKey.from_cryptography_key(issued.key))
    server, client = SSL.Connection(made), SSL.Connection(wanted)
    server.set_accept_state()
    client.set_connect_state()
    if welcome:
        shake(client, server)
        assert (server.get_peer_certificate() is None) == (issued is None)
    else:
        with pytest.raises(SSL.Error):
            shake(client, server)


STAFF = authority.clients_authority()
BRANCH = authority.issue(cn="branch", by=STAFF, ca=True)
ALICE, BOB = authority.client("alice"), authority.client("bob")
CAROL = authority.client("carol", by=BRANCH)
DAVE = authority.client("dave", by=BRANCH)
LISTS = [authority.revocations(STAFF, BOB), authority.revocations(BRANCH, DAVE)]


def is_welcome(made: SSL.Context, issued: Issued) -> bool:
    wanted = SSL.Context(SSL.TLS_METHOD)
    wanted.use_certificate(X509.from_cryptography(issued.certificate))
    wanted.add_extra_chain_cert(X509.from_cryptography(BRANCH.certificate))
    wanted.use_privatekey(PKey.from_cryptography_key(issued.key))
    server, client = SSL.Connection(made), SSL.Connection(wanted)
    server.set_accept_state()
    client.set_connect_state()
    try:
        shake(client, server)
    except SSL.Error:
        return False
    return server.get_peer_certificate() is not None


def revoking(directory: Path, *lists: bytes, authorities: bytes = STAFF.pem) -> SSL.Context:
    path = GATEWAY.write(directory, "gw.pem")
    (directory / "ca.pem").write_bytes(authorities)
    (directory / "crl.pem").write_bytes(b"".join(lists))
    return context([own(path, path)], str(directory / "ca.pem"), revoked=str(directory / "crl.pem"))


@pytest.mark.parametrize(
    ("lists", "welcome"),
    [
        pytest.param(LISTS, {"alice", "carol"}, id="lists of all"),
        pytest.param(LISTS[:1], {"alice"}, id="none of the CA between"),
        pytest.param(
            [authority.revocations(STAFF, BRANCH), LISTS[1]],
            {"alice", "bob"},
            id="the CA between is revoked",
        ),
        pytest.param(
            [LISTS[0], authority.revocations(BRANCH, days=-1)],
            {"alice"},
            id="an old one of the CA between",
        ),
    ],
)
def test_a_certificate_that_is_revoked_is_not_taken(
    tmp_path: Path, lists: list[bytes], welcome: set[str]
) -> None:
    made = revoking(tmp_path, *lists)
    people = {"alice": ALICE, "bob": BOB, "carol": CAROL, "dave": DAVE}
    assert {name for name, issued in people.items() if is_welcome(made, issued)} == welcome


def test_without_lists_nothing_is_revoked(tmp_path: Path) -> None:
    path = GATEWAY.write(tmp_path, "gw.pem")
    (tmp_path / "ca.pem").write_bytes(STAFF.pem)
    assert is_welcome(context([own(path, path)], str(tmp_path / "ca.pem")), BOB)


FORGED = authority.revocations(authority.authority("clients' authority"))


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        pytest.param(b"", "has no list of what CN=clients' authority has revoked", id="empty"),
        pytest.param(LISTS[1], "has no list of what CN=clients' auth", id="another CA's"),
        pytest.param(FORGED, "has no list of what CN=clients' auth", id="signed by another"),
        pytest.param(
            authority.revocations(STAFF, days=-1),
            "of what CN=clients' authority has revoked is out of date",
            id="old",
        ),
        pytest.param(
            LISTS[0].replace(b"\nMI", b"\nAA", 1), "x509 crl that cannot be read", id="damaged"
        ),
    ],
)
def test_lists_by_which_nobody_would_be_taken_are_a_mistake(
    tmp_path: Path, lists: bytes, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        revoking(tmp_path, lists)


def test_each_authority_needs_a_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no list of what CN=root has revoked"):
        revoking(tmp_path, *LISTS, authorities=STAFF.pem + ROOT.pem)
    revoking(tmp_path, *LISTS, authority.revocations(ROOT), authorities=STAFF.pem + ROOT.pem)


@pytest.mark.parametrize("issued", [GATEWAY, OTHER])
def test_tls_1_1_is_not_spoken(tmp_path: Path, issued: Issued) -> None:
    path = issued.write(tmp_path, "gw.pem")
    assert context([own(path, path)]).set_options(0) & SSL.OP_NO_TLSv1_1
