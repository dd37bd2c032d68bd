"""OME-Zarr of both versions and plain Zarr of both formats are read; ours pass the validators of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask.array as da
import numcodecs
import numpy as np
import pytest
import zarr

from napari_ssdenoise.io import _pyramid, create_writer, read_volume, write_volume
from napari_ssdenoise.volume import Volume

MakeVolume = Callable[..., Volume]
SHAPE = (2, 6, 20, 30)
IMAGE = np.random.default_rng(0).integers(0, 1000, SHAPE).astype("uint16")
AXES = [
    {"name": "c", "type": "channel"},
    *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"),
]
OMERO = {
    "channels": [
        {"label": n, "color": c, "window": {"start": 5, "end": 95, "min": 0, "max": 999}, "active": True}
        for n, c in (("DAPI", "0000FF"), ("GFP", "00FF00"))
    ]
}


def multiscales(version: str, **more: Any) -> list[dict[str, Any]]:
    """Return metadata of a two-level image."""
    datasets = [
        {
            "path": str(i),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 0.5, 0.1 * 2**i, 0.1 * 2**i]},
                {"type": "translation", "translation": [0, 0, 3, 4]},
            ],
        }
        for i in range(2)
    ]
    named = {"version": version} if version == "0.4" else {}
    return [{"axes": AXES, "datasets": datasets, "name": "cells", **named, **more}]


def make_store(path: Path, version: str, **more: Any) -> Path:
    """Write an image as other programs do."""
    v2 = version == "0.4"
    group = zarr.create_group(path, zarr_format=2 if v2 else 3)
    for i, image in enumerate((IMAGE, IMAGE[..., ::2, ::2])):
        array = group.create_array(str(i), shape=image.shape, chunks=(1, 2, 10, 10), dtype=image.dtype)
        array[...] = image
    ome = {"multiscales": multiscales(version, **more), "omero": OMERO}
    group.attrs.update(ome if v2 else {"ome": {"version": "0.5", **ome}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_others_are_read(version: str, tmp_path: Path) -> None:
    volume = read_volume(make_store(tmp_path / "cells.ome.zarr", version))
    assert (volume.axes, volume.shape, volume.name) == ("CZYX", SHAPE, "cells")
    assert volume.scale == (1, 0.5, 0.1, 0.1)
    assert volume.translate == (0, 0, 3, 4)
    assert volume.units == (None, "micrometer", "micrometer", "micrometer")
    assert volume.channel_names == ("DAPI", "GFP")
    assert volume.metadata["omero"] == OMERO
    assert volume.chunks == (1, 2, 10, 10)
    np.testing.assert_array_equal(volume[1, 2:4, :, ::3], IMAGE[1, 2:4, :, ::3])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_lower_resolution_can_be_chosen(version: str, tmp_path: Path) -> None:
    volume = read_volume(make_store(tmp_path / "cells.ome.zarr", version) / "1")
    assert (volume.axes, volume.scale, volume.name) == ("CZYX", (1, 0.5, 0.2, 0.2), "cells_1")
    np.testing.assert_array_equal(volume[...], IMAGE[..., ::2, ::2])


def test_transformations_of_all_levels_are_applied_last(tmp_path: Path) -> None:
    both = [{"type": "scale", "scale": [1, 2, 2, 2]}, {"type": "translation", "translation": [0, 10, 10, 10]}]
    volume = read_volume(make_store(tmp_path / "a.ome.zarr", "0.5", coordinateTransformations=both))
    assert volume.scale == (1, 1, 0.2, 0.2)
    assert volume.translate == (0, 10, 16, 18)


@pytest.mark.parametrize(
    ("axes", "letters"),
    [
        (["c", "z", "y", "x"], "CZYX"),
        ([{"name": n, "type": t} for n, t in zip("abcd", ("channel", *["space"] * 3), strict=True)], "CZYX"),
        ([{"name": "time", "type": "time"}, *AXES[1:]], "TZYX"),
        ([{"name": "angle"}, *AXES[1:]], "CZYX"),
    ],
    ids=["strings", "types", "time", "unknown"],
)
def test_axes_by_name_or_type(axes: Any, letters: str, tmp_path: Path) -> None:
    assert read_volume(make_store(tmp_path / "a.ome.zarr", "0.4", axes=axes)).axes == letters


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("names", "axes"), [(None, "CZYX"), (("t", "Z", "y", "x"), "TZYX"), (("u", "v", "w", "x"), "CZYX")]
)
def test_plain_arrays(zarr_format: Any, names: tuple[str, ...] | None, axes: str, tmp_path: Path) -> None:
    path = tmp_path / "plain.zarr"
    options: dict[str, Any] = {"dimension_names": names} if zarr_format == 3 and names else {}
    array = zarr.create_array(
        path, shape=SHAPE, dtype="uint16", chunks=(1, 2, 10, 10), zarr_format=zarr_format, **options
    )
    array[...] = IMAGE
    if zarr_format == 2 and names:
        array.attrs["_ARRAY_DIMENSIONS"] = list(names)
    volume = read_volume(path)
    assert (volume.axes, volume.name, volume.scale) == (axes, "plain", (1, 1, 1, 1))
    np.testing.assert_array_equal(volume[...], IMAGE)
    assert read_volume(path, axes="TCYX").axes == "TCYX"


@pytest.mark.parametrize("dtype", [">u2", ">f4", "float16"])
def test_foreign_dtypes_of_format_2(dtype: str, tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=SHAPE, dtype=dtype, zarr_format=2)
    array[...] = IMAGE
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr")[0, 1], IMAGE[0, 1].astype(dtype))


def test_slicing_reads_only_the_chunks_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_store(tmp_path / "a.ome.zarr", "0.5")
    reads: list[str] = []
    original = zarr.storage.LocalStore.get

    async def count(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        reads.append(key)
        return await original(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", count)
    volume = read_volume(path)
    reads.clear()
    np.testing.assert_array_equal(volume[1, 3, 11:19, 0], IMAGE[1, 3, 11:19, 0])
    assert [r for r in reads if "/c/" in f"/{r}"] == ["c/1/1/1/0"] or len(reads) == 1


def test_dask_reads_a_volume_lazily(tmp_path: Path) -> None:
    volume = read_volume(make_store(tmp_path / "a.ome.zarr", "0.5"))
    lazy = da.from_array(volume.data, chunks=volume.chunks)
    np.testing.assert_array_equal(lazy[1].mean(axis=0).compute(), IMAGE[1].mean(axis=0))


@pytest.mark.parametrize("layout", ["bioformats2raw", "plain", "nested"])
def test_a_single_inner_image_is_found(layout: str, tmp_path: Path) -> None:
    root = tmp_path / "store.zarr"
    group = zarr.create_group(root, zarr_format=2 if layout == "bioformats2raw" else 3)
    if layout == "bioformats2raw":
        group.attrs["bioformats2raw.layout"] = 3
        group.create_group("OME")
        make_store(root / "0", "0.4")
    elif layout == "plain":
        group.create_array("vol", shape=SHAPE, dtype="uint16")[...] = IMAGE
    else:
        group.create_group("a").create_group("b").create_array("vol", shape=SHAPE, dtype="uint16")[...] = IMAGE
    volume = read_volume(root)
    assert volume.name == {"bioformats2raw": "store_0", "plain": "store_vol", "nested": "store_a_b_vol"}[layout]
    np.testing.assert_array_equal(volume[0], IMAGE[0])


def test_several_inner_images_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "store.zarr"
    group = zarr.create_group(root)
    for name in ("raw", "mask"):
        group.create_array(name, shape=(4, 5), dtype="uint8")
    with pytest.raises(ValueError, match=r"several images: raw, mask\. Give one of them, e\.g\. .*store\.zarr/raw"):
        read_volume(root)
    assert read_volume(root / "mask").name == "store_mask"
    with pytest.raises(FileNotFoundError, match=r"there is no 'row' in .*store\.zarr, which holds: raw, mask"):
        read_volume(root / "row")


def test_a_group_without_images_is_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(ValueError, match="without an image"):
        read_volume(tmp_path / "empty.zarr")


@pytest.mark.parametrize("damage", ["json", "level", "folder", "datasets", "list"])
def test_damaged_stores_are_refused(damage: str, tmp_path: Path) -> None:
    path = make_store(tmp_path / "bad.ome.zarr", "0.5")
    meta = path / "zarr.json"
    if damage == "json":
        meta.write_text(meta.read_text()[:100])
    elif damage == "list":
        meta.write_text("[]")
    elif damage == "level":
        (path / "0" / "zarr.json").unlink()
    elif damage == "folder":
        meta.unlink()
    else:
        content = json.loads(meta.read_text())
        content["attributes"]["ome"]["multiscales"][0]["datasets"] = []
        meta.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"bad\.ome\.zarr.*(damaged|incomplete|complete Zarr store)"):
        read_volume(path)


@pytest.mark.parametrize("steps", [7, [3], [{"type": "scale", "scale": ["a", {}]}], [{"type": "scale", "scale": None}]])
def test_transformations_that_are_none_are_left_out(steps: Any, tmp_path: Path) -> None:
    path = make_store(tmp_path / "odd.ome.zarr", "0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"] = steps
    attributes["omero"]["channels"] = [1, "two"]
    (path / ".zattrs").write_text(json.dumps(attributes))
    volume = read_volume(path)
    assert volume.scale == (1, 1, 1, 1)
    assert volume.channel_names == ()


@pytest.mark.parametrize(
    ("listed", "words"),
    [([None], "describe no image"), ({"a": 1}, "describe no image"), ([{"datasets": [{"path": "../x"}]}], "outside")],
)
def test_images_that_are_none_or_elsewhere_are_refused(listed: Any, words: str, tmp_path: Path) -> None:
    path = make_store(tmp_path / "odd.ome.zarr", "0.4")
    (path / ".zattrs").write_text(json.dumps({"multiscales": listed}))
    with pytest.raises(ValueError, match=rf"odd\.ome\.zarr is damaged.*{words}"):
        read_volume(path)


def test_an_image_whose_name_is_too_long_is_missing(tmp_path: Path) -> None:
    path = make_store(tmp_path / "odd.ome.zarr", "0.4", datasets=[{"path": "x" * 3000}])
    with pytest.raises(ValueError, match=r"odd\.ome\.zarr is incomplete: its image 'x{59} is missing"):
        read_volume(path)


def test_dimension_names_that_are_none_are_ignored(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=IMAGE[0], attributes={"_ARRAY_DIMENSIONS": 3})
    assert read_volume(tmp_path / "a.zarr").axes == "ZYX"


def test_long_messages_of_others_are_cut(tmp_path: Path) -> None:
    meta = make_store(tmp_path / "long.ome.zarr", "0.5") / "0" / "zarr.json"
    content = json.loads(meta.read_text())
    content["chunk_grid"]["name"] = "x" * 5000
    meta.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="cannot be opened as Zarr") as caught:
        read_volume(tmp_path / "long.ome.zarr")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("told", [2**31 - 17, 0])
def test_a_chunk_that_lies_about_its_length_is_refused(zarr_format: Any, told: int, tmp_path: Path) -> None:
    blosc: Any = numcodecs.Blosc("lz4") if zarr_format == 2 else zarr.codecs.BloscCodec(cname="lz4")
    array = zarr.create_array(
        tmp_path / "lies.zarr", shape=(32, 32), dtype="u2", chunks=(32, 32), compressors=blosc, zarr_format=zarr_format
    )
    array[:] = np.arange(1024).reshape(32, 32)
    chunk = tmp_path / "lies.zarr" / ("0.0" if zarr_format == 2 else "c/0/0")
    content = chunk.read_bytes()
    chunk.write_bytes(content[:12] + told.to_bytes(4, "little") + content[16:])
    wrong = rf"lies\.zarr could not be read .* {len(content)} bytes says that it has {told}"
    with pytest.raises(ValueError, match=wrong):
        np.asarray(read_volume(tmp_path / "lies.zarr", "YX"))


def test_damaged_chunks_are_reported_when_they_are_read(tmp_path: Path) -> None:
    path = make_store(tmp_path / "bad.ome.zarr", "0.5")
    (path / "0" / "c" / "0" / "0" / "0" / "0").write_bytes(b"garbage")
    volume = read_volume(path)
    np.testing.assert_array_equal(volume[1], IMAGE[1])
    with pytest.raises(ValueError, match=r"bad\.ome\.zarr could not be read .* damaged or incomplete"):
        volume[0]


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CZYX", "TZCYX", "YXS"])
def test_others_validate_what_we_write(axes: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    ome_zarr_models = pytest.importorskip("ome_zarr_models")
    volume = make_volume(axes, "uint8", {"Y": 300, "X": 280})
    path = write_volume(tmp_path / "a.ome.zarr", volume)
    group = zarr.open_group(path, mode="r")
    image = ome_zarr_models.open_ome_zarr(group, version="0.5")
    ome = image.attributes.ome_attributes if hasattr(image.attributes, "ome_attributes") else image.attributes.ome
    named = "".join(a.name for a in ome.multiscales[0].axes)
    assert named == "".join(a for a in "tcszyx" if a.upper() in axes).replace("s", "c")
    assert len(ome.multiscales[0].datasets) == 2
    full = group["0"]
    assert full.metadata.dimension_names == tuple(named)
    stored = ["TCSZYX"[i] for i in range(6) if "TCSZYX"[i] in axes]
    np.testing.assert_array_equal(full[...], volume[...].transpose([axes.index(a) for a in stored]))


def test_the_models_of_the_metadata_library_agree(make_volume: MakeVolume, tmp_path: Path) -> None:
    from yaozarrs import validate_zarr_store

    validate_zarr_store(str(write_volume(tmp_path / "a.zarr", make_volume("TCZYX", "float32"))))


def test_pyramid_is_the_mean_of_the_level_above(make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("ZYX", "uint16", {"Z": 5, "Y": 515, "X": 301}, scale=(0.1, 0.1, 0.1))
    group = zarr.open_group(write_volume(tmp_path / "a.ome.zarr", volume), mode="r")
    levels = [np.asarray(group[str(i)]).astype(float) for i in range(3)]
    assert [x.shape for x in levels] == [(5, 515, 301), (3, 258, 151), (2, 129, 76)]
    assert "3" not in group
    for above, below in pairwise(levels):
        z, y, x = (n // 2 * 2 for n in above.shape)
        mean = above[:z, :y, :x].reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))
        assert np.abs(below[: z // 2, : y // 2, : x // 2] - mean).max() <= 0.5
    steps = group.attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    np.testing.assert_allclose(steps[0]["scale"], (0.2, 0.2, 0.2))
    np.testing.assert_allclose(steps[1]["translation"], (0.05, 3.05, 3.05))


@pytest.mark.parametrize(
    ("axes", "shape", "scale", "sizes"),
    [
        ("YX", (256, 256), (1, 1), [(256, 256)]),
        ("ZYX", (40, 600, 600), (5, 1, 1), [(40, 600, 600), (40, 300, 300), (40, 150, 150)]),
        ("ZYX", (40, 600, 600), (2, 1, 1), [(40, 600, 600), (40, 300, 300), (20, 150, 150)]),
        ("TCYX", (9, 2, 100, 1000), (1, 1, 1, 1), [(9, 2, 100, 1000), (9, 2, 100, 500), (9, 2, 100, 250)]),
    ],
)
def test_pyramid_plans(axes: str, shape: Any, scale: Any, sizes: Any) -> None:
    assert [level.shape for level, _ in _pyramid.plan(axes, shape, scale, (0.0,) * len(shape))] == sizes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int64", "float16", "float32", "float64"])
def test_halving_keeps_dtype_and_rounds(dtype: str) -> None:
    block = np.array([[1, 2, 7], [3, 5, 8]], dtype)
    half = _pyramid.halve(block, (2, 2))
    assert half.dtype == block.dtype
    exact = np.array([[2.75, 7.5]])
    np.testing.assert_array_equal(half, np.rint(exact) if block.dtype.kind in "iu" else exact)
    assert _pyramid.halve(np.full((2, 2), 255, "uint8"), (2, 2)) == 255


def test_channels_contrast_and_provenance_are_written(make_volume: MakeVolume, tmp_path: Path) -> None:
    writer = create_writer(tmp_path / "a.ome.zarr", make_volume("CZYX", metadata={"omero": OMERO}), dtype="float32")
    writer.array[...] = 5
    path = writer.finish({"algorithm": "n2v", "source": Path("in.tif")})
    attributes = zarr.open_group(path, mode="r").attrs
    channels = attributes["ome"]["omero"]["channels"]
    assert [c["color"] for c in channels] == ["0000FF", "00FF00"]
    assert channels[0]["window"] == {"start": 5, "end": 95, "min": 0, "max": 999}
    assert attributes["napari_ssdenoise"]["algorithm"] == "n2v"
    assert read_volume(path).metadata["napari_ssdenoise"] == {"algorithm": "n2v", "source": "in.tif"}


def test_contrast_fits_the_pixels_where_nobody_says(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100, 10, (4, 300, 300)).astype("float32")
    image[0, 0, :2] = np.nan, np.inf
    path = write_volume(tmp_path / "a.ome.zarr", Volume(image, "ZYX"))
    window = zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"][0]["window"]
    assert 60 < window["start"] < 80
    assert 120 < window["end"] < 140


def test_rgb_with_channels_has_no_place(make_volume: MakeVolume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both C and S"):
        write_volume(tmp_path / "a.ome.zarr", make_volume("CYXS", "uint8"))


def test_chunks_are_flat_and_can_be_chosen(make_volume: MakeVolume, tmp_path: Path) -> None:
    like = make_volume("TZYX", sizes={"T": 2, "Z": 40, "Y": 300, "X": 1000})
    assert create_writer(tmp_path / "a.ome.zarr", like, dtype="uint8").chunks == (1, 16, 256, 256)
    own = create_writer(tmp_path / "b.ome.zarr", like, dtype="uint8", chunks=(1, 40, 64, 2000))
    assert own.chunks == (1, 40, 64, 1000)
    assert zarr.open_array(own.partial / "0").chunks == own.chunks
    with pytest.raises(ValueError, match="must be 4 positive numbers"):
        create_writer(tmp_path / "c.ome.zarr", like, dtype="uint8", chunks=(1, 2))


def test_chunks_without_pixels_are_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.zarr"
    zarr.create_array(str(path), shape=(8, 8), chunks=(4, 4), dtype="u2")
    text = (path / "zarr.json").read_text()
    assert '"chunk_shape": [' in text
    said = json.loads(text)
    said["chunk_grid"]["configuration"]["chunk_shape"] = [0, 4]
    (path / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"odd\.zarr .*(damaged|chunk)"):
        read_volume(path)


def test_a_shape_that_no_computer_can_address_is_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.zarr"
    zarr.create_array(str(path), shape=(3, 12, 10), chunks=(1, 8, 8), dtype="u2")
    said = json.loads((path / "zarr.json").read_text())
    said["shape"][0] = 2**63
    (path / "zarr.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"odd\.zarr is damaged: it claims a shape"):
        read_volume(path)


def test_a_store_may_be_larger_than_memory_and_almost_empty(tmp_path: Path) -> None:
    path = tmp_path / "sparse.zarr"
    array = zarr.create_array(str(path), shape=(2**20, 2**15, 2**15), chunks=(1, 64, 64), dtype="u2")
    array[5, :64, :64] = 7
    volume = read_volume(path)
    assert volume.nbytes == 2**51
    assert volume[5, 10:12, 60:66].sum() == 2 * 4 * 7


@pytest.mark.parametrize("shape", [(2, 3, 0, 16), (0, 3, 16, 16)])
def test_an_image_without_pixels_is_not_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.ome\.zarr cannot be written: .* has no pixels"):
        write_volume(tmp_path / "a.ome.zarr", Volume(np.zeros(shape, np.uint16), "CZYX"))
    assert list(tmp_path.iterdir()) == []
