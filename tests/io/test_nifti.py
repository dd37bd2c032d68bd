"""NIfTI files keep their voxels, header and place in space."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from napari_ssdenoise.io import create_writer, read_volume, write_volume
from napari_ssdenoise.io._affine import read_space
from napari_ssdenoise.io._lazy import UnreadableError
from napari_ssdenoise.io.nifti import is_pair
from napari_ssdenoise.volume import Volume

MakeVolume = Callable[..., Volume]
# Oblique, anisotropic and left-handed, so that no part of it can be guessed.
AFFINE = np.array([[-1.9, 0.1, 0.3, 90], [0.2, 2.1, -0.4, -120], [0.1, 0.5, 2.9, -70], [0, 0, 0, 1.0]])


def make(path: Path, data: Any, slope: tuple[float, float] | None = None, kind: Any = nib.Nifti1Image) -> Path:
    """Save an image with all there is to keep."""
    image = kind(data, AFFINE, dtype=data.dtype)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 4)
    header = image.header
    header.set_xyzt_units("mm", "msec")
    header["descrip"] = b"MPRAGE, patient lies well"
    if data.ndim > 3:
        header["pixdim"][4] = 2500
    header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    nib.save(image, path)
    if slope:  # into the file: nibabel chooses its own when it saves an array
        head = bytearray(content(path))
        head[112:120] = np.array(slope, "<f4").tobytes()
        path.write_bytes(gzip.compress(head) if path.suffix == ".gz" else head)
    return path


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def numbers(shape: tuple[int, ...], dtype: str = "int16") -> Any:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 250, shape)
    return (values + 1j * rng.integers(0, 250, shape)).astype(dtype) if "complex" in dtype else values.astype(dtype)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5), (7, 6, 5, 4)])
def test_values_axes_and_sizes_are_those_of_nibabel(
    shape: tuple[int, ...], dtype: str, ending: str, tmp_path: Path
) -> None:
    data = numbers(shape, dtype)
    volume = read_volume(make(tmp_path / f"head{ending}", data))
    assert (volume.name, volume.axes, volume.dtype) == ("head", "TZYX"[-len(shape) :], np.dtype(dtype))
    np.testing.assert_array_equal(volume[...], data.T)
    np.testing.assert_array_equal(volume[1:3, 2], data.T[1:3, 2])
    sizes = np.linalg.norm(AFFINE[:3, :3], axis=0)
    np.testing.assert_allclose(volume.scale, [2500, *sizes[::-1]][-len(shape) :], rtol=1e-6)
    assert volume.units == ("millisecond", *["millimeter"] * 3)[-len(shape) :]
    np.testing.assert_allclose(volume.metadata["nifti"]["affine"], AFFINE, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["int16", ">f4", "complex128"])
def test_an_unchanged_file_comes_back_bit_for_bit(kind: Any, dtype: str, ending: str, tmp_path: Path) -> None:
    image = make(tmp_path / f"a{ending}", numbers((7, 6, 5, 4), dtype), kind=kind)
    assert content(write_volume(tmp_path / f"b{ending}", read_volume(image))) == content(image)


def test_a_big_endian_file_stays_one(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(numbers((7, 6, 5)), AFFINE, header, dtype="int16"), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii")[...], numbers((7, 6, 5)).T)
    assert content(write_volume(tmp_path / "b.nii", read_volume(tmp_path / "a.nii"))) == content(tmp_path / "a.nii")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slope_is_applied_and_kept_only_with_the_stored_numbers(ending: str, tmp_path: Path) -> None:
    data = numbers((7, 6, 5))
    image = make(tmp_path / f"a{ending}", data, slope=(0.0754, 3100.76))
    volume = read_volume(image)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume[1:3], nib.load(image).get_fdata().T[1:3], rtol=1e-6)
    assert content(write_volume(tmp_path / f"b{ending}", volume)) == content(image)
    # A result has the same header and dtype as what was read, but is not what was read.
    result = write_volume(tmp_path / f"c{ending}", volume.like(volume[...] * np.float32(2)))
    loaded = nib.load(result)
    assert loaded.get_data_dtype() == np.float32
    assert (loaded.dataobj.slope, loaded.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), volume[...].T * 2)


def test_a_result_keeps_header_extensions_and_affine(tmp_path: Path) -> None:
    before = nib.load(make(tmp_path / "a.nii", numbers((7, 6, 5))))
    volume = read_volume(tmp_path / "a.nii")
    after = nib.load(write_volume(tmp_path / "b.nii.gz", volume.like(volume[...].astype(np.float32))))
    np.testing.assert_array_equal(after.affine, before.affine)
    different = {k for k in before.header if before.header[k].tobytes() != after.header[k].tobytes()}
    assert different == {"datatype", "bitpix"}
    assert [e.get_content() for e in after.header.extensions] == [e.get_content() for e in before.header.extensions]


@pytest.mark.parametrize("code", ["sform", "qform"])
def test_the_affine_follows_smaller_pixels_that_moved(code: str, tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers((8, 6, 5)), None)
    rotation = np.array([[0, -2.0, 0, 9], [3.0, 0, 0, 7], [0, 0, 4.0, 5], [0, 0, 0, 1]])
    getattr(image, f"set_{code}")(rotation, 1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    scale = tuple(s / 2 for s in volume.scale)
    # Halves of pixels: the first lies a quarter of an old pixel before the old one.
    moved = replace(volume, translate=tuple(-s / 4 for s in volume.scale))
    writer = create_writer(tmp_path / "b.nii", moved, dtype="float32", shape=(10, 12, 16), scale=scale)
    writer.array[...] = 1
    after = nib.load(writer.finish())
    for corner in ((-0.5, -0.5, -0.5), (7.5, 5.5, 4.5), (2.5, 3.5, 1.5)):
        new = (np.array(corner) + 0.5) * 2 - 0.5
        np.testing.assert_allclose(after.affine @ [*new, 1], rotation @ [*corner, 1], atol=1e-5)
    np.testing.assert_allclose(after.header.get_zooms(), scale[::-1])
    assert (int(after.header["sform_code"]), int(after.header["qform_code"])) == ((1, 0) if code == "sform" else (0, 1))


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TZYX", "CZYX", "TCZYX", "CTZYX", "TYX", "ZYXS"])
def test_other_images_get_an_affine_in_millimetres(axes: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume(axes, "uint8")
    loaded = nib.load(write_volume(tmp_path / "a.nii", volume))
    scale, start = dict(zip(axes, volume.scale, strict=True)), dict(zip(axes, volume.translate, strict=True))
    expected = np.diag([*(scale.get(a, 1000) / 1000 for a in "XYZ"), 1])
    expected[:3, 3] = [start.get(a, 0) / 1000 for a in "XYZ"]
    np.testing.assert_allclose(loaded.affine, expected, rtol=1e-6)
    assert loaded.header.get_xyzt_units() == ("mm", "sec" if "T" in axes else "unknown")
    back = read_volume(tmp_path / "a.nii")
    lengths = {a: n for a, n in back.sizes.items() if n > 1}
    assert lengths == volume.sizes
    order = sorted(axes, key=back.axes.index)
    stored = volume[...].transpose([axes.index(a) for a in order])
    np.testing.assert_array_equal(back[...].reshape(stored.shape), stored)
    if "T" in axes:
        assert (back.scale[back.axes.index("T")], back.units[back.axes.index("T")]) == (2.5, "second")


@pytest.mark.parametrize("between", ["a.tif", "a.ome.tif", "a.ome.zarr"])
@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 5), (7, 6, 5, 4)])
def test_the_affine_survives_other_formats(shape: tuple[int, ...], between: str, tmp_path: Path) -> None:
    volume = read_volume(make(tmp_path / "a.nii", numbers(shape, "uint16")))
    volume = replace(volume, scale=tuple(s / 3 if i == volume.ndim - 1 else s for i, s in enumerate(volume.scale)))
    direct = nib.load(write_volume(tmp_path / "b.nii", volume))
    after = nib.load(write_volume(tmp_path / "c.nii", read_volume(write_volume(tmp_path / between, volume))))
    np.testing.assert_allclose(after.affine, direct.affine, rtol=1e-5)
    assert not np.allclose(after.affine, AFFINE, atol=1e-3)
    assert int(after.header["sform_code"]) == 4
    np.testing.assert_array_equal(np.asarray(after.dataobj), numbers(shape, "uint16"))


def test_notes_that_hold_no_affine(make_volume: MakeVolume, tmp_path: Path) -> None:
    for bad in ({}, {"affine": [1]}, {"affine": "x"}, {"affine": np.eye(4).tolist(), "sizes": [0, 1, 1]}, None):
        assert read_space(bad) == {}
    volume = make_volume("ZYX")
    assert "space" not in read_volume(write_volume(tmp_path / "a.ome.zarr", volume)).metadata
    assert "space" not in read_volume(write_volume(tmp_path / "a.tif", volume)).metadata


@pytest.mark.parametrize(("dtype", "stored"), [("float16", "float32"), ("bool", "uint8"), ("int64", "int64")])
def test_kinds_of_numbers(dtype: str, stored: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("ZYX", dtype)
    loaded = nib.load(write_volume(tmp_path / "a.nii", volume))
    assert loaded.get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), volume[...].T.astype(stored))


def test_colours_that_a_nifti_cannot_hold(make_volume: MakeVolume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8-bit RGB"):
        write_volume(tmp_path / "a.nii", make_volume("YXS", "uint16"))


@pytest.mark.parametrize("axes", ["CZYX", "ZTYX"])
def test_renamed_axes_go_back_into_their_dimensions(axes: str, tmp_path: Path) -> None:
    image = make(tmp_path / "a.nii", numbers((7, 6, 5, 4)))
    volume = read_volume(image, axes=axes)
    assert content(write_volume(tmp_path / "b.nii", volume)) == content(image)


def test_an_axis_too_long_for_the_first_nifti(tmp_path: Path) -> None:
    make(tmp_path / "a.nii", numbers((5, 4, 3)))
    volume = read_volume(tmp_path / "a.nii")
    after = nib.load(write_volume(tmp_path / "b.nii", volume.like(np.zeros((3, 4, 40_000), np.uint8))))
    assert isinstance(after, nib.Nifti2Image)
    assert after.shape == (40_000, 4, 3)
    np.testing.assert_allclose(after.affine, AFFINE, atol=1e-5)
    assert after.header.extensions[0].get_content() == b"a comment"


def test_diffusion_weightings_stay_beside_their_image(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "a.nii.gz", numbers((5, 4, 3, 4)))
    bval, bvec = "0 1000 1000 2000\n", "0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    (tmp_path / "a.bval").write_text(bval, newline="")
    (tmp_path / "a.bvec").write_text(bvec, newline="")
    volume = read_volume(tmp_path / "a.nii.gz")
    write_volume(tmp_path / "out" / "b.nii", volume)
    assert (tmp_path / "out" / "b.bval").read_text() == bval
    assert (tmp_path / "out" / "b.bvec").read_text() == bvec
    # One volume of four has other weightings than the file.
    write_volume(tmp_path / "out" / "c.nii", volume.like(volume[1:2]))
    assert not (tmp_path / "out" / "c.bval").exists()
    (tmp_path / "out" / "d.bval").write_text("something else")
    with pytest.raises(FileExistsError, match=r"d\.bval.*exists and differs"):
        write_volume(tmp_path / "out" / "d.nii", volume)
    write_volume(tmp_path / "out" / "d.nii", volume, overwrite=True)
    assert (tmp_path / "out" / "d.bval").read_text() == bval


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    volume = read_volume(make(tmp_path / "a.nii.gz", numbers((5, 4, 3))))
    with create_writer(tmp_path / "b.nii.gz", volume, dtype="int16") as first:
        first.array[0] = volume[0]
    other = create_writer(tmp_path / "b.nii.gz", volume, dtype="int16", resume=True)
    assert other.resumed
    other.array[1:] = volume[1:]
    assert content(other.finish()) == content(tmp_path / "a.nii.gz")
    assert {p.name for p in tmp_path.iterdir()} == {"a.nii.gz", "b.nii.gz"}
    with create_writer(tmp_path / "c.nii", volume, dtype="int16"):
        pass
    assert not create_writer(tmp_path / "c.nii", volume, dtype="float32", resume=True).resumed


def test_a_compressed_image_travels_to_other_processes(tmp_path: Path) -> None:
    data = read_volume(make(tmp_path / "a.nii.gz", numbers((5, 4, 3)))).data
    first = np.asarray(data[0])
    path, *rest = data._base.__reduce__()[1]  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(data._base))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(again[0], first)
    assert path == tmp_path / "a.nii.gz"
    assert len(rest) == 3


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_pairs_of_header_and_voxels(ending: str, kind: Any, tmp_path: Path) -> None:
    data = numbers((7, 6, 5, 4))
    make(tmp_path / f"a.img{ending}", data, kind=kind)
    single = nib.Nifti1Image if kind is nib.Nifti1Pair else nib.Nifti2Image
    make(tmp_path / "single.nii", data, kind=single)
    for name in ("a.img", "a.hdr"):
        volume = read_volume(tmp_path / f"{name}{ending}")
        assert (volume.name, volume.axes) == ("a", "TZYX")
        np.testing.assert_array_equal(volume[1:3], data.T[1:3])
        assert is_pair(tmp_path / f"{name}{ending}")
        saved = write_volume(tmp_path / "b.nii", volume, overwrite=True)
        assert saved.read_bytes() == (tmp_path / "single.nii").read_bytes()
    with pytest.raises(ValueError, match=r"c\.img: output of this kind is not known.*\.nii"):
        write_volume(tmp_path / "c.img", volume)


def test_pairs_that_are_something_else(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(numbers((7, 6, 5)), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(ValueError, match=r"a\.hdr is an image of the older Analyze format"):
        read_volume(tmp_path / "a.hdr")
    (tmp_path / "b.hdr").write_bytes(b"#?RADIANCE" * 99)
    with pytest.raises(ValueError, match=r"b\.hdr cannot be read as a NIfTI image"):
        read_volume(tmp_path / "b.hdr")
    assert not any(is_pair(tmp_path / name) for name in ("a.hdr", "a.img", "b.hdr", "none.img", "a.nii"))


@pytest.mark.parametrize("kind", ["empty", "truncated", "foreign", "head", "not packed"])
def test_bad_files(kind: str, tmp_path: Path) -> None:
    good = content(make(tmp_path / "good.nii", numbers((20, 20, 20))))
    path = tmp_path / ("bad.nii.gz" if kind == "not packed" else "bad.nii")
    cut = {"empty": b"", "truncated": good[:9000], "foreign": b"hello, no image" * 50, "head": good[:352]}
    path.write_bytes(cut.get(kind, good))
    with pytest.raises(ValueError, match=r"bad\.nii.* cannot be read as a NIfTI image"):
        read_volume(path)


def test_a_compressed_file_that_ends_early(tmp_path: Path) -> None:
    path = make(tmp_path / "bad.nii.gz", np.random.default_rng(0).integers(0, 9999, (40, 40, 40)).astype("int16"))
    path.write_bytes(path.read_bytes()[:20_000])
    volume = read_volume(path)
    with pytest.raises(UnreadableError, match=r"bad\.nii\.gz could not be read"):
        volume[0]


def test_headers_that_claim_too_much_or_unknown_units_are_told_or_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "odd.nii"
    nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)).to_filename(path)
    stored = bytearray(path.read_bytes())
    stored[123] = 0x80  # xyzt_units: none that there are
    path.write_bytes(stored)
    assert read_volume(path).units == (None, None, None)
    stored[108:112] = np.float32(3e12).tobytes()  # vox_offset
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=r"odd\.nii cannot be read"):
        read_volume(path)


def test_a_size_beyond_64_bits_is_not_taken_for_a_small_one(tmp_path: Path) -> None:
    path = tmp_path / "odd.nii"
    nib.Nifti2Image(np.ones((4, 4, 4), np.float32), np.eye(4)).to_filename(path)
    stored = bytearray(path.read_bytes())
    stored[24:48] = np.array([2**31, 2**31, 4], "<i8").tobytes()  # dim: 2**66 bytes in all
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=rf"odd\.nii .* needs {544 + 2**66}"):
        read_volume(path)
