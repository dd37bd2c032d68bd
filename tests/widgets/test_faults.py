"""What can go wrong around a run: full disks, damaged files, failing workers, closed viewers, deleted layers.

Each ends in a sentence, with buttons that work; no part of a result looks whole, and what can go on is still there.
"""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_ssdenoise.engine import trainer as training
from napari_ssdenoise.engine.predict import Predictor
from napari_ssdenoise.io import bundle, read_volume, write_volume
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets import _batch_work, _work
from napari_ssdenoise.widgets._layers import PREVIEW_KEY
from napari_ssdenoise.widgets.batch import EACH, BatchWidget
from napari_ssdenoise.widgets.denoise import DenoiseWidget

TINY = {"depth": 1, "width": 4, "patch": 16, "batch": 2}
PATIENCE = 120_000  # ms, for machines that are busy
FOREVER = 10**6  # steps


def film(frames: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, (frames, 64, 64)).astype("float32")


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


async def full_store(*_, **__):
    full_disk()


def names(viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def preview_of(viewer):
    return next((layer for layer in viewer.layers if PREVIEW_KEY in layer.metadata), None)


@pytest.fixture
def warned(monkeypatch):
    """Return the texts of the warnings."""
    texts = []
    monkeypatch.setattr("napari_ssdenoise.widgets._control.show_warning", texts.append)
    return texts


@pytest.fixture
def eager(monkeypatch):
    """Preview after every step."""
    monkeypatch.setattr(_work, "PREVIEW_INTERVAL", 0.0)
    monkeypatch.setattr(_work, "PREVIEW_SHARE", 1.0)


@pytest.fixture
def trained(viewer, open_widget, finish) -> DenoiseWidget:
    """Return a widget with a model of the film that is open."""
    viewer.add_image(film(), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    widget.train()
    finish(widget)
    assert widget.model is not None
    return widget


@pytest.fixture
def gate(monkeypatch):
    """Hold an application to a file after its third block, until the event is set."""
    event = threading.Event()
    to_file = TrainedModel.predict_into

    def slowly(self, *args, **options):
        for tile in to_file(self, *args, **options):
            yield tile
            if tile.done == 3:
                event.wait(60)

    monkeypatch.setattr(TrainedModel, "predict_into", slowly)
    yield event
    event.set()


def usable(widget: DenoiseWidget) -> bool:
    """Tell whether people can go on."""
    run = widget.run
    return run.train.text() == "Train" and run.train.isEnabled() and run.load.isEnabled() and widget.input.isEnabled()


# Full disks


def test_a_disk_that_fills_while_a_file_is_written(viewer, trained, finish, notified, gate, tmp_path, qtbot):
    path = tmp_path / "clean.ome.zarr"
    trained.apply_to(path)
    qtbot.waitUntil(lambda: "Block 3 of 8" in trained.run.status.text(), timeout=PATIENCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", full_store)
        gate.set()
        finish(trained)
    assert "o space left" in notified[-1]
    assert "Free some space" in notified[-1]
    assert "Apply to the same file goes on from there" in trained.run.status.text()
    assert not path.exists()
    assert names(viewer) == ["film", "film denoised (unfinished)"]
    assert usable(trained)
    assert trained.run.apply_to_file.isEnabled()
    trained.apply_to(path)
    finish(trained)
    assert path.is_dir()
    assert names(viewer) == ["film", "film denoised"]
    np.testing.assert_allclose(
        np.asarray(read_volume(path).data), trained.model.predict(trained.input.volume()), rtol=1e-3, atol=0.02
    )
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["x.model", "x.model.zip"])
def test_a_full_disk_while_a_model_is_saved(name, trained, finish, notified, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "write_tensors", full_disk)
        trained.save_model(tmp_path / name)
        finish(trained)
    assert "o space left" in notified[-1]
    assert not list(tmp_path.iterdir())
    assert trained.model is not None
    assert usable(trained)
    assert trained.run.save.isEnabled()
    trained.save_model(tmp_path / name)
    finish(trained)
    assert TrainedModel.load(tmp_path / name).record["steps"] == 3


def test_a_full_disk_while_a_notebook_is_saved(viewer, trained, finish, notified, tmp_path, monkeypatch):
    write_volume(tmp_path / "film.npy", Volume(film(), "TYX"))
    viewer.layers.clear()
    viewer.open(tmp_path / "film.npy", plugin="napari")
    trained.train()
    finish(trained)
    trained.save_model(tmp_path / "x.model.zip")
    finish(trained)
    trained.apply()
    finish(trained)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "again.ipynb"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (str(target), ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        trained.copy_as("notebook")
        finish(trained)
    assert notified, trained.run.status.text()
    assert "o space left" in notified[-1]
    assert not list(target.parent.iterdir())
    assert usable(trained)
    trained.copy_as("notebook")
    finish(trained)
    assert target.exists()


# Damaged files


def spoil(path: Path) -> None:
    """Damage the chunks of all frames but the first."""
    chunks = [p for p in (path / "0" / "c").rglob("*") if p.is_file()]
    assert len(chunks) > 1
    for chunk in sorted(chunks)[1:]:
        chunk.write_bytes(b"\xff" * 40)


@pytest.mark.parametrize("way", ["our array", "zarr"])
@pytest.mark.parametrize("into", ["memory", "file"])
def test_a_layer_whose_file_is_damaged_meanwhile(way, into, viewer, trained, finish, notified, tmp_path):
    source = tmp_path / "film.ome.zarr"
    write_volume(source, Volume(film(), "TYX"))
    viewer.layers.clear()
    if way == "zarr":
        viewer.add_image(zarr.open_array(str(source / "0"), mode="r"), name="film", axis_labels=("t", "y", "x"))
    else:
        viewer.add_image(read_volume(source).data, name="film", axis_labels=("t", "y", "x"))
    spoil(source)
    clean = tmp_path / "clean.ome.zarr"
    if into == "memory":
        trained.apply()
    else:
        trained.apply_to(clean)
    finish(trained)
    assert "could not be read" in notified[-1]
    assert "damaged" in notified[-1]
    assert "Unexpected" not in notified[-1]
    assert not clean.exists()
    assert "film denoised" not in names(viewer)
    assert trained.run.apply.isEnabled()
    trained.train()
    finish(trained)
    assert "could not be read" in notified[-1]
    assert usable(trained)


# Workers that fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("odd"), "Unexpected error: RuntimeError: odd"),
        (MemoryError(), "Not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Not enough memory"),
    ],
    ids=["surprise", "memory", "torch's memory"],
)
def test_a_training_that_fails_keeps_what_was_learnt(viewer, open_widget, finish, notified, monkeypatch, error, words):
    viewer.add_image(film(), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    widget.method.length.set_steps(FOREVER)
    original = training.Trainer.__next__

    def failing(self):
        if self.step == 4:
            raise error
        return original(self)

    monkeypatch.setattr(training.Trainer, "__next__", failing)
    widget.train()
    finish(widget)
    assert words in notified[-1]
    assert "What was learnt in 4 steps is kept" in widget.run.status.text()
    assert usable(widget)
    widget.apply()
    finish(widget)
    assert "film denoised" in names(viewer)


def test_a_training_that_diverges_leaves_no_model(viewer, open_widget, finish, notified, monkeypatch):
    viewer.add_image(film(), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    original = training.Trainer.__next__

    def diverging(self):
        if self.step == 2:
            raise ArithmeticError("the training diverged")
        return original(self)

    monkeypatch.setattr(training.Trainer, "__next__", diverging)
    widget.train()
    finish(widget)
    assert notified[-1] == "The training diverged"
    assert widget.model is None
    assert usable(widget)


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError("too large")], ids=["surprise", "memory"])
def test_a_preview_that_fails_does_not_end_the_training(
    viewer, open_widget, finish, notified, warned, monkeypatch, eager, caplog, error
):
    viewer.add_image(film(), name="film", axis_labels=("t", "y", "x"))
    widget = open_widget()
    widget.method.length.set_steps(30)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(TrainedModel, "predict_part", fail)
    widget.train()
    finish(widget)
    assert "Trained 30 steps" in widget.run.status.text()
    assert not notified
    assert warned
    assert all("the training goes on" in text and str(error) in text.lower() for text in warned)
    assert widget.run.preview.currentData() == "off"
    assert ("a preview failed unexpectedly" in caplog.text) == isinstance(error, RuntimeError)
    assert usable(widget)


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError()], ids=["surprise", "memory"])
@pytest.mark.parametrize("into", ["memory", "file"])
def test_an_application_that_fails(into, error, viewer, trained, finish, notified, monkeypatch, tmp_path):

    def failing(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "run", failing)
        if into == "memory":
            trained.apply()
        else:
            trained.apply_to(tmp_path / "clean.ome.zarr")
        finish(trained)
    assert ("RuntimeError: odd" if str(error) else "Not enough memory") in notified[-1]
    assert not (tmp_path / "clean.ome.zarr").exists()
    assert "film denoised" not in names(viewer)
    assert usable(trained)
    assert trained.run.apply.isEnabled()
    trained.apply()
    finish(trained)
    assert "film denoised" in names(viewer)


