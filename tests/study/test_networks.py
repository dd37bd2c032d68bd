"""Networks on growing sets of images: what is fixed, what is nested, and what is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_ssdenoise.study._images import crops, dead_leaves
from napari_ssdenoise.study._ledger import Ledger
from napari_ssdenoise.study.networks import (
    SPREAD,
    NetworkStudy,
    gradient_variance,
    split,
    study_networks,
    train_once,
    views,
    with_sizes,
)

CPU = torch.device("cpu")
STUDY = NetworkStudy(
    sizes=(2, 24), target_noise=(0.0, 50 / 255), seeds=1, validation=6, test=8, width=8, steps=40, precision="float32"
)


@pytest.fixture(scope="module")
def clean():
    return dead_leaves(STUDY.images, 32)


@pytest.fixture(scope="module")
def trainings(clean, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "ledger.jsonl"
    return list(study_networks(clean, STUDY, ledger=path, device="cpu")), path


def test_noise_belongs_to_the_image_and_is_drawn_once(clean):
    few, many = views(clean[3:5], 0.1, 0.2, 0, [3, 4]), views(clean, 0.1, 0.1, 0, range(len(clean)))
    torch.testing.assert_close(few.noisy, many.noisy[3:5])
    torch.testing.assert_close(few.target - few.clean, 2 * (many.target - many.clean)[3:5], atol=1e-5, rtol=1e-5)
    errors = [(v - many.clean) * SPREAD for v in (many.noisy, many.target)]
    assert [float(e.std()) for e in errors] == pytest.approx([0.1, 0.1], rel=0.02)
    assert abs(float((errors[0] * errors[1]).mean())) < 1e-4
    assert not torch.equal(views(clean[3:5], 0.1, 0.2, 1, [3, 4]).noisy, few.noisy)


def test_sets_are_nested_and_test_images_are_no_training_images():
    order, validation, test = split(STUDY.images, STUDY, 0)
    assert sorted([*order, *validation, *test]) == list(range(STUDY.images))
    other = split(STUDY.images, STUDY, 1)
    assert list(other[0]) != list(order)
    np.testing.assert_array_equal(other[2], test)


def test_more_images_help_and_noisy_targets_cost(trainings):
    risks = {(t.size, t.target_noise > 0): t.risk for t in trainings[0]}
    assert risks[24, False] < risks[2, False]
    assert risks[24, True] < risks[2, True]
    assert risks[2, False] < risks[2, True]
    assert risks[24, False] < 0.8 * STUDY.noise**2, "a network that does nothing leaves all of the noise"


def test_a_stopped_study_goes_on(trainings, clean, monkeypatch):
    found, path = trainings
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_text("".join(lines[:3]) + lines[3][:20])  # killed while it wrote

    def not_again(clean, study, size, target_noise, *rest):
        assert (size, target_noise) == (24, 50 / 255)
        return found[3], None

    monkeypatch.setattr("napari_ssdenoise.study.networks.train_once", not_again)
    assert list(study_networks(clean, STUDY, ledger=path, device="cpu")) == found
    assert [json.loads(line)["risk"] for line in path.read_text().splitlines()] == [t.risk for t in found]


def test_other_settings_are_another_study(trainings, clean, monkeypatch):
    monkeypatch.setattr("napari_ssdenoise.study.networks.train_once", lambda *_: pytest.fail("trains anew"))
    same = replace(STUDY, sizes=(2,), target_noise=(0.0,))
    assert len(list(study_networks(clean, same, ledger=trainings[1]))) == 1
    with pytest.raises(pytest.fail.Exception, match="trains anew"):
        list(study_networks(clean, replace(same, rate=1e-3), ledger=trainings[1]))


def test_trainings_are_reproducible(trainings, clean):
    again, _ = train_once(clean, STUDY, 2, 0.0, 0, CPU)
    assert again.risk == pytest.approx(trainings[0][0].risk, rel=1e-4)


def test_gradients_scatter_with_the_square_of_the_noise():
    study = replace(STUDY, sizes=(250,), steps=60)
    images = dead_leaves(study.images, 32, seed=1)
    _, network = train_once(images, study, 250, 0.0, 0, CPU)
    none, some, much = gradient_variance(network, images[:250])
    assert 0 < none < 1
    assert (much - none) / (some - none) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": ()}, "must be 1 or more"),
        ({"seeds": 0}, "must be 1 or more"),
        ({"noise": -0.1}, "negative"),
        ({"target_noise": (0.1, 0.1)}, "must differ"),
    ],
)
def test_settings_without_meaning_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(STUDY, **change)


def test_images_that_do_not_fit_are_refused(clean):
    with pytest.raises(ValueError, match="Give more images or smaller sizes"):
        next(study_networks(clean[:-1], STUDY))
    with pytest.raises(ValueError, match="divisible by 4"):
        next(study_networks(clean[:, :30], STUDY))
    assert with_sizes(STUDY, 20).sizes == (2,)


def test_a_file_of_something_else_is_no_ledger(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(ValueError, match="not a ledger"):
        Ledger(path, "x").read()
    assert Ledger(None, "x").read() == []


def test_synthetic_images_do_not_depend_on_how_many_there_are():
    images = dead_leaves(3, 48)
    np.testing.assert_array_equal(dead_leaves(2, 48), images[:2])
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.1
    assert not np.array_equal(dead_leaves(1, 48, seed=1), images[:1])


def test_images_of_a_folder(tmp_path):
    image = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    np.save(tmp_path / "b.npy", image)
    np.save(tmp_path / "a.npy", np.full((40, 40), 51, np.uint8))
    np.save(tmp_path / "small.npy", np.ones((8, 80), np.uint8))
    found = crops(tmp_path, 32, per_image=2)
    assert found.shape == (3, 32, 32)
    np.testing.assert_allclose(found[0], 0.2)
    np.testing.assert_allclose(found[1], image[14:46, 8:40] / image.max(), rtol=1e-6)
    with pytest.raises(ValueError, match="100 x 100"):
        crops(tmp_path, 100)
    with pytest.raises(ValueError, match="not a folder"):
        crops(tmp_path / "b.npy", 32)
