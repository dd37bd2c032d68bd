"""A volume at smaller pixels: every pixel repeated, read lazily, in the same place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ssdenoise.enlarged import Repeated, enlarged
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


class Spy:
    """An array that notes how many of its values are read."""

    def __init__(self, data: NDArray[Any]) -> None:
        self._data, self.shape, self.dtype = data, data.shape, data.dtype
        self.read = 0

    def __getitem__(self, key: Any) -> NDArray[Any]:
        block = self._data[key]
        self.read += block.size
        return block


def as_numpy(array: NDArray[Any], folder: Path) -> Any:
    return array


def as_zarr(array: NDArray[Any], folder: Path) -> Any:
    import zarr

    stored = zarr.create_array(folder / "a.zarr", shape=array.shape, chunks=(2, 3, 4)[-array.ndim :], dtype=array.dtype)
    stored[:] = array
    return stored


def as_dask(array: NDArray[Any], folder: Path) -> Any:
    return pytest.importorskip("dask.array").from_array(array, chunks=2)


def repeated_at_once(data: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    for axis, factor in enumerate(factors):
        data = np.repeat(data, factor, axis)
    return data


def random_key(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Any, ...]:
    """Return slices (empty, negative and open ones too) and whole numbers, perhaps with an ellipsis."""
    key: list[Any] = []
    for n in shape:
        low, high = sorted(rng.integers(-n, n + 1, 2).tolist())
        choices = [slice(low, high), slice(None, high), slice(low, None), slice(None), slice(high, low), low % n]
        key.append(choices[rng.integers(len(choices))])
    if rng.random() < 0.5:
        cut = sorted(rng.integers(0, len(key) + 1, 2).tolist())
        key[cut[0] : cut[1]] = [Ellipsis]
    elif rng.random() < 0.3:
        key = key[: rng.integers(1, len(key) + 1)]
    return tuple(key)


@pytest.mark.parametrize("wrap", [as_numpy, as_zarr, as_dask], ids=["numpy", "zarr", "dask"])
@pytest.mark.parametrize(
    ("shape", "factors"),
    [((5, 7), (2, 3)), ((3, 5, 6), (1, 2, 2)), ((4, 3, 5), (3, 1, 1)), ((3, 2, 4), (2, 4, 1))],
    ids=str,
)
def test_any_part_equals_that_of_the_repeated_array(
    shape: tuple[int, ...], factors: tuple[int, ...], wrap: Callable[..., Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    data = rng.integers(0, 1000, shape).astype(np.uint16)
    expected = repeated_at_once(data, factors)
    lazy = Repeated(wrap(data, tmp_path), factors)
    assert (lazy.shape, lazy.dtype, lazy.ndim) == (expected.shape, expected.dtype, expected.ndim)
    np.testing.assert_array_equal(lazy[...], expected)
    np.testing.assert_array_equal(lazy[-1], expected[-1])
    np.testing.assert_array_equal(lazy[:, 1:4], expected[:, 1:4])
    for _ in range(60):
        key = random_key(expected.shape, rng)
        found = lazy[key]
        np.testing.assert_array_equal(found, expected[key], str(key))
        assert found.dtype == np.uint16


def test_steps_are_refused() -> None:
    with pytest.raises(IndexError, match="without steps"):
        Repeated(np.zeros((4, 4)), (2, 2))[::2]


def test_only_what_is_needed_is_read() -> None:
    spy = Spy(np.zeros((10, 20, 20), np.uint8))
    lazy = Repeated(spy, (1, 4, 4))
    assert lazy.shape == (10, 80, 80)
    assert spy.read == 0
    lazy[3:5, 8:12, 8:12]
    assert spy.read == 2
    lazy[3, 7:13, 8:12]  # a pixel more on either side
    assert spy.read == 2 + 3
    lazy[3]
    assert spy.read == 2 + 3 + 400


def test_chunks_grow_with_the_pixels(tmp_path: Path) -> None:
    data = np.zeros((4, 6, 8), np.uint8)
    assert Repeated(as_zarr(data, tmp_path), (1, 2, 3)).chunks == (2, 6, 12)
    assert Repeated(as_dask(data, tmp_path), (2, 1, 1)).chunks == (4, 2, 2)


def test_arrays_without_chunks_have_none() -> None:
    """Otherwise a whole movie would be read for the sake of its first frame."""
    lazy = Repeated(np.zeros((4, 6, 8), np.uint8), (1, 2, 2))
    assert lazy.chunks is None
    assert Volume(lazy, "TYX").chunks == (4, 12, 16)


VOLUME = Volume(
    np.arange(3 * 2 * 4 * 5, dtype=np.uint8).reshape(3, 2, 4, 5),
    "ZCYX",
    (1.2, 1.0, 0.3, 0.2),
    ("micrometer", None, "micrometer", "micrometer"),
    (10.0, 0.0, -3.0, 4.0),
    name="cells",
    channel_names=("actin", "DNA"),
)


@pytest.mark.parametrize("factors", [{"Y": 2, "X": 2}, {"Y": 3, "X": 3}, {"Z": 4}, {"Z": 2, "Y": 4, "X": 4}], ids=str)
def test_new_pixels_fill_the_old_ones(factors: dict[str, int]) -> None:
    fine = enlarged(VOLUME, factors)
    for axis, n, old, at, new, first in zip(
        VOLUME.axes, VOLUME.shape, VOLUME.scale, VOLUME.translate, fine.scale, fine.translate, strict=True
    ):
        factor = factors.get(axis, 1)
        assert new * factor == pytest.approx(old)
        centres = (first + new * np.arange(n * factor)).reshape(n, factor).mean(1)
        np.testing.assert_allclose(centres, at + old * np.arange(n))
    np.testing.assert_array_equal(
        fine[...], repeated_at_once(np.asarray(VOLUME), tuple(factors.get(axis, 1) for axis in VOLUME.axes))
    )


def test_on_the_topleft_grid_the_first_pixels_coincide() -> None:
    fine = enlarged(VOLUME, {"Z": 2, "Y": 3, "X": 3}, registered=False)
    assert fine.translate == VOLUME.translate
    assert fine.scale == pytest.approx((0.6, 1.0, 0.1, 0.2 / 3))


def test_all_else_stays() -> None:
    fine = enlarged(VOLUME, {"Y": 2, "X": 2})
    assert (fine.axes, fine.units, fine.name) == (VOLUME.axes, VOLUME.units, VOLUME.name)
    assert fine.channel_names == VOLUME.channel_names
    assert fine.source is None
    assert VOLUME.shape == (3, 2, 4, 5)
