"""What a newcomer does with hands and eyes: open, click, choose, wait, answer a dialog, look."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import napari
import numpy as np
from napari.utils.notifications import NotificationSeverity, notification_manager
from PIL import Image
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QAbstractButton, QFileDialog, QLabel, QSizePolicy, QWidget

PLUGIN = "napari-ssdenoise"
SIZE = (1280, 800)
CANVAS = 580  # pixels that an image may take
PATIENCE = 600.0  # seconds, for machines that are busy
FRAME = (640, 400)  # of an animation
FRAMES, FRAME_SECONDS, FRAME_COLORS = 10, 1.5, 48
COLORS = 128  # of a picture: enough for text and a grey image, and a third of the size


class Guide:
    """A viewer of 1280 x 800 with one theme, and somebody who uses it.

    Parameters
    ----------
    name
        Of the flow; pictures are named after it.
    folder
        Where files of the tour may go.
    theme
        dark or light.
    options
        ``to``, a folder for pictures or None; ``full``; and ``film``, a file or None.
    """

    def __init__(self, name: str, folder: Path, theme: str, options: argparse.Namespace) -> None:
        self.name, self.folder, self.theme = name, folder, theme
        self.pictures: Path | None = options.to
        self.full: bool = options.full
        self.viewer: Any = None
        self.film = Film(options.film)
        self.docked: list[QWidget] = []

    def __enter__(self) -> Guide:
        notification_manager.records.clear()
        self.viewer = napari.Viewer()
        self.viewer.theme = self.theme
        self.viewer.window.resize(*SIZE)
        self.pause(0.1)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for widget in list(self.docked):
            self.undock(widget)
        self.pause(0.1)
        self.viewer.close()
        if kind is None:
            said = [n for n in notification_manager.records if n.severity >= NotificationSeverity.WARNING]
            assert not said, f"{self.name}: napari showed {[str(n.message) for n in said]}"

    def open_sample(self, key: str) -> list[Any]:
        """Choose a sample of the plugin in *File > Open Sample*."""
        return self.viewer.open_sample(PLUGIN, key)

    def dock(self, title: str) -> Any:
        """Choose a widget in *Plugins > ssdenoise*."""
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, title)
        self.docked.append(widget)
        self.pause(0.1)
        return widget

    def undock(self, widget: Any) -> None:
        """Close a widget, when nothing runs in it any longer."""
        widget.let_go()
        self.wait(lambda: not widget.working, "the widget's end")
        self.viewer.window.remove_dock_widget(widget)
        self.docked.remove(widget)

    def click(self, button: QAbstractButton) -> None:
        """Click a button, which must be there and enabled."""
        assert button.isVisible(), f"the button “{button.text()}” cannot be seen"
        assert button.isEnabled(), f"the button “{button.text()}” cannot be clicked"
        button.click()

    def button(self, text: str, within: QWidget) -> QAbstractButton:
        """Return the button with a text, which is to be the only one."""
        (found,) = (button for button in within.findChildren(QAbstractButton) if button.text() == text)
        return found

    @contextmanager
    def answering(self, question: str, path: Path) -> Iterator[None]:
        """Answer a dialog for files, e.g. ``getSaveFileName``, with a path."""
        found = str(path) if question == "getExistingDirectory" else (str(path), "")
        with patch.object(QFileDialog, question, lambda *_, **__: found):
            yield

    def wait(self, until: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Let napari run until something is so."""
        end, loop, timer = time.monotonic() + seconds, QEventLoop(), QTimer()
        timer.timeout.connect(lambda: loop.quit() if until() or time.monotonic() > end else self.film.roll(self.viewer))
        timer.start(20)
        loop.exec()
        timer.stop()
        assert until(), f"{self.name}: waited {seconds:g} s for {what}"

    def pause(self, seconds: float) -> None:
        """Let napari run for a moment."""
        loop = QEventLoop()
        QTimer.singleShot(round(1000 * seconds), loop.quit)
        loop.exec()

    def finish(self, widget: Any) -> None:
        """Wait for what was started, also in the background; it must not have failed."""
        self.wait(lambda: not widget.busy and not widget.working, f"“{widget.run.status.text()}”")

    def look(self, stage: str, widget: QWidget | None = None) -> None:
        """Check that all of it can be read, and take a picture."""
        self.pause(0.5 if self.pictures else 0.05)
        width, height = self.viewer.window.geometry()[2:]
        assert (width, height) == SIZE, f"{self.name}, {stage}: the window has grown to {width} x {height}"
        for part in clipped(widget) if widget is not None else ():
            raise AssertionError(f"{self.name}, {stage}, {self.theme}: cut off: {part}")
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(self.viewer.window.screenshot(flash=False)).convert("RGB")
            path = self.pictures / f"{self.name}-{stage}-{self.theme}.png"
            image.quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)

    def layer(self, name: str) -> Any:
        """Return the layer of a name."""
        return self.viewer.layers[name]

    def closer(self, layer: Any, zoom: float = 1.0) -> None:
        """Look at the middle of a layer."""
        low, high = np.asarray(layer.extent.world)[:, -2:]
        camera = getattr(self.viewer, "scene", self.viewer).camera
        camera.center = (0.0, *(low + high) / 2)
        camera.zoom = zoom * CANVAS / max(high - low)


class Film:
    """Pictures of the window, one after the other, as an animation.

    Parameters
    ----------
    path
        Where to put it; nothing is done without.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.running, self._last = path, False, 0.0
        self._frames: list[Image.Image] = []

    def begin(self) -> None:
        """Throw away what there is, and go on from here."""
        self.running, self._frames = self.path is not None, []

    def roll(self, viewer: Any) -> None:
        """Take the next picture, if it is time for it."""
        if self.running and time.monotonic() > self._last + FRAME_SECONDS:
            self.take(viewer)

    def take(self, viewer: Any) -> None:
        """Take a picture."""
        if self.running:
            image = Image.fromarray(viewer.window.screenshot(flash=False)).convert("RGB")
            self._frames.append(image.resize(FRAME, Image.Resampling.LANCZOS))
            self._last = time.monotonic()

    def end(self) -> None:
        """Write it: at most ten pictures, the first and the last of which stay for longer."""
        if not self.running or self.path is None:
            return
        self.running = False
        chosen = np.unique(np.linspace(0, len(self._frames) - 1, FRAMES).round().astype(int))
        palette = self._frames[-1].quantize(FRAME_COLORS)
        frames = [self._frames[i].quantize(palette=palette, dither=Image.Dither.NONE) for i in chosen]
        stay = [1500, *[500] * (len(frames) - 2), 3000]
        frames[0].save(self.path, save_all=True, append_images=frames[1:], duration=stay, loop=0, optimize=True)


def clipped(widget: QWidget) -> list[str]:
    """List the texts in a widget that are wider than what shows them."""
    found = []
    for part in widget.findChildren(QWidget):
        if not isinstance(part, (QAbstractButton, QLabel)) or not part.text() or part.visibleRegion().isEmpty():
            continue  # folded, or scrolled away
        flexible = part.sizePolicy().horizontalPolicy() == QSizePolicy.Policy.Ignored
        wrapped = isinstance(part, QLabel) and (part.wordWrap() or flexible)
        if wrapped:
            short = part.wordWrap() and part.heightForWidth(part.width()) > part.height() + 2
        else:
            short = part.minimumSizeHint().width() > part.width() + 1
        if short:
            found.append(f"“{part.text()[:60]}” ({part.width()} x {part.height()} pixels)")
    return found
