"""The real form in a real viewer: train, watch, stop, apply, stream, save and load, and all that goes wrong."""

from __future__ import annotations

import json
import shlex
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import yaozarrs
import zarr
from click.testing import CliRunner
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QPushButton

from napari_ssdenoise.cli import program
from napari_ssdenoise.widgets import _work
from napari_ssdenoise.widgets._layers import PREVIEW_KEY

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_ssdenoise.widgets.denoise import DenoiseWidget

FOREVER = 10**6  # steps
PATIENCE = 120_000  # ms, for machines that are busy


def noisy(*shape: int, seed: int = 0) -> np.ndarray:
    """Return waves in noise."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).sum(0)
    return (100 + 20 * np.sin(grid / 5) + rng.normal(0, 10, shape)).astype(np.float32)


@pytest.fixture
def eager(monkeypatch):
    """Preview after every step."""
    monkeypatch.setattr(_work, "PREVIEW_INTERVAL", 0.0)
    monkeypatch.setattr(_work, "PREVIEW_SHARE", 1.0)


def click(widget: DenoiseWidget, name: str) -> None:
    button: QPushButton = getattr(widget.run, name)
    assert button.isEnabled(), (name, widget.run.status.text(), widget.run.check.text())
    button.click()


def layer_named(viewer, name: str) -> Image:
    return next(layer for layer in viewer.layers if layer.name == name)


def preview_of(viewer) -> Image | None:
    return next((layer for layer in viewer.layers if PREVIEW_KEY in layer.metadata), None)


def train(widget: DenoiseWidget, finish) -> None:
    click(widget, "train")
    finish(widget)
    assert widget.model is not None, widget.run.status.text()


def test_train_watch_and_apply_keeping_everything(viewer, open_widget, finish, eager, qtbot):
    image = noisy(3, 40, 48)
    source = viewer.add_image(
        image,
        name="cells",
        axis_labels=("t", "y", "x"),
        scale=(0.5, 0.2, 0.2),
        units=("s", "um", "um"),
        translate=(1, 2, 3),
        affine=np.diag([1.0, 1.0, 2.0, 1.0]),
        colormap="magma",
        blending="additive",
        gamma=0.8,
    )
    widget = open_widget()
    viewer.dims.set_current_step(0, 1)
    assert "3 images of 40 x 48" in widget.run.check.text()
    train(widget, finish)
    preview = preview_of(viewer)
    assert preview.data.shape == (1, 40, 48)
    np.testing.assert_allclose(preview.data_to_world((0, 0, 0)), source.data_to_world((1, 0, 0)))
    assert preview.units == source.units
    assert "Trained 3 steps" in widget.run.status.text()
    assert " thread" in widget.run.status.text()

    click(widget, "apply")
    result = layer_named(viewer, "cells denoised")  # there at once
    assert preview_of(viewer) is None
    finish(widget)
    assert np.isfinite(result.data).all()
    assert (result.data.dtype, result.data.shape) == (np.float32, image.shape)
    np.testing.assert_allclose(result.data, widget.model.predict(widget.input.volume()), rtol=1e-3, atol=1e-2)
    for name in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_array_equal(getattr(result, name), getattr(source, name))
    np.testing.assert_array_equal(result.affine.affine_matrix, source.affine.affine_matrix)
    for name in ("units", "axis_labels", "colormap", "blending", "gamma"):
        assert getattr(result, name) == getattr(source, name)
    low, high = result.contrast_limits
    assert result.data.min() <= low < high <= result.data.max()
    recipe = result.metadata["ssdenoise"]
    assert (recipe["algorithm"], recipe["settings"]["width"], recipe["source"]) == ("n2v", 4, "cells")
    assert recipe["record"]["steps"] == 3


def test_the_preview_follows_the_slider_and_the_loop_stays_alive(viewer, open_widget, finish, eager, qtbot):
    viewer.add_image(noisy(4, 40, 40), axis_labels=("t", "y", "x"), name="film")
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(len(ticks)))
    timer.start(10)
    click(widget, "train")
    for frame in (1, 3):
        viewer.dims.set_current_step(0, frame)
        qtbot.waitUntil(
            lambda frame=frame: (p := preview_of(viewer)) is not None and p.translate[0] == frame, timeout=PATIENCE
        )
        assert viewer.layers.selection.active.name == "film"
    assert widget.run.curve.isVisibleTo(widget)
    assert "left" in widget.run.bar.format()
    widget.run.preview.setCurrentIndex(widget.run.preview.findData("half"))
    qtbot.waitUntil(lambda: (p := preview_of(viewer)) is not None and p.data.shape == (1, 40, 20), timeout=PATIENCE)
    before = len(ticks)
    qtbot.waitUntil(lambda: len(ticks) > before + 10, timeout=PATIENCE)
    widget.run.preview.setCurrentIndex(widget.run.preview.findData("off"))
    assert preview_of(viewer) is None
    click(widget, "train")  # which is Stop now
    assert not widget.run.train.isEnabled() or not widget.busy
    finish(widget)
    timer.stop()
    assert widget.run.train.text() == "Train"
    assert "Stopped" in widget.run.status.text()
    assert widget.model.record["steps"] > 0


def test_deleting_the_preview_switches_it_off(viewer, open_widget, finish, eager, qtbot):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    click(widget, "train")
    qtbot.waitUntil(lambda: preview_of(viewer) is not None, timeout=PATIENCE)
    viewer.layers.remove(preview_of(viewer))
    qtbot.waitUntil(lambda: widget.run.preview.currentData() == "off", timeout=PATIENCE)
    widget.stop()
    finish(widget)
    assert preview_of(viewer) is None


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "multiscale", "rgb", "rgba", "3d", "4d", "channels"])
def test_all_kinds_of_layers(viewer, open_widget, finish, eager, kind):
    options = {}
    if kind in ("rgb", "rgba"):
        data = np.clip(np.stack([noisy(40, 40, seed=i) for i in range(len(kind))], -1), 0, 255).astype(np.uint8)
    elif kind == "4d":
        data, options = noisy(2, 8, 40, 40).astype(np.uint16), {"axis_labels": ("t", "z", "y", "x")}
    elif kind == "channels":
        data, options = noisy(2, 40, 40), {"axis_labels": ("c", "y", "x")}
    else:
        data = noisy(12, 40, 40).astype(np.uint16)
    shape = data.shape
    shown = {
        "dask": lambda: da.from_array(data, chunks=16),
        "zarr": lambda: zarr.array(data, chunks=(4, 20, 20)),
        "multiscale": lambda: [data, data[:, ::2, ::2]],
    }.get(kind, lambda: data)()
    contrast = {} if kind.startswith("rgb") else {"contrast_limits": (0, 200)}
    viewer.add_image(shown, name="layer", multiscale=kind == "multiscale", **contrast, **options)
    widget = open_widget()
    if kind == "channels":
        widget.input.channels.setCurrentIndex(widget.input.channels.findData("joint"))
    elif kind in ("numpy", "dask", "zarr", "multiscale"):
        widget.input.dimensions.setCurrentIndex(0)
    train(widget, finish)
    assert widget.model.geometry.spatial == ("ZYX" if kind in ("3d", "4d") else "YX")
    assert widget.model.geometry.n_channels == {"rgb": 3, "rgba": 3, "channels": 2}.get(kind, 1)
    assert preview_of(viewer) is not None
    click(widget, "apply")
    finish(widget)
    result = layer_named(viewer, "layer denoised")
    assert result.data.shape == ((*shape[:2], 3) if kind.startswith("rgb") else shape)
    assert result.data.dtype == (np.uint8 if kind.startswith("rgb") else np.float32)
    assert result.rgb == kind.startswith("rgb")
    assert result.data.std() > 0


@pytest.mark.parametrize(("mode", "channels"), [("auto", 1), ("joint", 3)])
def test_colours_are_learnt_as_chosen_and_shown_together(viewer, open_widget, finish, eager, mode, channels):
    viewer.add_image(np.clip(noisy(40, 40, 3), 0, 255).astype(np.uint8), name="photograph")
    widget = open_widget()
    widget.method.algorithm_box.setCurrentIndex(widget.method.algorithm_box.findData("blindspot"))
    widget.method.form.set_values({"noise": "gaussian", "depth": 1, "width": 4, "patch": 16, "batch": 2})
    widget.input.channels.setCurrentIndex(widget.input.channels.findData(mode))
    train(widget, finish)
    assert widget.model.geometry.n_channels == channels
    assert preview_of(viewer).data.shape == (40, 40, 3)
    click(widget, "apply")
    finish(widget)
    result = layer_named(viewer, "photograph denoised")
    assert result.rgb
    np.testing.assert_allclose(result.data, widget.model.predict(widget.input.volume()), atol=1)


def test_noise2noise_with_a_second_layer_and_with_frames(viewer, open_widget, finish):
    viewer.add_image(noisy(4, 40, 40, seed=1), axis_labels=("t", "y", "x"), name="second")
    viewer.add_image(noisy(4, 40, 40), axis_labels=("t", "y", "x"), name="first")
    widget = open_widget()
    assert widget.input.target_box.isHidden()
    widget.method.algorithm_box.setCurrentIndex(widget.method.algorithm_box.findData("n2n"))
    widget.method.form.set_values({"depth": 1, "width": 4, "patch": 16, "batch": 2})
    assert not widget.input.target_box.isHidden()
    widget.input.target_box.set_layer(layer_named(viewer, "first"))
    assert not widget.run.train.isEnabled()  # an image is no second view of itself
    widget.input.target_box.set_layer(layer_named(viewer, "second"))
    train(widget, finish)
    widget.method.form.set_values({"pairs": "frames"})
    assert widget.input.target_box.isHidden()
    train(widget, finish)
    assert widget.model.describe()["settings"]["pairs"] == "frames"


def test_streaming_to_ome_zarr(viewer, open_widget, finish, tmp_path):
    image = noisy(3, 300, 280)
    source = viewer.add_image(
        image, name="big", axis_labels=("t", "y", "x"), scale=(1, 0.2, 0.2), units=("s", "um", "um"), colormap="green"
    )
    widget = open_widget()
    train(widget, finish)
    widget.apply_to(tmp_path / "clean")
    finish(widget)
    path = tmp_path / "clean.ome.zarr"
    assert path.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    yaozarrs.validate_zarr_store(str(path))
    result = layer_named(viewer, "big denoised")
    assert result.multiscale
    expected = widget.model.predict(widget.input.volume())
    np.testing.assert_allclose(np.asarray(result.data[0]), expected, rtol=1e-2, atol=1e-1)
    assert (tuple(result.scale), result.units, result.colormap) == (tuple(source.scale), source.units, source.colormap)
    low, high = result.contrast_limits
    assert expected.min() <= low < high <= expected.max()
    assert path.name in widget.run.status.text()


def test_a_stopped_stream_goes_on(viewer, open_widget, finish, tmp_path, monkeypatch, qtbot):
    viewer.add_image(noisy(8, 64, 64), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    train(widget, finish)
    gate = threading.Event()
    to_file = type(widget.model).predict_into

    def slowly(self, *args, **options):
        for tile in to_file(self, *args, **options):
            yield tile
            if tile.done == 3:
                gate.wait(60)

    monkeypatch.setattr(type(widget.model), "predict_into", slowly)
    widget.apply_to(tmp_path / "clean.ome.zarr")
    qtbot.waitUntil(lambda: "Block 3 of 8" in widget.run.status.text(), timeout=PATIENCE)
    filling = layer_named(viewer, "film denoised")
    assert np.asarray(filling.data[0]).std() > 0
    assert np.asarray(filling.data[7]).std() == 0
    widget.stop()
    gate.set()
    finish(widget)
    assert "goes on from there" in widget.run.status.text()
    assert not (tmp_path / "clean.ome.zarr").exists()
    monkeypatch.setattr(type(widget.model), "predict_into", to_file)
    widget.apply_to(tmp_path / "clean.ome.zarr")
    finish(widget)
    assert (tmp_path / "clean.ome.zarr").is_dir()
    assert [layer.name for layer in viewer.layers] == ["film", "film denoised"]


def test_what_is_in_view_comes_first(viewer, open_widget, finish, tmp_path, monkeypatch, qtbot):
    viewer.add_image(noisy(8, 64, 64), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    train(widget, finish)
    gates = {0: threading.Event(), 1: threading.Event()}
    filled = []
    to_file = type(widget.model).predict_into

    def slowly(self, *args, **options):
        for tile in to_file(self, *args, **options):
            filled.append((tile.region[0].start if tile.region else None, tile.early))
            yield tile
            if len(filled) - 1 in gates:
                gates[len(filled) - 1].wait(60)

    monkeypatch.setattr(type(widget.model), "predict_into", slowly)
    viewer.dims.set_current_step(0, 6)
    widget.apply_to(tmp_path / "clean.ome.zarr")
    qtbot.waitUntil(lambda: filled == [(6, True)], timeout=PATIENCE)
    qtbot.waitUntil(lambda: "film denoised" in viewer.layers, timeout=PATIENCE)
    filling = layer_named(viewer, "film denoised")
    assert np.asarray(filling.data[6]).std() > 0
    viewer.dims.set_current_step(0, 3)
    qtbot.waitUntil(lambda: widget.applying._view[0].start == 3, timeout=PATIENCE)
    for gate in gates.values():
        gate.set()
    finish(widget)
    assert (3, True) in filled[1:5]  # blocks that were under way come before it
    assert [plane for plane, early in filled if not early] == [*range(8), None]


def test_save_and_load(viewer, open_widget, finish, tmp_path, monkeypatch):
    viewer.add_image(noisy(40, 40), name="cells")
    widget = open_widget()
    assert not widget.run.save.isEnabled()
    assert not widget.run.apply.isEnabled()
    train(widget, finish)
    volume = widget.input.volume()
    expected = widget.model.predict(volume, precision="float32")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "m"), ""))
    click(widget, "save")
    finish(widget)
    assert (tmp_path / "m.zip").is_file()
    widget.save_model(tmp_path / "folder")
    finish(widget)
    for chosen in (tmp_path / "m.zip", tmp_path / "folder" / "model.json"):
        widget.model = None
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, path=str(chosen): (path, ""))
        click(widget, "load")
        finish(widget)
        assert "Noise2Void" in widget.run.status.text()
        np.testing.assert_array_equal(widget.model.predict(volume, precision="float32"), expected)
    click(widget, "apply")
    finish(widget)
    assert layer_named(viewer, "cells denoised")


def test_asking_for_a_file(viewer, open_widget, finish, tmp_path, monkeypatch, notified):
    viewer.add_image(noisy(40, 40), name="cells")
    widget = open_widget()
    train(widget, finish)
    path = tmp_path / "out.zarr"
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(path), ""))
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    click(widget, "apply_to_file")
    assert not widget.busy
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    click(widget, "apply_to_file")
    finish(widget)
    assert "never removed" in notified[-1]
    assert (path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((40, 40), 7, np.uint16), "same value"),
        (np.where(np.eye(40) > 0, np.nan, noisy(40, 40)), "NaN"),
    ],
)
def test_what_pixels_tell_is_said_before_training(viewer, open_widget, finish, notified, data, words):
    viewer.add_image(data, contrast_limits=(0, 200))
    widget = open_widget()
    click(widget, "train")
    finish(widget)
    assert widget.model is None
    assert words in notified[-1]
    assert words in widget.run.status.text()
    assert widget.run.train.isEnabled()


@pytest.mark.parametrize(("data", "words"), [(np.zeros((40, 40), bool), "mask"), (noisy(3, 40), "only 3 pixels")])
def test_what_the_shape_tells_is_said_at_once(viewer, open_widget, data, words):
    viewer.add_image(data)
    widget = open_widget()
    assert words in widget.run.check.text()
    assert not widget.run.train.isEnabled()


def test_without_layers_and_with_other_layers(viewer, open_widget):
    widget = open_widget()
    assert "no image layer" in widget.run.check.text()
    viewer.add_labels(np.zeros((40, 40), int))
    assert not widget.run.train.isEnabled()
    viewer.add_image(noisy(40, 40))
    assert widget.run.train.isEnabled()
    widget.method.form.set_values({"struct_mask": "12"})
    assert not widget.run.train.isEnabled()
    assert "struct_mask" in widget.run.check.text()


def test_a_model_for_other_images_is_refused(viewer, open_widget, finish, notified):
    viewer.add_image(noisy(12, 40, 40), axis_labels=("z", "y", "x"))
    widget = open_widget()
    train(widget, finish)
    flat = viewer.add_image(noisy(40, 40), name="flat")
    widget.input.layer_box.set_layer(flat)
    click(widget, "apply")
    assert "'ZYX'" in notified[-1]
    assert not widget.busy


def test_too_large_a_result_is_sent_to_a_file(viewer, open_widget, finish, notified, monkeypatch):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    click(widget, "apply")
    assert "Apply to file" in notified[-1]
    assert len(viewer.layers) == 2  # and the preview is still there


def test_missing_devices_and_surprises_are_told(viewer, open_widget, finish, notified, monkeypatch, caplog):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.device.addItem("cuda:77", "cuda:77")
    widget.method.device.setCurrentIndex(widget.method.device.count() - 1)
    click(widget, "train")
    finish(widget)
    assert "not available" in notified[-1]
    widget.method.device.setCurrentIndex(0)

    def fail(*_):
        raise KeyError("odd")

    monkeypatch.setattr(_work.Training, "_steps", fail)
    click(widget, "train")
    finish(widget)
    assert "Unexpected error: KeyError" in notified[-1]
    assert "unexpectedly" in caplog.text


def test_deleting_the_layer_while_it_trains_and_while_it_is_denoised(viewer, open_widget, finish, eager, qtbot):
    viewer.add_image(noisy(40, 40), name="a")
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    click(widget, "train")
    qtbot.waitUntil(lambda: preview_of(viewer) is not None, timeout=PATIENCE)
    viewer.layers.clear()
    steps = widget.training._last.step
    qtbot.waitUntil(lambda: widget.training._last.step > steps + 5, timeout=PATIENCE)
    widget.stop()
    finish(widget)
    assert widget.model is not None
    assert not widget.run.train.isEnabled()
    viewer.add_image(noisy(4, 40, 40), axis_labels=("t", "y", "x"), name="b")
    click(widget, "apply")
    viewer.layers.clear()
    finish(widget)
    assert len(viewer.layers) == 0


def test_closing_the_dock_stops_the_job(viewer, open_widget, eager, qtbot):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    click(widget, "train")
    qtbot.waitUntil(lambda: preview_of(viewer) is not None, timeout=PATIENCE)
    viewer.window.remove_dock_widget(widget)
    assert widget.training.job.cancelled
    assert preview_of(viewer) is None
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    viewer.add_image(noisy(40, 40))  # nothing listens any more


def test_destroying_the_widget_stops_the_job(viewer, open_widget, qtbot):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    click(widget, "train")
    job, training = widget.training.job, widget.training.training
    qtbot.waitUntil(lambda: widget.training._last is not None, timeout=PATIENCE)
    widget.deleteLater()
    qtbot.waitUntil(lambda: training.model is not None, timeout=PATIENCE)
    with suppress(RuntimeError):
        assert job.cancelled


def test_torch_comes_with_the_first_job_and_pyqtgraph_leaves_the_hooks_alone(viewer, open_widget, finish):
    import sys

    hooks = sys.excepthook, threading.excepthook
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    said = []
    widget.run.say = lambda text, error=False: said.append(text)
    train(widget, finish)
    assert said[:2] == ["Reading the image…", "Loading PyTorch…"]
    assert (sys.excepthook, threading.excepthook) == hooks


def test_the_copied_command_makes_the_same_pixels(
    viewer, open_widget, finish, tmp_path, monkeypatch, notified, qtbot, as_program
):
    np.save(tmp_path / "film.npy", noisy(4, 40, 48))
    (layer,) = viewer.open(tmp_path / "film.npy", plugin="napari")
    layer.axis_labels = ("t", "y", "x")
    widget = open_widget()
    assert not widget.run.copy_as.isEnabled()
    train(widget, finish)
    click(widget, "apply")
    finish(widget)
    widget.copy_as("command")
    finish(widget)
    command = QApplication.clipboard().text()
    assert command.startswith("ssdenoise denoise ")
    assert "Copied" in widget.run.status.text()
    out = tmp_path / "again.npy"
    words = shlex.split(command)
    words[words.index("-o") + 1] = str(out)
    result = as_program(CliRunner().invoke, program, words[1:], prog_name="ssdenoise", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(out), layer_named(viewer, "film denoised").data)
    # What cannot be repeated is applied by a saved model.
    widget.method.length.unit.setCurrentText("minutes")
    widget.method.length.minutes.setValue(0.01)
    train(widget, finish)
    click(widget, "apply")
    finish(widget)
    widget.copy_as("python")
    finish(widget)
    assert "limited by time" in widget.run.status.text()
    assert notified
    widget.save_model(tmp_path / "a.model.zip")
    finish(widget)
    widget.copy_as("python")
    finish(widget)
    assert 'TrainedModel.load("' in QApplication.clipboard().text()
    notebook = tmp_path / "notes"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(notebook), ""))
    widget.copy_as("notebook")
    finish(widget)
    assert json.loads((tmp_path / "notes.ipynb").read_text())["nbformat"] == 4
