"""The garbage collector, for a process that has ten thousand sessions and no garbage."""

from __future__ import annotations

import gc


def calm() -> None:
    """
    Leave out of every collection what is here for good, and collect less often.

    A session leaves no cycles behind, so there is next to nothing to find, and
    what is looked through in vain are the sessions that live: with 8,000
    tunnels four full collections, of up to 104 ms, came while they were opened.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
