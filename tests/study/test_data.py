"""Is the data enough? Risks of one's own images without the truth, and what is said about them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_ssdenoise.study._images import dead_leaves
from napari_ssdenoise.study._pairs import read_pairs
from napari_ssdenoise.study._trainings import Judge
from napari_ssdenoise.study.data import DataStudy, DataStudySettings, DataTraining, study_data
from napari_ssdenoise.study.plot import plot_data

QUICK = DataStudySettings(seeds=1, steps=20, batch=4, side=32, width=8)
NOISE = 20.0


@pytest.fixture(scope="module")
def series():
    """Return twenty frames (T, Y, X): two noisy views each of ten scenes, and the scenes."""
    clean = 200 * np.stack([dead_leaves(4, 32, seed=s).reshape(2, 64, 32) for s in range(10)])[:, 0]
    rng = np.random.default_rng(0)
    frames = np.repeat(clean, 2, 0) + NOISE * rng.standard_normal((20, 64, 32))
    return frames.astype(np.float32), clean.astype(np.float32)


def read(images, target=None, series=False, axes=None):
    return read_pairs(images, target=target, series=series, axes=axes, side=32, seed=0)


def test_neighbouring_frames_are_two_views(series):
    pairs, kind = read(series[0], axes="TYX")
    assert (len(pairs), kind) == (10, "frames")
    np.testing.assert_array_equal(pairs[3].first, series[0][6].reshape(2, 32, 32))
    np.testing.assert_array_equal(pairs[3].second, series[0][7].reshape(2, 32, 32))
    listed, kind = read(list(series[0]), series=True, axes="YX")
    assert kind == "frames"
    np.testing.assert_array_equal(listed[3].second, pairs[3].second)


def test_targets_and_pixels(series):
    pairs, kind = read(series[0][::2], target=series[0][1::2], axes="ZYX")
    assert (len(pairs), kind) == (10, "target")
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    (pair,), kind = read(image, axes="YX")
    assert kind == "pixels"
    assert pair.first[0, 0, 0] == (image[0, 0] + image[1, 1]) / 2
    assert pair.second[0, 0, 0] == (image[0, 1] + image[1, 0]) / 2
    with pytest.raises(ValueError, match="targets must be"):
        read(series[0], target=series[0][:4], axes="ZYX")
    with pytest.raises(ValueError, match="64 x 64 or more"):
        read(image[:40], axes="YX")
    with pytest.raises(ValueError, match="NaN"):
        read(np.full((2, 64, 64), np.nan), axes="TYX")


def test_the_risk_is_that_against_the_truth(series):
    """A network that does nothing has the noise's variance as its risk: without clean images, that is what is found."""
    pairs, _ = read(series[0], axes="TYX")
    judge = Judge(pairs[:8], pairs[8:], __import__("torch").device("cpu"), QUICK)
    assert judge.noise == pytest.approx(NOISE**2, rel=0.1)

    class Nothing:
        def __call__(self, images):
            return images

        def eval(self):
            return self

    assert judge._risk(Nothing(), QUICK.network()) - judge.noise == pytest.approx(judge.noise, rel=1e-3)


def test_a_study_from_end_to_end(series, tmp_path):
    steps = []
    arguments = {"axes": "TYX", "settings": QUICK, "ledger": tmp_path / "l.jsonl", "device": "cpu"}
    study = study_data(series[0], on_training=lambda t, part: steps.append(part), **arguments)
    assert (study.images, study.held_out, study.kind) == (8, 2, "frames")
    assert [size for size, _, _ in study.table] == [1, 2, 4, 8]
    assert steps[-1] == pytest.approx(1)
    assert study.table[-1][1] < study.noise, "denoising must leave less than the noise"
    again = study_data(series[0], on_training=lambda t, _: None, **arguments)
    assert again == study
    assert "With 8 pairs of frames" in study.describe()
    json.dumps(study.to_json(), allow_nan=False)
    for suffix in ("png", "svg"):
        plot_data(study, tmp_path / f"plot.{suffix}")
    assert {p.suffix for p in tmp_path.iterdir()} == {".jsonl", ".png", ".svg"}


def made(risk, sizes=(1, 2, 4, 8, 16), noise=0.01):
    rng = np.random.default_rng(0)
    trainings = [DataTraining(n, s, risk(n) * (1 + noise * rng.standard_normal()), 0) for s in range(3) for n in sizes]
    return DataStudy(sizes[-1], 5, "target", 100.0, tuple(trainings))


def test_what_is_said_follows_the_curve():
    study = made(lambda n: 10 + 20 / n)
    assert study.to_gain.low < 10 * np.log10(11.25 / 10) < study.to_gain.high
    assert study.more_to_halve.low < 16 < study.more_to_halve.high
    half, predicted, measured = study.check
    assert half == 8
    assert predicted.value == pytest.approx(measured.value, abs=0.1)
    assert f"they gained {measured.value:.2f} ({measured.low:.2f} to {measured.high:.2f}) dB" in study.describe()
    enough = made(lambda n: 10 + 1e-4 / n, noise=1e-3)
    assert "bring nothing" in enough.describe()
    assert made(lambda n: 10 / n, sizes=(1, 2, 4)).check is None


def test_one_training_of_each_size_does_not_tell_how_sure_its_gain_is():
    study = made(lambda n: 10 + 20 / n)
    alone = replace(study, trainings=tuple(t for t in study.trainings if t.seed == 0))
    assert "(of one training each) dB" in alone.describe()
    found = json.loads(json.dumps(alone.to_json(), allow_nan=False))["check"]["measured_db"]
    assert found["low"] is None
    assert found["value"] == pytest.approx(alone.check[2].value)


def test_too_few_images_are_refused(series):
    with pytest.raises(ValueError, match="12 frames or more"):
        study_data(series[0][:10], axes="TYX", settings=QUICK)
