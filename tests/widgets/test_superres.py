"""Smaller pixels in a real viewer: preview, run, stop, compare, and all that goes wrong."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QPushButton

from napari_ssdenoise.cli import program
from napari_ssdenoise.ops.kernels import widths
from napari_ssdenoise.widgets import _upscaling, _work
from napari_ssdenoise.widgets._job import Stopped
from napari_ssdenoise.widgets._kernel_view import KernelView, blur_picture
from napari_ssdenoise.widgets._layers import PREVIEW_KEY, Pixels, place
from napari_ssdenoise.widgets._upscale_panel import BEST_UPDATES, METHODS
from napari_ssdenoise.widgets.superres import SuperResolveWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREVER = 10**6  # updates
PATIENCE = 120_000  # ms, for machines that are busy


def waves(*shape: int, noise: float = 0.0) -> np.ndarray:
    """Return waves, if wanted in noise."""
    grid = np.indices(shape).sum(0)
    rng = np.random.default_rng(0)
    return (100 + 20 * np.sin(grid / 5) + rng.normal(0, noise, shape)).astype(np.float32)


@pytest.fixture
def open_widget(viewer, qtbot) -> Iterator[Callable[..., SuperResolveWidget]]:
    """Return a function that docks the widget with a method; no widget outlives its test."""
    opened: list[SuperResolveWidget] = []

    def make(method: str = "ibp", updates: int = 3, **values) -> SuperResolveWidget:
        widget = SuperResolveWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Super-resolve", area="right")
        widget.method.choose(method, **values)
        widget.method.updates.setValue(updates)
        opened.append(widget)
        return widget

    yield make
    while opened:
        widget = opened.pop()
        with suppress(RuntimeError):  # the test has destroyed it
            docked = widget.parent() is not None
            widget.stop()
            qtbot.waitUntil(lambda widget=widget: not widget.busy, timeout=PATIENCE)
            widget.shut_down()
            if docked:
                viewer.window.remove_dock_widget(widget)
            widget.deleteLater()
    qtbot.waitUntil(
        lambda: not [w for w in QApplication.allWidgets() if isinstance(w, SuperResolveWidget)], timeout=10_000
    )


def click(widget: SuperResolveWidget, name: str) -> None:
    button: QPushButton = getattr(widget.run, name)
    assert button.isEnabled(), (name, widget.run.status.text(), widget.run.check.text())
    button.click()


def layer_named(viewer, name: str) -> Image:
    return next(layer for layer in viewer.layers if layer.name == name)


def preview_of(viewer) -> Image | None:
    return next((layer for layer in viewer.layers if PREVIEW_KEY in layer.metadata), None)


def assert_same_place(new: Image, source: Image, factors: tuple[int, ...]) -> None:
    """Check that the outer corners of the first and the last pixel are the same."""
    ends = np.array(source.data.shape[: source.ndim]) - 0.5
    np.testing.assert_allclose(new.data_to_world([-0.5] * new.ndim), source.data_to_world([-0.5] * source.ndim))
    np.testing.assert_allclose(new.data_to_world((ends + 0.5) * factors - 0.5), source.data_to_world(ends))


def slow_down(monkeypatch) -> Callable[..., object]:
    """Let every piece of an enlargement take a moment; return how it was before."""
    work = _upscaling.ArrayDenoising.reports

    def slowly(self, stop):
        for report in work(self, stop):
            yield report
            time.sleep(0.02)

    monkeypatch.setattr(_upscaling.ArrayDenoising, "reports", slowly)
    return work


def test_the_result_lies_on_its_image_and_looks_like_it(viewer, open_widget, finish):
    source = viewer.add_image(
        waves(3, 40, 48),
        name="cells",
        axis_labels=("t", "y", "x"),
        scale=(0.5, 0.2, 0.3),
        units=("s", "um", "um"),
        translate=(1, 2, 3),
        rotate=np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]),
        affine=np.diag([1.0, 1.0, 2.0, 1.0]),
        colormap="magma",
        blending="additive",
        gamma=0.8,
        contrast_limits=(70, 130),
    )
    widget = open_widget()
    assert "40 x 48 pixels become 80 x 96" in widget.run.check.text()
    click(widget, "run")
    assert not widget.run.run.isEnabled()
    assert not widget.method.isEnabled()
    finish(widget)
    result = layer_named(viewer, "cells (x2)")
    assert (result.data.dtype, result.data.shape) == (np.float32, (3, 80, 96))
    np.testing.assert_allclose(result.data, widget.control.model.predict(widget.input.volume()), rtol=1e-3, atol=1e-2)
    assert_same_place(result, source, (1, 2, 2))
    np.testing.assert_allclose(result.scale, (0.5, 0.1, 0.15))
    np.testing.assert_array_equal(result.affine.affine_matrix, source.affine.affine_matrix)
    for name in ("units", "axis_labels", "colormap", "blending", "gamma"):
        assert getattr(result, name) == getattr(source, name)
    assert tuple(result.contrast_limits) == (70, 130)
    assert viewer.layers.selection.active == result
    recipe = result.metadata["ssdenoise"]
    assert (recipe["algorithm"], recipe["settings"]["factor"], recipe["source"]) == ("interpolation", 2, "cells")
    assert "cells (x2)" in widget.run.status.text()


def test_scale_and_place_are_those_of_the_result_volume(viewer, open_widget, finish):
    from napari_ssdenoise.superres import at_new_pixels

    viewer.add_image(waves(40, 48), name="a", scale=(0.5, 0.2), translate=(7, -3))
    widget = open_widget("bicubic", factor=3)
    click(widget, "run")
    finish(widget)
    expected = at_new_pixels(widget.input.volume(), widget.method.upscale().algorithm)
    result = layer_named(viewer, "a (x3)")
    np.testing.assert_allclose(result.scale, expected.scale)
    np.testing.assert_allclose(result.translate, expected.translate)
    assert result.data.shape == expected.shape
    assert widget.method.kernel.isHidden()  # it undoes none


@pytest.mark.parametrize("kind", ["dask", "zarr", "multiscale", "rgb", "rgba", "4d", "channels", "uint16"])
def test_all_kinds_of_layers(viewer, open_widget, finish, kind):
    options, factors = {}, (1, 2, 2)
    data = waves(3, 40, 44).astype(np.uint16)
    if kind in ("rgb", "rgba"):
        data, factors = np.stack([waves(40, 44).astype(np.uint8)] * len(kind), -1), (2, 2)
    elif kind == "4d":
        data, factors = waves(2, 3, 40, 44), (1, 1, 2, 2)
    elif kind == "channels":
        options = {"axis_labels": ("c", "y", "x")}
    shown = {
        "dask": lambda: da.from_array(data, chunks=16),
        "zarr": lambda: zarr.array(data, chunks=(2, 20, 20)),
        "multiscale": lambda: [data, data[:, ::2, ::2]],
    }.get(kind, lambda: data)()
    contrast = {} if kind.startswith("rgb") else {"contrast_limits": (0, 200)}
    source = viewer.add_image(shown, name="layer", multiscale=kind == "multiscale", **contrast, **options)
    widget = open_widget()
    for button in ("preview", "run"):
        click(widget, button)
        finish(widget)
        added = preview_of(viewer) if button == "preview" else layer_named(viewer, "layer (x2)")
        assert added.rgb == kind.startswith("rgb")
        assert added.data.std() > 0
        assert added.data.dtype == (np.uint8 if kind.startswith("rgb") else np.float32)
    shape = tuple(n * f for n, f in zip(data.shape, factors, strict=False))
    assert added.data.shape[: added.ndim] == shape
    level = Image(data, rgb=kind.startswith("rgb"), **{n: getattr(source, n) for n in ("scale", "translate")})
    assert_same_place(added, level, factors)


def test_a_preview_is_what_the_part_in_view_becomes_and_adapts_once(viewer, open_widget, finish, monkeypatch):
    from napari_ssdenoise import superres

    made = []

    class Counting(superres.Upscaler):
        def __init__(self, *args, **options):
            made.append(options["adapt"])
            super().__init__(*args, **options)

    monkeypatch.setattr(superres, "Upscaler", Counting)
    source = viewer.add_image(waves(4, 64, 64), name="film", axis_labels=("t", "y", "x"), scale=(1, 0.5, 0.5))
    widget = open_widget("zssr")
    widget.method.form.set_values({"learning_rate": 1e-4})
    viewer.dims.set_current_step(0, 2)
    click(widget, "preview")
    assert widget.input.layer == source
    finish(widget)
    preview = preview_of(viewer)
    assert preview.name == "film preview"
    assert preview.data.shape == (1, 128, 128)
    assert viewer.layers.selection.active == source
    np.testing.assert_allclose(preview.data_to_world((0, -0.5, -0.5)), source.data_to_world((2, -0.5, -0.5)))
    assert tuple(preview.contrast_limits) == tuple(source.contrast_limits)
    expected = widget.control.model.predict(widget.input.volume())
    np.testing.assert_allclose(preview.data[0], expected[2], rtol=1e-2, atol=1e-1)
    assert "after 3 updates" in widget.run.status.text()
    viewer.dims.set_current_step(0, 3)
    click(widget, "preview")
    finish(widget)
    assert preview_of(viewer).translate[0] == 3
    click(widget, "run")
    finish(widget)
    assert preview_of(viewer) is None
    np.testing.assert_allclose(layer_named(viewer, "film (x2)").data, expected, rtol=1e-2, atol=1e-1)
    assert made == [3]
    widget.method.updates.setValue(2)
    click(widget, "preview")
    finish(widget)
    assert made == [3, 2]


def test_a_preview_of_a_part_lies_where_it_was_cut_out(viewer, open_widget, finish, monkeypatch):
    source = viewer.add_image(waves(64, 64), name="a", scale=(2, 2), translate=(5, 6))
    monkeypatch.setattr(_upscaling, "PREVIEW_PIXELS", 64 * 64)
    widget = open_widget()
    click(widget, "preview")
    finish(widget)
    preview = preview_of(viewer)
    assert preview.data.shape == (64, 64)
    np.testing.assert_allclose(preview.data_to_world((-0.5, -0.5)), source.data_to_world((15.5, 15.5)))
    part = widget.control.model.predict(widget.input.volume())[32:96, 32:96]
    np.testing.assert_allclose(preview.data, part, rtol=1e-2, atol=1e-1)


def test_z_is_offered_and_enlarged_where_there_is_one(viewer, open_widget, finish):
    source = viewer.add_image(waves(10, 24, 24), name="stack", axis_labels=("z", "y", "x"), scale=(2, 1, 1))
    widget = open_widget(factor=1, factor_z=2)
    factor_z = widget.method.form.fields["factor_z"].widget
    assert factor_z.isVisibleTo(widget)
    assert "10 x 24 x 24 pixels become 20 x 24 x 24" in widget.run.check.text()
    viewer.dims.set_current_step(0, 4)
    click(widget, "preview")
    finish(widget)
    preview = preview_of(viewer)
    assert preview.data.shape == (2, 24, 24)
    np.testing.assert_allclose(preview.data_to_world((-0.5, 0, 0)), source.data_to_world((3.5, 0, 0)))
    click(widget, "run")
    finish(widget)
    result = layer_named(viewer, "stack (Z x2)")
    assert result.data.shape == (20, 24, 24)
    assert_same_place(result, source, (2, 1, 1))
    assert "new pixels along Z (" in widget.method.kernel.text.text()
    widget.method.form.set_values({"factor_z": 1})
    assert not widget.run.run.isEnabled()
    assert "factor 1 leaves" in widget.run.check.text().lower()
    widget.method.form.set_values({"factor_z": 2})
    widget.input.layer_box.set_layer(source)
    widget.input.axes_editor.boxes[0].setCurrentText("T")
    assert not factor_z.isVisibleTo(widget)
    assert widget.method.upscale().algorithm.along == {"Z": 1, "Y": 2, "X": 2}
    widget.input.axes_editor.boxes[0].setCurrentText("Z")
    widget.method.form.set_values({"factor": 2})
    assert "become 20 x 48 x 48" in widget.run.check.text()


def test_the_same_settings_stay_with_another_method(viewer, open_widget):
    viewer.add_image(waves(40, 40))
    widget = open_widget("zssr", factor=3, kernel="1.5")
    for method in ("bicubic", "mzsr", "ibp"):
        widget.method.choose(method)
        values = widget.method.upscale().values
        assert values["factor"] == 3
        assert values["kernel"] == ("bicubic" if method == "bicubic" else "1.5")
    assert values["back_projections"] == 10
    assert widget.method.updates.isHidden()
    widget.method.form.set_values({"kernel": ""})
    assert widget.method.upscale().values["kernel"] == "auto"


def test_methods_are_those_of_the_library():
    from napari_ssdenoise import superres

    assert list(METHODS) == list(superres.METHODS)
    for method, (key, values, updates) in superres.METHODS.items():
        choice = METHODS[method]
        assert (choice.key, choice.updates) == (key, updates)
        assert values.items() <= choice.values.items()


def test_updates_until_they_stop_helping(viewer, open_widget, finish):
    viewer.add_image(waves(64, 64))
    widget = open_widget("mzsr")
    widget.method.choose("zssr")
    assert widget.method.updates.value() == METHODS["zssr"].updates
    widget.method.choose("mzsr")
    assert widget.method.updates.value() == METHODS["mzsr"].updates
    widget.method.until_best.setChecked(True)
    assert widget.method.updates.value() == BEST_UPDATES
    widget.method.choose("zssr")
    widget.method.updates.setValue(4)
    upscale = widget.method.upscale()
    assert (upscale.until_best, upscale.adapt) == (True, 4)
    click(widget, "preview")
    finish(widget)
    assert preview_of(viewer) is not None
    widget.method.choose("ibp")
    assert not widget.method.upscale().until_best


@pytest.mark.parametrize("kernel", ["auto", "0.9", "0.3 um", "bicubic", "file"])
def test_the_blur_is_chosen_and_drawn(viewer, open_widget, finish, kernel, tmp_path, monkeypatch):
    viewer.add_image(waves(48, 48), name="a", scale=(0.5, 0.5), units=("um", "um"))
    widget = open_widget()
    edit = widget.method.form.fields["kernel"].widget
    if kernel == "file":
        path = tmp_path / "psf.tif"
        tifffile.imwrite(path, np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32))
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, **__: (str(path), ""))
        next(b for b in widget.method.form.findChildren(QPushButton) if b.text() == "Browse…").click()
        assert edit.text() == str(path)
    else:
        edit.setText(kernel)
    assert widget.method.kernel.isHidden()
    click(widget, "preview")
    finish(widget)
    assert widget.method.kernel.isVisibleTo(widget)
    assert not widget.method.kernel.picture.pixmap().isNull()
    shown = widget.method.kernel.text.text()
    words = {"0.9": "0.9 x 0.9", "0.3 um": "1.2 x 1.2", "file": "1.0 x 1.0", "bicubic": "reduction"}
    assert words.get(kernel, "new pixels") in shown
    edit.setText("2")
    assert widget.method.kernel.isHidden()


@pytest.mark.parametrize(
    ("kernel", "words"),
    [("blurry", "neither a number"), ("0.2 um", "no unit"), ("-1", "0 or more"), ("90", "new pixels wide")],
)
def test_a_blur_that_does_not_fit_is_told(viewer, open_widget, finish, notified, kernel, words):
    viewer.add_image(waves(40, 40))
    widget = open_widget(kernel=kernel)
    click(widget, "run")
    finish(widget)
    assert words in notified[-1]
    assert words in widget.run.status.text()
    assert len(viewer.layers) == 1
    assert widget.run.run.isEnabled()


def test_kernels_as_pictures(qtbot):
    flat = np.outer([1, 2, 1], [1, 1, 1, 1, 1]).astype(np.float32)
    assert blur_picture(flat).shape == (3, 5)
    assert blur_picture(flat).max() == 255
    assert widths(flat) == pytest.approx([0.5**0.5, 2**0.5])
    line = np.array([1, 2, 1], np.float32)[:, None, None]
    assert (blur_picture(line)[:, 2] == (128, 255, 128)).all()
    assert blur_picture(line)[:, :2].max() == 0
    deep = line * np.ones((1, 2, 2), np.float32)
    assert blur_picture(deep).shape == (3, 2 + 1 + 2)
    assert blur_picture(np.ones((1, 1, 1), np.float32)).shape == (1, 1)
    view = KernelView()
    qtbot.addWidget(view)
    for kernel in (flat, line, deep, np.ones((1, 1), np.float32)):
        view.show_kernel(kernel)
        assert not view.isHidden()
    assert view.picture.isHidden()


def test_noise_is_warned_of(viewer, open_widget, finish):
    viewer.add_image(waves(96, 96, noise=10), name="noisy")
    widget = open_widget()
    click(widget, "preview")
    finish(widget)
    warning = widget.run.warning
    assert warning.isVisibleTo(widget)
    assert "Denoise it first with the Denoise widget" in warning.text()
    assert "ssdenoise" not in warning.text()
    widget.method.choose("bicubic")
    assert warning.isHidden()
    click(widget, "preview")
    finish(widget)
    assert warning.isHidden()
    assert preview_of(viewer) is not None


def test_before_and_after(viewer, open_widget, finish):
    source = viewer.add_image(waves(40, 40), name="a", visible=False)
    widget = open_widget()
    assert not widget.run.compare.isEnabled()
    source.visible = True
    click(widget, "run")
    finish(widget)
    result = layer_named(viewer, "a (x2)")
    source.visible = False
    click(widget, "compare")
    assert (result.visible, source.visible) == (False, True)
    click(widget, "compare")
    assert (result.visible, source.visible) == (True, True)
    viewer.layers.remove(result)
    assert not widget.run.compare.isEnabled()


def test_deleting_the_result_while_it_fills_stops_the_job(viewer, open_widget, finish, qtbot, monkeypatch):
    viewer.add_image(waves(400, 40, 40), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    slow_down(monkeypatch)
    click(widget, "run")
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=PATIENCE)
    viewer.layers.remove(layer_named(viewer, "film (x2)"))
    finish(widget)
    assert "the result was deleted" in widget.run.status.text()
    assert len(viewer.layers) == 1


def test_stopping_an_adaptation_while_the_loop_stays_alive(viewer, open_widget, finish, qtbot):
    viewer.add_image(waves(64, 64), name="a")
    widget = open_widget("zssr", FOREVER)
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(len(ticks)))
    timer.start(10)
    assert not widget.run.stop.isEnabled()
    click(widget, "run")
    qtbot.waitUntil(lambda: "update" in widget.run.status.text(), timeout=PATIENCE)
    assert "left" in widget.run.bar.format()
    before = len(ticks)
    qtbot.waitUntil(lambda: len(ticks) > before + 10, timeout=PATIENCE)
    started = time.perf_counter()
    click(widget, "stop")
    assert not widget.run.stop.isEnabled()
    finish(widget)
    assert time.perf_counter() - started < 5  # on a quiet machine, far below one second
    timer.stop()
    assert "Stopped: nothing" in widget.run.status.text()
    assert widget.run.run.isEnabled()
    assert [layer.name for layer in viewer.layers] == ["a"]


def test_stopping_while_it_enlarges(viewer, open_widget, finish, qtbot, monkeypatch):
    viewer.add_image(waves(60, 40, 40), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget("zssr", 1)
    monkeypatch.setattr(_upscaling, "LEAST_MEMORY", 16 << 20)
    work = slow_down(monkeypatch)
    click(widget, "run")
    qtbot.waitUntil(lambda: "Enlarging on" in widget.run.status.text(), timeout=PATIENCE)
    click(widget, "stop")
    finish(widget)
    assert "% of the image is enlarged" in widget.run.status.text()
    result = layer_named(viewer, "film (x2) (unfinished)")
    assert 0 < result.data.any((1, 2)).sum() < 60  # what was in view first
    monkeypatch.setattr(_upscaling.ArrayDenoising, "reports", work)
    click(widget, "run")
    finish(widget)
    assert layer_named(viewer, "film (x2)").data.any((1, 2)).all()


def test_deleting_the_layer_while_it_adapts_and_before_a_preview(viewer, open_widget, finish, qtbot):
    viewer.add_image(waves(64, 64), name="a")
    widget = open_widget("zssr", FOREVER)
    click(widget, "run")
    qtbot.waitUntil(lambda: "update" in widget.run.status.text(), timeout=PATIENCE)
    viewer.layers.clear()
    widget.stop()
    finish(widget)
    assert not widget.run.run.isEnabled()
    assert "no image layer" in widget.run.check.text()
    viewer.add_image(waves(64, 64), name="b")
    widget.method.updates.setValue(3)
    click(widget, "preview")
    viewer.layers.clear()
    finish(widget)
    assert len(viewer.layers) == 0
    viewer.add_image(waves(64, 64), name="c")
    click(widget, "run")
    viewer.layers.clear()
    finish(widget)
    assert [layer.name for layer in viewer.layers] == ["c (x2)"]


def test_closing_the_dock_stops_the_job(viewer, open_widget, qtbot):
    viewer.add_image(waves(64, 64))
    widget = open_widget("zssr", FOREVER)
    click(widget, "preview")
    qtbot.waitUntil(lambda: "update" in widget.run.status.text(), timeout=PATIENCE)
    viewer.window.remove_dock_widget(widget)
    assert widget.control.job.cancelled
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert len(viewer.layers) == 1
    viewer.add_image(waves(64, 64))  # nothing listens any more


def test_closing_the_dock_takes_the_preview_away(viewer, open_widget, finish):
    viewer.add_image(waves(64, 64))
    widget = open_widget()
    click(widget, "preview")
    finish(widget)
    assert preview_of(viewer) is not None
    viewer.window.remove_dock_widget(widget)
    assert preview_of(viewer) is None


def test_destroying_the_widget_stops_the_job(viewer, open_widget, qtbot):
    viewer.add_image(waves(64, 64))
    widget = open_widget("zssr", FOREVER)
    click(widget, "run")
    qtbot.waitUntil(lambda: "update" in widget.run.status.text(), timeout=PATIENCE)
    worker = widget.control.job._worker
    widget.deleteLater()
    qtbot.waitUntil(lambda: worker._stop.is_set() and not worker.is_running, timeout=PATIENCE)


def test_missing_weights_are_told(viewer, open_widget, finish, notified, monkeypatch):
    from napari_ssdenoise.algorithms import MetaSuperResolution

    monkeypatch.setattr(MetaSuperResolution, "_weights", "super-resolution-none.safetensors")
    viewer.add_image(waves(64, 64))
    widget = open_widget("mzsr")
    for button in ("preview", "run"):
        click(widget, button)
        finish(widget)
        assert "The weights that MZSR begins with are not installed" in notified[-1]
        assert "super-resolution-none.safetensors" in widget.run.status.text()
        assert "ZSSR" in notified[-1]
    assert len(viewer.layers) == 1
    widget.method.choose("bicubic")
    click(widget, "preview")
    finish(widget)
    assert len(notified) == 2


def test_what_the_image_tells_is_said_at_once_or_before_any_work(viewer, open_widget, finish, notified):
    widget = open_widget()
    assert "no image layer" in widget.run.check.text()
    viewer.add_image(np.zeros((40, 40), bool))
    assert "mask" in widget.run.check.text()
    assert not widget.run.preview.isEnabled()
    viewer.add_image(waves(12, 40), name="thin")
    click(widget, "run")
    finish(widget)
    assert "only 12 pixels along Y" in notified[-1]
    viewer.add_image(np.where(np.eye(40) > 0, np.nan, waves(40, 40)), name="holes", contrast_limits=(0, 200))
    widget.input.layer_box.set_layer(layer_named(viewer, "holes"))
    click(widget, "run")
    finish(widget)
    assert "NaN" in notified[-1]
    assert len(viewer.layers) == 3


def test_what_a_method_cannot_do_is_told(viewer, open_widget, finish, notified):
    viewer.add_image(waves(10, 32, 32), axis_labels=("z", "y", "x"))
    widget = open_widget("mzsr", factor=2, factor_z=2)
    click(widget, "run")
    finish(widget)
    assert "Enlarge in two runs" in notified[-1]


def test_tiles_are_small_unless_halos_would_fill_them(monkeypatch):
    from napari_ssdenoise.superres import Upscaler
    from napari_ssdenoise.volume import Volume

    flat, deep = Volume(waves(600, 600), "YX"), Volume(waves(40, 300, 300), "ZYX")
    for volume, values, least in ((flat, {}, True), (deep, {"factor_z": 2}, False)):
        model = Upscaler(volume, "zssr", adapt=0, **values).model
        memory = _upscaling.tile_memory(model, model.algorithm.prepared(volume), "cpu")
        assert (memory == _upscaling.LEAST_MEMORY) == least
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 3 * memory}))
    assert _upscaling.tile_memory(model, model.algorithm.prepared(deep), "cpu") <= 1.5 * memory


def test_too_large_a_result_is_refused(viewer, open_widget, notified, monkeypatch):
    viewer.add_image(waves(40, 40))
    widget = open_widget()
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    click(widget, "run")
    assert "ssdenoise upscale" in notified[-1]
    assert not widget.busy


def test_surprises_are_told(viewer, open_widget, finish, notified, monkeypatch, caplog):
    viewer.add_image(waves(40, 40))
    widget = open_widget()

    def fail(*_):
        raise KeyError("odd")

    monkeypatch.setattr(_upscaling.Upscaling, "_upscaler", fail)
    click(widget, "run")
    finish(widget)
    assert "Unexpected error: KeyError" in notified[-1]
    assert "unexpectedly" in caplog.text


def test_smaller_pixels_of_a_sheared_layer_lie_where_they_did():
    source = Image(np.zeros((32, 32)), scale=(2, 0.5), translate=(1, 2), rotate=20, shear=(0.2,))
    pixels = Pixels((4, 2), (-3 / 8, -1 / 4))
    whole = Image(np.zeros((128, 64)), **place(source, pixels=pixels))
    assert_same_place(whole, source, (4, 2))
    part = Image(np.zeros((8, 8)), **place(source, (40, 20), pixels))
    np.testing.assert_allclose(part.data_to_world((-0.5, -0.5)), source.data_to_world((9.5, 9.5)))


def test_operations_that_are_no_layers_are_interrupted():
    torch = pytest.importorskip("torch")
    stop, value = threading.Event(), torch.zeros(1, requires_grad=True)

    @torch.no_grad()
    def work():
        with torch.autocast("cpu", torch.bfloat16):
            value.exp()
            stop.set()
            value.exp()

    with _work.interrupting(stop), pytest.raises(Stopped):
        work()
    assert torch.is_grad_enabled()  # threads are used again
    assert not torch.is_autocast_enabled("cpu")
    value.exp().backward()


CODE = """
import sys
from napari_ssdenoise.widgets import superres
from napari_ssdenoise.widgets._upscale_panel import METHODS
print("torch" in sys.modules, "pyqtgraph" in sys.modules)
"""


def test_importing_the_widget_loads_neither_torch_nor_the_plot():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False"]


def test_the_copied_command_makes_the_same_pixels(viewer, open_widget, finish, tmp_path, as_program):
    np.save(tmp_path / "cells.npy", waves(40, 48))
    viewer.open(tmp_path / "cells.npy", plugin="napari")
    widget = open_widget()
    assert not widget.run.copy_as.isEnabled()
    click(widget, "run")
    finish(widget)
    widget.copy_as("command")
    finish(widget)
    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["ssdenoise", "upscale"]
    out = tmp_path / "again.npy"
    words[words.index("-o") + 1] = str(out)
    result = as_program(CliRunner().invoke, program, words[1:], prog_name="ssdenoise", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(out), layer_named(viewer, "cells (x2)").data)
