from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from socksd.app.collector import calm


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_is_here_for_good_is_left_out_and_collections_are_rare() -> None:
    before = gc.get_freeze_count()
    calm()
    assert gc.get_freeze_count() > before
    assert gc.get_threshold() > (700, 10, 10)
    assert gc.isenabled()
