"""Outputs are whole or absent: existing ones, full disks, killed and resumed runs."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_ssdenoise.io import create_writer, read_volume, write_volume
from napari_ssdenoise.io._writer import Writer, partial_path
from napari_ssdenoise.volume import Volume

MakeVolume = Callable[..., Volume]
SUFFIXES = [".ome.zarr", ".zarr", ".tif", ".ome.tif", ".npy", ".png"]
RESUMABLE = [s for s in SUFFIXES if s != ".png"]


@pytest.fixture
def plane(make_volume: MakeVolume) -> Volume:
    return make_volume("YX", "uint8")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_there_until_it_is_finished(suffix: str, plane: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    writer = create_writer(path, plane, dtype="uint8")
    writer.array[...] = plane[...]
    assert not path.exists()
    assert writer.partial.exists()
    assert writer.partial.name.startswith(".")
    assert writer.finish() == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    np.testing.assert_array_equal(read_volume(path)[...], plane[...])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_discard_leaves_nothing(suffix: str, plane: Volume, tmp_path: Path) -> None:
    create_writer(tmp_path / f"a{suffix}", plane, dtype="uint8").discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_existing_outputs_are_kept_unless_told(suffix: str, plane: Volume, tmp_path: Path) -> None:
    path = write_volume(tmp_path / f"a{suffix}", plane)
    with pytest.raises(FileExistsError, match=r"exists\. Pass overwrite=True"):
        create_writer(path, plane, dtype="uint8")
    other = plane.like(255 - plane[...])
    writer = create_writer(path, other, dtype="uint8", overwrite=True)
    writer.array[...] = other[...]
    np.testing.assert_array_equal(read_volume(path)[...], plane[...])
    writer.finish()
    np.testing.assert_array_equal(read_volume(path)[...], other[...])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_that_appears_meanwhile_is_kept(suffix: str, plane: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    writer = create_writer(path, plane, dtype="uint8")
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="appeared while"):
        writer.finish()
    assert path.read_text() == "mine"
    assert writer.partial.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_folders_are_never_removed(suffix: str, plane: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    (path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"not a Zarr image and is never removed"):
        create_writer(path, plane, dtype="uint8", overwrite=True)
    assert (path / "thesis.txt").read_text() == "precious"


def test_an_image_can_be_written_over_its_own_source(make_volume: MakeVolume, tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.ome.zarr", make_volume("ZYX", "float32"))
    volume = read_volume(path)
    before = volume[...]
    write_volume(path, volume, overwrite=True)
    np.testing.assert_array_equal(read_volume(path)[...], before)


@pytest.mark.parametrize("suffix", RESUMABLE)
def test_a_killed_run_is_resumed(suffix: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    like = make_volume("CZYX", "float32")
    path = tmp_path / f"a{suffix}"
    first = create_writer(path, like, dtype="float32")
    assert first.resumable
    first.array[0] = like[0]
    del first
    again = create_writer(path, like, dtype="float32", resume=True)
    assert again.resumed
    again.array[1] = like[1]
    read = read_volume(again.finish(), axes="CZYX")
    np.testing.assert_array_equal(read[...], like[...])


@pytest.mark.parametrize("suffix", RESUMABLE)
@pytest.mark.parametrize("change", ["shape", "dtype", "axes", "damage", "fresh"])
def test_what_does_not_fit_is_begun_afresh(suffix: str, change: str, make_volume: MakeVolume, tmp_path: Path) -> None:
    like = make_volume("ZYX", "float32")
    path = tmp_path / f"a{suffix}"
    first = create_writer(path, like, dtype="float32")
    first.array[...] = 1
    partial, dtype = first.partial, "float32"
    del first
    if change == "shape":
        like = make_volume("ZYX", "float32", {"Z": 5})
    elif change == "dtype":
        dtype = "uint8"
    elif change == "axes":
        like = make_volume("TYX", "float32", {"T": 7})
    elif change == "damage":
        broken = partial / "0" / "zarr.json" if partial.is_dir() else partial
        broken.write_bytes(broken.read_bytes()[:40])
    writer = create_writer(path, like, dtype=dtype, resume=change != "fresh")
    assert not writer.resumed
    assert not writer.array[...].any()
    assert writer.array.shape == like.shape


def test_other_chunks_are_begun_afresh(make_volume: MakeVolume, tmp_path: Path) -> None:
    like, path = make_volume("ZYX"), tmp_path / "a.zarr"
    create_writer(path, like, dtype="uint8", chunks=(1, 10, 10))
    assert not create_writer(path, like, dtype="uint8", chunks=(2, 10, 10), resume=True).resumed
    assert create_writer(path, like, dtype="uint8", chunks=(2, 10, 10), resume=True).resumed


def test_a_png_is_not_resumed(plane: Volume, tmp_path: Path) -> None:
    create_writer(tmp_path / "a.png", plane, dtype="uint8")
    writer = create_writer(tmp_path / "a.png", plane, dtype="uint8", resume=True)
    assert (writer.resumable, writer.resumed) == (False, False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_missing_folder_is_made_but_not_two(suffix: str, plane: Volume, tmp_path: Path) -> None:
    assert write_volume(tmp_path / "new" / f"a{suffix}", plane).exists()
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Create it"):
        write_volume(tmp_path / "not" / "there" / f"a{suffix}", plane)
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_no_folder(suffix: str, plane: Volume, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, so"):
        write_volume(tmp_path / "file" / f"a{suffix}", plane)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_permission(suffix: str, plane: Volume, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="no permission to write into"):
            write_volume(tmp_path / f"a{suffix}", plane)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write into")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unwritable_folder(suffix: str, plane: Volume) -> None:
    with pytest.raises(OSError, match=r"/proc.*(cannot be written|no space|MB free)"):
        write_volume(Path(f"/proc/a{suffix}"), plane)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy"])
def test_too_small_a_disk_is_found_at_the_door(
    suffix: str, plane: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(OSError, match=r"needs 0\.0 MB, but .* has 0\.0 MB free") as info:
        create_writer(tmp_path / f"a{suffix}", plane, dtype="uint8")
    assert info.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_reported(
    make_volume: MakeVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = create_writer(tmp_path / "a.ome.zarr", make_volume("ZYX"), dtype="uint8")

    def full(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(OSError, match=r"no space left to write .*a\.ome\.zarr"):
        writer.array[...] = 1
    assert writer.partial.exists()


def test_a_failed_copy_leaves_nothing(tmp_path: Path) -> None:
    class Breaks:
        shape, dtype = (4, 5, 6), np.dtype("uint8")

        def __getitem__(self, key: Any) -> Any:
            raise ValueError("cannot read")

    for suffix in (".ome.zarr", ".tif", ".npy"):
        with pytest.raises(ValueError, match="cannot read"):
            write_volume(tmp_path / f"a{suffix}", Volume(Breaks(), "ZYX"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_endings(plane: Volume, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(ValueError, match=r"a\.xyz: images of this kind are not known\. Give one of \.ome\.zarr"):
        read_volume(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"a\.xyz: output of this kind is not known"):
        create_writer(tmp_path / "a.xyz", plane, dtype="uint8")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_volume(tmp_path / "none.tif")
    with pytest.raises(ValueError, match="is a folder, but not a Zarr image"):
        read_volume(tmp_path)
    (tmp_path / "a.zarr").write_text("")
    with pytest.raises(ValueError, match="a Zarr image is a folder"):
        read_volume(tmp_path / "a.zarr")


def test_leaving_a_writer_keeps_its_partial_file(plane: Volume, tmp_path: Path) -> None:
    with create_writer(tmp_path / "a.npy", plane, dtype="uint8") as writer:
        assert isinstance(writer, Writer)
        writer.array[0] = 3
    assert partial_path(tmp_path / "a.npy").exists()
    assert create_writer(tmp_path / "a.npy", plane, dtype="uint8", resume=True).array[0, 0] == 3
