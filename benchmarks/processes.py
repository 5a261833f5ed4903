"""What /proc says of a server: the tree of processes below those that were started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

Command = Sequence[str | Path]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree of processes holds, and has used so far."""

    cpu: float  # seconds, user and system; of children that have ended, too
    rss: int  # octets; what processes share is counted once for each
    pss: int  # octets; what processes share is divided among them. 0 unless asked for
    descriptors: int
    processes: int


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    started: int  # with the number, this names a process for good
    cpu: float
    rss: int


def _stat(pid: int) -> _Stat | None:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # proc(5), counted from "state": ppid 1, utime stime cutime cstime 11..14,
    # starttime 19, rss 21.
    cpu = sum(map(int, fields[11:15])) / _TICKS
    return _Stat(int(fields[1]), int(fields[19]), cpu, int(fields[21]) * _PAGE)


def _tree(roots: Iterable[int]) -> dict[int, _Stat]:
    """Give *roots* and all that descends from them."""
    stats = {int(p.name): _stat(int(p.name)) for p in _PROC.iterdir() if p.name.isdigit()}
    alive = {pid: stat for pid, stat in stats.items() if stat is not None}
    found = {pid: alive[pid] for pid in roots if pid in alive}
    grown = True
    while grown:
        below = {p: s for p, s in alive.items() if p not in found and s.parent in found}
        found |= below
        grown = bool(below)
    return found


def usage(roots: Sequence[int], *, pss: bool = False) -> Usage:
    """Read what *roots* and their descendants use; *pss* takes the kernel some time."""
    tree = _tree(roots)
    return Usage(
        cpu=sum(stat.cpu for stat in tree.values()),
        rss=sum(stat.rss for stat in tree.values()),
        pss=sum(map(_pss, tree)) if pss else 0,
        descriptors=sum(map(_descriptors, tree)),
        processes=len(tree),
    )


def settled_cpu(roots: Sequence[int]) -> float:
    """Give the CPU seconds once they grow no more: what ended last is still being cleared."""
    before = usage(roots).cpu
    for _ in range(20):
        time.sleep(0.05)
        cpu = usage(roots).cpu
        if cpu == before:
            break
        before = cpu
    return before


def _pss(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:  # has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))
    except OSError:
        return 0


@contextmanager
def running(command: Command, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """
    Run a server in the foreground, in *directory*.

    At the end it and what descends from it are ended, and nothing else.

    Yields:
        The process, and the file that gets what it says.
    """
    path = directory / f"{Path(command[0]).name}.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for us, who then end it in order
        )
    try:
        yield process, path
    finally:
        tree = _tree([process.pid])
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        for pid, stat in tree.items():
            left = _stat(pid)
            if left is not None and left.started == stat.started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()
