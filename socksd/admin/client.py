"""Ask a running server, from a program that waits for the answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode

from socksd.errors import SocksdError

SECONDS = 60.0  # a reload may read a hundred thousand lines before it answers


class Unreachable(SocksdError):
    """There is no server at the socket, or it may not be asked; says which."""


class _Unix(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("socksd", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    socket_path: str,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    *,
    seconds: float = SECONDS,
) -> tuple[int, Any]:
    """
    Ask, and give the HTTP status and what the answer's JSON says.

    With GET, *body* becomes the parameters of the URL. No single step of it may
    take longer than *seconds*.

    Raises:
        Unreachable: Nobody answers there, or not as a server of ours does.
    """
    connection = _Unix(socket_path, seconds)
    try:
        if method == "GET":
            connection.request(method, f"{path}?{urlencode(body)}" if body else path)
        else:
            connection.request(method, path, json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except PermissionError:
        raise Unreachable(f"no permission to use {socket_path}") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise Unreachable(f"no server listens at {socket_path}") from None
    except OSError as error:
        raise Unreachable(f"{socket_path}: {error.strerror or error}") from error
    except (HTTPException, ValueError) as error:
        raise Unreachable(f"what answers at {socket_path} is not socksd") from error
    finally:
        connection.close()
