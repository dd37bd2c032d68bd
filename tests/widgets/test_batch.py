"""Many images in a real viewer: each learnt from or by one model, failures, a stop, and the table."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.batch import Job, _training
from napari_ssdenoise.engine.trainer import Trainer
from napari_ssdenoise.io import read_volume, write_volume
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets import batch
from napari_ssdenoise.widgets._batch_work import TRAINING_SHARE, Share, require_uncertainty
from napari_ssdenoise.widgets.batch import CURRENT, EACH, SAVED, BatchWidget

TINY = {"depth": 1, "width": 4, "patch": 16, "batch": 2}
PATIENCE = 120_000  # ms, for machines that are busy


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    for level, name in enumerate(("a", "b")):
        data = np.random.default_rng(level).normal(level, 0.2, (32, 40)).astype("float32")
        write_volume(tmp_path / "in" / f"{name}.npy", Volume(data, "YX"))
    return tmp_path / "in"


@pytest.fixture
def model(tmp_path, files):
    trainer = Trainer(get_algorithm("n2v", **TINY), files / "a.npy", steps=2)
    list(trainer)
    trainer.close()
    return trainer.model


@pytest.fixture
def open_batch(viewer, qtbot, tmp_path) -> Iterator[Callable[..., BatchWidget]]:
    opened: list[BatchWidget] = []

    def make(choice: str = EACH, steps: int = 2) -> BatchWidget:
        widget = BatchWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Denoise many", area="right")
        widget.method.choose("n2v", TINY)
        widget.method.length.set_steps(steps)
        widget.output.folder.setText(str(tmp_path / "out"))
        widget.model_box.setCurrentIndex(widget.model_box.findData(choice))
        opened.append(widget)
        return widget

    yield make
    for widget in opened:
        with suppress(RuntimeError):
            widget.stop()
            qtbot.waitUntil(lambda widget=widget: not widget.busy, timeout=PATIENCE)
            widget.shut_down()
            viewer.window.remove_dock_widget(widget)
            widget.deleteLater()
    qtbot.waitUntil(lambda: not [w for w in QApplication.allWidgets() if isinstance(w, BatchWidget)], timeout=10_000)


def statuses(widget: BatchWidget) -> list[str]:
    return [widget.images.text(row, 1) for row in range(len(widget.images.entries))]


def test_a_model_for_files_a_broken_one_and_a_layer(viewer, open_batch, files, model, tmp_path, finish):
    (files / "broken.tif").write_bytes(b"II*\0 this is no image")
    layer = viewer.add_image(np.asarray(read_volume(files / "b.npy")), name="open one", axis_labels=("y", "x"))
    widget = open_batch(SAVED)
    assert not widget.run.run.isEnabled()
    widget.images.add_folder(files)
    widget.images.add_folder(files)  # again: nothing new
    widget.images.add_layers([layer])
    widget.model_path.setText(str(model.save(tmp_path / "x.model.zip")))
    assert "4 images" in widget.run.check.text()
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done", "done", "failed", "done"]
    assert "broken.tif" in widget.images.text(2, 3)
    assert "3 of 4 images denoised, 1 failed." in widget.run.status.text()
    out = tmp_path / "out"
    expected = model.predict(files / "b.npy")
    np.testing.assert_allclose(
        np.asarray(read_volume(out / "b.denoised.npy")), expected, atol=0.03
    )  # bfloat16, where the processor has it
    np.testing.assert_allclose(
        np.asarray(read_volume(out / "open one.denoised.tif")), expected, atol=0.03
    )  # bfloat16, where the processor has it
    widget.save_table(tmp_path / "table.csv")
    finish(widget)
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf8").splitlines()))
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done"]
    write_volume(files / "broken.tif", read_volume(files / "a.npy"), overwrite=True)
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done before", "done before", "done", "done before"]
    assert not list(out.glob(".*"))
    widget.run.run.click()
    finish(widget)
    assert set(statuses(widget)) == {"existed already"}


def test_a_stop_keeps_what_is_done_and_the_same_again_goes_on(open_batch, files, tmp_path, finish, qtbot, monkeypatch):
    widget = open_batch(EACH, steps=200)
    widget.images.add_folder(files)
    steps: list[int] = []
    original = Trainer.__next__

    def slowly(self):
        step = original(self)
        steps.append(step.step)
        time.sleep(0 if self.volumes[0].name.startswith("a") else 0.01)
        return step

    monkeypatch.setattr(Trainer, "__next__", slowly)
    widget.run.run.click()
    qtbot.waitUntil(lambda: widget.images.text(0, 1) == "done" and steps[-1] < 150 and steps[-1] > 20, timeout=PATIENCE)
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done", "stopped"]
    assert "goes on from there" in widget.run.status.text()
    assert not (tmp_path / "out" / "b.denoised.npy").exists()
    at = steps[-1]
    assert at < 200
    steps.clear()
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done before", "done"]
    assert 1 < steps[0] <= at + 1  # the training went on; the first image was not learnt from again
    assert steps[-1] == 200
    assert not list((tmp_path / "out").glob(".*"))


def test_uncertainties_are_written_where_a_method_tells_them(open_batch, files, model, tmp_path, finish, monkeypatch):
    widget = open_batch()
    widget.method.choose("blindspot", {**TINY, "patch": 32})
    widget.images.add_paths([files / "a.npy"])
    widget.output.uncertainty.setChecked(True)
    bars = []
    monkeypatch.setattr(widget.run, "set_progress", lambda _, text="": bars.append(text))
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done"], widget.images.text(0, 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.denoised.npy", "a.uncertainty.npy"]
    assert (np.load(tmp_path / "out" / "a.uncertainty.npy") > 0).all()
    widget.method.choose("n2v", TINY)
    widget.output.existing.setCurrentIndex(1)
    widget.run.run.click()
    finish(widget)
    assert "does not tell the uncertainty" in widget.images.text(0, 3)
    with pytest.raises(ValueError, match="does not tell the uncertainty"):
        require_uncertainty(model.algorithm, Job(files / "a.npy", tmp_path / "a.npy", std=tmp_path / "b.npy"))


def test_axes_are_given_to_files_that_name_none(viewer, open_batch, tmp_path, finish):
    film = np.random.default_rng(0).normal(100, 20, (12, 32, 40)).astype("float32")
    np.save(tmp_path / "film.npy", film)
    np.save(tmp_path / "plane.npy", film[0])
    layer = viewer.add_image(film[:2], name="open", axis_labels=("z", "y", "x"))
    widget = open_batch()
    widget.images.add_paths([tmp_path / "film.npy", tmp_path / "plane.npy"])
    widget.images.add_layers([layer])
    widget.output.format_box.setCurrentIndex(widget.output.format_box.findData("ome.zarr"))
    for wrong, words in (("TQX", "'Q'"), ("TTX", "twice"), ("TCX", "must contain Y and X")):
        widget.images.axes.setText(wrong)
        assert words in widget.run.check.text()
        assert not widget.run.run.isEnabled()
    widget.images.axes.setText(" tyx ")
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done", "failed", "done"]
    assert "name 3 dimensions" in widget.images.text(1, 3)
    assert read_volume(tmp_path / "out" / "film.denoised.ome.zarr").axes == "TYX"
    assert read_volume(tmp_path / "out" / "open.denoised.ome.zarr").axes == "ZYX"
    widget.images.axes.setText("")
    widget.output.existing.setCurrentIndex(1)
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done"] * 3  # other axes are another task: the film is denoised again, as a stack
    assert read_volume(tmp_path / "out" / "film.denoised.ome.zarr").axes == "ZYX"


def test_denoising_is_told_before_the_first_block_is_done(open_batch, files):
    """Which may take long, and may be all of an image."""
    widget = open_batch()
    widget.images.add_paths([files / "a.npy"])
    reports = widget._work().reports(Event())
    first, *_, last = (r.fraction for r in reports if isinstance(r, Share) and r.text == "denoising")
    assert (first, last) == pytest.approx((TRAINING_SHARE, 1.0))


def test_the_time_left_is_told(viewer, open_batch, files, monkeypatch):
    widget = open_batch()
    widget.images.add_paths(files.iterdir())
    control, now = widget.control, [100.0]
    monkeypatch.setattr(batch.time, "perf_counter", lambda: now[0])
    control.work, control.job, control._number = widget._work(), SimpleNamespace(cancelled=False), 0
    control.tick()
    assert widget.run.bar.format() == "image 1 of 2"
    control._share, now[0] = Share(0.5, "learning"), 110.0
    control.tick()
    assert widget.run.bar.format() == "image 1 of 2, about 30 s left"
    control.job = None


def test_the_model_of_the_denoise_widget_is_taken(open_batch, open_widget, files, model, tmp_path, finish):
    widget = open_batch(CURRENT)
    widget.images.add_paths([files / "a.npy"])
    assert "There is no model in “Denoise”" in widget.run.check.text()
    open_widget().model = model
    widget.update_check()
    widget.run.run.click()
    finish(widget)
    assert statuses(widget) == ["done"]
    assert (tmp_path / "out" / "a.denoised.npy").exists()


def test_what_is_missing_is_said(viewer, open_batch, files, tmp_path):
    widget = open_batch()
    assert "There is no image on the list" in widget.run.check.text()
    layer = viewer.add_image(np.zeros((8, 8), np.float32), name="gone")
    widget.images.add_layers([layer])
    viewer.layers.remove(layer)
    widget.update_check()
    assert "the layer was deleted" in widget.run.check.text()
    widget.images.remove.click()
    widget.images.add_paths([files / "a.npy"])
    widget.output.folder.setText("")
    assert "Choose a folder" in widget.run.check.text()
    widget.output.folder.setText(str(files / "a.npy"))
    assert "is a file" in widget.run.check.text()
    assert not widget.run.run.isEnabled()


def test_closing_the_dock_stops_the_work(viewer, open_batch, files, qtbot, monkeypatch):
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0)
    widget = open_batch(EACH, steps=10**6)
    widget.images.add_folder(files)
    widget.run.run.click()
    qtbot.waitUntil(lambda: "learning" in widget.images.text(0, 1), timeout=PATIENCE)
    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: not [w for w in QApplication.allWidgets() if isinstance(w, BatchWidget)], timeout=10_000)
