"""A viewer with images for the benchmarks of the widgets."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEventLoop
from qtpy.QtWidgets import QApplication

PLUGIN = "napari-ssdenoise"
SIZE = (1280, 800)


def isolated() -> Path:
    """Keep settings away from people's own; return a folder for everything that is made."""
    folder = Path(tempfile.mkdtemp(prefix="ssdenoise-widgets-"))
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_DATA_HOME"] = str(folder)
    return folder


def open_viewer() -> Any:
    """Open napari, and wait until it has drawn itself."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    pump(3.0)
    return viewer


def pump(seconds: float) -> None:
    """Let the event loop run."""
    wait(lambda: False, seconds)


def wait(ready: Callable[[], bool], seconds: float = 300.0) -> bool:
    """Let the event loop run until something is so; False if that took too long."""
    app, end = QApplication.instance(), time.perf_counter() + seconds
    while not ready():
        left = end - time.perf_counter()
        if app is None or left <= 0:
            return False
        app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents | QEventLoop.ProcessEventsFlag.AllEvents, 20)
        time.sleep(0.0005)
    return True


def dock(viewer: Any, name: str) -> Any:
    """Open a widget as its menu entry does."""
    return viewer.window.add_plugin_dock_widget(PLUGIN, name)[1]


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    """Return waves in the last two dimensions with noise of a third of their contrast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]].astype(np.float32)
    clean = np.sin(x / 7) * np.cos(y / 9) + np.sin((x + y) / 23)
    data = rng.standard_normal(shape, dtype=np.float32)
    return (100 + 20 * (clean + data)).astype(np.float32)


def zarr_of(folder: Path, *shape: int) -> Any:
    """Write noise into a zarr, plane by plane, and return its array."""
    import zarr

    chunks = (16, 256, 256)
    array = zarr.create_array(folder / "big.zarr", shape=shape, chunks=chunks, dtype="uint16", overwrite=True)
    for first in range(0, shape[0], chunks[0]):
        count = min(chunks[0], shape[0] - first)
        array[first : first + count] = noisy(count, *shape[1:], seed=first).clip(0).astype("uint16")
    return array


def kspace(slices: int, coils: int, side: int) -> np.ndarray:
    """Return k-space of discs, a third of its lines and its middle."""
    y, x = np.meshgrid(*(2 * (np.arange(side) - side // 2) / side for _ in range(2)), indexing="ij")
    image = 1.0 * (np.hypot(y, x) < 0.7) - 0.5 * (np.hypot(y - 0.2, x) < 0.2)
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-(np.square(y - np.sin(a)) + np.square(x - np.cos(a))) / 2) for a in angles])
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, (1, 2)), norm="ortho"), (1, 2))
    mask = np.zeros(side, bool)
    mask[side // 3 : 2 * side // 3] = mask[::3] = True
    measured = (full * mask[:, None]).astype(np.complex64)
    return np.stack([measured] * slices)
