"""
The configuration: ``etc/socksd.toml``, key for key.

A class is a table; its attributes are the table's keys, with their defaults.
Durations have become seconds and sizes octets.
"""

from socksd.app.config.clients import Auth, Gssapi, Listener
from socksd.app.config.limits import Deadlines, Limit, Limits
from socksd.app.config.load import load_config, parse_config, read_config
from socksd.app.config.running import (
    JOURNALD,
    Control,
    Dashboard,
    Log,
    Metrics,
    Pac,
    Reload,
    Server,
    workers,
)
from socksd.app.config.tables import Config
from socksd.app.config.targets import Bind, Guarded, Resolver, Route, Udp
from socksd.app.config.units import as_rate, duration, rate, size

__all__ = [
    "JOURNALD",
    "Auth",
    "Bind",
    "Config",
    "Control",
    "Dashboard",
    "Deadlines",
    "Gssapi",
    "Guarded",
    "Limit",
    "Limits",
    "Listener",
    "Log",
    "Metrics",
    "Pac",
    "Reload",
    "Resolver",
    "Route",
    "Server",
    "Udp",
    "as_rate",
    "duration",
    "load_config",
    "parse_config",
    "rate",
    "read_config",
    "size",
    "workers",
]
