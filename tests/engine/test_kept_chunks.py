"""Chunks that are kept: the same values, each decoded once, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ssdenoise.axes import Layout
from napari_ssdenoise.engine.kept_chunks import KeptChunks, keeping_chunks
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


class Spy:
    """A chunked array that notes every read: the length along each axis."""

    def __init__(self, data: NDArray[Any], chunks: tuple[int, ...]) -> None:
        self._data, self.shape, self.dtype, self.chunks = data, data.shape, data.dtype, chunks
        self.reads: list[tuple[int, ...]] = []

    def __getitem__(self, key: Any) -> NDArray[Any]:
        block = self._data[key]
        self.reads.append(block.shape)
        return block


def random_region(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    return tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False).tolist())) for n in shape)


@pytest.mark.parametrize("depth", [(4, 1, 1), (3, 2, 1), (1, 1, 1), (16, 1, 1), (2, 4, 8)], ids=str)
@pytest.mark.parametrize("limit", [0, 2000, 1 << 20])
def test_any_region_is_the_same(depth: tuple[int, ...], limit: int, rng: np.random.Generator) -> None:
    data = rng.integers(0, 1000, (10, 9, 11)).astype(np.uint16)
    kept = KeptChunks(data, depth, limit)
    assert (kept.shape, kept.dtype) == (data.shape, data.dtype)
    for _ in range(100):
        region = random_region(data.shape, rng)
        np.testing.assert_array_equal(kept[region], data[region])


def test_planes_in_order_decode_each_chunk_once() -> None:
    spy = Spy(np.arange(10 * 6 * 6).reshape(10, 6, 6), (4, 6, 6))
    kept = KeptChunks(spy, (4, 1, 1), 1 << 20)
    for t in range(10):
        np.testing.assert_array_equal(kept[t : t + 1, :, :][0], spy._data[t])
    assert spy.reads == [(4, 6, 6), (4, 6, 6), (2, 6, 6)]


def test_several_regions_of_a_chunk_are_kept_side_by_side() -> None:
    """Tiles of an image are read for one plane after the other."""
    spy = Spy(np.zeros((4, 8, 8), np.uint8), (4, 8, 8))
    kept = KeptChunks(spy, (4, 1, 1), 1 << 20)
    for t in range(4):
        for y in (slice(0, 5), slice(3, 8)):
            assert kept[t : t + 1, y, 0:8].shape == (1, 5, 8)
    assert spy.reads == [(4, 5, 8)] * 2


def test_no_more_is_kept_than_allowed() -> None:
    spy = Spy(np.zeros((12, 10, 10), np.uint8), (4, 10, 10))
    kept = KeptChunks(spy, (4, 1, 1), 900)  # two chunks of 400 bytes
    for t in (0, 4, 1, 8, 2, 5):  # the third one takes the place of that which was longest unused
        kept[t : t + 1, 0:10, 0:10]
        assert sum(block.nbytes for block in kept._kept.values()) <= 900
    assert len(spy.reads) == 4
    assert len(kept._kept) == 2


def test_chunks_too_large_to_keep_are_read_in_part() -> None:
    spy = Spy(np.zeros((4, 10, 10), np.uint8), (4, 10, 10))
    kept = KeptChunks(spy, (4, 1, 1), 399)
    for _ in range(2):
        kept[0:1, 0:10, 0:10]
    assert spy.reads == [(1, 10, 10)] * 2
    assert not kept._kept


def test_whole_chunks_pass_without_being_kept() -> None:
    spy = Spy(np.zeros((4, 10, 10), np.uint8), (4, 10, 10))
    kept = KeptChunks(spy, (4, 1, 1), 1 << 20)
    kept[0:4, 0:10, 0:10]
    assert not kept._kept


@pytest.mark.parametrize(
    ("chunks", "spatial", "kept"),
    [((4, 8, 8), "YX", True), ((1, 8, 8), "YX", False), ((4, 8, 8), "ZYX", False), (None, "YX", False)],
    ids=["thick", "thin", "convolved over", "not chunked"],
)
def test_only_thick_chunks_need_keeping(chunks: Any, spatial: str, kept: bool) -> None:
    data = np.zeros((8, 16, 16), np.float32)
    volume = Volume(Spy(data, chunks) if chunks else data, "ZYX")
    layout = Layout.choose("ZYX", data.shape, spatial)
    assert isinstance(keeping_chunks(volume, layout, 1 << 20).data, KeptChunks) == kept


@pytest.mark.parametrize("spatial", ["YX", "TYX"])
def test_a_prediction_from_thick_chunks(
    make_model: Callable[..., Any], make_image: Callable[..., Any], spatial: str, tmp_path: Path
) -> None:
    import zarr

    model, movie = make_model(spatial), make_image(10, 40, 44)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=movie.shape, chunks=(4, 16, 20), dtype=movie.dtype)
    stored[:] = movie
    for options in ({}, {"tile": (8, 24, 24)[-len(spatial) :]}):
        expected = model.predict(Volume(movie, "TYX"), precision="float32", **options)
        assert expected.std() > 1
        found = model.predict(Volume(stored, "TYX"), precision="float32", **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_prediction_decodes_thick_chunks_once(make_model: Callable[..., Any], make_image: Callable[..., Any]) -> None:
    spy = Spy(make_image(8, 32, 32), (4, 32, 32))
    make_model("YX").predict(Volume(spy, "TYX"))
    assert spy.reads == [(4, 32, 32)] * 2
