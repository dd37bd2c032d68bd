"""Noise models: what they add, how likely that is, and what Bayes makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_ssdenoise.magnitude import Magnitude
from napari_ssdenoise.noise import NOISES, NoiseLevel, Prior

MEAN, STD = 120.0, 30.0  # of the normalisation


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(name: str, level: NoiseLevel, channels: int = 1) -> Tensor:
    """Return a model's conditions as an image."""
    values = torch.tensor([*NOISES[name].conditions(level, MEAN, STD), 0.0], dtype=torch.float64)
    return values.repeat_interleave(channels).reshape(1, -1, 1, 1)


def normal(mean: float, deviation: float) -> Prior:
    """Return the prior of one pixel."""
    return Prior(
        torch.full((1, 1, 1, 1), mean, dtype=torch.float64),
        torch.full((1, 1, 1, 1, 1), deviation**2, dtype=torch.float64),
    )


LEVELS = {
    "gaussian": NoiseLevel(read_noise=9.0),
    "poisson": NoiseLevel(gain=2.0, offset=100.0),
    "poisson-gaussian": NoiseLevel(gain=2.0, offset=100.0, read_noise=3.0),
    "rician": NoiseLevel(read_noise=9.0),
}


@pytest.mark.parametrize("name", ["gaussian", "poisson", "poisson-gaussian", "rician"])
def test_moments_are_those_of_corrupted_images(name: str) -> None:
    model, level = NOISES[name], LEVELS[name]
    for intensity in (104.0, 120.0, 200.0) if name != "rician" else (1.0, 9.0, 40.0, 400.0):
        noisy = model.corrupt(torch.full((1, 1, 500, 500), intensity, dtype=torch.float64), level, rng())
        noisy = (noisy - MEAN) / STD
        # A network predicts what magnitudes are on average.
        average = float(Magnitude(level.read_noise).mean(intensity)) if name == "rician" else intensity
        clean = torch.full((1, 1, 1, 1), (average - MEAN) / STD, dtype=torch.float64)
        expected, _, variance = model.moments(clean, told(name, level))  # type: ignore[attr-defined]
        assert float(noisy.mean()) == pytest.approx(float(expected), abs=4 * float(noisy.std()) / 500)
        assert float(noisy.var()) == pytest.approx(float(variance), rel=0.02)


def test_rician_amplitudes_are_those_of_the_published_means() -> None:
    conditions = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64).reshape(1, -1, 1, 1).expand(1, 4, 1, 6)
    amplitudes = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 10.0])
    means = torch.tensor([1.2533, 1.5486, 2.2724, 3.1726, 5.1024, 10.0501], dtype=torch.float64).reshape(1, 1, 1, -1)
    np.testing.assert_allclose(NOISES["rician"].clean(means, conditions)[0, 0, 0], amplitudes, atol=2e-2)
    exact = torch.from_numpy(Magnitude(1.0).mean(amplitudes)).reshape(1, 1, 1, -1)
    np.testing.assert_allclose(NOISES["rician"].clean(exact, conditions)[0, 0, 0], amplitudes, atol=1e-4)
    _, _, variance = NOISES["rician"].moments(exact, conditions)  # type: ignore[attr-defined]
    np.testing.assert_allclose((variance + exact.square())[0, 0, 0], 2 + amplitudes**2, rtol=1e-5)


