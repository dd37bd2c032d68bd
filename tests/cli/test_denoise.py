"""Denoising from the command line: one image and many, resumed and scored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_ssdenoise import metrics
from napari_ssdenoise.batch import NamesError, distinct_names, plan_jobs
from napari_ssdenoise.engine import job, plan, stream
from napari_ssdenoise.io import read_volume, write_volume
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume


@pytest.fixture
def tiny(tiny):
    """Name the algorithm: without it, a diagnosis would choose."""
    return ("--algorithm", "n2v", *tiny)


def test_apply_a_model_and_score(run, noisy, clean, model, tmp_path, last_json):
    result = run(
        "denoise", noisy, "-m", model, "-o", "out.ome.zarr", "--precision", "float32", "--reference", clean, "--json"
    )
    found = last_json(result)
    out = read_volume(tmp_path / "out.ome.zarr")
    np.testing.assert_allclose(np.asarray(out), TrainedModel.load(model).predict(noisy, precision="float32"), atol=1e-5)
    assert out.scale == (0.2, 0.2)
    assert found["output"] == "out.ome.zarr"
    assert found["steps"] == 3
    truth, image = np.asarray(read_volume(clean)), np.asarray(read_volume(noisy))
    assert found["psnr"] == pytest.approx(metrics.psnr(out, truth), abs=1e-6)
    assert found["noisy"]["psnr"] == pytest.approx(metrics.psnr(image, truth), abs=1e-6)
    assert found["ssim"] == pytest.approx(metrics.ssim(out, truth), abs=1e-6)
    assert "denoised: out.ome.zarr" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_data_range_is_an_option(run, noisy, clean, model, last_json):
    result = run("denoise", noisy, "-m", model, "-o", "o.npy", "--reference", clean, "--data-range", 2, "--json")
    image, truth = np.asarray(read_volume(noisy)), np.asarray(read_volume(clean))
    assert last_json(result)["noisy"]["psnr"] == pytest.approx(metrics.psnr(image, truth, 2.0), abs=1e-6)


def test_thin_references_have_no_ssim(run, tmp_path, rng):
    np.save(tmp_path / "thin.npy", rng.normal(size=(10, 64)).astype("float32"))
    flags = ("--algorithm", "n2v", "--width", 4, "--depth", 1, "--patch", 8, "--batch", 1, "--steps", 1)
    result = run("denoise", "thin.npy", "-o", "out.npy", "--reference", "thin.npy", *flags)
    assert "PSNR" in result.stdout
    assert read_volume(tmp_path / "out.npy").shape == (10, 64)


def test_without_a_model_one_is_trained_on_the_image(run, noisy, tmp_path, last_json, tiny):
    found = last_json(run("denoise", noisy, "-o", "out.tif", "--steps", 4, "--json", *tiny))
    assert found["steps"] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy.tif", "out.tif"]


@pytest.mark.parametrize("name", ["stack.npy", "stack.ome.zarr", "stack.tif"])
def test_formats_axes_and_options(run, tmp_path, rng, name, last_json, tiny):
    image = Volume(rng.normal(500, 90, (8, 16, 16)).astype("uint16"), "ZYX", (0.5, 0.2, 0.2), ("micrometer",) * 3)
    write_volume(tmp_path / name, image)
    flags = ("--axes", "ZYX", "--spatial", "YX", "--augment", "--memory", "1GB", "--dtype", "float32", "--steps", 1)
    found = last_json(run("denoise", name, "-o", f"out-{name}", "--reference", name, "--json", *flags, *tiny))
    out = read_volume(tmp_path / f"out-{name}")
    assert out.shape == (8, 16, 16)
    assert out.dtype == np.float32
    assert found["noisy"]["psnr"] is None  # infinite: the noisy image was given as its own reference
    if not name.endswith("npy"):
        assert out.scale == pytest.approx((0.5, 0.2, 0.2))


def test_a_picture(run, tmp_path, rng, tiny):
    from PIL import Image

    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    run("denoise", "photo.png", "-o", "out.png", "--steps", 1, *tiny)
    assert read_volume(tmp_path / "out.png").shape == (32, 32, 3)


def test_several_images_go_into_a_folder(run, noisy, clean, model, tmp_path, last_json):
    write_volume(tmp_path / "c.ome.zarr", read_volume(clean))
    result = run("denoise", noisy, clean, "c.ome.zarr", "-m", model, "-o", "out", "--json")
    found = last_json(result)
    names = ["noisy.denoised.tif", "clean.denoised.tif", "c.denoised.ome.zarr"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    assert [Path(r["output"]).name for r in found["results"]] == names
    out = np.asarray(read_volume(tmp_path / "out" / "clean.denoised.tif"))
    np.testing.assert_allclose(out, TrainedModel.load(model).predict(clean), atol=1e-5)


def test_one_image_into_a_folder_keeps_its_name(run, noisy, model, tmp_path):
    run("denoise", noisy, "-m", model, "-o", "new/")
    run("denoise", noisy, "-m", model, "-o", "new", "--overwrite")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["noisy.denoised.tif"]


def test_the_format_of_outputs_in_a_folder(run, noisy, clean, model, tmp_path):
    run("denoise", noisy, clean, "-m", model, "-o", "out", "--format", "ome.zarr")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "clean.denoised.ome.zarr",
        "noisy.denoised.ome.zarr",
    ]
    assert read_volume(tmp_path / "out" / "noisy.denoised.ome.zarr").scale == (0.2, 0.2)
    result = run("denoise", noisy, "-m", model, "-o", "out.tif", "--format", "npy", code=2)
    assert "says its format itself" in result.stderr


def test_outputs_beside_their_inputs(run, noisy, clean, model, tmp_path):
    run("denoise", noisy, clean, "-m", model, "-o", tmp_path)
    assert {p.name for p in tmp_path.glob("*.tif")} >= {"noisy.denoised.tif", "clean.denoised.tif"}


def test_existing_outputs_are_left_if_asked(run, noisy, clean, model, tmp_path, last_json):
    arguments = ("denoise", noisy, clean, "-m", model, "-o", "out", "--json")
    run("denoise", clean, "-m", model, "-o", "out/")
    before = (tmp_path / "out" / "clean.denoised.tif").stat().st_mtime_ns
    result = run(*arguments, "--skip-existing")
    assert "1 of 2 images denoised, 1 existed already." in result.stderr
    found = last_json(result)
    assert (found["failed"], found["skipped"]) == (0, 1)
    assert [r.get("skipped", False) for r in found["results"]] == [False, True]
    assert (tmp_path / "out" / "clean.denoised.tif").stat().st_mtime_ns == before
    assert last_json(run(*arguments, code=1))["failed"] == 2
    alone = last_json(run("denoise", clean, "-m", model, "-o", "out/", "--skip-existing", "--json"))
    assert alone["skipped"]
    assert "give one of both" in run(*arguments, "--skip-existing", "--overwrite", code=2).stderr


def test_equal_inner_names_give_two_right_outputs(run, model, tmp_path, rng):
    images = {name: rng.normal(level, 0.2, (64, 64)).astype("float32") for name, level in (("a", 0.2), ("b", 0.8))}
    for name, image in images.items():
        zarr.create_group(tmp_path / f"{name}.zarr").create_array("img", data=image)
        (tmp_path / name).mkdir()
        write_volume(tmp_path / name / "x.tif", Volume(image, "YX"))
    run("denoise", "a.zarr/img", "b.zarr/img", "a/x.tif", "b/x.tif", "-m", model, "-o", "out")
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "a_img.denoised.ome.zarr",
        "a_x.denoised.tif",
        "b_img.denoised.ome.zarr",
        "b_x.denoised.tif",
    ]
    loaded = TrainedModel.load(model)
    for name, image in images.items():
        for path in (out / f"{name}_img.denoised.ome.zarr", out / f"{name}_x.denoised.tif"):
            np.testing.assert_allclose(np.asarray(read_volume(path)), loaded.predict(image), atol=1e-5)


def test_one_that_fails_does_not_stop_the_rest_and_is_all_that_is_left(run, noisy, clean, model, tmp_path, last_json):
    (tmp_path / "broken.tif").write_bytes(b"II*\0 this is no image")
    arguments = ("denoise", noisy, "broken.tif", clean, "-m", model, "-o", "out", "--json")
    result = run(*arguments, code=1)
    assert last_json(result)["failed"] == 1
    assert "error: broken.tif: " in result.stderr
    assert "2 of 3 images denoised, 1 failed" in result.stderr
    before = (tmp_path / "out" / "noisy.denoised.tif").stat().st_mtime_ns
    write_volume(tmp_path / "broken.tif", read_volume(clean), overwrite=True)
    result = run(*arguments)
    assert "done before: out/noisy.denoised.tif" in result.stderr.replace("\\", "/")
    assert last_json(result)["failed"] == 0
    assert (tmp_path / "out" / "noisy.denoised.tif").stat().st_mtime_ns == before
    assert not list((tmp_path / "out").glob(".ssdenoise*"))
    assert "exists" in run(*arguments, code=1).stderr


def test_other_settings_do_not_count_as_done(run, noisy, clean, model, tmp_path):
    arguments = ("denoise", noisy, "missing.tif", "-m", model, "-o", "out")
    run(*arguments, code=1)
    result = run(*arguments, "--dtype", "float64", "--overwrite", code=1)
    assert "done before" not in result.stdout
    assert read_volume(tmp_path / "out" / "noisy.denoised.tif").dtype == np.float64
    (tmp_path / "out" / ".ssdenoise-finished.json").write_text("{")
    assert "done before" not in run(*arguments, "--overwrite", code=1).stdout


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".npy"])
def test_stopped_while_denoising_and_resumed(run, model, tmp_path, monkeypatch, suffix, rng):
    monkeypatch.setattr(plan, "BATCH_PIXELS", 1)  # a tile for each frame
    movie = Volume(rng.normal(0.5, 0.2, (6, 32, 32)).astype("float32"), "TYX")
    write_volume(tmp_path / "movie.ome.zarr", movie)
    arguments = ("denoise", "movie.ome.zarr", "-m", model, "-o", f"out{suffix}", "--precision", "float32")
    written: list[object] = []
    with monkeypatch.context() as patch:
        original = stream._write_behind

        def interrupted(*args):
            for region in original(*args):
                written.append(region)
                yield region
                if len(written) == 2:
                    raise KeyboardInterrupt

        patch.setattr(stream, "_write_behind", interrupted)
        result = run(*arguments, code=130)
    assert f"2 tiles of out{suffix} are kept beside it" in result.stderr
    assert not (tmp_path / f"out{suffix}").exists()
    seen = []
    original_add = job.Ledger.add
    monkeypatch.setattr(job.Ledger, "add", lambda self, tile: (seen.append(tile), original_add(self, tile)))
    run(*arguments)
    assert 2 <= len(seen) <= 4
    expected = TrainedModel.load(model).predict(movie, precision="float32")
    np.testing.assert_allclose(np.asarray(read_volume(tmp_path / f"out{suffix}")), expected, atol=1e-4)
    assert not list(tmp_path.glob(".*"))


def test_stopped_while_training_then_while_denoising(run, noisy, tmp_path, monkeypatch, stop_at, tiny):
    arguments = ("denoise", noisy, "-o", "out.npy", "--steps", 4, *tiny)
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        assert "which is kept" in run(*arguments, code=130).stderr
    with monkeypatch.context() as patch:
        original = stream._write_behind
        patch.setattr(stream, "_write_behind", lambda *args: (_ for _ in (list(original(*args)), 1 / 0)))
        assert "resuming the training at step 2" in run(*arguments, code=1).stdout
    result = run(*arguments)
    assert "resuming the training at step 4" in result.stdout
    run("denoise", noisy, "-o", "whole.npy", "--steps", 4, *tiny)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.load(tmp_path / "whole.npy"), atol=1e-4)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_real_ctrl_c(tmp_path, model, rng):
    write_volume(tmp_path / "large.npy", Volume(rng.normal(size=(400, 256, 256)).astype("float32"), "TYX"))
    code = "from napari_ssdenoise.engine import stream\nfrom napari_ssdenoise.cli import main\nmain()"
    command = [
        sys.executable,
        "-c",
        code,
        "denoise",
        "large.npy",
        "-m",
        str(model),
        "--axes",
        "TYX",
        "-o",
        "out.ome.zarr",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("denoising: "):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    err = said + err
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "The same command goes on from there" in err
    assert not (tmp_path / "out.ome.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-m", "x.model", "--steps", "5"), "--steps is for training"),
        (("-m", "x.model", "--radius", "3", "--channels", "joint"), "--channels, --radius is for training"),
        (("--memory", "much"), "'much' is not an amount of memory"),
        (("--dtype", "complex64"), "complex64"),
        (("--steps", "0"), "0"),
    ],
)
def test_contradictions_are_usage_errors(arguments, words, run, noisy, model):
    assert words in " ".join(run("denoise", noisy, "-o", "out.tif", *arguments, code=2).stderr.split())


def test_outputs_that_cannot_be_are_usage_errors(run, noisy, clean, model):
    base = ("denoise", noisy, clean, "-m", model)
    assert "cannot all be written to out.tif" in run(*base, "-o", "out.tif", code=2).stderr
    assert "goes with one image" in run(*base, "-o", "out", "--reference", clean, code=2).stderr
    assert "given twice" in run("denoise", noisy, noisy, "-m", model, "-o", "out", code=2).stderr
    assert "end the output's name" in run("denoise", noisy, "-m", model, "-o", "out.jpg", code=2).stderr
    target = ("--algorithm", "n2n", "--target", clean)
    assert "--target goes with one image" in run("denoise", noisy, clean, *target, "-o", "out", code=2).stderr


def test_inputs_are_never_replaced(run, noisy, clean, model, tmp_path):
    before = noisy.read_bytes()
    assert "inputs are never replaced" in run("denoise", noisy, "-m", model, "-o", noisy, "--overwrite", code=1).stderr
    named_like_an_output = write_volume(tmp_path / "noisy.denoised.tif", read_volume(noisy))
    result = run("denoise", noisy, named_like_an_output, "-m", model, "-o", tmp_path, "--overwrite", code=1)
    assert "inputs are never replaced" in result.stderr
    assert noisy.read_bytes() == before
    write_volume(tmp_path / "s.zarr", read_volume(noisy))
    assert "lie in each other" in run("denoise", "s.zarr", "-m", model, "-o", "s.zarr/out.zarr", code=1).stderr


def test_names_are_told_apart_by_as_many_folders_as_needed():
    paths = [Path("/r/1/a/x.tif"), Path("/r/2/a/x.tif"), Path("/r/2/b/x.tif"), Path("/r/y.jpg"), Path("/r/b/z.OME.tif")]
    names = ["1_a_x", "2_a_x", "b_x", "y", "z"]
    assert distinct_names(paths, ".npy") == [f"{name}.denoised.npy" for name in names]
    suffixes = [".tif", ".tif", ".tif", ".tif", ".OME.tif"]
    assert distinct_names(paths) == [f"{name}.denoised{end}" for name, end in zip(names, suffixes, strict=True)]


def test_results_of_scans_become_nifti(tmp_path):
    (tmp_path / "1.2.840").mkdir()
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    paths = [tmp_path / name for name in ("1.2.840", "brain.dcm", "IM0001", "T1.img", "T2.hdr.gz")]
    names = ["1.2.840", "brain", "IM0001", "T1", "T2"]
    assert distinct_names(paths) == [f"{name}.denoised.nii.gz" for name in names]


def test_names_that_stay_equal_are_refused(tmp_path):
    with pytest.raises(NamesError, match="both be written to"):
        distinct_names([tmp_path / "y.jpg", tmp_path / "y.tif"])
    with pytest.raises(NamesError, match="given twice"):
        plan_jobs([tmp_path / "a.tif", tmp_path / "." / "a.tif"], tmp_path / "out")


def test_the_quality_is_estimated_after_a_training_only(run, noisy, model, last_json, tiny):
    flags = ("--algorithm", "n2v", "--steps", 3, "--data-range", 2, "--json", *tiny)
    found = last_json(run("denoise", noisy, "-o", "a.tif", *flags))
    assert found["quality"]["psnr"]["data_range"] == 2
    assert "quality" not in last_json(run("denoise", noisy, "-o", "b.tif", "--no-quality", *flags))
    assert "quality" not in last_json(run("denoise", noisy, "-m", model, "-o", "c.tif", "--json"))


def test_an_image_unlike_those_of_the_training_is_told(run, model, tmp_path, last_json, noisy):
    assert last_json(run("denoise", noisy, "-m", model, "-o", "a.tif", "--json"))["differences"] == []
    brighter = 100 * read_volume(noisy)[:]
    write_volume(tmp_path / "brighter.tif", Volume(brighter, "YX"))
    done = run("denoise", "brighter.tif", "-m", model, "-o", "b.tif", "--json")
    assert "unlike the training" in done.stderr
    assert len(last_json(done)["differences"]) == 2
