"""Lower resolutions written block by block are those of a second pass, and no two blocks share a chunk."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_ssdenoise.io import _pyramid, create_writer
from napari_ssdenoise.volume import Volume


@pytest.fixture(autouse=True)
def _small_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pyramid, "SMALLEST", 8)
    monkeypatch.setattr(_pyramid, "SMALLEST_CHUNK", 8)


def blocks_of(shape: tuple[int, ...], grid: tuple[int, ...]) -> list[tuple[slice, ...]]:
    axes = [[slice(a, min(a + g, n)) for a in range(0, n, g)] for n, g in zip(shape, grid, strict=True)]
    return list(product(*axes))


CASES = [
    # axes, shape, scale, chunks, grid of the blocks
    ("YX", (64, 64), (1, 1), (16, 16), (32, 32)),
    ("YX", (77, 51), (1, 1), (16, 16), (16, 48)),
    ("YX", (77, 9), (1, 1), (16, 16), (16, 16)),
    ("YX", (33, 100), (1, 1), (8, 8), (24, 40)),
    ("ZYX", (13, 41, 30), (1, 1, 1), (4, 16, 16), (8, 16, 32)),
    ("ZYX", (13, 41, 30), (3, 1, 1), (4, 16, 16), (4, 32, 32)),
    ("ZYX", (7, 41, 30), (1, 1, 1), (3, 16, 16), (3, 16, 32)),  # three planes cannot be halved
    ("ZYX", (1, 50, 30), (1, 1, 1), (1, 16, 16), (1, 16, 16)),
    ("TCZYX", (2, 2, 5, 20, 37), (1, 1, 2, 1, 1), (1, 1, 5, 16, 16), (1, 1, 5, 16, 16)),
    ("XYC", (37, 20, 3), (1, 1, 1), (16, 16, 1), (16, 32, 3)),
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize(("axes", "shape", "scale", "chunks", "grid"), CASES, ids=str)
def test_streamed_levels_equal_a_second_pass(
    tmp_path: Path,
    axes: str,
    shape: tuple[int, ...],
    scale: tuple[float, ...],
    chunks: tuple[int, ...],
    grid: tuple[int, ...],
    dtype: str,
) -> None:
    image = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    volume = Volume(image, axes, scale=tuple(map(float, scale)))
    order = np.random.default_rng(1).permutation(blocks := blocks_of(shape, grid))
    for name, known in (("streamed", grid), ("second", None)):
        writer = create_writer(tmp_path / f"{name}.ome.zarr", volume, dtype=image.dtype, chunks=chunks, grid=known)
        for part in order if known else blocks:
            region = tuple(part)
            writer.write(region, image[region])
        writer.finish()
    streamed, second = (zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r") for name in ("streamed", "second"))
    assert len(list(second.array_keys())) > 1
    assert streamed.attrs == second.attrs
    for level in second.array_keys():
        np.testing.assert_array_equal(streamed[level][...], second[level][...])


@pytest.mark.parametrize(("axes", "shape", "scale", "chunks", "grid"), CASES, ids=str)
def test_no_chunk_of_a_streamed_level_is_shared(
    axes: str, shape: tuple[int, ...], scale: tuple[float, ...], chunks: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    levels = _pyramid.plan(axes, shape, scale, (0.0,) * len(axes))
    streamed = _pyramid.streamed_chunks(levels, chunks, grid)
    assert streamed[0] == chunks
    assert 1 <= len(streamed) <= len(levels)
    total = np.ones(len(axes), int)
    for number, (level, factors) in enumerate(levels[: len(streamed)]):
        total *= factors
        owner: dict[tuple[int, ...], int] = {}
        covered = np.zeros(level.shape, int)
        for block, region in enumerate(blocks_of(shape, grid)):
            place = tuple(slice(s.start // f, -(-s.stop // f)) for s, f in zip(region, total, strict=True))
            covered[place] += 1
            touched = (range(s.start // c, -(-s.stop // c)) for s, c in zip(place, streamed[number], strict=True))
            for chunk in product(*touched):
                assert owner.setdefault(chunk, block) == block
        assert (covered == 1).all()
        assert all(s.start % f == 0 for s, f in zip(region, total, strict=True))


def test_crumbs_are_left_to_the_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = _pyramid.plan("YX", (4096, 4096), (1, 1), (0, 0))
    monkeypatch.setattr(_pyramid, "SMALLEST_CHUNK", 2**12)
    assert _pyramid.streamed_chunks(levels, (256, 256), (512, 512)) == [(256, 256), (256, 256), (128, 128), (64, 64)]
    assert _pyramid.streamed_chunks(levels, (256, 256), (4096, 4096)) == [
        tuple(min(256, n) for n in level.shape) for level, _ in levels
    ]


def test_alignment() -> None:
    place = [slice(3, 5), slice(4, 8), slice(6, 9)]
    assert _pyramid.aligned(place, (2, 4, 1), (5, 20, 9)) == [slice(2, 5), slice(4, 8), slice(6, 9)]


def test_blocks_that_end_anywhere_give_the_same_levels(tmp_path: Path) -> None:
    """In the order of a run whose tiles were cut as memory ran out."""
    image = np.random.default_rng(0).integers(0, 250, (12, 32, 40)).astype(np.uint16)
    volume = Volume(image, "ZYX", scale=(1.0, 1.0, 1.0))
    writer = create_writer(tmp_path / "a.ome.zarr", volume, dtype=image.dtype, chunks=(4, 16, 16), grid=(4, 16, 16))
    for cut in (slice(0, 7), slice(7, 20), slice(20, 40)):
        for z in (slice(0, 3), slice(3, 12)):
            writer.write((z, slice(0, 32), cut), image[z, :, cut])
    writer.finish()
    group: Any = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    above = image
    for level, factors in _pyramid.plan("ZYX", image.shape, volume.scale, volume.translate)[1:]:
        above = _pyramid.halve(above, factors)
        np.testing.assert_array_equal(group[level.path][...], above)
