"""What is written is read again: pixels, axes, pixel sizes, units, position, channel names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_ssdenoise.io import create_writer, read_volume, write_volume
from napari_ssdenoise.volume import Volume, open_volume

MakeVolume = Callable[..., Volume]
ORDERS = ("YX", "ZYX", "CZYX", "TCZYX", "TZCYX", "CTYX", "YXS", "ZYXS", "SYX", "XYZ")


def assert_same(read: Volume, written: Volume) -> None:
    """Compare pixels and all geometry."""
    assert read.axes == written.axes
    assert read.dtype == written.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read[...], written[...])
    np.testing.assert_allclose(read.scale, written.scale, rtol=1e-6)
    np.testing.assert_allclose(read.translate, written.translate, rtol=1e-6)
    assert read.units == written.units
    assert read.channel_names == written.channel_names


@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".ome.tif"])
def test_axes_and_geometry(axes: str, suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume(axes, "uint8")
    assert_same(read_volume(write_volume(tmp_path / f"cells{suffix}", volume)), volume)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", ">u2", "uint32", "int8", "int16", "int32", "float32", "float64", ">f4"]
)
@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_dtypes(dtype: str, suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("CZYX", dtype)
    assert_same(read_volume(write_volume(tmp_path / f"cells{suffix}", volume)), volume)


@pytest.mark.parametrize("dtype", ["float16", "uint64", "int64", ">f8"])
@pytest.mark.parametrize("suffix", [".ome.zarr", ".npy"])
def test_dtypes_that_tiff_lacks(dtype: str, suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("ZYX", dtype)
    read = read_volume(write_volume(tmp_path / f"cells{suffix}", volume))
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(read[...], volume[...])


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".ome.tif"])
def test_axes_of_length_one_come_back(suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("TCZYX", "float32", {"T": 1, "Z": 1, "C": 1, "X": 1})
    assert_same(read_volume(write_volume(tmp_path / f"cells{suffix}", volume)), volume)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_axes(data: st.DataObject, make_volume: MakeVolume, tmp_path: Path) -> None:
    others = data.draw(st.lists(st.sampled_from("TCZ"), unique=True))
    axes = "".join(data.draw(st.permutations(["Y", "X", *others])))
    lengths = {a: data.draw(st.integers(1, 5), label=a) for a in axes}
    volume = make_volume(axes, data.draw(st.sampled_from(["uint16", "float32", "int32"])), lengths)
    for suffix in (".ome.zarr", ".tif", ".ome.tif"):
        assert_same(read_volume(write_volume(tmp_path / f"any{suffix}", volume, overwrite=True)), volume)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".ome.tif", ".npy"])
def test_blocks_from_several_threads_arrive(suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("XZYC", "float32", {"X": 32, "Y": 16, "Z": 4})
    writer = create_writer(tmp_path / f"cells{suffix}", volume, dtype="float32", chunks=(16, 2, 16, 1))
    assert writer.chunks == (16, 2, 16, 1)
    regions = [
        (slice(x, x + 16), slice(z, z + 2), slice(None), slice(c, c + 1))
        for x in (0, 16)
        for z in (0, 2)
        for c in (0, 1)
    ]

    def put(region: tuple[slice, ...]) -> None:
        writer.array[region] = volume[region]

    threads = [threading.Thread(target=put, args=(r,)) for r in regions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(writer.array[3:20, 1], volume[3:20, 1])
    assert writer.array.shape == volume.shape
    read = open_volume(writer.finish(), axes="XZYC" if suffix == ".npy" else None)
    np.testing.assert_array_equal(read[...], volume[...])


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".ome.tif"])
def test_another_shape_and_scale_than_the_model(suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    like = make_volume("CYX")
    shape, scale = (2, 40, 60), (1.0, 0.054, 0.054)
    writer = create_writer(tmp_path / f"up{suffix}", like, dtype="float32", shape=shape, scale=scale)
    writer.array[...] = 1
    read = read_volume(writer.finish())
    assert (read.shape, read.dtype, read.units) == (shape, np.float32, like.units)
    np.testing.assert_allclose(read.scale, scale)


def test_equal_inner_names_give_two_volumes(make_volume: MakeVolume, tmp_path: Path) -> None:
    import zarr

    volumes = []
    for name, value in (("a", 1), ("b", 2)):
        group = zarr.create_group(tmp_path / f"{name}.zarr")
        group.create_array("vol", shape=(4, 5, 6), dtype="uint8", fill_value=value)
        volumes += [read_volume(tmp_path / f"{name}.zarr"), read_volume(tmp_path / f"{name}.zarr" / "vol")]
    assert [v.name for v in volumes] == ["a_vol", "a_vol", "b_vol", "b_vol"]
    assert [int(v[0, 0, 0]) for v in volumes] == [1, 1, 2, 2]
    for volume in volumes[::2]:
        write_volume(tmp_path / f"{volume.name}.ome.zarr", volume)
    assert [int(read_volume(tmp_path / f"{n}_vol.ome.zarr")[0, 0, 0]) for n in "ab"] == [1, 2]


def test_given_axes_win_and_drop_sizes_of_renamed_axes(make_volume: MakeVolume, tmp_path: Path) -> None:
    path = write_volume(tmp_path / "stack.tif", make_volume("ZYX"))
    volume = read_volume(path, axes="tyx")
    assert volume.axes == "TYX"
    assert volume.scale[0] == 1
    assert volume.units == (None, "micrometer", "micrometer")
    with pytest.raises(ValueError, match="name 2 dimensions, but the array has 3"):
        read_volume(path, axes="YX")


def test_writing_copies_block_by_block(tmp_path: Path) -> None:
    class Counts:
        shape, dtype = (64, 1024, 1024), np.dtype("uint8")
        largest = 0

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            block = np.zeros([s.stop - s.start for s in key], "uint8")
            Counts.largest = max(Counts.largest, block.size)
            return block

    write_volume(tmp_path / "large.npy", Volume(Counts(), "ZYX"))
    assert 0 < Counts.largest <= 2**24
    assert read_volume(tmp_path / "large.npy").shape == Counts.shape
