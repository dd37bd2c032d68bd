"""Watch an event loop: how long it was blocked, and by whom.

A timer beats every few milliseconds; a gap between two beats is a block. Meanwhile another thread looks at the main
thread's stack, as `faulthandler` writes it: whoever walks through another thread's frames makes objects of them, and
those crash Python 3.11 (and keep painters that Qt thinks gone). A moment belongs to

- ``ours``: the innermost frame of those that anybody owns is this package's;
- ``ours_napari``: napari, vispy or pyqtgraph, which this package's code called (a layer that is added or redrawn);
- ``napari``: napari, vispy or pyqtgraph by themselves (drawing, slicing);
- ``qt``: neither, such as Qt that paints.

While the main thread holds the interpreter, nothing else can look: the next look counts for the whole time since the
last one. ``cpu`` is what the main thread computed: a block with little of it was spent waiting, for a processor or for
another thread that held the interpreter; ``beside`` names what one of this package's threads did then.
"""

from __future__ import annotations

import faulthandler
import os
import re
import tempfile
import threading
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import PurePath
from typing import Any, NamedTuple

from qtpy.QtCore import QObject, Qt, QTimer

BEAT_MS = 2
LOOK_SECONDS = 0.003
BLOCK_SECONDS = 0.03  # shorter gaps are of no interest
DEPTH = 12  # innermost frames that are kept of a moment
OURS, THEIRS = "napari_ssdenoise", ("napari", "vispy", "pyqtgraph")
THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)")
ENTRY = re.compile(r'  File "(.+)", line (\d+) in (.+)')


class Frame(NamedTuple):
    """Where a thread is, or a function that called that place."""

    module: str
    function: str
    line: int

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


@dataclass
class Block:
    """A time in which the event loop did nothing else."""

    began: float
    wall: float
    cpu: float
    shares: dict[str, float] = field(default_factory=dict)
    where: str = ""
    beside: str = ""

    def own(self) -> float:
        """Return the seconds in which this package's own code ran."""
        return self.wall * self.shares.get("ours", 0.0)


def stacks(text: str) -> dict[int, list[Frame]]:
    """Read what `faulthandler` wrote: each thread's frames, the innermost first."""
    found: dict[int, list[Frame]] = {}
    frames: list[Frame] = []
    for line in text.splitlines():
        if thread := THREAD.match(line):
            frames = found.setdefault(int(thread[1], 16), [])
        elif entry := ENTRY.match(line):
            frames.append(Frame(module_of(entry[1]), entry[3], int(entry[2])))
    return found


@cache
def module_of(path: str) -> str:
    """Name a module by its file."""
    parts = PurePath(path).with_suffix("").parts
    packages = [n for n, part in enumerate(parts) if part in (OURS, *THEIRS)]
    return ".".join(parts[packages[-1] :] if packages else parts[-2:])


def owner(frames: list[Frame]) -> str:
    """Tell whose code runs."""
    inner = next((frame.package for frame in frames if frame.package in (OURS, *THEIRS)), "")
    if inner in ("", OURS):
        return "ours" if inner else "qt"
    return "ours_napari" if any(frame.package == OURS for frame in frames) else "napari"


def described(frames: list[Frame]) -> str:
    """Name the innermost frames, the innermost first."""
    return " < ".join(f"{frame.module}.{frame.function}:{frame.line}" for frame in frames[:DEPTH])


class Watch(QObject):
    """Notes beats and looks from its start to its end."""

    def __init__(self) -> None:
        super().__init__()
        self._beats: list[tuple[float, float]] = []
        self._looks: list[tuple[float, str, str, str]] = []
        self._over = threading.Event()
        self._main = threading.main_thread().ident or 0
        self._written = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the watch
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        self._beat()
        self._timer.start()
        self._thread.start()

    def beside(self) -> str:
        """Tell what one of this package's threads did for most of the time."""
        seen = Counter(look[3] for look in self._looks if look[3])
        return seen.most_common(1)[0][0] if seen else ""

    def stop(self) -> list[Block]:
        """Return the blocks, the longest first."""
        self._timer.stop()
        self._over.set()
        self._thread.join()
        self._written.close()
        blocks = []
        for (before, cpu_before), (now, cpu) in zip(self._beats, self._beats[1:], strict=False):
            if now - before >= BLOCK_SECONDS:
                blocks.append(self._explained(Block(before, now - before, cpu - cpu_before)))
        return sorted(blocks, key=lambda block: -block.wall)

    def _beat(self) -> None:
        self._beats.append((time.perf_counter(), time.thread_time()))

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._looks.append(self._seen())

    def _seen(self) -> tuple[float, str, str, str]:
        """Look once."""
        file = self._written.fileno()
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        faulthandler.dump_traceback(file)
        found = stacks(os.pread(file, 1 << 20, 0).decode(errors="replace"))
        main = found.pop(self._main, [])
        beside = next((described(frames) for frames in found.values() if owner(frames) == "ours"), "")
        return time.perf_counter(), owner(main), described(main), beside

    def _explained(self, block: Block) -> Block:
        """Share a block out among the moments that were seen."""
        spent: Counter[str] = Counter()
        where: Counter[str] = Counter()
        others: Counter[str] = Counter()
        last, end = block.began, block.began + block.wall
        first = bisect_right(self._looks, last, key=lambda look: look[0])
        for moment, whose, frames, beside in islice(self._looks, first, None):
            until = min(moment, end)
            spent[whose] += until - last  # type: ignore[assignment]
            where[f"{whose}: {frames}"] += until - last  # type: ignore[assignment]
            others[beside] += until - last  # type: ignore[assignment]
            last = until
            if moment >= end:
                break
        block.shares = {whose: round(seconds / block.wall, 3) for whose, seconds in spent.items()}
        block.where = where.most_common(1)[0][0] if where else ""
        block.beside = others.most_common(1)[0][0] if others else ""
        return block


def summary(blocks: list[Block], top: int = 5) -> dict[str, Any]:
    """Return the longest blocks: of any kind, and by the time in our own code."""

    def told(block: Block) -> dict[str, Any]:
        numbers = {"ms": round(1000 * block.wall), "cpu_ms": round(1000 * block.cpu), "shares": block.shares}
        return {**numbers, "where": block.where, "beside": block.beside}

    ours = sorted(blocks, key=lambda block: -block.own())
    with_calls = [b.wall * (b.shares.get("ours", 0) + b.shares.get("ours_napari", 0)) for b in blocks]
    return {
        "longest_ms": round(1000 * max((b.wall for b in blocks), default=0)),
        "longest_cpu_ms": round(1000 * max((b.cpu for b in blocks), default=0)),
        "longest_own_ms": round(1000 * max((b.own() for b in blocks), default=0)),
        "longest_own_with_napari_ms": round(1000 * max(with_calls, default=0)),
        "over_200_ms": sum(b.wall > 0.2 for b in blocks),
        "longest": [told(b) for b in blocks[:top]],
        "longest_own": [told(b) for b in ours[:top] if b.own() > 0.005],
    }
