"""What a measuring process knows about itself, from Linux's /proc.

The standard library only: another tool's interpreter runs this, too.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


def resident(key: str = "VmRSS", pid: int | str = "self") -> int:
    """Return bytes of memory in use: now (``VmRSS``), or at most since the process started (``VmHWM``)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status does not tell {key}; this benchmark needs Linux.")


def traffic() -> tuple[int, int]:
    """Return bytes read and written by system calls: of this process and its children, whether they live or not."""
    me = os.getpid()
    counters = [_counters(me)]  # the kernel adds those of children that have ended
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(_stat(process.name)[1])
            if parent == me:
                counters.append(_counters(int(process.name)))
        except OSError:  # ended meanwhile
            continue
    return sum(read for read, _ in counters), sum(written for _, written in counters)


def since_start() -> float:
    """Return the seconds since this process was started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(_stat("self")[19]) / TICKS


def machine_seconds() -> tuple[float, float]:
    """Return the processor seconds that all programs took since the machine started, and those the host withheld."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(n) / TICKS for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + softirq, steal


def folder_bytes(folder: str | Path) -> int:
    """Return the size of all files below a folder."""
    return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())


class Measured:
    """Take time, bytes read and bytes written from its making to `done`."""

    def __init__(self) -> None:
        self._resident = resident()
        self._read, self._written = traffic()
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def done(self) -> dict[str, Any]:
        """Return the figures."""
        seconds = self.seconds
        read, written = traffic()
        return {
            "seconds": round(seconds, 3),
            "start_rss": self._resident,
            "peak_rss": resident("VmHWM"),
            "read": read - self._read,
            "written": written - self._written,
        }


def work(tasks: Mapping[str, Callable[..., dict[str, Any]]], distribution: str) -> None:
    """Do the task that a JSON file describes, and write its figures to another: ``worker.py JOB RESULT``."""
    job_file, result_file = (Path(name) for name in sys.argv[1:3])
    job = json.loads(job_file.read_text())
    result = tasks[job["task"]](**job["arguments"])
    torch = sys.modules.get("torch")
    process = {
        "peak_rss": resident("VmHWM"),
        # The largest of the processes that this one started and waited for.
        "children_peak_rss": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "process_seconds": round(since_start(), 3),
        "version": version(distribution) if distribution else "",
        "torch": version("torch"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads() if torch else 0,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
    }
    result_file.write_text(json.dumps({**process, **result}))


def _counters(pid: int) -> tuple[int, int]:
    lines = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["wchar"])


def _stat(pid: str) -> list[str]:
    """Return the fields behind the process's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
