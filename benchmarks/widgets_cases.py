"""What is measured of the widgets, each in a process of its own: see widgets.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from speed_process import resident
from widgets_loop import Watch, summary
from widgets_viewer import dock, isolated, noisy, open_viewer, pump, wait, zarr_of

WIDGETS = ("Denoise", "Super-resolve", "Reconstruct MRI", "Denoise many", "Compare", "Is my data enough?")
LOOPS = ("plane", "film", "stack")
MEMORY = ("layers", "n2v")
WARM_UP = 5  # runs after which the memory of libraries that are loaded once is there


def opening(name: str) -> dict[str, Any]:
    """Open a widget for the first time, in a viewer with an image, until it is drawn."""
    isolated()
    viewer = open_viewer()
    viewer.add_image(noisy(512, 512), name="noisy")
    pump(2.0)
    wall, cpu = time.perf_counter(), time.thread_time()
    widget = dock(viewer, name)
    made = time.perf_counter() - wall
    wait(lambda: not widget.visibleRegion().isEmpty(), 30)
    pump(0.0)
    drawn, used = time.perf_counter() - wall, time.thread_time() - cpu
    return {
        "made_s": round(made, 3),
        "drawn_s": round(drawn, 3),
        "cpu_s": round(used, 3),
        "torch": "torch" in sys.modules,
    }


def looping(kind: str, seconds: float) -> dict[str, Any]:
    """Train with the preview on, apply, and watch the event loop all the while."""
    folder = isolated()
    viewer = open_viewer()
    if kind == "stack":
        data: Any = zarr_of(folder, 16, 512, 512)
        labels = ("z", "y", "x")
    else:
        data = noisy(1024, 1024) if kind == "plane" else noisy(24, 512, 512)
        labels = ("t", "y", "x")[-data.ndim :]
    viewer.add_image(data, name="noisy", axis_labels=labels, contrast_limits=(40, 160))
    widget = dock(viewer, "Denoise")
    widget.method.choose("n2v", {})
    widget.method.length.unit.setCurrentText("minutes")
    widget.method.length.minutes.setValue(seconds / 60)
    pump(2.0)
    found = {}
    for name, action in (
        ("train", widget.train),
        ("apply", widget.apply),
        ("apply_to_file", lambda: widget.apply_to(folder / "out.ome.zarr")),
    ):
        watch = Watch()
        watch.start()
        began = time.perf_counter()
        action()
        _browse(viewer, lambda: not widget.busy)
        pump(0.5)
        found[name] = {"seconds": round(time.perf_counter() - began, 1), **summary(watch.stop())}
        found[name]["said"] = widget.run.status.text()
        # The quality report, which is computed when nothing else is.
        wait(lambda: widget.quality.job is None, 120)
    return found


def _browse(viewer: Any, done: Any) -> None:
    """Move the slider every second, as people do, until a job is done."""
    step = 0
    while not wait(done, 1.0):
        if viewer.dims.ndim > 2:
            step += 1
            viewer.dims.set_current_step(0, step % int(viewer.dims.nsteps[0]))


def remembering(case: str, runs: int) -> dict[str, Any]:
    """Train, apply and close again and again, and look at what stays in memory; or add and remove as many layers."""
    isolated()
    viewer = open_viewer()
    found, added = [], []
    viewer.layers.events.inserted.connect(lambda event: added.append(event.index))
    for run in range(runs):
        viewer.add_image(noisy(512, 512, seed=run), name="noisy")
        if case == "layers":  # napari alone, as a yardstick: those that a run adds
            for _ in ("preview", "denoised"):
                viewer.add_image(noisy(512, 512, seed=run), name="another")
                pump(0.3)
        else:
            denoising(viewer, case)
        viewer.layers.clear()
        pump(1.0)
        found.append(resident() / 2**20)
    slope = float(np.polyfit(range(runs - WARM_UP), found[WARM_UP:], 1)[0])
    return {
        "rss_mib": [round(size, 1) for size in found],
        "mib_per_run": round(slope, 2),
        "layers_per_run": len(added) / runs,
    }


def denoising(viewer: Any, method: str) -> None:
    """Train on the layer, with the preview on, apply, and close the widget."""
    widget = dock(viewer, "Denoise")
    widget.method.choose(method, {})
    widget.method.length.set_steps(20)
    for action in (widget.train, widget.apply):
        action()
        wait(lambda: not widget.working)
        if widget.model is None:
            raise RuntimeError(widget.run.status.text())
    viewer.window.remove_dock_widget(widget)


def main(arguments: list[str]) -> dict[str, Any]:
    """Do one measurement."""
    sys.path.insert(0, str(Path(__file__).parent))
    what, case, *rest = arguments
    if what == "open":
        return opening(case)
    if what == "loop":
        return looping(case, float(rest[0]))
    if what == "memory":
        return remembering(case, int(rest[0]))
    if what == "cancel":
        from widgets_cancel import cancelling

        return cancelling(case, int(rest[0]))
    raise ValueError(what)