def test_rician_amplitudes_stay_positive_and_large_ones_stay_exact() -> None:
    model, conditions = NOISES["rician"], told("rician", LEVELS["rician"])
    raw = torch.tensor([-50.0, 0.3], dtype=torch.float64).reshape(1, 2, 1, 1)
    prior = model.prior(raw, conditions)
    zero = (0 - MEAN) / STD
    assert float(model.clean(prior.mean, conditions)) >= zero
    noisy = torch.full((1, 1, 1, 1), zero + 0.1, dtype=torch.float64)
    mean, std = model.posterior(noisy, prior, conditions)
    assert float(mean) >= zero
    assert float(std) > 0
    conditions = torch.tensor([0.0, 1.0, 0.0, 0.0]).reshape(1, -1, 1, 1)  # in single precision
    large = torch.full((1, 1, 1, 1), 3000.0)
    _, slope, variance = model.moments(large, conditions)  # type: ignore[attr-defined]
    assert float(model.clean(large, conditions)) == pytest.approx(3000, rel=1e-6)
    assert float(slope) == 1
    assert float(variance) == pytest.approx(1, rel=1e-3)
    gradient = torch.tensor([1.0, 1.2533141, 1.3, 11.9, 12.1, 30.0], requires_grad=True)
    model.moments(gradient.reshape(1, 1, 1, -1), conditions.expand(1, 4, 1, 6))[2].sum().backward()  # type: ignore[attr-defined]
    assert torch.isfinite(gradient.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gaussian", "poisson-gaussian"])
@pytest.mark.parametrize("observed", [-0.4, 0.2, 0.9])
def test_posterior_is_that_of_numeric_integration(name: str, observed: float) -> None:
    prior, conditions = normal(0.1, 0.3), told(name, LEVELS[name])
    noisy = torch.full((1, 1, 1, 1), observed, dtype=torch.float64)
    variance = float(NOISES[name].deviation(prior.mean, conditions)) ** 2
    x = torch.linspace(-4, 4, 200_001, dtype=torch.float64)
    weight = torch.exp(-((x - 0.1) ** 2) / (2 * 0.3**2) - (observed - x) ** 2 / (2 * variance))
    mean = float((weight * x).sum() / weight.sum())
    deviation = float(((weight * (x - mean) ** 2).sum() / weight.sum()).sqrt())
    found, std = NOISES[name].posterior(noisy, prior, conditions)
    assert (float(found), float(std)) == (pytest.approx(mean, abs=1e-6), pytest.approx(deviation, abs=1e-6))
    evidence = (
        math.log(float(weight.sum()) * 4e-5) - math.log(0.3) - 0.5 * math.log(variance) - math.log(2 * math.pi) / 2
    )
    likelihood = float(NOISES[name].log_likelihood(noisy, prior, conditions))
    assert likelihood == pytest.approx(evidence, abs=1e-4)


def test_channels_share_what_they_know() -> None:
    generator = np.random.default_rng(0)
    root = np.triu(generator.normal(size=(3, 3)))
    mean, observed = generator.normal(size=3), generator.normal(size=3)
    raw = torch.tensor([*mean, *root[np.triu_indices(3)]], dtype=torch.float64).reshape(1, 9, 1, 1)
    model, conditions = NOISES["poisson-gaussian"], told("poisson-gaussian", LEVELS["poisson-gaussian"], channels=3)
    prior = model.prior(raw, conditions)
    own = root.T @ root
    np.testing.assert_allclose(prior.covariance[0, 0, 0], own)
    noise = np.diag(model.deviation(prior.mean, conditions)[0, :, 0, 0].numpy() ** 2)
    both = np.linalg.inv(np.linalg.inv(own) + np.linalg.inv(noise))
    expected = both @ (np.linalg.solve(own, mean) + np.linalg.solve(noise, observed))
    noisy = torch.tensor(observed).reshape(1, -1, 1, 1)
    found, std = model.posterior(noisy, prior, conditions)
    np.testing.assert_allclose(found[0, :, 0, 0], expected)
    np.testing.assert_allclose(std[0, :, 0, 0], np.diag(both) ** 0.5)
    total, residual = own + noise, observed - mean
    likelihood = -0.5 * (np.linalg.slogdet(total)[1] + residual @ np.linalg.solve(total, residual))
    assert float(model.log_likelihood(noisy, prior, conditions)) == pytest.approx(likelihood, rel=1e-3)


def test_a_single_channel_is_a_special_case_of_many() -> None:
    level = LEVELS["poisson-gaussian"]
    model, one, three = NOISES["poisson-gaussian"], told("poisson-gaussian", level), told("poisson-gaussian", level, 3)
    raw = torch.tensor([0.3, 0.5], dtype=torch.float64).reshape(1, 2, 1, 1)
    alike = torch.tensor([0.3, 0.3, 0.3, 0.5, 0, 0, 0.5, 0, 0.5], dtype=torch.float64).reshape(1, 9, 1, 1)
    noisy = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
    mean, std = model.posterior(noisy, model.prior(raw, one), one)
    means, stds = model.posterior(noisy.expand(1, 3, 1, 1), model.prior(alike, three), three)
    torch.testing.assert_close(means, mean.expand_as(means))
    torch.testing.assert_close(stds, std.expand_as(stds))


def test_impulses_are_told_from_what_fits_the_prior() -> None:
    model = NOISES["impulse"]
    level = NoiseLevel(share=0.3, low=0, high=255)
    clean = torch.full((1, 1, 300, 300), 120.0)
    noisy = model.corrupt(clean, level, rng())
    replaced = noisy != clean
    assert float(replaced.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(noisy[replaced].mean()) == pytest.approx(127.5, abs=2)
    conditions = told("impulse", level)
    prior = normal(0.0, 0.05)
    for observed, expected in ((0.01, 0.01), (3.0, 0.0)):
        pixel = torch.full((1, 1, 1, 1), observed, dtype=torch.float64)
        assert float(model.posterior(pixel, prior, conditions)[0]) == pytest.approx(expected, abs=2e-3)
    # The paper's moments, against those of many draws.
    draws = model.corrupt(
        (torch.randn((1, 1, 800, 800), generator=rng(1), dtype=torch.float64) * 0.05) * STD + MEAN, level, rng(2)
    )
    draws = (draws - MEAN) / STD
    x = torch.linspace(-1, 1, 3, dtype=torch.float64).reshape(1, 1, 1, 3)
    likelihood = model.log_likelihood(
        x, Prior(prior.mean.expand_as(x), prior.covariance.expand(1, 1, 3, 1, 1)), conditions.expand(1, 4, 1, 3)
    )
    expected = -0.5 * (draws.var().log() + (x[:, 0] - draws.mean()) ** 2 / draws.var())
    torch.testing.assert_close(likelihood, expected, atol=0.02, rtol=0)
