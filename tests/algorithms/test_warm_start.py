"""Trainings begin with the program's weights where they fit, and with random ones where not or where asked to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import get_algorithm, list_algorithms
from napari_ssdenoise.algorithms._warm_start import WarmStarted, shipped

WARM = sorted(key for key, kind in list_algorithms().items() if issubclass(kind, WarmStarted))
FEW: dict[str, Any] = {"patch": 32, "batch": 2}


def noisy(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(0, 9, n) for n in shape[-2:])
    clean = 100 + 40 * np.outer(np.sin(y), np.cos(x))
    return (scale * rng.normal(clean, 15, shape)).astype(np.float32)


def trainer_for(key: str, data: Any, **options: Any) -> ssd.Trainer:
    values = {**FEW, **options.pop("values", {})}
    target = data if key in ("n2n", "supervised") else None
    trainer = ssd.Trainer(get_algorithm(key, **values), data, target=target, steps=1, **options)
    trainer.close()
    return trainer


@pytest.mark.parametrize("key", WARM)
def test_one_begins_with_the_weights(key: str) -> None:
    trainer = trainer_for(key, noisy(64, 64))
    weights = shipped(trainer.algorithm.weights)
    assert not trainer.algorithm.from_scratch
    assert all(torch.equal(value, weights[name]) for name, value in trainer.network.state_dict().items())
    cold = trainer_for(key, noisy(64, 64), values={"from_scratch": True})
    assert any(not torch.equal(value, weights[name]) for name, value in cold.network.state_dict().items())
    assert trainer.algorithm.rate < cold.algorithm.rate
    assert trainer.algorithm.usual_steps < cold.algorithm.usual_steps


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((12, 64, 64), {"spatial": "ZYX"}),
        ((64, 64), {"values": {"width": 8}}),
        ((64, 64), {"values": {"depth": 1}}),
        ((3, 64, 64), {"channels": "joint", "axes": "CYX"}),
    ],
    ids=str,
)
def test_random_weights_where_none_fit(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    axes = options.pop("axes", "ZYX"[3 - len(shape) :])
    trainer = trainer_for("nb2nb", ssd.Volume(noisy(*shape), axes), **options)
    assert trainer.algorithm.from_scratch
    assert "from_scratch" in trainer.model.record["chosen"]


def test_other_kinds_of_noise_begin_at_random() -> None:
    assert trainer_for(
        "blindspot", noisy(64, 64), values={"noise": "impulse", "impulse_percent": 5.0}
    ).algorithm.from_scratch


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_any_range_of_intensities(scale: float) -> None:
    """The result before any step is the same, scaled."""
    data = noisy(96, 96)
    one, other = (trainer_for("nb2nb", factor * data).model.predict(factor * data) for factor in (1.0, scale))
    np.testing.assert_allclose(other / scale, one, rtol=0.02, atol=0.5)


@pytest.mark.parametrize("key", ["blindspot", "nb2nb"])
def test_a_few_steps_denoise(key: str) -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:128, :128]
    clean = 100 + 50 * ((x // 16 + y // 24) % 2) + 20 * np.sin(y / 9)
    data = rng.normal(clean, 20).astype(np.float32)
    values = {"noise": "gaussian", "sigma": 20.0} if key == "blindspot" else {}
    result = ssd.train(data, get_algorithm(key, patch=64, batch=2, **values), steps=20).predict(data)
    assert np.mean((result - clean) ** 2) < 0.25 * np.mean((data - clean) ** 2)