# Denoise many


@pytest.fixture
def many(viewer, qtbot, tmp_path):
    """Return a widget with two files, each to be learnt from."""
    for level, name in enumerate("ab"):
        write_volume(tmp_path / "in" / f"{name}.ome.zarr", Volume(film(seed=level), "TYX"))
    widget = BatchWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Denoise many")
    widget.method.choose("n2v", TINY)
    widget.method.length.set_steps(3)
    widget.output.folder.setText(str(tmp_path / "out"))
    widget.model_box.setCurrentIndex(widget.model_box.findData(EACH))
    widget.images.add_folder(tmp_path / "in")
    yield widget
    widget.stop()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    widget.shut_down()
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: not living_widgets(), timeout=PATIENCE)


def statuses(widget: BatchWidget) -> list[str]:
    return [widget.images.text(row, 1) for row in range(len(widget.images.entries))]


def test_many_with_an_unreadable_file(many, finish, tmp_path, notified, monkeypatch):
    (tmp_path / "in" / "c.npy").write_bytes(b"\x93NUMPY what follows is none")
    original = _batch_work.open_volume

    def locked(path, **options):
        if path.name.startswith("a"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, **options)

    monkeypatch.setattr(_batch_work, "open_volume", locked)
    many.images.add_folder(tmp_path / "in")
    many.denoise()
    finish(many)
    assert statuses(many) == ["failed", "done", "failed"]
    assert "Permission denied" in many.images.text(0, 3)
    assert "damaged" in many.images.text(2, 3)
    assert "1 of 3 images denoised, 2 failed" in many.run.status.text()
    assert not notified
    assert many.run.run.text() == "Denoise all"
    assert many.run.run.isEnabled()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith((".a", "a", ".c", "c"))]


