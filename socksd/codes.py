"""The numbers of RFC 1928, and those of RFC 1961 that others than ``wire`` use, by their names."""

from enum import IntEnum
from typing import Final

VERSION = 5  # VER, RFC 1928 section 3


class Method(IntEnum):
    """METHOD, RFC 1928 section 3."""

    NO_AUTHENTICATION = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Protection(IntEnum):
    """
    What GSS-API does for each message, RFC 1961 section 4.3.

    The RFC has no 0. The reference implementation brought it, and it is all
    that curl can do.
    """

    NONE = 0
    INTEGRITY = 1
    CONFIDENTIALITY = 2
    SELECTIVE = 3  # for each message as its sender likes; we never agree to it


class Command(IntEnum):
    """CMD, RFC 1928 section 4."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


# What rules, logs and commands of ours call them.
COMMANDS: Final = {
    Command.CONNECT: "connect",
    Command.BIND: "bind",
    Command.UDP_ASSOCIATE: "udp",
}


class AddressType(IntEnum):
    """ATYP, RFC 1928 section 5."""

    IPV4 = 0x01
    DOMAINNAME = 0x03
    IPV6 = 0x04


class ReplyCode(IntEnum):
    """REP, RFC 1928 section 6."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08
