"""The list of saved models in the widget, and what is said of an image unlike those of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QFile

from napari_ssdenoise.widgets import _models

PATIENCE = 120_000


@pytest.fixture
def noisy() -> Any:
    y, x = np.mgrid[:48, :48]
    clean = 100 + 30 * np.sin(x / 5) * np.cos(y / 7)
    return (clean + np.random.default_rng(0).normal(0, 5, clean.shape)).astype(np.float32)


@pytest.fixture
def trained(viewer: Any, open_widget: Any, finish: Any, noisy: Any) -> Any:
    viewer.add_image(noisy, name="cells")
    widget = open_widget()
    widget.train()
    finish(widget)
    return widget


def listed(widget: Any, qtbot: Any, count: int) -> list[str]:
    qtbot.waitUntil(lambda: widget.models.job is None and widget.models.list.count() == count, timeout=PATIENCE)
    return [widget.models.list.item(row).text().splitlines()[0] for row in range(count)]


def test_a_saved_model_is_listed_renamed_and_deleted(
    trained: Any, finish: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = trained.models
    assert models.path is None
    models.section.expand(animate=False)
    assert models.about.text() == _models.NO_FOLDER
    trained.save_model(tmp_path / "first.model.zip")
    finish(trained)
    assert models.path == tmp_path  # where the first model was saved
    assert listed(trained, qtbot, 1) == ["first"]
    models.list.setCurrentRow(0)
    assert models.chosen.picture is not None
    assert "cells" in models.about.text()
    assert not models.curve.isHidden()
    models.rename("second")
    assert listed(trained, qtbot, 1) == ["second"]
    models.list.setCurrentRow(0)
    problems = []
    models.failed.connect(problems.append)
    models.rename("../third")
    assert listed(trained, qtbot, 1) == ["second"]
    assert isinstance(problems[0], ValueError)
    models.list.setCurrentRow(0)
    monkeypatch.setattr(QFile, "moveToTrash", lambda self: bool(Path(self.fileName()).unlink()) or True)
    models.delete()
    assert listed(trained, qtbot, 0) == []
    qtbot.waitUntil(lambda: models.about.text() == _models.NO_MODELS)


def test_a_model_is_loaded_and_trained_further(trained: Any, finish: Any, qtbot: Any, tmp_path: Path) -> None:
    path = tmp_path / "first.zip"
    trained.model.save(path)
    trained.models.section.expand(animate=False)
    trained.models.set_folder(tmp_path)
    listed(trained, qtbot, 1)
    trained.models.list.setCurrentRow(0)
    trained.models.load_button.click()
    finish(trained)
    assert trained.model.path == path
    trained.models.go_on_button.click()
    finish(trained)
    assert trained.model.path is None
    assert trained.model.record["continues"]["steps"] == 3
    assert trained.model.algorithm.width == 4  # that of the model, whatever the form says


def test_an_image_unlike_the_training_is_told(
    viewer: Any, trained: Any, finish: Any, qtbot: Any, tmp_path: Path, noisy: Any
) -> None:
    trained.model.save(tmp_path / "first.zip")
    trained.load_model(tmp_path / "first.zip")
    finish(trained)
    qtbot.waitUntil(lambda: trained.fit.job is None, timeout=PATIENCE)
    assert trained.run.fit.isHidden()
    trained.input.layer_box.follow = True
    layer = viewer.add_image(100 * noisy, name="bright")
    viewer.layers.selection.active = layer
    qtbot.waitUntil(lambda: trained.input.layer.name == "bright", timeout=PATIENCE)
    qtbot.waitUntil(lambda: not trained.run.fit.isHidden(), timeout=PATIENCE)
    assert "exposed otherwise" in trained.run.fit.text.text()
