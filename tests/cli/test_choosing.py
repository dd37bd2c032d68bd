"""Without a named algorithm, a diagnosis of the image chooses; what the user gives stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from napari_ssdenoise import diagnosis
from napari_ssdenoise.io import read_volume, write_volume
from napari_ssdenoise.model import TrainedModel

FAST = ("--steps", 2, "--width", 4, "--patch", 16, "--batch", 2, "--precision", "float32")


@dataclass(frozen=True)
class Report:
    """What the commands use of a diagnosis."""

    algorithm: str
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ("The noise grows with the signal.", "Neighbours are independent.", "And so on.")


@pytest.fixture
def recommend(monkeypatch):
    """Return a function that decides what the diagnosis will recommend, and gives the images it is asked about."""

    def choose(algorithm, **settings):
        asked = []

        def diagnose(volume, target=None, **_):
            asked.append((volume.name, None if target is None else target.name))
            return Report(algorithm, settings)

        monkeypatch.setattr(diagnosis, "diagnose", diagnose, raising=False)
        return asked

    return choose


def test_denoise_asks_the_diagnosis_and_says_why(run, noisy, recommend, last_json):
    asked = recommend("n2v", struct_mask="111", masked_percent=0.5)
    result = run("denoise", noisy, "-o", "out.tif", *FAST, "--json")
    assert asked == [("noisy", None)]
    said = result.stderr.splitlines()
    assert "chosen: Noise2Void: --algorithm n2v --struct-mask 111 --masked-percent 0.5" in said
    assert "  The noise grows with the signal." in said
    assert "  And so on." not in said
    found = last_json(result)
    assert (found["algorithm"], len(found["reasons"])) == ("n2v", 3)


def test_train_asks_only_if_told(run, noisy, recommend, last_json):
    asked = recommend("zs-n2n")
    run("train", noisy, "-o", "named.model", *FAST)
    assert asked == []
    run("train", noisy, "-o", "auto.model", "--algorithm", "auto", *FAST)
    assert [TrainedModel.load(f"{name}.model").algorithm.key for name in ("named", "auto")] == ["n2v", "zs-n2n"]


def test_what_is_given_comes_before_what_is_recommended(run, noisy, recommend):
    recommend("n2v", n2v2=True, masked_percent=0.5)
    run("train", noisy, "-o", "x.model", "--algorithm", "auto", "--masked-percent", 2, *FAST)
    algorithm = TrainedModel.load("x.model").algorithm
    assert (algorithm.n2v2, algorithm.masked_percent, algorithm.width) == (True, 2.0, 4)


def test_settings_of_another_algorithm_are_told(run, noisy, recommend):
    recommend("zs-n2n")
    text = " ".join(run("denoise", noisy, "-o", "out.tif", "--radius", 3, code=1).stderr.split())
    assert "--radius is a setting of n2v, not of zs-n2n" in text
    assert "name the algorithm with --algorithm" in text


@pytest.mark.parametrize(("pairs", "trained_on"), [("target", 1), ("frames", None)])
def test_a_target_is_shown_to_the_diagnosis(run, noisy, clean, recommend, pairs, trained_on):
    asked = recommend("n2n", pairs=pairs)
    arguments = ("denoise", noisy, "--target", clean, "-o", "out.tif", *FAST)
    result = run(*arguments, code=0 if trained_on else 1)
    assert asked == [("noisy", "clean")]
    if not trained_on:  # not taken as a pair, so nothing is said about a target
        assert "needs a time axis" in result.stderr


def test_each_image_is_diagnosed(run, noisy, clean, recommend, last_json):
    asked = recommend("n2v")
    run("denoise", noisy, clean, "-o", "out", *FAST)
    assert asked == [("noisy", None), ("clean", None)]


BLIND = ("--algorithm", "blindspot", "--sigma", 0.2, "--noise", "gaussian", "--depth", 1, *FAST)


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr", ".npy"])
def test_std_is_a_second_output(run, noisy, tmp_path, last_json, suffix):
    result = run("denoise", noisy, "-o", f"out{suffix}", "--std", f"std{suffix}", *BLIND, "--json")
    found = last_json(result)
    assert (found["output"], found["std"]) == (f"out{suffix}", f"std{suffix}")
    assert f"uncertainty: std{suffix}" in result.stderr
    std = np.asarray(read_volume(tmp_path / f"std{suffix}"))
    assert (std.shape, std.dtype) == ((64, 64), np.float32)
    assert 0 < std.min() <= std.max() < 0.3
    assert not np.allclose(std, np.asarray(read_volume(tmp_path / f"out{suffix}")))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["noisy.tif", f"out{suffix}", f"std{suffix}"])


def test_std_of_several_images(run, noisy, clean, tmp_path):
    run("train", noisy, "-o", "x.model", *BLIND)
    arguments = ("denoise", noisy, clean, "-m", "x.model", "-o", "out", "--std", "out")
    run(*arguments)
    names = [f"{name}.{kind}.tif" for name in ("clean", "noisy") for kind in ("denoised", "uncertainty")]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    (tmp_path / "out" / "clean.uncertainty.tif").unlink()
    result = run(*arguments, "--skip-existing", code=1)
    assert "clean.denoised.tif exists" in result.stderr
    run("denoise", noisy, clean, "-m", "x.model", "-o", "a", "--std", "b")
    assert len(list((tmp_path / "b").iterdir())) == 2


def test_std_that_cannot_be(run, noisy, model, recommend, tmp_path):
    recommend("n2v")
    for how in (("-m", model), ("--algorithm", "n2v"), ()):
        text = run("denoise", noisy, *how, "-o", "out.tif", "--std", "std.tif", code=1).stderr
        assert "Noise2Void gives no std. Leave --std out, or train with --algorithm blindspot." in text
    assert "both name out.tif" in run("denoise", noisy, "-o", "out.tif", "--std", "out.tif", code=2).stderr
    write_volume(tmp_path / "std.tif", read_volume(noisy))
    assert "std.tif exists" in run("denoise", noisy, *BLIND, "-o", "out.tif", "--std", "std.tif", code=1).stderr
    assert not (tmp_path / "out.tif").exists()
