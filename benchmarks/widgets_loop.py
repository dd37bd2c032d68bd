"""Watch an event loop: how long it was blocked, and by whom.

A timer beats every few milliseconds; a gap between two beats is a block. Meanwhile another thread looks at the main
thread's stack. A moment belongs to

- ``ours``: the innermost frame of those that anybody owns is this package's;
- ``ours_napari``: napari, vispy or pyqtgraph, which this package's code called (a layer that is added or redrawn);
- ``napari``: napari, vispy or pyqtgraph by themselves (drawing, slicing);
- ``qt``: neither, such as Qt that paints.

While the main thread holds the interpreter, nothing else can look: the next look counts for the whole time since the
last one. ``cpu`` is what the main thread computed: a block with little of it was spent waiting, for a processor or for
another thread that held the interpreter; ``beside`` names what one of this package's threads did then.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer

BEAT_MS = 2
LOOK_SECONDS = 0.003
BLOCK_SECONDS = 0.03  # shorter gaps are of no interest
DEPTH = 12  # innermost frames that are kept of a moment
OURS, THEIRS = "napari_ssdenoise", ("napari", "vispy", "pyqtgraph")


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


def owner(frame: FrameType | None) -> str:
    """Tell whose code runs."""
    inner, seen_ours = "", False
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package == OURS:
            if not inner:
                return "ours"
            seen_ours = True
        elif package in THEIRS and not inner:
            inner = "napari"
        frame = frame.f_back
    return ("ours_napari" if seen_ours else "napari") if inner else "qt"


def described(frame: FrameType | None) -> str:
    """Name the innermost frames, the innermost first."""
    names = []
    for entry, _ in traceback.walk_stack(frame):
        module = entry.f_globals.get("__name__", "?")
        names.append(f"{module}.{entry.f_code.co_name}:{entry.f_lineno}")
        if len(names) == DEPTH:
            break
    return " < ".join(names)


class Watch(QObject):
    """Notes beats and looks from its start to its end."""

    def __init__(self) -> None:
        super().__init__()
        self._beats: list[tuple[float, float]] = []
        self._looks: list[tuple[float, str, str, str]] = []
        self._over = threading.Event()
        self._main = threading.main_thread().ident
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
        """Look once. No frame is kept: its painter would live on after the painting, and Qt would crash."""
        frames = sys._current_frames()
        frame = frames.pop(self._main or 0, None)
        beside = next((described(f) for f in frames.values() if owner(f) == "ours"), "")
        return time.perf_counter(), owner(frame), described(frame), beside

    def _explained(self, block: Block) -> Block:
        """Share a block out among the moments that were seen."""
        spent: Counter[str] = Counter()
        where: Counter[str] = Counter()
        others: Counter[str] = Counter()
        last, end = block.began, block.began + block.wall
        for moment, whose, frames, beside in self._looks:
            if moment <= block.began:
                continue
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
