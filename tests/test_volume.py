"""A volume keeps its geometry, reads only what is sliced, and refuses what is no image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_ssdenoise.volume import Volume, open_volume, require_intensities


def make(kind: str, image: np.ndarray[Any, Any], folder: Path) -> Any:
    """Wrap an image as one of the array kinds."""
    if kind == "dask":
        return da.from_array(image, chunks=(2, 5, 6))
    if kind == "zarr":
        array = zarr.create_array(folder / "a.zarr", shape=image.shape, chunks=(2, 5, 6), dtype=image.dtype)
        array[...] = image
        return array
    if kind == "memmap":
        np.save(folder / "a.npy", image)
        return np.load(folder / "a.npy", mmap_mode="r")
    return image


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "memmap"])
def test_all_array_kinds_give_the_same_numbers(kind: str, tmp_path: Path) -> None:
    image = np.arange(4 * 10 * 12, dtype=np.uint16).reshape(4, 10, 12)
    volume = open_volume(make(kind, image, tmp_path))
    assert (volume.axes, volume.shape, volume.dtype) == ("ZYX", (4, 10, 12), np.uint16)
    assert volume.sizes == {"Z": 4, "Y": 10, "X": 12}
    assert volume.nbytes == image.nbytes
    assert volume.chunks == ((2, 5, 6) if kind in ("dask", "zarr") else (4, 10, 12))
    block = volume[1:3, :, 2:5]
    assert isinstance(block, np.ndarray)
    np.testing.assert_array_equal(block, image[1:3, :, 2:5])
    np.testing.assert_array_equal(np.asarray(volume), image)


def test_opening_reads_nothing() -> None:
    class Refuses:
        shape = (100, 2000, 2000)
        dtype = np.dtype("float32")

        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("read too early")

    volume = open_volume(Refuses(), axes="TYX", scale=(2, 0.1, 0.1), name="lazy")
    assert (volume.axes, volume.scale, volume.name) == ("TYX", (2.0, 0.1, 0.1), "lazy")


def test_like_keeps_the_geometry() -> None:
    volume = Volume(
        np.zeros((2, 5, 6)), "CYX", (1, 0.2, 0.2), (None, "micrometer", "micrometer"), (0, 3, 4), "a", ("x", "y")
    )
    other = volume.like(np.ones((2, 5, 6)), name="b")
    assert (other.scale, other.units, other.translate) == (volume.scale, volume.units, volume.translate)
    assert (other.name, other.channel_names, other[0, 0, 0]) == ("b", ("x", "y"), 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (1, 2)}, "one entry per axis"),
        ({"units": ("micrometer",)}, "one entry per axis"),
        ({"channel_names": ("a", "b")}, "2 channel names for 1 channels"),
        ({"scale": (1, 0, 1)}, "other than 0"),
        ({"scale": (1, np.nan, 1)}, "finite numbers"),
        ({"translate": (1, np.inf, 1)}, "finite"),
    ],
)
def test_geometry_must_fit_the_axes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Volume(np.zeros((4, 5, 6)), "ZYX", **options)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 5, 6)), "is empty"),
        (np.zeros((5, 6), bool), "boolean mask"),
        (np.zeros((5, 6), complex), "is complex"),
        (np.full((5, 6), "a"), "not numeric"),
    ],
)
def test_what_is_no_image_of_intensities_is_refused(image: np.ndarray[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        require_intensities(Volume(image, "ZYX"[-image.ndim :]))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float32", "float64", ">u2"])
def test_intensities_of_all_dtypes_are_accepted(dtype: str) -> None:
    require_intensities(Volume(np.zeros((5, 6), dtype), "YX"))


def test_volumes_and_readers_import_no_torch_and_no_format_library() -> None:
    code = (
        "import sys, napari_ssdenoise.volume, napari_ssdenoise.io\n"
        "print([m for m in ('torch', 'tifffile', 'zarr', 'PIL', 'dask', 'yaozarrs', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_axes_drop_what_belonged_to_the_old_ones() -> None:
    volume = Volume(np.zeros((2, 8, 8)), "CYX", scale=(1, 0.5, 0.5), channel_names=("nuclei", "actin"))
    stack = open_volume(volume, axes="ZYX")
    assert (stack.axes, stack.scale, stack.channel_names) == ("ZYX", (1, 0.5, 0.5), ())
