"""Training from the command line: models, checkpoints, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from napari_ssdenoise.batch import _training
from napari_ssdenoise.engine.trainer import Trainer
from napari_ssdenoise.io import checkpoint as checkpoints
from napari_ssdenoise.io import write_volume
from napari_ssdenoise.io.checkpoint import DESCRIPTION, checkpoint_path, load_checkpoint, remove_checkpoint
from napari_ssdenoise.model import TrainedModel
from napari_ssdenoise.volume import Volume


def test_train_saves_a_model_and_says_so_in_json(run, noisy, tmp_path, last_json, tiny):
    result = run("train", noisy, "-o", "x.model", "--steps", 3, "--seed", 5, "--json", *tiny)
    found = last_json(result)
    assert found["steps"] == 3
    assert found["output"] == "x.model"
    assert found["seconds"] >= found["train_seconds"] > 0
    assert len(result.stdout.splitlines()) == 1
    model = TrainedModel.load(tmp_path / "x.model")
    assert model.record["seed"] == 5
    assert not checkpoint_path(tmp_path / "x.model").exists()
    assert "model: x.model" in result.stderr


def test_for_people_the_output_is_on_standard_output(run, noisy, tiny):
    result = run("train", noisy, "-o", "x.model", "--steps", 1, *tiny)
    assert "noisy: noisy (YX 64 x 64, float32)" in result.stdout
    assert "training: " in result.stderr


def test_budget_in_seconds(run, noisy, last_json, tiny):
    assert last_json(run("train", noisy, "-o", "x.model", "--seconds", 0.05, "--json", *tiny))["steps"] >= 1


def test_pairs_and_several_inputs(run, noisy, clean, tmp_path, last_json, tiny):
    run(
        "train",
        noisy,
        clean,
        "--algorithm",
        "n2n",
        "--target",
        clean,
        "--target",
        noisy,
        "-o",
        "a.zip",
        "--steps",
        2,
        *tiny,
    )
    assert zipfile.is_zipfile(tmp_path / "a.zip")
    assert [d["name"] for d in last_json(run("info", "a.zip", "--json"))["record"]["data"]] == ["noisy", "clean"]


def test_axes_and_spatial_axes_are_given(run, tmp_path, rng, last_json, tiny):
    np.save(tmp_path / "stack.npy", rng.normal(100, 10, (16, 32, 32)))
    run("train", "stack.npy", "--axes", "TYX", "--spatial", "tyx", "-o", "x.model", "--steps", 1, *tiny)
    assert last_json(run("info", "x.model", "--json"))["geometry"]["spatial"] == "TYX"


def test_stopped_and_resumed_is_the_same_as_uninterrupted(run, noisy, tmp_path, monkeypatch, stop_at, tiny):
    run("train", noisy, "-o", "whole.model", "--steps", 6, *tiny)
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        result = run("train", noisy, "-o", "parts.model", "--steps", 6, *tiny, code=130)
    assert "stopped: at step 4, which is kept" in result.stderr
    assert not (tmp_path / "parts.model").exists()
    assert (checkpoint_path(tmp_path / "parts.model") / DESCRIPTION).is_file()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = run("train", noisy, "-o", "parts.model", "--steps", 6, *tiny)
    assert "resuming the training at step 4" in result.stdout
    whole, parts = (TrainedModel.load(tmp_path / f"{name}.model") for name in ("whole", "parts"))
    for name, value in whole.weights().items():
        np.testing.assert_allclose(parts.weights()[name], value, rtol=1e-5, atol=1e-7)
    assert not checkpoint_path(tmp_path / "parts.model").exists()


@pytest.mark.parametrize("change", [("--seed", "1"), ("--radius", "3"), ("--spatial", "YX", "--width", "8")], ids=str)
def test_the_checkpoint_of_another_training_is_left_alone(run, noisy, change, monkeypatch, stop_at, tiny):
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        run("train", noisy, "-o", "x.model", "--steps", 3, *tiny, code=130)
    result = run("train", noisy, "-o", "x.model", "--steps", 3, *tiny, *change)
    assert "is of another training or damaged" in result.stdout
    assert "resuming" not in result.stdout


def test_damaged_checkpoints_are_recognised(run, noisy, tmp_path, monkeypatch, stop_at, tiny):
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        run("train", noisy, "-o", "x.model", "--steps", 3, *tiny, code=130)
    folder = checkpoint_path(tmp_path / "x.model")
    trainer = Trainer("n2v", np.random.default_rng(0).normal(size=(32, 32)), steps=1)
    assert load_checkpoint(folder, trainer) is None  # of another image
    (tensors,) = folder.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-10])
    assert "starting from the beginning" in run("train", noisy, "-o", "x.model", "--steps", 3, *tiny).stdout


def test_checkpoints_are_written_now_and_then(run, noisy, monkeypatch, tmp_path, tiny):
    kept = []
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda folder, trainer: kept.append((trainer.step, folder)))
    run("train", noisy, "-o", "x.model", "--steps", 3, *tiny)
    assert [step for step, _ in kept] == [1, 2, 3]


def test_training_goes_on_where_no_checkpoint_can_be_written(run, noisy, tmp_path, tiny):
    checkpoint_path(tmp_path / "x.model").write_text("a file in its place")
    result = run("train", noisy, "-o", "x.model", "--steps", 2, *tiny)
    assert "could not be written" in result.stderr
    assert (tmp_path / "x.model").is_dir()
    assert checkpoint_path(tmp_path / "x.model").is_file()


def test_other_folders_are_never_removed(tmp_path):
    folder = tmp_path / ".x.model.checkpoint"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    remove_checkpoint(folder)
    assert (folder / "thesis.tex").exists()
    remove_checkpoint(tmp_path / "nothing")


def test_a_training_that_diverges_does_not_resume(run, noisy, tmp_path, monkeypatch, tiny):
    monkeypatch.setattr(_training, "CHECKPOINT_SECONDS", 0.0)
    original = Trainer.__next__

    def diverge(self):
        if self.step == 2:
            raise ArithmeticError("training diverged at step 2")
        return original(self)

    monkeypatch.setattr(Trainer, "__next__", diverge)
    assert "diverged" in run("train", noisy, "-o", "x.model", "--steps", 3, *tiny, code=1).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy.tif"]


def test_an_existing_model_is_replaced_only_when_asked(run, noisy, model, tmp_path, tiny):
    before = (model / "weights.safetensors").read_bytes()
    assert "--overwrite" in run("train", noisy, "-o", model, "--steps", 2, *tiny, code=1).stderr
    assert (model / "weights.safetensors").read_bytes() == before
    run("train", noisy, "-o", model, "--overwrite", "--steps", 2, *tiny)
    assert (model / "weights.safetensors").read_bytes() != before


def test_what_is_no_model_is_never_replaced(run, noisy, tmp_path):
    (tmp_path / "results").mkdir()
    assert "not a saved model" in run("train", noisy, "-o", "results", "--overwrite", code=1).stderr
    assert "not a saved model" in run("train", noisy, "-o", noisy, "--overwrite", code=1).stderr
    assert "does not exist" in run("train", noisy, "-o", "no/where/x.model", code=1).stderr


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_real_ctrl_c(tmp_path, noisy, tiny):
    base = [sys.executable, "-m", "napari_ssdenoise", "train", str(noisy), "-o", "x.model", "--json", *tiny]
    where = {"cwd": tmp_path, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*base, "--steps", "1000000"], **where, **pipes)
    for line in process.stderr:
        if line.startswith("training: "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "which is kept in" in json.loads(out)["stopped"]
    assert not (tmp_path / "x.model").exists()
    done = subprocess.run([*base, "--steps", "1"], **where, **pipes, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming the training at step" in done.stderr
    assert json.loads(done.stdout)["steps"] >= 1


def test_two_stores_with_one_inner_name_are_two_images(run, tmp_path, rng, last_json, tiny):
    import zarr

    for store, level in (("a.zarr", 10.0), ("b.zarr", 1000.0)):
        zarr.create_group(tmp_path / store).create_array("img", data=rng.normal(level, 1, (32, 32)).astype("float32"))
    run("train", "a.zarr/img", "b.zarr/img", "-o", "x.model", "--steps", 1, *tiny)
    found = last_json(run("info", "x.model", "--json"))
    assert [d["name"] for d in found["record"]["data"]] == ["a_img", "b_img"]
    assert found["normalization"]["low"] < 20
    assert found["normalization"]["high"] > 900


def test_frames_as_pairs(run, tmp_path, rng, tiny):
    write_volume(tmp_path / "movie.tif", Volume(rng.normal(100, 9, (6, 32, 32)).astype("float32"), "TYX"))
    run("train", "movie.tif", "--algorithm", "n2n", "--pairs", "frames", "-o", "x.model", "--steps", 2, *tiny)


def test_the_quality_is_estimated_and_may_be_left_out(run, noisy, last_json, tiny):
    result = run("train", noisy, "-o", "x.model", "--steps", 3, "--json", *tiny)
    quality = last_json(result)["quality"]
    assert quality["psnr"]["low"] < quality["psnr"]["value"] < quality["psnr"]["high"]
    assert "PSNR, estimated" in result.stderr
    result = run("train", noisy, "-o", "y.model", "--steps", 3, "--json", "--no-quality", *tiny)
    assert "quality" not in last_json(result)
    assert "PSNR" not in result.stderr


def test_a_model_is_kept_though_its_quality_cannot_be_estimated(run, noisy, tmp_path, monkeypatch, last_json, tiny):
    from napari_ssdenoise import quality

    def fail(*_, **__):
        raise MemoryError("no memory for it")

    monkeypatch.setattr(quality, "assess", fail)
    result = run("train", noisy, "-o", "x.model", "--steps", 2, "--json", *tiny)
    assert "could not be estimated: no memory for it" in result.stderr
    assert last_json(result)["quality"] is None
    assert (tmp_path / "x.model").is_dir()


def test_a_model_goes_on_learning(run, noisy, clean, last_json, tiny):
    run("train", noisy, "-o", "first.model", "--steps", 2, *tiny)
    result = run("train", clean, "--start", "first.model", "-o", "second.model", "--steps", 3, "--json")
    assert last_json(result)["moved"] > 0
    assert "from the model's" in result.stderr
    about = last_json(run("info", "second.model", "--json"))
    assert about["settings"]["width"] == 4
    assert about["record"]["continues"]["steps"] == 2
    result = run("train", noisy, "--start", "first.model", "--algorithm", "blindspot", "-o", "x.model", code=2)
    assert "--start goes on from a model of n2v" in result.output


def test_what_other_images_taught_is_compared_with_a_random_start(run, tmp_path, rng, last_json):
    image = rng.normal(100, 10, (200, 200)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    small = ("--patch", 16, "--batch", 2, "--steps", 2, "--no-quality", "--against-scratch")
    result = run("train", "image.npy", "--algorithm", "nb2nb", "-o", "x.model", "--json", *small)
    found = last_json(result)
    assert found["scratch_held_out_loss"] != found["held_out_loss"][1]
    assert "from those that come with the program" in result.stderr
    result = run("train", "image.npy", "--algorithm", "n2v", "-o", "y.model", *small)
    assert "nothing to compare: the weights were random" in result.output