def test_many_with_a_file_that_is_damaged_inside(many, finish, tmp_path):
    spoil(tmp_path / "in" / "a.ome.zarr")
    many.denoise()
    finish(many)
    assert statuses(many) == ["failed", "done"]
    assert "a.ome.zarr could not be read" in many.images.text(0, 3)
    assert not (tmp_path / "out" / "a.denoised.ome.zarr").exists()


def test_many_on_a_full_disk_keep_their_trainings(many, finish, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage.LocalStore, "set", full_store)
        many.denoise()
        finish(many)
    assert statuses(many) == ["failed", "failed"]
    assert "o space left" in many.images.text(0, 3)
    out = tmp_path / "out"
    assert not list(out.glob("[ab]*"))
    steps = []
    original = training.Trainer.__next__

    def counting(self):
        steps.append(self.step)
        return original(self)

    monkeypatch.setattr(training.Trainer, "__next__", counting)
    many.denoise()
    finish(many)
    assert statuses(many) == ["done", "done"]
    assert set(steps) == {3}  # each was asked once more, and had no step left
    assert sorted(path.name for path in out.iterdir()) == ["a.denoised.ome.zarr", "b.denoised.ome.zarr"]


def test_many_go_on_without_checkpoints(many, finish, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_ssdenoise.io.bundle.write_tensors", full_disk)
    many.denoise()
    finish(many)
    assert statuses(many) == ["done", "done"]  # a checkpoint is no part of what people want


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError()], ids=["surprise", "memory"])
def test_many_with_a_worker_that_fails(many, finish, monkeypatch, error):
    original = training.Trainer.__next__

    def failing(self):
        if self.volumes[0].name.startswith("a"):
            raise error
        return original(self)

    monkeypatch.setattr(training.Trainer, "__next__", failing)
    many.denoise()
    finish(many)
    assert statuses(many) == ["failed", "done"]
    assert ("RuntimeError: odd" if str(error) else "Not enough memory") in many.images.text(0, 3)
    assert many.run.run.isEnabled()


