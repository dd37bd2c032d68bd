"""TIFF files of others are read for what they say; ours are read by others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_ssdenoise.io import create_writer, read_volume, tiff, write_volume
from napari_ssdenoise.volume import Volume

MakeVolume = Callable[..., Volume]
STACK = np.random.default_rng(0).integers(0, 1000, (10, 64, 48)).astype("uint16")


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((64, 48), {}, "YX"),
        ((10, 64, 48), {"metadata": None}, "ZYX"),
        ((10, 64, 48), {}, "ZYX"),
        ((10, 64, 48), {"metadata": {"axes": "TYX"}}, "TYX"),
        ((3, 2, 64, 48), {"metadata": None}, "ZYX"),
        ((7, 2, 64, 48), {}, "TZYX"),
        ((2, 7, 64, 48), {"metadata": {"axes": "CQYX"}}, "CZYX"),
        ((64, 48, 3), {"photometric": "rgb"}, "YXS"),
        ((3, 64, 48), {"photometric": "rgb", "planarconfig": "separate"}, "YXS"),
        ((5, 64, 48, 3), {"photometric": "rgb", "metadata": None}, "ZYXS"),
    ],
    ids=str,
)
def test_axes_of_plain_files(shape: tuple[int, ...], options: dict[str, Any], axes: str, tmp_path: Path) -> None:
    image = np.arange(np.prod(shape)).reshape(shape).astype("uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, **({"photometric": "minisblack"} | options))
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == axes
    expected = image.reshape(volume.shape) if shape[0] != 3 or "S" not in axes else np.moveaxis(image, 0, -1)
    np.testing.assert_array_equal(volume[...], expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int32", "float16", "float32", "float64"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_dtypes_and_byte_orders(order: str, dtype: str, compression: str | None, tmp_path: Path) -> None:
    image = STACK.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=order, compression=compression, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    assert volume.dtype.newbyteorder("=") == np.dtype(dtype)
    np.testing.assert_array_equal(volume[2:4, ::3, -1], image[2:4, ::3, -1])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressed_images(compression: str, tile: tuple[int, int] | None, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression=compression, tile=tile, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume[...], STACK)
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(again[3], STACK[3])


def test_uncompressed_images_are_memory_mapped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    assert isinstance(read_volume(tmp_path / "a.tif").data, np.memmap)


def test_slicing_decodes_only_the_tiles_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib", tile=(16, 16), photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    reads: list[int] = []
    original = tifffile.FileHandle.read

    def count(self: tifffile.FileHandle, size: int = -1, /) -> bytes:
        reads.append(size)
        return original(self, size)

    monkeypatch.setattr(tifffile.FileHandle, "read", count)
    np.testing.assert_array_equal(volume[3, :16, :16], STACK[3, :16, :16])
    assert len(reads) == 1
    assert volume.chunks == (1, 16, 16)


def test_imagej_metadata_is_read(tmp_path: Path) -> None:
    image = np.zeros((3, 4, 2, 16, 17), "float32")
    tifffile.imwrite(
        tmp_path / "a.tif",
        image,
        imagej=True,
        resolution=(1 / 0.2, 1 / 0.1),
        metadata={
            "axes": "TZCYX",
            "spacing": -0.5,
            "unit": "\\u00B5m",
            "finterval": 1.5,
            "xorigin": 10.0,
            "Labels": ["DAPI", "GFP"] * 12,
            "Ranges": (0.0, 10.0, 1.0, 5.0),
            "LUTs": [np.outer(c, np.arange(256)).astype("uint8") for c in ([0, 0, 1], [0, 1, 0])],
        },
    )
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "TZCYX"
    np.testing.assert_allclose(volume.scale, (1.5, 0.5, 1, 0.1, 0.2))
    assert volume.units == ("second", "micrometer", None, "micrometer", "micrometer")
    assert volume.translate == (0, 0, 0, 0, -2)
    assert volume.channel_names == ("DAPI", "GFP")
    channels = volume.metadata["omero"]["channels"]
    assert [c["color"] for c in channels] == ["0000FF", "00FF00"]
    assert channels[1]["window"] == {"start": 1.0, "end": 5.0}
    assert volume.metadata["imagej"]["finterval"] == 1.5


def test_a_printers_resolution_is_not_a_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(72, 72), resolutionunit="INCH")
    assert read_volume(tmp_path / "a.tif").scale == (1, 1, 1)


def test_slice_labels_that_differ_are_no_channel_names(tmp_path: Path) -> None:
    labels = [f"plane {i}" for i in range(8)]
    image = np.zeros((4, 2, 16, 17), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    assert read_volume(tmp_path / "a.tif").channel_names == ()


def test_ome_metadata_is_read(tmp_path: Path) -> None:
    image = np.zeros((3, 2, 4, 16, 17), "uint16")
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 100.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.2,
        "PhysicalSizeZ": 1.0,
        "TimeIncrement": 50.0,
        "TimeIncrementUnit": "ms",
        "Channel": {"Name": ["DAPI", "GFP"], "Color": [65535, -16776961]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata, compression="zlib")
    volume = read_volume(tmp_path / "a.ome.tif")
    assert (volume.axes, volume.name) == ("TCZYX", "a")
    assert volume.scale == (50, 1, 1, 0.2, 100)
    assert volume.units == ("millisecond", None, "micrometer", "micrometer", "nanometer")
    assert volume.channel_names == ("DAPI", "GFP")
    assert [c["color"] for c in volume.metadata["omero"]["channels"]] == ["0000FF", "FF0000"]


@pytest.mark.parametrize("axes", ["TZCYX", "CZYX", "ZYX", "YX", "ZYXS"])
@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_others_read_what_we_write(axes: str, suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume(axes, "uint8")
    path = write_volume(tmp_path / f"a{suffix}", volume)
    with tifffile.TiffFile(path) as tif:
        assert (tif.is_imagej, tif.is_ome, tif.is_bigtiff) == (suffix == ".tif", suffix == ".ome.tif", False)
        written = tif.series[0].axes
        order = [volume.axes.index(a) for a in written]
        np.testing.assert_array_equal(tif.asarray(), volume[...].transpose(order))
        if suffix == ".tif":
            info = tif.imagej_metadata or {}
            assert info["unit"] == "um"
            assert info.get("spacing") == (0.9 if "Z" in axes else None)
            assert info.get("finterval") == (2.5 if "T" in axes else None)
            ratio = tif.pages.first.tags["XResolution"].value
            assert ratio[1] / ratio[0] == pytest.approx(0.108)
        else:
            pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
            assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.108, "µm")
            if "T" in axes:
                assert (pixels["TimeIncrement"], pixels["TimeIncrementUnit"]) == (2.5, "s")
            if "C" in axes:
                assert tuple(c["Name"] for c in pixels["Channel"]) == volume.channel_names


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("int16", {}), ("float64", {}), ("uint8", {"units": ("second", "nanometer", "micrometer", "micrometer")})],
)
def test_what_imagej_cannot_hold_becomes_ome(dtype: str, options: Any, make_volume: MakeVolume, tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.tif", make_volume("TZYX", dtype, **options))
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome


def test_large_images_become_bigtiff(make_volume: MakeVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_ssdenoise.io.tiff_writer.CLASSIC_LIMIT", 1000)
    volume = make_volume("ZYX")
    path = write_volume(tmp_path / "a.tif", volume)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
    np.testing.assert_array_equal(read_volume(path)[...], volume[...])


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif"])
def test_provenance_is_kept_in_the_description(suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    writer = create_writer(tmp_path / f"a{suffix}", make_volume("CZYX"), dtype="float32")
    writer.array[...] = 7
    provenance = {"algorithm": "n2v", "input": 'a <b> & "c" = µ\n', "steps": 12}
    read = read_volume(writer.finish(provenance))
    assert read.metadata["napari_ssdenoise"] == provenance
    assert read.channel_names == make_volume("CZYX").channel_names
    assert read[0, 0, 0, 0] == 7
    with tifffile.TiffFile(tmp_path / f"a{suffix}") as tif:
        assert tif.series[0].axes == "CZYX" if suffix != ".tif" else "ZCYX"


def test_colours_and_contrast_cross_formats(make_volume: MakeVolume, tmp_path: Path) -> None:
    channels = [
        {"label": "a", "color": "FF8000", "window": {"start": 2.0, "end": 9.0, "min": 0.0, "max": 99.0}},
        {"label": "b", "color": "00FF00", "window": {"start": 3.0, "end": 8.0, "min": 0.0, "max": 99.0}},
    ]
    volume = make_volume("CYX", channel_names=("a", "b"), metadata={"omero": {"channels": channels}})
    for suffix in (".tif", ".ome.tif", ".ome.zarr", ".tif"):
        volume = read_volume(write_volume(tmp_path / f"a{suffix}", volume, overwrite=True))
        found = volume.metadata["omero"]["channels"]
        assert [(c["label"], c["color"]) for c in found] == [("a", "FF8000"), ("b", "00FF00")]


@pytest.mark.parametrize("fraction", [0.0, 0.0005, 0.01, 0.5, 0.95])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True},
        {"ome": True},
        {"compression": "zlib"},
        {"ome": True, "compression": "zlib"},
        {"metadata": None},
    ],
    ids=str,
)
def test_truncated_files_are_refused(fraction: float, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ValueError, match=r"cut\.tif .*(incomplete|damaged)"):
        read_volume(path)


def test_pages_that_follow_each_other_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "circle.tif"
    with tifffile.TiffWriter(path) as writer:
        for side in (20, 24):  # unlike each other, so that every page is looked at
            writer.write(STACK[0, :side, :side], photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 2
        first, last = tif.pages.first.offset, tif.pages.next_page_offset
    content = bytearray(path.read_bytes())
    content[last : last + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path), STACK[0, :20, :20])


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("this is not an image")
    with pytest.raises(ValueError, match=r"text\.tif cannot be read as a TIFF"):
        read_volume(tmp_path / "text.tif")


def test_damaged_pixels_are_reported_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[5]
        start, count = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + count] = bytes(count)
    path.write_bytes(content)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume[4], STACK[4])
    with pytest.raises(ValueError, match=r"bad\.tif could not be read"):
        volume[5]


def test_a_missing_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __getitem__(self, key: Any) -> Any:
            raise KeyError(key)

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="lzw", photometric="minisblack")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Nothing())
    with pytest.raises(ValueError, match=r"a\.tif is compressed with LZW.*pip install imagecodecs"):
        read_volume(path)


def test_several_images_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(STACK, photometric="minisblack")
        writer.write(STACK[0, :20], photometric="minisblack")
    assert read_volume(tmp_path / "a.tif").shape == STACK.shape
    assert "holds 2 images" in caplog.text


@pytest.mark.parametrize("unit", ["angstrom", "毫米", "a\nb=c"])
def test_imagej_holds_units_of_any_letters(unit: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("ZYX", "uint16", units=(unit,) * 3)
    path = write_volume(tmp_path / "a.tif", volume)
    assert read_volume(path).units == volume.units
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_a_flipped_image_keeps_its_pixel_sizes(name: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("ZYX", "uint16", scale=(-0.9, -0.1, 0.1), translate=(4.0, 3.0, 2.0))
    again = read_volume(write_volume(tmp_path / name, volume))
    np.testing.assert_allclose(again.scale, (0.9, 0.1, 0.1))
    np.testing.assert_allclose(again.translate, (4.0, 3.0, 2.0))
    with tifffile.TiffFile(tmp_path / name) as tif:
        if tif.is_imagej:
            assert tif.imagej_metadata["spacing"] == 0.9
            assert tif.pages.first.resolution == pytest.approx((10, 10))
        else:
            assert 'PhysicalSizeY="0.1"' in str(tif.ome_metadata)
            assert 'PhysicalSizeZ="0.9"' in str(tif.ome_metadata)


@pytest.mark.parametrize("dtype", ["float16", "uint64"])
def test_dtypes_without_a_place_in_tiff(dtype: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"not {dtype}.*Write .ome.zarr"):
        write_volume(tmp_path / "a.tif", make_volume("ZYX", dtype))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_closed_when_its_volume_goes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib", photometric="minisblack")
    data = tiff._Decoded(tmp_path / "a.tif")
    close = data._close
    assert close.alive
    del data
    assert not close.alive


def test_names_that_xml_cannot_hold_are_cleaned(make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("CYX", channel_names=('my "DAPI"\x00', "a\nb"), name='"\x01')
    assert read_volume(write_volume(tmp_path / "a.ome.tif", volume)).channel_names == ("my 'DAPI'", "ab")


def test_written_pages_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_ssdenoise.io._lazy.MAPPED", 5000)
    image = np.random.default_rng(0).random((64, 30, 40), dtype=np.float32)
    volume = Volume(image, "ZYX")
    for suffix in (".tif", ".npy"):
        writer = create_writer(tmp_path / f"a{suffix}", volume, dtype="float32")
        for z in range(64):
            writer.array[z] = image[z]
        np.testing.assert_array_equal(read_volume(writer.finish())[...], image)


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib", tile=(16, 16), photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda z: volume[z % 10], range(40)))
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(plane, STACK[z % 10])
