"""``socksd drain``: watch a server until it has ended."""

from __future__ import annotations

import time
from typing import Final

from socksd.admin import tables
from socksd.admin.client import Unreachable, ask

EVERY: Final = 0.5  # seconds from one look to the next
GRACE: Final = 30.0  # seconds for the end itself, once sessions have had their time
INTERRUPTED: Final = 130  # as of a shell's command that Ctrl-C has ended


def follow(socket: str) -> None:
    """
    Print how many sessions are left, whenever that changes, until the server has ended.

    Raises:
        SystemExit: It has not in the time that it has; or Ctrl-C, which ends
            nothing but this.
    """
    left: int | None = None
    end: float | None = None
    try:
        while True:
            status, answer = ask(socket, "GET", "/v1/status")
            if status != 200 or answer.get("draining_until") is None:
                break  # another one, in its place
            if end is None:
                end = time.monotonic() + answer["draining_until"] - time.time() + GRACE
            elif time.monotonic() > end:
                raise SystemExit("socksd: it should have ended by now, and has not")
            if answer["sessions"] != left:
                left = answer["sessions"]
                print(tables.draining(answer), flush=True)
            time.sleep(EVERY)
    except Unreachable:
        pass
    except KeyboardInterrupt:
        print("the server goes on draining", flush=True)
        raise SystemExit(INTERRUPTED) from None
    print("ended", flush=True)
