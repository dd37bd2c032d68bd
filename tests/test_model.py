"""Saved models: round trips, and clear words about broken or foreign ones."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import pytest

from napari_ssdenoise import algorithms
from napari_ssdenoise.algorithms import Noise2Void
from napari_ssdenoise.engine.trainer import train
from napari_ssdenoise.io import bundle
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def noisy() -> Volume:
    return Volume(np.random.default_rng(0).normal(100, 10, (2, 32, 36)).astype(np.float32), "CYX", name="cells")


@pytest.fixture(scope="module")
def model(noisy: Volume) -> TrainedModel:
    return train(noisy, "n2v", steps=2, width=4, n2v2=True, struct_mask="111", channels="joint")


@pytest.mark.parametrize("name", ["a.model", "a.zip"])
def test_round_trip(model: TrainedModel, noisy: Volume, tmp_path: Path, name: str) -> None:
    assert model.save(tmp_path / name) == tmp_path / name
    loaded = TrainedModel.load(tmp_path / name)
    np.testing.assert_array_equal(loaded.predict(noisy), model.predict(noisy))
    assert loaded.algorithm == model.algorithm
    assert loaded.geometry == model.geometry
    assert loaded.normalization == model.normalization
    assert loaded.record["data"][0]["name"] == "cells"
    assert loaded.record["steps"] == 2
    model.save(tmp_path / name)  # a model may replace a model
    assert [p.name for p in tmp_path.iterdir()] == [name]


@dataclass(frozen=True, kw_only=True)
class Estimating(Noise2Void):
    key: ClassVar[str] = "estimating"
    sigma: Annotated[float | None, {"min": 0.0, "max": 9.0, "step": 0.1, "label": "Sigma"}, "Of the noise."] = None


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_optional_numbers_are_kept(
    noisy: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigma: float | None
) -> None:
    monkeypatch.setattr(algorithms, "list_algorithms", lambda: {"estimating": Estimating})
    train(noisy, Estimating(sigma=sigma, width=4, depth=1), steps=1).save(tmp_path / "a.model")
    assert TrainedModel.load(tmp_path / "a.model").algorithm == Estimating(sigma=sigma, width=4, depth=1)


def test_a_model_does_not_replace_anything_else(model: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("ten years")
    with pytest.raises(FileExistsError, match="only a saved model"):
        model.save(tmp_path / "thesis")
    with pytest.raises(FileNotFoundError, match="folder"):
        model.save(tmp_path / "nowhere" / "a.model")
    model.save(tmp_path / "a.model")
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "a.model", overwrite=False)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model"):
        TrainedModel.load(tmp_path / "a.model")


def damaged(path: Path, how: str) -> None:
    description = json.loads((path / "model.json").read_text())
    if how == "no weights":
        (path / "weights.safetensors").unlink()
    elif how == "cut weights":
        content = (path / "weights.safetensors").read_bytes()
        (path / "weights.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "not json":
        (path / "model.json").write_text("{")
    elif how == "list":
        (path / "model.json").write_text("[]")
    else:
        changes = {
            "foreign": {"format": "something else"},
            "newer": {"version": 99},
            "other algorithm": {"algorithm": "n3v"},
            "odd setting": {"settings": {"masked_percent": "many"}},
            "other width": {"settings": {**description["settings"], "width": 8}},
            "no geometry": {"geometry": {}},
        }[how]
        (path / "model.json").write_text(json.dumps({**description, **changes}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "damaged"),
        ("cut weights", "damaged"),
        ("not json", "damaged"),
        ("list", "not written by"),
        ("foreign", "not written by"),
        ("newer", "Update"),
        ("other algorithm", "n3v"),
        ("odd setting", "masked_percent"),
        ("other width", "damaged"),
        ("no geometry", "damaged"),
    ],
)
def test_broken_models_are_refused(model: TrainedModel, tmp_path: Path, how: str, message: str) -> None:
    path = model.save(tmp_path / "a.model")
    damaged(path, how)
    with pytest.raises(ValueError, match=message):
        TrainedModel.load(path)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("record", [], "record"),
        ("record", {"data": [{"axes": ["Y", "X"], "shape": [3, 3], "name": "a", "dtype": "uint8"}]}, "axes wrongly"),
        ("record", {"data": [{"axes": "YX", "shape": [3], "name": "a", "dtype": "uint8"}]}, "does not fit its axes"),
        ("record", {"data": [{"axes": "YX", "shape": [3, 3]}]}, "which images"),
        ("record", {"data": "YX"}, "no list 'data'"),
        (
            "record",
            {"data": [{"axes": "YX", "shape": [3, 3], "name": "a", "dtype": "uint8", "scale": [None, 1]}]},
            "pixels of no size",
        ),
        ("record", {"loss": [[1, 2.0, {}]]}, "curve 'loss'"),
        ("record", {"chosen": [1]}, "wrong 'chosen'"),
        ("record", {"seconds": "long"}, "duration"),
        ("normalization", {"mean": [1.0], "std": [""], "low": 0, "high": 1}, "deviation"),
        ("normalization", {"mean": [1.0], "std": [0.0], "low": 0, "high": 1}, "deviation"),
        ("normalization", {"mean": [1.0], "std": [1e-320], "low": 0, "high": 1}, "deviation"),
        ("normalization", {"mean": [float("nan")], "std": [1.0], "low": 0, "high": 1}, "mean that is none"),
        ("normalization", {"mean": [], "std": [], "low": 0, "high": 1}, "as many means"),
        ("normalization", {"mean": [1.0], "std": [1.0], "low": None, "high": 1}, "range"),
        ("conditions", [[1.0]], "told 1 values"),
    ],
)
def test_descriptions_of_other_kinds_are_refused(
    model: TrainedModel, tmp_path: Path, part: str, value: object, message: str
) -> None:
    path = model.save(tmp_path / "a.model") / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    with pytest.raises(ValueError, match=f"a.model is damaged.*{message}"):
        TrainedModel.load(path.parent)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_weights_that_nothing_can_be_computed_with_are_refused(
    model: TrainedModel, tmp_path: Path, value: float
) -> None:
    from safetensors.numpy import load_file, save_file

    path = model.save(tmp_path / "a.model")
    tensors = load_file(path / "weights.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.dtype.kind == "f")
    tensors[name].ravel()[0] = value
    save_file(tensors, path / "weights.safetensors")
    with pytest.raises(ValueError, match="not finite, or too large"):
        TrainedModel.load(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bundle.LARGEST, "weights.safetensors", 100)
    for name in ("a.zip", "a.model"):
        with pytest.raises(ValueError, match=r"its weights\.safetensors claims"):
            TrainedModel.load(model.save(tmp_path / name))


def test_a_foreign_file_or_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"not a zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    for name in ("a.model", "b.zip"):
        with pytest.raises(ValueError, match="not a saved model"):
            TrainedModel.load(tmp_path / name)
    assert not (tmp_path.parent.parent / "evil.txt").exists()


def test_a_damaged_archive_is_refused(model: TrainedModel, tmp_path: Path) -> None:
    path = model.save(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        TrainedModel.load(path)


def test_arrays_get_the_axes_of_training(model: TrainedModel, noisy: Volume) -> None:
    np.testing.assert_array_equal(model.predict(np.asarray(noisy)), model.predict(noisy))


@pytest.mark.parametrize("name", ["a.model", "a.zip"])
def test_a_picture_is_kept_with_a_model(model: TrainedModel, noisy: Volume, tmp_path: Path, name: str) -> None:
    from io import BytesIO

    from PIL import Image

    model.save(tmp_path / name, sample=noisy)
    picture = Image.open(BytesIO(bundle.read_thumbnail(tmp_path / name) or b""))
    assert picture.size == (192, 96)
    left, right = np.hsplit(np.asarray(picture, float), 2)
    assert not np.array_equal(left, right)
    TrainedModel.load(tmp_path / name).save(tmp_path / "again.zip")
    assert bundle.read_thumbnail(tmp_path / "again.zip") == bundle.read_thumbnail(tmp_path / name)
    assert bundle.read_description(tmp_path / name)["record"]["steps"] == 2


def test_models_without_a_picture_or_with_a_huge_one(model: TrainedModel, tmp_path: Path) -> None:
    model.save(tmp_path / "a.model")
    assert bundle.read_thumbnail(tmp_path / "a.model") is None
    (tmp_path / "a.model" / bundle.THUMBNAIL).write_bytes(bytes(bundle.MOST_THUMBNAIL + 1))
    assert bundle.read_thumbnail(tmp_path / "a.model") is None
    assert TrainedModel.load(tmp_path / "a.model").algorithm == model.algorithm
    with pytest.raises(ValueError, match="not a saved model"):
        bundle.read_description(tmp_path)
