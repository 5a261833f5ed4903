from __future__ import annotations

import os

import pytest

from socksd.app.config import parse_config
from socksd.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("journald", "journald"),
        ("journald:/run/j", "journald:/run/j"),
        ("./journald", os.path.abspath("journald")),
        ("/var/log/a:b", "/var/log/a:b"),
    ],
)
def test_the_access_log_is_a_file_or_the_journal(written: str, read: str) -> None:
    assert parse_config(f'[log]\naccess = "{written}"', "x").log.access == read


@pytest.mark.parametrize(("value", "seconds"), [('"keep"', None), ('"cut"', 0.0), ('"30s"', 30.0)])
def test_refused_sessions_are_kept_or_cut_now_or_later(value: str, seconds: float | None) -> None:
    config = parse_config(f"[reload]\nrefused_sessions = {value}\n", "")
    assert config.reload.refused_sessions == seconds


def test_there_may_be_a_worker_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    text = '[server]\nworkers = "cores"\n'
    assert parse_config(text, "").server.workers == 12
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000)))
    assert parse_config(text, "").server.workers == 256


def test_no_other_word_is_a_number_of_workers() -> None:
    with pytest.raises(ConfigError, match="must be a number or \"cores\", not 'core'"):
        parse_config('[server]\nworkers = "core"\n', "")
