"""
Logins by GSS-API (RFC 1961), that is by Kerberos.

Who has a ticket for the gateway's service, which only the KDC can make, is
whom the ticket names. The key that proves it is in a keytab, which the library
reads anew for each login: that one and the replay cache are files that may be
slow, so contexts are accepted in threads.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from gssapi import MechType, Name, NameType, RequirementFlag, raw
from gssapi.raw.misc import GSSError
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from socksd.address import IPAddress
from socksd.codes import Protection
from socksd.errors import ConfigError, LoginFailed, Problem, ProtocolError
from socksd.facts import Principal
from socksd.identity.patience import GivenUp, within
from socksd.identity.threads import LoginThreads
from socksd.interfaces import Accepted, ISecurityContext

if TYPE_CHECKING:
    from gssapi import SecurityContext  # as gssapi.raw calls its own where it is typed

# Kerberos takes one token; with three legs, as DCE has them, it takes two.
MOST_TOKENS = 4

_PATIENCE = 3.0  # seconds for a keytab; the whole gateway waits, at a start or a reload

_LONGEST_TOKEN = 0xFFFF  # RFC 1961: LEN has two octets
_LONGEST_TEXT = 200  # characters of what a client can choose, in a reason

# What a context must do for a level of protection. Without the first two a
# message could be left out or sent twice, and nobody would notice.
_INTEGRITY = (
    RequirementFlag.replay_detection
    | RequirementFlag.out_of_sequence_detection
    | RequirementFlag.integrity
)
_NEEDS = {
    Protection.NONE: 0,
    Protection.INTEGRITY: _INTEGRITY,
    Protection.CONFIDENTIALITY: _INTEGRITY | RequirementFlag.confidentiality,
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """
    Which principals are users, and what the users are called.

    Attributes:
        realms: Principals of others are nobody: a KDC of our own may vouch for
            those of a realm it trusts.
        whole: Whether a user is called by the whole principal, or by what
            stands before its realm.
    """

    realms: Collection[str]
    whole: bool = False

    def user(self, name: bytes) -> Principal:
        """
        Give the user that a principal stands for.

        Args:
            name: As krb5_unparse_name() writes it: ``alice@EXAMPLE.COM``.

        Raises:
            LoginFailed: It stands for none.
        """
        principal = name.decode("utf-8", "surrogateescape")
        short, at, realm = principal.partition("@")
        # An "@" within a component, and all that is not for the eye, is written
        # with a backslash: whose user that would be were a guess.
        if not short or not at or "\\" in principal:
            raise LoginFailed(f"no user's principal: {principal[:_LONGEST_TEXT]!r}")
        if realm not in self.realms:
            raise LoginFailed(f"not a realm of users: {realm[:_LONGEST_TEXT]!r}")
        return Principal(principal if self.whole else short)


class Acceptor:
    """The gateway's own side: its key, and what it takes for an answer."""

    def __init__(
        self,
        keytab: str,
        service: str,
        mapping: Mapping,
        protections: Collection[Protection],
        threads: LoginThreads,
    ) -> None:
        """
        Look the key up.

        Args:
            keytab: The path of the file that has it.
            service: The service's name, on any host that the keytab has a key
                for, or on one: ``rcmd``, ``rcmd@gw.example.com``.
            mapping: Who is a user.
            protections: What messages may be protected by.
            threads: Where contexts are accepted; the caller starts and stops them.

        Raises:
            ConfigError: There is no such key, or its file cannot be read in time.
        """
        self.mapping = mapping
        self.protections = frozenset(protections)
        self.threads = threads
        try:
            self.credentials = within(_PATIENCE, keytab, partial(_key, keytab, service))
        except GivenUp:
            message = f"{keytab} cannot be read within {_PATIENCE:g} s: does its file system hang?"
            raise ConfigError([Problem("gssapi.keytab", message)]) from None

    def context(self, client: IPAddress) -> Context:
        """Begin with a client."""
        return Context(self, client)


