"""The numbers of RFC 1928, by their names."""

from enum import IntEnum

VERSION = 5  # VER, RFC 1928 section 3


class Method(IntEnum):
    """METHOD, RFC 1928 section 3."""

    NO_AUTHENTICATION = 0x00
    GSSAPI = 0x01
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Command(IntEnum):
    """CMD, RFC 1928 section 4."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03


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
