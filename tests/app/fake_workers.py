"""Workers as their parent sees them: numbers, and routes that answer or do not."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from socksd.admin.asking import NoAnswer, Said
from socksd.admin.routes import BadBody, Body, NotAdmitted, Routes, Unable
from socksd.app.rounds import WorkerAddress

_STATUS = {
    BadBody: HTTPStatus.BAD_REQUEST,
    NotAdmitted: HTTPStatus.FORBIDDEN,
    Unable: HTTPStatus.CONFLICT,
    ZeroDivisionError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class FakeWorkers:
    """
    Takes the place of :class:`socksd.admin.asking.Asking`, and of all behind it.

    Attributes:
        routes: Of each worker, by its number.
        silent: Who does not answer.
        slow: Whose answers wait in *pending*, in the order of the questions.
        asked: Every question.
    """

    def __init__(self, routes: dict[int, Routes]) -> None:
        self.routes = routes
        self.silent: set[int] = set()
        self.slow: set[int] = set()
        self.pending: list[tuple[Deferred[Said], Said]] = []
        self.asked: list[tuple[int, str, str, Body]] = []

    def addresses(self) -> list[WorkerAddress]:
        return [WorkerAddress(number, f"/run/{number}.sock") for number in self.routes]

    def ask(
        self, socket: str, method: str, path: str, body: Body, seconds: float = 3.0
    ) -> Deferred[Said]:
        number = int(socket.removeprefix("/run/").removesuffix(".sock"))
        self.asked.append((number, method, path, body))
        if number in self.silent:
            return fail(NoAnswer("no"))
        said = self._said(self.routes[number][method, path], body)
        if number in self.slow:
            answer: Deferred[Said] = Deferred()
            self.pending.append((answer, said))
            return answer
        return succeed(said)

    def go_on(self) -> None:
        """Let those who are slow answer."""
        pending, self.pending = self.pending, []
        for answer, said in pending:
            answer.callback(said)

    def _said(self, handler: Any, body: Body) -> Said:
        try:
            answer = handler(body)
        except tuple(_STATUS) as error:
            return Said(_STATUS[type(error)], {"error": str(error)})
        return Said(HTTPStatus.OK, json.loads(json.dumps(answer)))
