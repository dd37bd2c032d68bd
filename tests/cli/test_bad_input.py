"""What a biologist may give by mistake: a clear line, exit 1, and nothing left that looks whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr

from napari_ssdenoise.engine import job
from napari_ssdenoise.io import bundle, read_volume


def corrupt_tiff(path):
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), compression="zlib")
    path.write_bytes(path.read_bytes()[:60])


def corrupt_zarr(path):
    zarr.save_array(path, np.random.default_rng(0).normal(size=(32, 32)))
    (path / "zarr.json").write_text("{")


def corrupt_chunk(path):
    zarr.save_array(path, np.random.default_rng(0).normal(size=(32, 32)))
    chunk = next(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(b"not a chunk")


def saved(array):
    return lambda path: np.save(path, array)


NOISE = np.random.default_rng(0).normal(100, 10, (32, 32))
BAD = {
    "empty": ("a.npy", saved(np.zeros((0, 32))), "is empty"),
    "one pixel thin": ("a.npy", saved(NOISE[:, :1]), "only 1 pixels along X"),
    "constant": ("a.npy", saved(np.full((32, 32), 7.0)), "same value (7) everywhere"),
    "NaN": ("a.npy", saved(np.where(NOISE > 110, np.nan, NOISE)), "NaN"),
    "infinite": ("a.npy", saved(np.where(NOISE > 110, np.inf, NOISE)), "infinite"),
    "huge": ("a.npy", saved(NOISE * 1e300), "huge values"),
    "boolean": ("a.npy", saved(NOISE > 100), "boolean mask"),
    "text": ("a.npy", saved(np.full((32, 32), "a")), "not numeric"),
    "one dimension": ("a.npy", saved(NOISE[0]), "at least two dimensions"),
    "objects": ("a.npy", saved(np.array([[None]])), "cannot be read"),
    "missing": ("a.tif", lambda path: None, "no file"),
    "foreign": ("a.docx", lambda path: path.write_text("hello"), "not known"),
    "folder": ("a", lambda path: path.mkdir(), "not a Zarr image"),
    "corrupt TIFF": ("a.tif", corrupt_tiff, "a.tif"),
    "empty TIFF": ("a.tif", lambda path: path.touch(), "a.tif"),
    "corrupt Zarr": ("a.zarr", corrupt_zarr, "damaged"),
    "corrupt chunk": ("a.zarr", corrupt_chunk, "a.zarr"),
}


@pytest.mark.parametrize(("name", "make", "words"), BAD.values(), ids=BAD)
def test_bad_images(name, make, words, run, tmp_path, tiny):
    make(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    denoise = ("denoise", name, "-o", "out.tif")
    for arguments in (("train", name, "-o", "x.model"), (*denoise, "--algorithm", "n2v"), denoise):
        result = run(*arguments, "--steps", 2, *tiny, code=1)
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert words in line or arguments == denoise  # a diagnosis has words of its own
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["empty", "NaN", "boolean", "missing", "corrupt TIFF", "corrupt chunk"])
def test_bad_images_with_a_model(name, run, model, tmp_path):
    path, make, words = BAD[name]
    make(tmp_path / path)
    before = sorted(tmp_path.iterdir())
    result = run("denoise", path, "-m", model, "-o", "out.ome.zarr", code=1)
    assert words in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_negative_values_are_fine(run, tmp_path, tiny):
    np.save(tmp_path / "a.npy", NOISE - 200)
    run("denoise", "a.npy", "-o", "out.npy", "--steps", 1, *tiny)
    assert np.isfinite(np.load(tmp_path / "out.npy")).all()


@pytest.mark.parametrize(
    ("axes", "words"), [("ZYX", "name 3 dimensions"), ("QX", "'Q'"), ("YY", "twice"), ("TC", "Y and X")]
)
def test_wrong_axes(axes, words, run, noisy):
    assert words in run("train", noisy, "--axes", axes, "-o", "x.model", code=1).stderr


def test_axes_that_do_not_fit_the_model(run, noisy, model, tmp_path):
    assert "'ZYX'" in run("train", noisy, "--spatial", "ZYX", "-o", "y.model", code=1).stderr
    np.save(tmp_path / "rgb.npy", np.zeros((32, 32, 3), np.uint8))
    assert "channels at once" in run("denoise", "rgb.npy", "-m", model, "-o", "out.npy", code=1).stderr


def test_existing_and_impossible_outputs(run, noisy, model, tmp_path):
    (tmp_path / "out.tif").write_text("precious")
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "thesis.tex").write_text("precious")
    base = ("denoise", noisy, "-m", model, "-o")
    assert "--overwrite" in run(*base, "out.tif", code=1).stderr
    assert "not a Zarr image" in run(*base, "thesis.zarr", "--overwrite", code=1).stderr
    assert "does not exist" in run(*base, "no/where/out.tif", code=1).stderr
    assert "not float32" in run(*base, "out.png", "--dtype", "float32", code=1).stderr
    assert (tmp_path / "out.tif").read_text() == "precious"
    assert (tmp_path / "thesis.zarr" / "thesis.tex").read_text() == "precious"


def test_the_output_is_tried_before_the_training(run, noisy, tmp_path, tiny):
    result = run("denoise", noisy, "-o", "out.png", "--steps", 100000, *tiny, code=1)
    assert "not float32" in result.stderr
    assert "training" not in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["noisy.tif"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(run, noisy, model, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "permission" in run("train", noisy, "-o", "locked/x.model", code=1).stderr
    assert "permission" in run("denoise", noisy, "-m", model, "-o", "locked/out.tif", code=1).stderr


def test_references_must_fit(run, noisy, model, tmp_path):
    np.save(tmp_path / "small.npy", NOISE)
    result = run("denoise", noisy, "-m", model, "-o", "out.tif", "--reference", "small.npy", code=1)
    assert "same field of view" in result.stderr
    assert not (tmp_path / "out.tif").exists()


def test_damaged_and_foreign_models(run, noisy, model, tmp_path):
    assert "there is no model" in run("denoise", noisy, "-m", "y.model", "-o", "out.tif", code=1).stderr
    assert "not a saved model" in run("denoise", noisy, "-m", noisy, "-o", "out.tif", code=1).stderr
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "damaged" in run("denoise", noisy, "-m", model, "-o", "out.tif", code=1).stderr
    assert "damaged" in run("info", model, code=1).stderr


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_full_while_denoising(run, noisy, model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(job, "to_dtype", full_disk)
        assert "space" in run("denoise", noisy, "-m", model, "-o", "out.ome.zarr", code=1).stderr
    assert not (tmp_path / "out.ome.zarr").exists()
    run("denoise", noisy, "-m", model, "-o", "out.ome.zarr")
    assert not list(tmp_path.glob(".*"))


def test_disk_full_while_saving_the_model(run, noisy, tmp_path, monkeypatch, tiny):
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write_tensors", full_disk)
        assert "No space left" in run("train", noisy, "-o", "x.model", "--steps", 2, *tiny, code=1).stderr
    assert not (tmp_path / "x.model").exists()
    run("train", noisy, "-o", "x.model", "--steps", 2, *tiny)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 256 kB, where that is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".npy"])
def test_a_disk_that_is_really_full(suffix, run, model, tmp_path, small_disk, rng):
    np.save(tmp_path / "large.npy", rng.normal(size=(8, 256, 256)).astype("float32"))
    output = small_disk / f"out{suffix}"
    result = run("denoise", "large.npy", "--axes", "TYX", "-m", model, "-o", output, code=1)
    assert "space" in result.stderr
    assert not output.exists()
    assert read_volume(tmp_path / "large.npy").shape == (8, 256, 256)
