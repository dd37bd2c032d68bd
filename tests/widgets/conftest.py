"""A viewer as plugins see it, the widget docked in it, and the rule that no widget outlives its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QApplication

from napari_ssdenoise import quality
from napari_ssdenoise.widgets import _docked, _models, denoise
from napari_ssdenoise.widgets.denoise import DenoiseWidget

# A network that trains in milliseconds; what it learns does not matter here.
TINY = {"depth": 1, "width": 4, "patch": 16, "batch": 2}
PATIENCE = 120_000  # ms; the first job imports torch, on machines that may be busy


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    """Return a viewer behind the proxy that napari hands to plugins; setting layers from other threads is an error."""
    return make_napari_viewer_proxy()


@pytest.fixture
def as_program() -> Callable[..., Any]:
    """Return a function that calls another as a program of its own would: with as many threads as the widgets' workers.

    The main thread may have another number here, as libraries of the viewer set it, and sums then round differently.
    """

    def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(function, *args, **options).result()

    return call


@dataclass(frozen=True)
class Quality:
    """What the widget shows of a quality report."""

    warnings: tuple[str, ...] = ()
    psnr: None = None

    def rows(self) -> list[tuple[str, str]]:
        return [("resolution", "fine")]


@pytest.fixture(autouse=True)
def assess(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Judge all models at once; return a function that has them judged in another way."""

    def judge(function: Callable[..., Any]) -> None:
        monkeypatch.setattr(quality, "assess", function, raising=False)

    judge(lambda *_, **__: Quality())
    return judge


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the widgets remember away from what people have told them."""
    file = str(tmp_path_factory.mktemp("settings") / "settings.ini")
    monkeypatch.setattr(_models, "stored", lambda: QSettings(file, QSettings.Format.IniFormat))
    shelf = tmp_path_factory.mktemp("data") / "unfinished"
    monkeypatch.setattr(denoise, "unfinished_trainings", lambda: shelf)


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts of the error notifications of widgets that work."""
    texts: list[str] = []
    monkeypatch.setattr(_docked, "show_error", texts.append)
    return texts


@pytest.fixture
def open_widget(viewer: Any, qtbot: Any) -> Iterator[Callable[[], DenoiseWidget]]:
    """Return a function that docks the widget, with settings for tiny networks."""
    opened: list[DenoiseWidget] = []

    def make() -> DenoiseWidget:
        widget = DenoiseWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Denoise", area="right")
        widget.method.choose("n2v", TINY)
        widget.method.length.set_steps(3)
        opened.append(widget)
        return widget

    yield make
    while opened:
        with suppress(RuntimeError):  # the test has destroyed it
            close(opened.pop(), viewer, qtbot)
    qtbot.waitUntil(lambda: not living_widgets(), timeout=10_000)


def close(widget: DenoiseWidget, viewer: Any, qtbot: Any) -> None:
    docked = widget.parent() is not None
    widget.stop()
    widget.quality.forget()
    widget.fit.forget()
    widget.models.stop()
    widget.seeking.forget()
    qtbot.waitUntil(lambda: not widget.working, timeout=PATIENCE)
    widget.shut_down()
    if docked:
        viewer.window.remove_dock_widget(widget)
    widget.deleteLater()


def living_widgets() -> list[DenoiseWidget]:
    return [widget for widget in QApplication.allWidgets() if isinstance(widget, DenoiseWidget)]


@pytest.fixture
def finish(qtbot: Any) -> Callable[[DenoiseWidget], None]:
    """Return a function that waits for a widget's job."""

    def wait(widget: DenoiseWidget) -> None:
        qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)

    return wait
