"""Any model goes on learning from other images; supervised learning is the yardstick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import BlindSpot, Noise2Void, Supervised

SMALL: dict[str, Any] = {"depth": 1, "width": 4, "patch": 16, "batch": 2}


def noisy(seed: int, level: float = 100.0, shape: tuple[int, ...] = (48, 48)) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 20, shape).astype(np.float32)


def test_it_goes_on_from_the_weights_with_a_normalisation_of_its_own() -> None:
    model = ssd.train(noisy(0), Noise2Void(**SMALL), steps=5)
    trainer = ssd.Trainer(None, noisy(1, 700.0), start=model, steps=5)
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[name])
    assert trainer.normalization.mean[0] == pytest.approx(700, abs=5)
    assert trainer.algorithm == model.algorithm
    for _ in trainer:
        pass
    again = ssd.train(noisy(2), start=trainer.model, steps=1)
    earlier = again.record["continues"]
    assert (earlier["algorithm"], earlier["steps"], earlier["continues"]["steps"]) == ("n2v", 5, 5)


def test_what_the_first_images_decided_is_found_anew() -> None:
    model = ssd.train(noisy(0), BlindSpot(**SMALL, noise="gaussian"), steps=2)
    assert model.algorithm.sigma == pytest.approx(20, rel=0.1)
    again = ssd.train(2 * noisy(1), start=model, steps=1)
    assert again.algorithm.sigma == pytest.approx(40, rel=0.1)


def test_colours_that_were_learnt_together_stay_so() -> None:
    colours = ssd.Volume(noisy(0, shape=(48, 48, 3)), "YXS")
    together = ssd.train(colours, BlindSpot(**SMALL, noise="gaussian"), steps=1, channels="joint")
    assert ssd.train(colours, start=together, steps=1).geometry.n_channels == 3
    assert ssd.train(colours, BlindSpot(**SMALL, noise="gaussian"), steps=1).geometry.n_channels == 1


def test_other_networks_are_refused() -> None:
    model = ssd.train(noisy(0), Noise2Void(**SMALL), steps=1)
    with pytest.raises(ValueError, match="another kind of network"):
        ssd.Trainer(None, noisy(0, shape=(8, 32, 32)), start=model, spatial="ZYX")
    with pytest.raises(ValueError, match="another kind of network"):
        ssd.train(noisy(0), "n2v", start=model, width=8)
    with pytest.raises(ValueError, match="name an algorithm"):
        ssd.Trainer(None, noisy(0))


def test_supervised_learns_from_clean_targets() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] / 12
    clean = (100 + 40 * np.sin(y) * np.cos(x)).astype(np.float32)
    data = rng.normal(clean, 30).astype(np.float32)
    algorithm = Supervised(**{**SMALL, "width": 8, "patch": 32}, learning_rate=5e-3)
    model = ssd.train(data, algorithm, target=clean, steps=80)
    fresh = rng.normal(clean, 30).astype(np.float32)
    assert np.mean((model.predict(fresh) - clean) ** 2) < 0.15 * 900
    with pytest.raises(ValueError, match="clean image"):
        ssd.train(data, algorithm)
    with pytest.raises(ValueError, match="differ"):
        ssd.train(data, algorithm, target=clean[:64])
