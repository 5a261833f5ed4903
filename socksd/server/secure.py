"""TLS in front of a session, and who the client's certificate says it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    ISSLTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from socksd.errors import LoginFailed, ProtocolError
from socksd.events import Outcome
from socksd.facts import Principal
from socksd.server.protocol import SocksProtocol
from socksd.server.session import Session

# Says who a client is by its verified certificate, in DER. Raises LoginFailed.
Identify = Callable[[bytes], Principal]


@implementer(IOpenSSLServerConnectionCreator)
@dataclass(frozen=True, slots=True)
class Security:
    """
    What a listener speaks TLS by.

    Attributes:
        context: Our certificate, or whichever the client's SNI asks for, and
            whose certificates are taken.
        identify: Says who a client with such a certificate is; ``None``:
            none are asked for.
    """

    context: SSL.Context
    identify: Identify | None = None

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make the TLS state of a new connection."""
        return HalfClosing(self.context, protocol)


class HalfClosing(SSL.Connection):
    """
    TLS in which close_notify is the end of one direction.

    "Each party MUST send a 'close_notify' alert before closing its write side
    [...]. This does not have any effect on its read side of the connection.
    Note that this is a change from versions of TLS prior to TLS 1.3" (RFC 8446
    section 6.1). Twisted goes by those: it would drop what was still to be
    sent to a client that has only finished its request.
    """

    def __init__(self, context: SSL.Context, protocol: TLSMemoryBIOProtocol) -> None:
        super().__init__(context)
        self._protocol = protocol
        self._told = False

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """
        Give what has arrived; after close_notify nothing, for now.

        Raises:
            ZeroReturnError: The connection is to be closed: both sides have
                sent close_notify, or TLS is of a version that cannot be half
                closed. Or the client has sent on behind its close_notify,
                which OpenSSL would pile up unread.
        """
        try:
            return super().recv(bufsiz, flags)
        except SSL.ZeroReturnError:
            half = self.get_protocol_version() >= SSL.TLS1_3_VERSION
            if self._told or not half or self.get_shutdown() & SSL.SENT_SHUTDOWN:
                raise
        self._told = True
        IHalfCloseableProtocol(self._protocol.wrappedProtocol).readConnectionLost()
        raise SSL.WantReadError


@implementer(IHandshakeListener)
class SecureProtocol(SocksProtocol):
    """A client's connection over TLS."""

    transport: ISSLTransport  # type: ignore[assignment]  # and IEndTransport: TLS passes it through

    def __init__(self, identify: Identify | None) -> None:
        super().__init__()
        self._identify = identify

    def connectionMade(self) -> None:
        """Begin a session; its deadline holds for the handshake of TLS, too."""
        self._session: Session = self.factory.begin(self)

    def handshakeCompleted(self) -> None:
        """Learn who the client is, if it has shown a certificate: it has been verified."""
        certificate = self.transport.getPeerCertificate()
        if self._identify is None or not isinstance(certificate, X509):  # None
            return
        octets = dump_certificate(FILETYPE_ASN1, certificate)
        session = self._session
        try:
            principal = self._identify(octets)
        except LoginFailed as failed:
            session.finish(Outcome.LOGIN_FAILED, failed.reason)
        else:
            session.facts = session.facts.certified(principal, sha256(octets).hexdigest())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell of the end; of TLS that has not come about as the client's mistake."""
        error = reason.value
        if isinstance(error, SSL.Error):
            reason = Failure(ProtocolError(f"TLS: {_said(error)}"))
        super().connectionLost(reason)


def _said(error: SSL.Error) -> str:
    """Give OpenSSL's own word for what went wrong, which is never the peer's."""
    queue = error.args[0] if error.args else ()
    return queue[-1][2] if queue else "the handshake has failed"
