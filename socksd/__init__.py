"""socksd: a SOCKS5 gateway whose policy can be seen, tested and explained."""

__version__ = "0.1.0"
