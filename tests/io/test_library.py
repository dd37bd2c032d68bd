"""A folder of saved models, as a list shows it."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ssdenoise.algorithms import Noise2Void
from napari_ssdenoise.engine.trainer import train
from napari_ssdenoise.io.library import Shelved, models_in, rename_model
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.model import TrainedModel


@pytest.fixture(scope="module")
def noisy() -> Volume:
    return Volume(np.random.default_rng(0).normal(100, 10, (32, 32)).astype(np.float32), "YX", name="cells")


@pytest.fixture(scope="module")
def model(noisy: Volume) -> TrainedModel:
    return train(noisy, Noise2Void(width=4, depth=1), steps=3)


def test_models_are_listed_newest_first_and_all_else_is_not(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    model.save(tmp_path / "old.model")
    model.save(tmp_path / "new.model.zip", sample=noisy)
    os.utime(tmp_path / "old.model", (1, 1))
    (tmp_path / "thesis.zip").write_text("ten years")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text(json.dumps({"format": "napari-ssdenoise model", "record": 3}))
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("model.json", "{}")
    found = list(models_in(tmp_path))
    assert [shelved.name for shelved in found] == ["new", "old"]
    newest = found[0]
    assert newest.title == "Noise2Void"
    assert (newest.axes, newest.trained_on, newest.steps) == ("YX", ("cells",), 3)
    assert newest.data_range == pytest.approx((noisy.data.min(), noisy.data.max()))
    assert [step for step, _ in newest.loss] == [1, 2, 3]
    assert newest.picture is not None
    assert found[1].picture is None


@pytest.mark.parametrize("steps", [float("inf"), float("nan"), "many"])
def test_one_that_is_damaged_does_not_hide_the_others(steps: object, model: TrainedModel, tmp_path: Path) -> None:
    model.save(tmp_path / "sound.model")
    described = json.loads((model.save(tmp_path / "odd.model") / "model.json").read_text())
    described["record"]["steps"] = steps
    (tmp_path / "odd.model" / "model.json").write_text(json.dumps(described))
    assert [shelved.name for shelved in models_in(tmp_path)] == ["sound"]
    with pytest.raises(ValueError, match=r"odd\.model is damaged"):
        Shelved.read(tmp_path / "odd.model")


@pytest.mark.parametrize(
    ("before", "after"), [("a.model.zip", "b.model.zip"), ("a.zip", "b.zip"), ("a.model", "b.model")]
)
def test_rename(model: TrainedModel, tmp_path: Path, before: str, after: str) -> None:
    model.save(tmp_path / before)
    assert rename_model(tmp_path / before, " b ") == tmp_path / after
    assert Shelved.read(tmp_path / after).name == "b"
    assert rename_model(tmp_path / after, "b") == tmp_path / after


@pytest.mark.parametrize("name", ["", "  ", "../b", "a/b", "a\\b", ".hidden", "a:b", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(model: TrainedModel, tmp_path: Path, name: str) -> None:
    model.save(tmp_path / "a.zip")
    with pytest.raises(ValueError, match="name"):
        rename_model(tmp_path / "a.zip", name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_nothing_is_overwritten_by_a_rename(model: TrainedModel, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        model.save(tmp_path / name)
    with pytest.raises(FileExistsError, match="exists"):
        rename_model(tmp_path / "a.zip", "b")
