"""Gain, read noise and variance of made images, whatever they show."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from napari_ssdenoise.diagnosis import Estimate, estimate_noise


@pytest.mark.parametrize("camera", ["scmos", "emccd"])
@pytest.mark.parametrize("draw", range(10))
def test_gain_and_read_noise_of_cameras(make, camera, draw):
    rng = np.random.default_rng(draw)
    gain, read_noise = np.exp(rng.uniform(np.log(0.5), np.log(5))), np.exp(rng.uniform(0, np.log(10)))
    # Enough light to see the gain, and darkness in which the read noise is not drowned.
    brightest = 200 + rng.uniform(1, 20) * (read_noise / gain) ** 2
    darkest = rng.uniform(0.1, 0.5) * min(read_noise**2 / gain**2, 10)
    image = getattr(make, camera)(rng, make.cells(rng) * brightest + darkest, gain, read_noise)
    fit = estimate_noise([image], offset=100)
    assert fit.kind == "poisson-gaussian"
    assert fit.gain == pytest.approx(gain, rel=0.1)
    assert fit.read_noise == pytest.approx(np.hypot(read_noise, 12**-0.5), rel=0.1)  # with the rounding
    assert fit.gain.low < fit.gain < fit.gain.high
    assert fit.offset == 100


def test_intervals_hold_the_truth(make):
    held = []
    for draw in range(10):
        rng = np.random.default_rng(draw)
        fit = estimate_noise([make.scmos(rng, make.cells(rng, 256) * 300 + 1, 2.0, 5.0)], offset=100)
        held.append((fit.gain.low < 2.0 < fit.gain.high, fit.read_noise.low < 5.01 < fit.read_noise.high))
    assert np.mean(held) >= 0.8


@pytest.mark.parametrize("draw", range(4))
def test_the_gain_of_few_photons(make, draw):
    # The mean of a block is then as uncertain as blocks differ, which must not flatten the line.
    rng = np.random.default_rng(draw)
    fit = estimate_noise([make.scmos(rng, 5 * make.cells(rng) + 0.5, 2.0, 4.0)], offset=100)
    assert fit.gain == pytest.approx(2.0, rel=0.1)
    assert fit.read_noise == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("draw", range(4))
def test_read_noise_that_the_light_hides(make, draw):
    rng = np.random.default_rng(draw)
    fit = estimate_noise([make.emccd(rng, 100 * make.cells(rng) + 8, 30.0, 4.0)], offset=100)
    assert fit.gain == pytest.approx(30.0, rel=0.1)
    assert fit.variance(100) >= 0
    assert fit.read_noise.low == 0
    assert fit.read_noise.high > 4


@pytest.mark.parametrize("sigma", [20, 50])
def test_even_noise_on_a_texture_without_flat_parts(make, rng, sigma):
    clean = make.surface(rng)
    fit = estimate_noise([clean + rng.normal(0, sigma, clean.shape)])
    assert fit.kind == "gaussian"
    assert fit.gain == 0
    assert fit.sigma**2 == pytest.approx(sigma**2, rel=0.1)
    assert fit.variance(clean.mean()) == pytest.approx(fit.sigma**2)


def test_the_variance_is_right_where_no_offset_is_known(make, rng):
    fit = estimate_noise([make.scmos(rng, make.cells(rng) * 500 + 4, 2.0, 6.0)])
    intensity = np.array([120.0, 300.0, 800.0])
    np.testing.assert_allclose(fit.variance(intensity), 2 * (intensity - 100) + 36, rtol=0.08)
    assert 100 < fit.offset < 115  # the darkest level: there is some light everywhere
    assert fit.offset.low < 100


def test_repeated_exposures_are_compared_with_each_other(make, rng):
    photons = make.surface(rng, 192, 35)
    frames = np.stack([make.scmos(rng, photons, 0.5, 2.0) for _ in range(4)])
    fit = estimate_noise([frames], offset=100)
    assert fit.is_static
    assert fit.structureless > 0.9
    assert fit.gain == pytest.approx(0.5, rel=0.1)


def test_counted_photons(make, rng):
    fit = estimate_noise([rng.poisson(make.cells(rng, 256) * 30 + 2)])
    assert fit.kind == "poisson"
    assert fit.gain == pytest.approx(1, rel=0.1)
    assert (fit.offset, fit.read_noise) == (0, 0)


def test_clipped_parts_do_not_count(make, rng):
    clean = make.surface(rng, contrast=45)
    fit = estimate_noise([np.clip(clean + rng.normal(0, 15, clean.shape), 50, 200)])
    assert fit.clipping.levels == (50, 200)
    assert fit.sigma == pytest.approx(15, rel=0.1)


def test_hot_pixels_are_no_noise(make, rng):
    clean = 200 * make.cells(rng, 256)
    image = clean + rng.normal(0, 10, clean.shape)
    image[tuple(rng.integers(0, 256, (2, 60)))] += rng.uniform(200, 600, 60)
    assert estimate_noise([image]).sigma == pytest.approx(10, rel=0.1)


def test_margins_of_one_value_do_not_count(rng):
    image = rng.normal(100, 5, (128, 128))
    image[:70] = 0
    assert estimate_noise([image]).sigma == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((64, 64), 3), "same value everywhere"),
        (np.zeros((6, 200)), "too small"),
        (np.full((64, 64), np.nan), "NaN"),
    ],
    ids=["constant", "tiny", "nan"],
)
def test_what_cannot_be_measured_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        estimate_noise([image])


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (9, 300)], ids=str)
def test_small_images_make_no_verdict_of_correlation(rng, shape):
    fit = estimate_noise([rng.normal(0, 1, shape)])
    assert fit.sigma == pytest.approx(1, rel=0.3)
    assert not fit.correlation.correlated


def test_an_estimate_is_a_number_with_an_interval():
    estimate = Estimate(2.0, 1.5, 2.6)
    assert estimate == 2
    assert estimate * 2 == 4
    for same in (copy.deepcopy(estimate), pickle.loads(pickle.dumps(estimate))):
        assert (same, same.low, same.high) == (2, 1.5, 2.6)
    assert Estimate(2.0).to_json() == {"value": 2, "low": 2, "high": 2}
