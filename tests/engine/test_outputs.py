"""Several outputs of an algorithm are written in one run: together, or not at all."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from napari_ssdenoise import open_volume
from napari_ssdenoise.algorithms import Noise2Void
from napari_ssdenoise.engine import plan as planning
from napari_ssdenoise.engine import stream
from napari_ssdenoise.io import _pyramid
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_ssdenoise.model import TrainedModel

HOW: dict[str, Any] = {"memory": "300 MB", "device": "cpu", "precision": "float32", "dtype": "float32"}


@dataclass(frozen=True, kw_only=True)
class Doubting(Noise2Void):
    """Noise2Void with what it would call its uncertainty."""

    key: ClassVar[str] = "doubting"
    outputs: ClassVar[tuple[str, ...]] = ("mean", "std")

    def read_out(self, raw: Tensor, noisy: Tensor) -> dict[str, Tensor]:
        return {"mean": raw, "std": (raw - noisy).abs()}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images flow, into several blocks and resolutions."""
    monkeypatch.setattr(stream, "OUTPUT_CHUNK", {"Z": 8, "Y": 16, "X": 16, "T": 1, "C": 1})
    monkeypatch.setattr(_pyramid, "SMALLEST", 4)
    monkeypatch.setattr(_pyramid, "SMALLEST_CHUNK", 8)
    monkeypatch.setattr(planning._Planner, "_choices", lambda self: iter([(0, self.predictor.stride[0])]))


@pytest.fixture
def model(make_model: Any) -> TrainedModel:
    made: TrainedModel = make_model("ZYX", algorithm=Doubting(width=4, depth=1))
    return made


@pytest.fixture
def noisy() -> Volume:
    return Volume(np.random.default_rng(0).poisson(100, (40, 20, 18)).astype(np.uint16), "ZYX", name="cells")


def run(model: TrainedModel, noisy: Volume, folder: Path, suffix: str = ".ome.zarr", **options: Any) -> Iterator[Any]:
    also = {"std": folder / f"std{suffix}"}
    return model.predict_into(noisy, folder / f"mean{suffix}", also=also, **{**HOW, **options})


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".npy"])
def test_both_are_what_prediction_gives(model: TrainedModel, noisy: Volume, tmp_path: Path, suffix: str) -> None:
    progress = list(run(model, noisy, tmp_path, suffix))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"mean{suffix}", f"std{suffix}"]
    assert {p.also for p in progress[:-1]} == {(tmp_path / f".std{suffix}.partial",)}
    assert (progress[-1].path, progress[-1].also) == (tmp_path / f"mean{suffix}", (tmp_path / f"std{suffix}",))
    mean, std = model.predict(noisy, outputs=("mean", "std"), precision="float32")
    found = [open_volume(tmp_path / f"{name}{suffix}", axes="ZYX") for name in ("mean", "std")]
    np.testing.assert_allclose(np.asarray(found[0][...]), mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.asarray(found[1][...]), std, rtol=1e-4, atol=1e-3)
    assert std.mean() > 1


