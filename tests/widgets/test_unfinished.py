"""A training that napari's end cut short goes on in the next session; nothing else is left of trainings."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timedelta

import numpy as np
import pytest

from napari_ssdenoise.batch import _training
from napari_ssdenoise.io import unfinished
from napari_ssdenoise.io.checkpoint import DESCRIPTION
from napari_ssdenoise.widgets import denoise
from napari_ssdenoise.widgets._run_panel import describe_moment

STEPS = 200


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Write a checkpoint after every step."""
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", -1.0)


@pytest.fixture
def open_on_layer(viewer, open_widget):
    """Return a function that docks a widget with a layer to learn from for long."""
    image = np.random.default_rng(0).normal(100, 20, (40, 48)).astype(np.float32)
    viewer.add_image(image, name="noisy")

    def make():
        widget = open_widget()
        widget.method.length.set_steps(STEPS)
        return widget

    return make


def on_shelf():
    shelf = denoise.unfinished_trainings()
    return sorted(shelf.iterdir()) if shelf.exists() else []


@pytest.fixture
def cut_short(viewer, open_on_layer, qtbot):
    """The folder of a training whose widget was closed."""
    widget = open_on_layer()
    widget.train()
    qtbot.waitUntil(lambda: any((path / DESCRIPTION).exists() for path in on_shelf()), timeout=120_000)
    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: not widget.working, timeout=60_000)
    (folder,) = on_shelf()
    return folder


def offered(widget, qtbot) -> str:
    """Return what is offered when all was looked at."""
    qtbot.waitUntil(lambda: widget.seeking.job is None, timeout=60_000)
    return "" if widget.run.resume.isHidden() else widget.run.resume.text()


def test_a_training_that_was_cut_short_goes_on_to_the_same_end(viewer, open_on_layer, cut_short, finish, qtbot):
    step = json.loads((cut_short / DESCRIPTION).read_text(encoding="utf8"))["step"]
    assert 0 < step < STEPS
    widget = open_on_layer()
    assert offered(widget, qtbot).startswith(f"Continue from step {step} (today ")
    widget.run.resume.click()
    assert widget.run.resume.isHidden()
    finish(widget)
    assert f"Trained {STEPS} steps" in widget.run.status.text()
    assert [entry[0] for entry in widget.model.record["loss"]][-1] == STEPS
    assert not on_shelf()
    assert not offered(widget, qtbot)
    went_on = widget.model
    widget.train()
    finish(widget)
    for name, value in widget.model.weights().items():
        np.testing.assert_allclose(value, went_on.weights()[name], atol=1e-5)


def test_only_the_same_image_and_settings_go_on_and_no_further_than_asked(viewer, open_on_layer, cut_short, qtbot):
    widget = open_on_layer()
    assert offered(widget, qtbot)
    widget.method.seed.setValue(1)
    assert not offered(widget, qtbot)
    widget.method.seed.setValue(0)
    assert offered(widget, qtbot)
    widget.method.length.set_steps(1)
    assert not offered(widget, qtbot)
    widget.method.length.set_steps(STEPS)
    widget.input.layer_box.set_layer(viewer.add_image(np.zeros((40, 48), np.float32), name="other"))
    assert not offered(widget, qtbot)
    assert on_shelf() == [cut_short]


def test_a_stop_and_an_end_leave_nothing(open_on_layer, finish, qtbot):
    widget = open_on_layer()
    widget.train()
    qtbot.waitUntil(lambda: bool(on_shelf()), timeout=120_000)
    widget.stop()
    finish(widget)
    assert widget.model is not None
    assert not on_shelf()
    widget.quick_look()
    qtbot.waitUntil(lambda: widget.training._last is not None, timeout=120_000)
    assert not on_shelf()


def test_what_is_damaged_is_told_and_removed(open_on_layer, cut_short, finish, notified, qtbot):
    for file in cut_short.glob("step-*"):
        file.write_bytes(b"nothing")
    widget = open_on_layer()
    assert offered(widget, qtbot)
    widget.run.resume.click()
    finish(widget)
    assert "damaged" in notified[-1]
    assert not on_shelf()
    assert not offered(widget, qtbot)


def test_a_training_goes_on_where_no_checkpoint_can_be_written(open_on_layer, finish, caplog):
    denoise.unfinished_trainings().write_text("a file in the way")
    widget = open_on_layer()
    widget.method.length.set_steps(2)
    widget.train()
    finish(widget)
    assert "Trained 2 steps" in widget.run.status.text()
    assert "could not be written" in caplog.text


def test_old_ones_and_too_many_are_removed(tmp_path):
    now = datetime.now().timestamp()
    for number in range(unfinished.MOST + 3):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "step-1.safetensors").write_bytes(b"")
        os.utime(folder, (now - number, now - number))
    old = now - unfinished.LONGEST.total_seconds() - 60
    os.utime(tmp_path / "0", (old, old))
    (tmp_path / "1" / "mine.txt").write_text("not a checkpoint")
    os.utime(tmp_path / "1", (old, old))
    unfinished.tidy(tmp_path)
    assert {int(folder.name) for folder in tmp_path.iterdir()} == {1, *range(2, unfinished.MOST + 2)}
    shutil.rmtree(tmp_path)
    unfinished.tidy(tmp_path)


def test_moments_as_people_say_them():
    now = datetime.now().astimezone()
    assert describe_moment(now) == f"today {now:%H:%M}"
    before = now - timedelta(days=1)
    assert describe_moment(before) == f"yesterday {before:%H:%M}"
    before = now - timedelta(days=3)
    assert describe_moment(before) == f"{before:%Y-%m-%d %H:%M}"
