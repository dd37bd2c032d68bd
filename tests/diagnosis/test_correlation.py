"""White and correlated noise are told apart, on cells and on texture."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ssdenoise.diagnosis import estimate_noise


@pytest.fixture(params=["cells", "surface"])
def clean(request, make, rng):
    return 255 * make.cells(rng, 256) if request.param == "cells" else make.surface(rng)


def test_white_noise(clean, rng):
    found = estimate_noise([clean + rng.normal(0, 25, clean.shape)]).correlation
    assert not found.correlated
    assert found.certain
    assert np.abs([*found.y, *found.x]).max() < 0.1


@pytest.mark.parametrize("blur", [0.5, 0.7, 1.0])
def test_blurred_noise(clean, make, rng, blur):
    fit = estimate_noise([clean + make.blurred_noise(rng, clean.shape, blur, 25)])
    assert fit.correlation.correlated
    assert fit.sigma == pytest.approx(25, rel=0.2)
    expected = np.fft.irfft2(np.abs(np.fft.rfft2(make.blurred_noise(rng, (256, 256), blur, 1))) ** 2)
    for lags, truth in ((fit.correlation.y, expected[1:3, 0]), (fit.correlation.x, expected[0, 1:3])):
        np.testing.assert_allclose(lags[:2], truth / expected[0, 0], atol=0.12)


def test_noise_along_one_axis(clean, make, rng):
    found = estimate_noise([clean + make.scanned_noise(rng, clean.shape, 0.25, 25)]).correlation
    assert found.correlated
    assert found.y[0] == pytest.approx(0.25, abs=0.06)
    assert abs(found.x[0]) < 0.1


def test_frames_show_correlated_noise_through_any_structure(make, rng):
    photons = make.surface(rng, 192, 35)
    frames = [photons + make.scanned_noise(rng, photons.shape, 0.2, 3.0) for _ in range(3)]
    fit = estimate_noise([np.stack(frames)])
    assert fit.correlation.correlated
    assert fit.sigma == pytest.approx(3, rel=0.1)
    assert not estimate_noise(
        [np.stack([photons + rng.normal(0, 3, photons.shape) for _ in range(3)])]
    ).correlation.correlated


def test_noise_that_goes_on_from_frame_to_frame(rng):
    fresh = rng.normal(0, 1, (6, 128, 128))
    fit = estimate_noise([fresh[1:] + 0.5 * fresh[:-1]])
    assert fit.along[0] == pytest.approx(0.4, abs=0.05)
    assert abs(fit.along[1]) < 0.05
    assert fit.sigma**2 == pytest.approx(1.25, rel=0.05)
