"""The seam between a session and the protocol that its client speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from socksd.address import Destination
    from socksd.codes import ReplyCode
    from socksd.server.session import Session


class IDialogue(Interface):
    """
    One protocol, as its server speaks it with one client, up to the relay.

    It turns octets into what the session understands (``greeted``, ``log_in``,
    ``requested``) and the session's answers into octets. It decides nothing
    about the client, and keeps no time.
    """

    protocol: str = Attribute("Its name in the configuration.")
    unread: bytearray = Attribute("What has arrived and was not taken; early payload at the end.")
    clients_turn: bool = Attribute("Whether the client is to speak; else what it sends is early.")

    def receive(octets: bytes) -> None:
        """Add what has arrived, at any turn."""

    def advance() -> None:
        """
        Take whole messages off what has arrived, while it is the client's turn.

        Raises ProtocolError where there is no such message.
        """

    def logged_in() -> None:
        """Tell the client that its login was right; its turn then."""

    def login_refused(reason: str) -> None:
        """Tell the client that its login was not right; end the session, or let it try again."""

    def granted(bound: Destination | None) -> None:
        """Tell the client that its request has been carried out."""

    def refused(code: ReplyCode, reason: str) -> bool:
        """
        Tell the client why it gets nothing, if an answer is owed to it.

        *reason* is for the log; what of it the client may read is for the
        protocol to say. Gives whether the client has been told *code*.
        """


# By a client's first octet: what makes the dialogue it is the beginning of.
Dialogues = Mapping[int, "Callable[[Session], IDialogue]"]
