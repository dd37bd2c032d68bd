"""SASL removes noise that neighbours share: its parts, its stages, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import SpatiallyAdaptive
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.networks.local import LocalNet, local_deviation

SMALL: dict[str, Any] = {"depth": 1, "width": 8, "patch": 32, "batch": 2, "learning_rate": 3e-3}


def blurred(noise: np.ndarray) -> np.ndarray:
    """Average over 3 x 3 pixels, so that neighbours share noise."""
    for axis in (-2, -1):
        noise = sum(np.roll(noise, n, axis) for n in (-1, 0, 1)) / 3
    return noise


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :160] / 20
    clean = 100 + 30 * np.sin(y) * np.cos(x)
    return clean, (clean + blurred(rng.normal(0, 45, clean.shape))).astype(np.float32)


def test_it_removes_correlated_noise(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pair
    model = ssd.train(noisy, SpatiallyAdaptive(**SMALL, blind="5"), steps=240)
    assert np.mean((model.predict(noisy) - clean) ** 2) < 0.3 * np.mean((noisy - clean) ** 2)


def test_the_neighbourhood_is_measured(pair: tuple[np.ndarray, np.ndarray]) -> None:
    trainer = ssd.Trainer(SpatiallyAdaptive(**SMALL), pair[1], steps=1)
    trainer.close()
    assert trainer.algorithm.blind == "5,5"
    assert trainer.network.blind.blind == (5, 5)
    white = np.random.default_rng(0).normal(pair[0], 15)
    trainer = ssd.Trainer(SpatiallyAdaptive(**SMALL), white, steps=1)
    trainer.close()
    assert trainer.algorithm.blind == "1,1"


def test_each_stage_trains_its_own_network() -> None:
    algorithm = SpatiallyAdaptive(depth=1, width=4, blind="3")
    torch.manual_seed(0)
    image = torch.randn(2, 1, 16, 16)
    for progress, name in ((0.1, "blind"), (0.6, "local"), (0.9, "unet")):
        network = algorithm.build(1, (True, True)).train()
        algorithm.loss(network, Batch(image, image, progress=progress), torch.Generator()).backward()
        learning = {key.split(".")[0] for key, p in network.named_parameters() if p.grad is not None}
        assert learning == {name}


def test_flat_places_follow_the_blind_network_and_texture_the_local_one() -> None:
    algorithm = SpatiallyAdaptive()
    noise = torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    stripes = 2 * (torch.arange(64) // 2 % 2).float().expand(1, 1, 64, 64)
    for smooth, low, high in ((torch.zeros_like(noise), 0.2, 0.3), (stripes, 0.9, 1.0)):
        texture = algorithm._texture(smooth, Batch(smooth + noise, smooth + noise))
        assert low < texture.mean() < high


def test_local_networks_see_three_pixels_each_way() -> None:
    for ndim in (2, 3):
        network = LocalNet(ndim, 1, width=8, blocks=0).double()
        image = torch.randn((1, 1, *(9,) * ndim), dtype=torch.float64, requires_grad=True)
        network[-1].double()
        out = network(image)
        (gradient,) = torch.autograd.grad(out[(0, 0, *(4,) * ndim)], image)
        assert torch.count_nonzero(gradient) == 3**ndim


def test_local_deviation_is_that_of_windows() -> None:
    image = torch.randn((2, 3, 12, 15), generator=torch.Generator().manual_seed(0))
    found = local_deviation(image, 5)
    assert found.shape == (2, 1, 12, 15)
    window = image[1].mean(0)[4:9, 6:11]
    assert float(found[1, 0, 6, 8]) == pytest.approx(float(window.std(unbiased=False)), rel=1e-4)


@pytest.mark.parametrize("text", ["4", "1,2", "a", "-1", "1,1,1,1", ""])
def test_bad_neighbourhoods(text: str) -> None:
    with pytest.raises(ValueError, match="odd number"):
        SpatiallyAdaptive(blind=text)


def test_stacks(tmp_path: Any) -> None:
    stack = np.random.default_rng(0).normal(100, 10, (9, 40, 48)).astype(np.float32)
    model = ssd.train(stack, SpatiallyAdaptive(**SMALL, blind="3,5"), steps=3, spatial="ZYX")
    assert model.network.blind.blind == (1, 3, 5)
    model.save(tmp_path / "m.ssdn")
    again = ssd.TrainedModel.load(tmp_path / "m.ssdn")
    np.testing.assert_array_equal(again.predict(stack), model.predict(stack))