def test_a_table_that_cannot_be_written(many, finish, notified, tmp_path, monkeypatch):
    many.denoise()
    finish(many)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        many.save_table(tmp_path / "table.csv")
        finish(many)
    assert "o space left" in notified[-1]
    assert not list(tmp_path.glob("*table*"))


# Viewers that are closed, layers that are deleted


def living_widgets() -> list[DenoiseWidget]:
    return [w for w in QApplication.allWidgets() if isinstance(w, (DenoiseWidget, BatchWidget))]


@pytest.mark.parametrize("during", ["training", "preview", "applying", "applying to a file"])
def test_the_viewer_is_closed(during, make_napari_viewer, finish, qtbot, monkeypatch, eager, tmp_path, gate, caplog):
    caplog.set_level(logging.ERROR)
    viewer = make_napari_viewer()
    viewer.add_image(film(), name="film", axis_labels=("t", "y", "x"))
    widget = DenoiseWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Denoise")
    widget.method.choose("n2v", TINY)
    widget.method.length.set_steps(3)
    begun = threading.Event()
    if during == "preview":
        part = TrainedModel.predict_part

        def noting(self, *args, **options):
            begun.set()
            return part(self, *args, **options)

        monkeypatch.setattr(TrainedModel, "predict_part", noting)
    if during in ("training", "preview"):
        widget.method.length.set_steps(FOREVER)
        widget.train()
        at = begun.is_set if during == "preview" else lambda: widget.training._last is not None
    else:
        widget.train()
        finish(widget)
        if during == "applying":
            widget.apply()
            at = lambda: True  # noqa: E731
        else:
            widget.apply_to(tmp_path / "clean.ome.zarr")
            at = lambda: "Block 3" in widget.run.status.text()  # noqa: E731
    qtbot.waitUntil(at, timeout=PATIENCE)
    worker, model = widget.job._worker, widget.model
    viewer.close()
    gate.set()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=PATIENCE)
    qtbot.waitUntil(lambda: not living_widgets(), timeout=PATIENCE)
    assert not caplog.records
    if during == "applying to a file":
        assert not (tmp_path / "clean.ome.zarr").exists()
        done = next(model.predict_into(Volume(film(), "TYX"), tmp_path / "clean.ome.zarr", memory="1 GB")).done
        assert done > 3  # another session goes on where this one was


def test_a_result_that_is_deleted_stops_the_work(viewer, trained, finish, monkeypatch, qtbot):
    event, run = threading.Event(), Predictor.run

    def slowly(self, noisy):
        event.wait(60)
        return run(self, noisy)

    monkeypatch.setattr(Predictor, "run", slowly)
    trained.apply()
    del viewer.layers["film denoised"]
    qtbot.waitUntil(lambda: trained.applying.job.cancelled, timeout=PATIENCE)
    event.set()
    finish(trained)
    assert "result was deleted" in trained.run.status.text()
    assert usable(trained)


def test_the_layer_of_a_file_that_fills_is_deleted(viewer, trained, finish, gate, tmp_path, qtbot):
    trained.apply_to(tmp_path / "clean.ome.zarr")
    qtbot.waitUntil(lambda: "film denoised" in viewer.layers, timeout=PATIENCE)
    del viewer.layers["film denoised"]
    gate.set()
    finish(trained)
    assert (tmp_path / "clean.ome.zarr").is_dir()
    assert trained.run.status.text() == "Done: saved as clean.ome.zarr."
    assert names(viewer) == ["film"]


def test_the_source_is_deleted_while_its_file_fills(viewer, trained, finish, gate, tmp_path, qtbot):
    expected = trained.model.predict(trained.input.volume())
    trained.apply_to(tmp_path / "clean.ome.zarr")
    qtbot.waitUntil(lambda: "Block 3" in trained.run.status.text(), timeout=PATIENCE)
    del viewer.layers["film"]
    gate.set()
    finish(trained)
    np.testing.assert_allclose(
        np.asarray(read_volume(tmp_path / "clean.ome.zarr").data), expected, rtol=1e-3, atol=0.02
    )
    assert names(viewer) == ["film denoised"]
    assert trained.run.load.isEnabled()
