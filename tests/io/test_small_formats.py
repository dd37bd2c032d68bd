"""NumPy files are memory-mapped; pictures are grey or colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_ssdenoise.io import create_writer, read_volume, write_volume
from napari_ssdenoise.volume import Volume

MakeVolume = Callable[..., Volume]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float16", "float32"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_memory_mapped(dtype: str, order: str, tmp_path: Path) -> None:
    image = np.asarray(RNG.integers(0, 200, (5, 6, 7)), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", image)
    volume = read_volume(tmp_path / "a.npy")
    assert isinstance(volume.data, np.memmap)
    assert (volume.axes, volume.name) == ("ZYX", "a")
    np.testing.assert_array_equal(volume[1:3, 2], image[1:3, 2])


def test_npy_may_have_any_axes(make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("TCZYXS", "uint16")
    np.save(tmp_path / "a.npy", volume[...])
    assert read_volume(tmp_path / "a.npy", axes="TCZYXS").sizes == volume.sizes
    with pytest.raises(ValueError, match="cannot guess"):
        read_volume(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["empty", "truncated", "foreign", "objects", "syntax"])
def test_bad_npy(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, np.zeros((40, 50)) if kind != "objects" else np.array([{}], dtype=object), allow_pickle=True)
    content = path.read_bytes()
    cut = {"empty": b"", "truncated": content[:5000], "foreign": b"hello world, no array", "objects": content}
    cut["syntax"] = content.replace(b"(40, 50), }", b"(40, (50, }")
    path.write_bytes(cut[kind])
    with pytest.raises(ValueError, match=r"bad\.npy cannot be read as an array"):
        read_volume(path)


@pytest.mark.parametrize(("axes", "dtype"), [("YX", "uint8"), ("YX", "uint16"), ("YXS", "uint8"), ("SYX", "uint8")])
def test_png_round_trip(axes: str, dtype: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume(axes, dtype)
    writer = create_writer(tmp_path / "a.png", volume, dtype=dtype)
    writer.array[...] = volume[...]
    read = read_volume(writer.finish({"steps": 3}))
    assert read.dtype == np.dtype(dtype)
    stored = volume[...].transpose([axes.index(a) for a in read.axes])
    np.testing.assert_array_equal(read[...], stored)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))[..., 0].shape, (20, 30))
    assert read.metadata["napari_ssdenoise"] == {"steps": 3}


@pytest.mark.parametrize("samples", [1, 4])
def test_png_with_one_or_four_samples(samples: int, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume("YXS", "uint8", {"S": samples})
    read = read_volume(write_volume(tmp_path / "a.png", volume))
    np.testing.assert_array_equal(np.atleast_3d(read[...]), volume[...])


@pytest.mark.parametrize(
    ("axes", "dtype", "words"),
    [
        ("ZYX", "uint8", "holds one plane"),
        ("YX", "float32", r"not float32 .*\.tif"),
        ("YXS", "uint16", "not uint16"),
    ],
)
def test_what_a_png_cannot_hold(axes: str, dtype: str, words: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        write_volume(tmp_path / "a.png", make_volume(axes, dtype))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "axes", "dtype"),
    [
        ("L", "YX", "uint8"),
        ("1", "YX", "uint8"),
        ("LA", "YX", "uint8"),
        ("P", "YXS", "uint8"),
        ("RGBA", "YXS", "uint8"),
        ("I;16", "YX", "uint16"),
    ],
)
def test_png_modes(mode: str, axes: str, dtype: str, tmp_path: Path) -> None:
    grey = Image.fromarray(RNG.integers(0, 255, (12, 14)).astype("uint8"))
    picture = Image.fromarray(np.full((12, 14), 4000, "uint16")) if mode == "I;16" else grey.convert(mode)
    picture.save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert (volume.axes, volume.dtype, volume.shape[:2]) == (axes, np.dtype(dtype), (12, 14))


def test_jpeg_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.full((12, 14, 3), 90, "uint8")).save(tmp_path / "a.jpg")
    assert read_volume(tmp_path / "a.jpg").axes == "YXS"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kind", ["empty", "truncated", "foreign"])
def test_bad_pictures(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    Image.fromarray(RNG.integers(0, 255, (64, 64)).astype("uint8")).save(path)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "foreign": b"no picture"}[kind])
    with pytest.raises(ValueError, match="bad"):
        read_volume(path)


def test_pictures_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_ssdenoise.io.png.MAX_PIXELS", 100)
    Image.fromarray(np.zeros((12, 14), "uint8")).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="convert it to TIFF"):
        read_volume(tmp_path / "a.png")