def test_uncertainties_are_floats_whatever_the_image_is(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    list(run(model, noisy, tmp_path, ".tif", dtype="uint16"))
    assert [open_volume(tmp_path / f"{name}.tif").dtype for name in ("mean", "std")] == [np.uint16, np.float32]
    list(model.predict_into(noisy, tmp_path / "alone.npy", output="std", **{**HOW, "dtype": "uint16"}))
    assert open_volume(tmp_path / "alone.npy").dtype == np.float32


def test_each_says_what_it_is(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    list(run(model, noisy, tmp_path))
    for name in ("mean", "std"):
        assert open_volume(tmp_path / f"{name}.ome.zarr").metadata["napari_ssdenoise"]["output"] == name


def test_a_stopped_run_goes_on_with_both(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    list(run(model, noisy, tmp_path / "whole"))
    stopped = run(model, noisy, tmp_path)
    first = [next(stopped) for _ in range(2)][-1].done
    stopped.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.glob("*.zarr/"))
    progress = list(run(model, noisy, tmp_path))
    assert progress[0].done > first  # one more may have been on its way to the disk
    for name in ("mean", "std"):
        whole, ours = (open_volume(folder / f"{name}.ome.zarr") for folder in (tmp_path / "whole", tmp_path))
        np.testing.assert_array_equal(np.asarray(ours[...]), np.asarray(whole[...]))


def test_a_run_that_wants_more_begins_anew(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    alone = model.predict_into(noisy, tmp_path / "mean.ome.zarr", **HOW)
    next(alone)
    alone.close()
    progress = list(run(model, noisy, tmp_path))
    assert progress[0].done == 1
    mean = model.predict(noisy, precision="float32")
    np.testing.assert_allclose(np.asarray(open_volume(tmp_path / "mean.ome.zarr")[...]), mean, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("which", ["mean", "std"])
def test_neither_is_replaced_unasked(model: TrainedModel, noisy: Volume, tmp_path: Path, which: str) -> None:
    np.save(tmp_path / f"{which}.npy", np.zeros(3))
    with pytest.raises(FileExistsError, match=f"{which}.npy exists"):
        list(run(model, noisy, tmp_path, ".npy"))
    assert [p.name for p in tmp_path.iterdir()] == [f"{which}.npy"]
    list(run(model, noisy, tmp_path, ".npy", overwrite=True))
    assert np.load(tmp_path / f"{which}.npy").shape == noisy.shape


def test_names_are_given_when_both_are_complete(
    model: TrainedModel, noisy: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_ssdenoise.io.ome_zarr_writer import OmeZarrWriter

    complete = OmeZarrWriter._complete

    def full(self: OmeZarrWriter, provenance: dict[str, Any]) -> None:
        if self.path.name.startswith("std"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        complete(self, provenance)

    with monkeypatch.context() as patch:
        patch.setattr(OmeZarrWriter, "_complete", full)
        with pytest.raises(OSError, match=r"no space left to write .*std\.ome\.zarr"):
            list(run(model, noisy, tmp_path))
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert len(list(run(model, noisy, tmp_path))) == 1  # the finishing step alone
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mean.ome.zarr", "std.ome.zarr"]


def test_a_second_file_that_cannot_be_started_leaves_nothing_of_the_first(
    model: TrainedModel, noisy: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, nbytes: int) -> None:
        if "std" in path.name:
            raise OSError(errno.ENOSPC, "std needs more")

    monkeypatch.setattr("napari_ssdenoise.io.npy.require_space", full)
    with pytest.raises(OSError, match="std needs more"):
        list(run(model, noisy, tmp_path, ".npy"))
    assert list(tmp_path.iterdir()) == []


def test_two_runs_on_the_second_file_are_refused(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    first = run(model, noisy, tmp_path)
    next(first)
    other = model.predict_into(noisy, tmp_path / "other.ome.zarr", also={"std": tmp_path / "std.ome.zarr"}, **HOW)
    with pytest.raises(FileExistsError, match=r"another run is writing .*std"):
        next(other)
    list(first)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mean.ome.zarr", "std.ome.zarr"]


def test_a_folder_that_cannot_be_written_into_is_named(
    model: TrainedModel, noisy: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), lock.lock_file)

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(PermissionError, match=r"x\.npy cannot be written: no permission to write into"):
        list(model.predict_into(noisy, tmp_path / "x.npy"))


def test_an_image_with_holes_leaves_nothing_behind(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    image = np.asarray(noisy[...]).astype(np.float32)
    image[30, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        list(run(model, Volume(image, "ZYX"), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_wrong_outputs(model: TrainedModel, noisy: Volume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no output median; it has mean, std"):
        model.predict_into(noisy, tmp_path / "a.npy", also={"median": tmp_path / "b.npy"}, **HOW)
    with pytest.raises(ValueError, match="mean and std would both be written to"):
        model.predict_into(noisy, tmp_path / "a.npy", also={"std": tmp_path / "a.npy"}, **HOW)
    assert list(tmp_path.iterdir()) == []