def _key(keytab: str, service: str) -> Any:
    """
    Look the key up, and give credentials by which contexts are accepted.

    Raises:
        ConfigError: There is none.
    """
    try:
        # Kerberos only: SPNEGO brings other mechanisms in, and IAKERB has
        # the gateway talk to KDCs on behalf of whoever asks.
        return raw.acquire_cred_from(
            {b"keytab": os.fsencode(keytab)},
            Name(service, NameType.hostbased_service),
            mechs=[MechType.kerberos],
            usage="accept",
        ).creds
    except GSSError as error:
        message = f"{keytab} has no key for the service {service!r}: {_reason(error)}"
        raise ConfigError([Problem("gssapi.keytab", message)]) from error


@implementer(ISecurityContext)
class Context:
    """A security context with one client; see ISecurityContext."""

    __slots__ = ("_acceptor", "_client", "_context", "_flags", "_tokens")

    def __init__(self, acceptor: Acceptor, client: IPAddress) -> None:
        self._acceptor = acceptor
        self._client = client
        self._context: SecurityContext | None = None
        self._flags = 0
        self._tokens = 0

    def accept(self, token: bytes) -> Deferred[Accepted]:
        """Go on by the client's next token, in a thread."""
        self._tokens += 1
        if self._tokens > MOST_TOKENS:
            return fail(LoginFailed(f"no security context after {MOST_TOKENS} tokens"))
        return self._acceptor.threads.run(self._client, partial(self._accept, token))

    def agree(self, asked: int) -> Protection:
        """Take what was asked for if it may be, else the most there is."""
        protections = self._acceptor.protections
        agreed = next((each for each in protections if each == asked), max(protections))
        missing = _NEEDS[agreed] & ~self._flags
        if missing:
            names = ", ".join(flag.name for flag in RequirementFlag if flag & missing)
            raise ProtocolError(f"a security context without {names}")
        return agreed

    def wrap(self, octets: bytes, confidential: bool) -> bytes:
        """Make a token."""
        try:
            return raw.wrap(self._established, octets, confidential).message
        except GSSError as error:
            raise ProtocolError(f"no GSS-API token can be made: {_kind(error)}") from error

    def unwrap(self, token: bytes) -> tuple[bytes, bool]:
        """Give what is in a token; one that is not the next one is an error of the library's."""
        try:
            result = raw.unwrap(self._established, token)
        except GSSError as error:
            raise ProtocolError(f"a bad GSS-API token: {_kind(error)}") from error
        return result.message, result.encrypted

    def longest(self, confidential: bool) -> int:
        """Give how many octets fit into a token."""
        return raw.wrap_size_limit(self._established, _LONGEST_TOKEN, confidential)

    @property
    def _established(self) -> SecurityContext:
        if self._context is None:
            raise RuntimeError("no security context yet")
        return self._context

    def _accept(self, token: bytes) -> Accepted:
        """Call the library; whatever it delegates to us is forgotten at once."""
        try:
            # Not SecurityContext.step() of the library's upper floor: where an
            # error comes with a token that returns the token, and raises later.
            result = raw.accept_sec_context(token, self._acceptor.credentials, self._context)
            self._context = cast("SecurityContext", result.context)
            answer = result.token or b""
            if result.more_steps:
                return Accepted(answer, None)
            name = raw.display_name(result.initiator_name, name_type=False).name
        except GSSError as error:
            raise LoginFailed(_reason(error)) from None
        self._flags = int(result.flags)
        if self._flags & RequirementFlag.anonymity:  # WELLKNOWN/ANONYMOUS, RFC 8062
            raise LoginFailed("an anonymous ticket")
        return Accepted(answer, self._acceptor.mapping.user(name))


def _kind(error: GSSError) -> str:
    """Say what has failed, in GSS-API's terms."""
    return "; ".join(error.get_all_statuses(error.maj_code, True))


def _reason(error: GSSError) -> str:
    """Say why, in Kerberos's terms; the library knows only in the thread that it has failed in."""
    if not error.min_code:
        return _kind(error)
    return "; ".join(error.get_all_statuses(error.min_code, False))[:_LONGEST_TEXT]
