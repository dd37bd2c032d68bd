"""Is my data enough? The answer in a real viewer: found, stopped, saved, copied, and refused where it cannot be."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_ssdenoise.cli import program
from napari_ssdenoise.study._images import dead_leaves
from napari_ssdenoise.widgets.enough import IN_TWO, EnoughWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 120_000  # ms


@pytest.fixture
def frames() -> Any:
    """Return twelve frames: two noisy views each of six scenes."""
    clean = np.repeat(dead_leaves(6, 64), 2, 0)
    return (clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)


@pytest.fixture
def open_widget(viewer: Any, qtbot: Any) -> Iterator[Callable[[], EnoughWidget]]:
    opened: list[EnoughWidget] = []

    def make() -> EnoughWidget:
        widget = EnoughWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Is my data enough?", area="right")
        widget.seeds.setValue(1)
        widget.steps.setValue(4)
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
    qtbot.waitUntil(lambda: not [w for w in QApplication.allWidgets() if isinstance(w, EnoughWidget)], timeout=10_000)


def test_the_answer_is_that_of_the_command_which_is_copied(
    open_widget: Callable[[], EnoughWidget],
    viewer: Any,
    qtbot: Any,
    frames: Any,
    tmp_path: Path,
    monkeypatch: Any,
    as_program: Any,
) -> None:
    np.save(tmp_path / "my film.npy", frames)
    (layer,) = viewer.open(tmp_path / "my film.npy", plugin="napari")
    layer.axis_labels = ("t", "y", "x")
    widget = open_widget()
    assert widget.run.check.text().startswith("Ready: 12 frames make 6 pairs of views; 5 to learn from, 1 to judge by.")
    widget.run.run.click()
    assert widget.busy
    assert not widget.run.run.isEnabled()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    study = widget.control.study
    assert [size for size, _, _ in study.table] == [1, 2, 5]
    assert "With 5 pairs of frames you are about" in widget.run.answer.text()
    assert f"{study.table[-1][1] ** 0.5:.4g}" in widget.run.table.text()
    assert widget.run.plot.isVisibleTo(widget)
    widget.copy_as("command")
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    words = shlex.split(QApplication.clipboard().text())
    assert words[:3] == ["ssdenoise", "study", str(tmp_path / "my film.npy")]
    result = as_program(CliRunner().invoke, program, words[1:], prog_name="ssdenoise", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "my film.enough" / "data.json").read_text())
    assert [t["risk"] for t in written["trainings"]] == [t.risk for t in study.trainings]
    for name in ("kept.json", "kept.png"):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (str(tmp_path / name), ""))
        widget.run.save.click()
        qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    assert json.loads((tmp_path / "kept.json").read_text()) == json.loads(json.dumps(study.to_json()))
    assert (tmp_path / "kept.png").stat().st_size > 5000


def test_copied_code_draws_the_same(
    open_widget: Callable[[], EnoughWidget], viewer: Any, qtbot: Any, frames: Any, tmp_path: Path, as_program: Any
) -> None:
    for name, data in (("first", frames[::2]), ("second", frames[1::2])):
        np.save(tmp_path / f"{name}.npy", data)
        (layer,) = viewer.open(tmp_path / f"{name}.npy", plugin="napari")
        layer.axis_labels = ("z", "y", "x")
    widget = open_widget()
    widget.input.layer_box.set_layer(viewer.layers["first"])
    assert "needs 128 x 128" in widget.run.check.text(), "pixels are split, so that half of 64 are left"
    widget.views.setCurrentIndex(widget.views.findData(IN_TWO))
    widget.second.set_layer(viewer.layers["second"])
    assert "6 images with a second view each" in widget.run.check.text()
    widget.find_out()
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    widget.copy_as("python")
    qtbot.waitUntil(lambda: not widget.busy, timeout=PATIENCE)
    as_program(exec, compile(QApplication.clipboard().text(), "copied", "exec"), names := {})
    assert names["study"].trainings[0].risk == widget.control.study.trainings[0].risk
    assert (tmp_path / "first.enough" / "data.png").exists()
    widget.input.layer_box.set_layer(viewer.layers["second"])
    assert not widget.run.answer.text(), "the answer was about another image"
    assert "must be another one" in widget.run.check.text()


def test_a_study_is_stopped(open_widget: Callable[[], EnoughWidget], viewer: Any, qtbot: Any, frames: Any) -> None:
    layer = viewer.add_image(frames, axis_labels=("t", "y", "x"))
    widget = open_widget()
    widget.steps.setValue(100_000)
    widget.find_out()
    qtbot.waitUntil(lambda: "Training 1 of 3" in widget.run.status.text(), timeout=PATIENCE)
    widget.run.stop.click()
    qtbot.waitUntil(lambda: not widget.busy, timeout=10_000)
    assert "Stopped" in widget.run.status.text()
    assert not widget.run.save.isEnabled()
    layer.data = frames[:8]
    widget.update_check()
    assert "12 frames or more" in widget.run.check.text()
    assert not widget.run.run.isEnabled()


def test_nothing_to_learn_from_is_said(open_widget: Callable[[], EnoughWidget], viewer: Any) -> None:
    widget = open_widget()
    assert "no image layer" in widget.run.check.text()
    assert not widget.run.run.isEnabled()
    viewer.add_labels(np.zeros((4, 4), int))
    assert not widget.run.run.isEnabled()
