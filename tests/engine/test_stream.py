"""Streaming into files: complete or absent, resumable, metadata kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ssdenoise import open_volume
from napari_ssdenoise.engine.job import to_dtype
from napari_ssdenoise.engine.memory import parse_memory
from napari_ssdenoise.engine.stream import choose_dtype
from napari_ssdenoise.engine.trainer import train
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.model import TrainedModel


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return train(stack(), "n2v", steps=3, width=4, batch=2, patch=16, spatial="YX")


def stack(seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).poisson(400, (3, 90, 70)).astype(np.uint16)
    return Volume(
        data, "ZYX", scale=(2, 0.5, 0.5), units=("micrometer",) * 3, translate=(1, 2, 3), name=f"stack {seed}"
    )


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.zarr", "out.tif", "out.ome.tif", "out.npy"])
def test_file_equals_memory_and_keeps_its_geometry(model: TrainedModel, tmp_path: Path, name: str) -> None:
    volume = stack()
    progress = list(model.predict_into(volume, tmp_path / name, tile=(32, 32), dtype="float32"))
    assert [p.done for p in progress] == [*range(1, len(progress)), len(progress) - 1]
    assert progress[-1].path == tmp_path / name
    written = open_volume(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(written), model.predict(volume, tile=(32, 32)))
    if not name.endswith(".npy"):
        assert written.axes == volume.axes
        np.testing.assert_allclose(written.scale, volume.scale)
        assert written.units == volume.units
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_stopped_run_goes_on_and_ends_the_same(model: TrainedModel, tmp_path: Path) -> None:
    volume, out = stack(), tmp_path / "out.ome.zarr"
    run = model.predict_into(volume, out, tile=(32, 32))
    for _ in range(4):
        next(run)
    run.close()
    assert not out.exists()
    progress = list(model.predict_into(volume, out, tile=(32, 32)))
    assert progress[0].done >= 5
    whole = tmp_path / "whole.ome.zarr"
    list(model.predict_into(volume, whole, tile=(32, 32)))
    np.testing.assert_array_equal(np.asarray(open_volume(out)), np.asarray(open_volume(whole)))


def test_another_task_does_not_go_on_from_it(model: TrainedModel, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    run = model.predict_into(stack(), out, tile=(32, 32))
    next(run)
    run.close()
    progress = list(model.predict_into(stack(1), out, tile=(32, 32)))
    assert progress[0].done == 1
    np.testing.assert_array_equal(
        np.asarray(open_volume(out)), to_dtype(model.predict(stack(1), tile=(32, 32)), np.dtype(np.uint16))
    )


def test_an_existing_output_is_not_touched_without_permission(model: TrainedModel, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    np.save(out, np.arange(3))
    with pytest.raises(FileExistsError, match="overwrite"):
        list(model.predict_into(stack(), out))
    assert len(np.load(out)) == 3
    list(model.predict_into(stack(), out, overwrite=True))
    assert np.load(out).shape == (3, 90, 70)


def test_an_unreadable_chunk_stops_without_an_output(model: TrainedModel, tmp_path: Path) -> None:
    class Broken:
        shape, dtype = (3, 90, 70), np.dtype(np.uint16)

        def __getitem__(self, key: Any) -> Any:
            if key[0].start == 2:
                raise OSError("chunk 2 cannot be read")
            return np.ones(self.shape, np.uint16)[key]

    with pytest.raises(OSError, match="chunk 2"):
        list(model.predict_into(Volume(Broken(), "ZYX"), tmp_path / "out.npy"))
    assert not (tmp_path / "out.npy").exists()


def test_two_stores_with_equal_inner_names(model: TrainedModel, tmp_path: Path) -> None:
    import zarr

    for i, name in enumerate("ab"):
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w")
        array = group.create_array("vol", shape=(3, 90, 70), chunks=(1, 32, 32), dtype="uint16")
        array[:] = np.asarray(stack(i))
    for name in "ab":
        list(model.predict_into(tmp_path / f"{name}.zarr" / "vol", tmp_path / f"{name}.clean.ome.zarr"))
    for i, name in enumerate("ab"):
        expected = to_dtype(model.predict(stack(i)), np.dtype(np.uint16))
        np.testing.assert_array_equal(np.asarray(open_volume(tmp_path / f"{name}.clean.ome.zarr")), expected)


def test_dtype_is_kept_where_rounding_does_not_hurt(model: TrainedModel) -> None:
    assert choose_dtype(model, stack()) == np.uint16
    assert choose_dtype(model, Volume(np.zeros((4, 4), ">f8"), "YX")) == np.dtype("float64")
    for dtype in ("float16", "int64", "uint64"):  # more digits than a network computes, or fewer
        assert choose_dtype(model, Volume(np.zeros((4, 4), dtype), "YX")) == np.float32
    few = train(np.random.default_rng(0).poisson(3, (32, 32)).astype(np.uint16), "n2v", steps=1, width=4, patch=16)
    assert choose_dtype(few, stack()) == np.float32
    assert choose_dtype(few, stack(), "uint8") == np.uint8
    with pytest.raises(ValueError, match="kind of number"):
        choose_dtype(few, stack(), "complex64")


def test_integers_round_and_clip() -> None:
    block = np.array([-3.2, 1.6, 300.0], np.float32)
    np.testing.assert_array_equal(to_dtype(block, np.dtype(np.uint8)), [0, 2, 255])
    np.testing.assert_array_equal(to_dtype(block, np.dtype(np.int16)), [-3, 2, 300])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4 GB", 4 * 10**9), ("512MB", 512 * 10**6), ("1.5 GiB", 3 << 29), ("100", 100), (7, 7), ("2k", 2000)],
)
def test_memory_amounts(text: str | int, expected: int) -> None:
    assert parse_memory(text) == expected


def test_impossible_memory_is_refused(model: TrainedModel) -> None:
    for text in ("lots", "1..5 GB", "", "-1 GB"):
        with pytest.raises(ValueError, match="amount of memory"):
            model.predict(stack(), memory=text)
    with pytest.raises(MemoryError, match="limited to"):
        model.predict(stack(), memory="1 kB")


def test_a_volume_that_differs_only_at_its_end_is_another_task(model: TrainedModel, tmp_path: Path) -> None:
    first, out = stack(), tmp_path / "out.ome.zarr"
    run = model.predict_into(first, out, tile=(32, 32))
    next(run)
    run.close()
    data = np.asarray(first).copy()
    data[2, -8:, -8:] += 100
    progress = list(model.predict_into(first.like(data), out, tile=(32, 32)))
    assert progress[0].done == 1


def test_another_scale_is_another_task(model: TrainedModel, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    run = model.predict_into(stack(), out, tile=(32, 32))
    next(run)
    run.close()
    list(model.predict_into(open_volume(stack(), scale=(4, 1, 1)), out, tile=(32, 32)))
    assert open_volume(out).scale == (4, 1, 1)


@pytest.mark.parametrize(("tile", "chunks"), [((32, 32), (1, 32, 32)), ((64, 48), (1, 64, 48)), (None, (1, 90, 70))])
def test_chunks_are_as_large_as_tiles_however_small_the_image(
    model: TrainedModel, tmp_path: Path, tile: tuple[int, ...] | None, chunks: tuple[int, ...]
) -> None:
    list(model.predict_into(stack(), tmp_path / "out.ome.zarr", tile=tile))
    assert open_volume(tmp_path / "out.ome.zarr").chunks == chunks


def test_channels_are_written_in_their_own_chunks(tmp_path: Path) -> None:
    volume = Volume(np.random.default_rng(0).poisson(400, (2, 64, 64)).astype(np.uint16), "CYX")
    apart = train(volume, "n2v", steps=1, width=4, patch=16)
    list(apart.predict_into(volume, tmp_path / "apart.ome.zarr"))
    assert open_volume(tmp_path / "apart.ome.zarr").chunks[0] == 1
