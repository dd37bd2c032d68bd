"""Denoising on a cluster from the command line: many images at once, stopped, failed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_ssdenoise.cli import _batch
from napari_ssdenoise.io import read_volume, write_volume
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume

pytest.importorskip("distributed")

IMAGES = ("a", "b", "c")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from napari_ssdenoise.engine.distributed import Scheduler

    with Scheduler("local", workers=2) as scheduler:
        yield scheduler.client.scheduler.address


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for level, name in enumerate(IMAGES):
        data = np.random.default_rng(level).normal(level, 0.2, (2, 64, 64)).astype("float32")
        write_volume(tmp_path / f"{name}.tif", Volume(data, "TYX"))
    return [f"{name}.tif" for name in IMAGES]


def test_many_images_at_once(run, images, model, tmp_path, address, last_json):
    (tmp_path / "broken.tif").write_bytes(b"II*\0 this is no image")
    arguments = ("denoise", *images, "broken.tif", "-m", model, "-o", "out", "--precision", "float32", "--json")
    result = run(*arguments, "--scheduler", address, code=1)
    found = last_json(result)
    assert "3 of 4 images denoised, 1 failed." in result.stderr
    assert "a.tif: denoised: out/a.denoised.ome.zarr" in result.stderr.replace("\\", "/")
    assert [Path(r["input"]).name for r in found["results"]] == [*images, "broken.tif"]
    assert ["error" in r for r in found["results"]] == [False, False, False, True]
    loaded = TrainedModel.load(model)
    for name in IMAGES:
        out = read_volume(tmp_path / "out" / f"{name}.denoised.ome.zarr")
        expected = loaded.predict(tmp_path / f"{name}.tif", precision="float32")
        np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-5, atol=1e-5)
    write_volume(tmp_path / "broken.tif", read_volume(tmp_path / "a.tif"), overwrite=True)
    again = run(*arguments, "--scheduler", address)
    assert again.stderr.count("done before: ") == 3
    assert last_json(again)["failed"] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir())[0] == "a.denoised.ome.zarr"  # nothing hidden is left


def test_one_image_that_is_learnt_first(run, images, tmp_path, address, tiny):
    run("denoise", images[0], "-o", "out.ome.zarr", "--steps", 1, "--scheduler", address, *tiny)
    assert read_volume(tmp_path / "out.ome.zarr").shape == (2, 64, 64)


def test_a_stopped_batch_goes_on(run, images, model, tmp_path, address, monkeypatch):
    arguments = ("denoise", *images, "-m", model, "-o", "out", "--scheduler", address)
    with monkeypatch.context() as patch:
        original = _batch.Batch._end

        def note(self, number, result):
            patch.setattr(_batch.Batch, "_end", original)
            original(self, number, result)
            signal.raise_signal(signal.SIGINT)

        patch.setattr(_batch.Batch, "_end", note)
        result = run(*arguments, code=130)
    assert "of 3 images are done" in result.stderr
    result = run(*arguments)
    # The other one of the two may have been completed when the first one was noted.
    assert 1 <= result.stdout.count("done before: ") <= 2
    assert len(list((tmp_path / "out").glob("*.denoised.ome.zarr"))) == 3


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_real_ctrl_c_with_local_workers(tmp_path, model, rng):
    write_volume(tmp_path / "large.ome.zarr", Volume(rng.normal(size=(300, 256, 256)).astype("float32"), "TYX"))
    code = "from napari_ssdenoise.cli import main\nmain()"
    arguments = ("denoise", "large.ome.zarr", "-m", str(model), "-o", "out.ome.zarr", "--scheduler", "local")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("denoising: "):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "The same command goes on from there" in said


def test_what_cannot_be(run, images, model, monkeypatch):
    base = ("denoise", *images, "-m", model, "-o", "out")
    result = run(*base, "--scheduler", "local", "--format", "tif", code=2)
    assert "cannot be written by several workers" in result.stderr
    assert "--workers goes with" in run(*base, "--workers", 2, code=2).stderr
    one = ("denoise", images[0], "-m", model, "-o", "out.tif", "--scheduler", "local")
    assert "cannot be written by several workers" in run(*one, code=2).stderr
    assert "no dask scheduler answers" in run(*base, "--scheduler", "tcp://127.0.0.1:9", code=1).stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "napari-ssdenoise[cluster]" in run(*base, "--scheduler", "local", code=1).stderr
