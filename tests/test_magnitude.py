"""Magnitudes of MRI: the bias that noise brings is known, taken off, and its noise is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.magnitude import Magnitude


def noisy(amplitude: Any, sigma: float, coils: int = 1, seed: int = 0) -> Any:
    """Return the root of the sum of squares over coils, the signal being in the first part of the first one."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(0, sigma, (2 * coils, *np.shape(amplitude)))
    parts[0] += amplitude
    return np.sqrt(np.square(parts).sum(0)).astype(np.float32)


def test_the_mean_of_rician_noise_is_that_of_bessel_functions() -> None:
    amplitude = torch.tensor([0.0, 0.5, 1, 2, 3, 5, 10, 18], dtype=torch.float64)
    t = amplitude.square() / 4
    expected = (torch.pi / 2) ** 0.5 * ((1 + 2 * t) * torch.special.i0e(t) + 2 * t * torch.special.i1e(t))
    np.testing.assert_allclose(Magnitude(3).mean(3 * amplitude), 3 * expected, rtol=2e-5)


@pytest.mark.parametrize("coils", [1, 4, 32])
def test_amplitudes_are_found_again(coils: int) -> None:
    noise = Magnitude(2.5, coils)
    amplitude = np.array([0, 0.5, 1, 3, 8, 20, 60, 200])
    measured = noisy(np.repeat(amplitude[:, None], 40_000, 1), 2.5, coils).mean(1)
    np.testing.assert_allclose(noise.mean(amplitude), measured, atol=0.05)
    np.testing.assert_allclose(noise.amplitude(noise.mean(amplitude)), amplitude, rtol=2e-3, atol=0.02)
    assert noise.amplitude(0.9 * noise.mean(0)) == 0


def test_wrong_noise_is_refused() -> None:
    for sigma, coils in ((0, 1), (-1, 1), (np.inf, 1), (1, 0), (1, 1.5), (1, 1000)):
        with pytest.raises(ValueError, match="must be"):
            Magnitude(sigma, coils)  # type: ignore[arg-type]


def head(shape: tuple[int, int] = (128, 128)) -> Any:
    """Return a bright ellipse with dark and bright tissue on a background of nothing."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = (y - 64) ** 2 / 45**2 + (x - 64) ** 2 / 38**2 < 1
    return np.where(inside, 60 + 45 * np.sin(x / 9) * np.cos(y / 8), 0.0)


@pytest.mark.parametrize("coils", [1, 4])
def test_noise_is_found_in_the_background(coils: int) -> None:
    volume = ssd.Volume(np.stack([noisy(head(), 6, coils, seed) for seed in range(4)]), "ZYX")
    assert ssd.estimate_magnitude_noise(volume, coils=coils).sigma == pytest.approx(6, rel=0.03)
    with pytest.raises(ValueError, match="no background"):
        ssd.estimate_magnitude_noise(volume, coils=16 if coils == 1 else 1)
    with pytest.raises(ValueError, match="no background"):
        ssd.estimate_magnitude_noise(np.where(head() > 0, volume[...], 0), axes="ZYX")


def test_the_bias_of_a_denoised_magnitude_is_taken_off(tmp_path: Path) -> None:
    clean = 9 + 4 * np.sin(np.mgrid[:96, :96].sum(0) / 14)
    image = noisy(clean, 6)
    model = ssd.train(image, "zs-n2n", steps=80, precision="float32")
    noise = Magnitude(6)
    better = model.for_magnitudes(noise)
    plain, made = model.predict(image, precision="float32"), better.predict(image, precision="float32")
    assert (plain - clean).mean() > 1.5
    assert abs((made - clean).mean()) < 0.4
    list(better.predict_into(image, tmp_path / "a.npy", precision="float32"))
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), made, rtol=1e-3, atol=1e-3)
    assert better.describe()["magnitude"] == {"sigma": 6, "coils": 1}
    assert "magnitude" not in model.describe()


def test_what_has_no_bias_is_refused() -> None:
    image = noisy(head(), 6)
    rician = ssd.train(image, "blindspot", noise="rician", sigma=6, steps=1)
    parts = ssd.train((image * 1j).astype(np.complex64), "n2v", steps=1)
    for model in (rician, parts):
        with pytest.raises(ValueError, match="no bias"):
            model.for_magnitudes(Magnitude(6))
