"""``/proxy.pac``: a real listener on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.threads import deferToThread

from socksd.admin.autoconfig import KIND, Autoconfig


class Served:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.port = 0
        self.autoconfig = Autoconfig(self.listen, self.write, reactor)  # type: ignore[arg-type]  # a module to mypy

    def listen(self, factory: Any) -> Any:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]  # the reactor is a module to mypy
        self.port = port.getHost().port
        return port

    def write(self, client: Any, here: Any) -> str:
        self.asked.append((client.host, here.host))
        return "// it\n"

    async def ask(self, method: str, path: str) -> tuple[int, str | None, bytes]:
        def asked() -> tuple[int, str | None, bytes]:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request(method, path)
                response = connection.getresponse()
                return response.status, response.getheader("Content-Type"), response.read()
            finally:
                connection.close()

        answer: tuple[int, str | None, bytes] = await deferToThread(asked)
        return answer


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    served.autoconfig.open()
    yield served
    pytest_twisted.blockon(served.autoconfig.close() or succeed(None))
    assert served.autoconfig.close() is None


@pytest.mark.parametrize("path", ["/proxy.pac", "/wpad.dat"])
async def test_the_file_is_made_for_who_asks(served: Served, path: str) -> None:
    assert await served.ask("GET", path) == (200, KIND, b"// it\n")
    assert await served.ask("HEAD", path) == (200, KIND, b"")
    assert served.asked == [("127.0.0.1", "127.0.0.1")] * 2


async def test_there_is_nothing_else(served: Served) -> None:
    assert (await served.ask("GET", "/"))[0] == 404
    assert (await served.ask("POST", "/proxy.pac"))[0] == 405
    assert not served.asked
