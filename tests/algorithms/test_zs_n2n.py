"""Zero-Shot Noise2Noise: its loss is the paper's, and it cleans an image in no time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms.zs_n2n import ZeroShotNoise2Noise
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.engine.trainer import Trainer, train
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray


def loss_of(network: Any, shape: tuple[int, ...]) -> float:
    rng = torch.Generator().manual_seed(0)
    noisy = torch.randn(shape, generator=rng)
    return float(ZeroShotNoise2Noise().loss(network, Batch(noisy, noisy), rng))


@pytest.mark.parametrize("shape", [(4, 1, 64, 64), (1, 1, 4, 64, 64), (2, 3, 65, 63)])
def test_the_loss_of_networks_that_learned_nothing(shape: tuple[int, ...]) -> None:
    """Both halves have the noise variance 1/2: one predicts the other at twice that, and zero at just that."""
    assert loss_of(lambda x: x, shape) == pytest.approx(1, rel=0.05)
    assert loss_of(torch.zeros_like, shape) == pytest.approx(0.5, rel=0.05)


def test_the_loss_demands_that_halving_and_denoising_commute() -> None:
    """A network that treats large images otherwise than small ones is told so."""

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x) + (3.0 if x.shape[-1] == 64 else 0.0)

    # Two terms of 3 ** 2, half of which counts.
    assert loss_of(network, (4, 1, 64, 64)) == pytest.approx(0.5 + 9, rel=0.05)


def test_a_few_steps_denoise(noisy_image: NDArray[np.float32], clean_image: NDArray[np.float32]) -> None:
    model = train(noisy_image, ZeroShotNoise2Noise(width=16), steps=120, precision="float32")
    before, after = (np.mean((image - clean_image) ** 2) for image in (noisy_image, model.predict(noisy_image)))
    assert after < 0.25 * before


def test_white_noise_is_not_learned() -> None:
    """What cannot be predicted stays in the loss: the variance of a half, 1/2."""
    noise = np.random.default_rng(0).normal(0, 1, (128, 128)).astype(np.float32)
    trainer = Trainer(ZeroShotNoise2Noise(width=8), noise, steps=100, precision="float32")
    losses = [step.loss for step in trainer]
    assert np.mean(losses[-30:]) > 0.47


@pytest.mark.parametrize(
    ("shape", "axes", "patch", "batch"),
    [
        ((200, 210), "YX", [32, 32], 8),
        ((20, 50, 40), "ZYX", [16, 32, 32], 1),
        ((3, 40, 40), "CYX", [32, 32], 8),
        ((30, 27), "YX", [30, 27], 10),
    ],
)
def test_small_crops_in_2d_and_3d(shape: tuple[int, ...], axes: str, patch: list[int], batch: int) -> None:
    volume = Volume(np.random.default_rng(0).normal(100, 10, shape).astype(np.float32), axes)
    model = train(volume, ZeroShotNoise2Noise(width=4), steps=1, channels="joint" if "C" in axes else "auto")
    assert (model.record["patch"], model.record["batch"]) == (patch, batch)
    assert model.predict(volume).shape == shape
