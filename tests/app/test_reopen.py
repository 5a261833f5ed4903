"""SIGUSR1 has the access log begin its file anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from socksd.app.reopen import Reopener
from socksd.app.service import Part
from socksd.observe.access import AccessLog
from socksd.observe.batch import DELAY
from tests.app.test_reload import FakeReactor
from tests.app.test_service import FakePort, Scene
from tests.fakes import outcome
from tests.observe.closed import SERVED


def test_a_file_that_was_moved_away_is_begun_anew_at_once(tmp_path: Path) -> None:
    """The old one may be compressed now: nobody has it open any more."""
    reactor = FakeReactor()
    path = tmp_path / "access.jsonl"
    log = AccessLog(str(path), reactor)
    scene = Scene(FakePort(), [Part(log.open, log.close, log), Part()])
    reopener = Reopener(scene.gateway, reactor)  # type: ignore[arg-type]  # of it, what is used
    scene.gateway.beside.append(Part(reopener.start, reopener.stop))
    scene.gateway.startService()
    log(SERVED)
    path.rename(tmp_path / "access.jsonl.1")
    os.kill(os.getpid(), signal.SIGUSR1)
    reactor.turn()
    assert path.read_text() == ""
    log(SERVED)
    reactor.advance(DELAY)
    assert len(path.read_text().splitlines()) == 1
    assert len((tmp_path / "access.jsonl.1").read_text().splitlines()) == 1
    outcome(scene.gateway.stopService())
    assert log.lost == 0
