from __future__ import annotations

import os

import pytest

from socksd.app.config import parse_config


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
