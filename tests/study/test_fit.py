"""The fitted curve R(N) = R_inf + c / N**beta: what it finds, and that its intervals mean what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_ssdenoise.study.fit import fit_risk, measured_gain

SIZES = (8, 16, 32, 64, 128, 256)


def risks(floor=2.0, c=30.0, beta=0.8, noise=0.0, seed=0, sizes=SIZES):
    n = np.array(sizes, float)
    curve = floor + c / n**beta
    return curve * (1 + noise * np.random.default_rng(seed).standard_normal(len(n)))


def test_a_curve_is_recovered():
    fit = fit_risk(SIZES, risks())
    assert fit.floor.value == pytest.approx(2.0, rel=0.01)
    assert fit.exponent.value == pytest.approx(0.8, rel=0.01)
    assert fit.predict(1024).value == pytest.approx(2 + 30 / 1024**0.8, rel=0.005)
    assert fit.gain_db(64).value == pytest.approx(10 * np.log10((2 + 30 / 64**0.8) / 2), abs=0.03)
    assert fit.gain_db(64, 128).value == pytest.approx(10 * np.log10(risks()[3] / risks()[4]), abs=0.01)
    assert fit.identified


def test_more_images_to_halve_what_is_left():
    fit = fit_risk(SIZES, risks(beta=1.0))
    assert fit.more_to_halve(100).value == pytest.approx(100, rel=0.03)  # of c / N, twice as many leave one half
    assert fit_risk(SIZES, risks(beta=0.5)).more_to_halve(100).value == pytest.approx(300, rel=0.05)


def test_the_unit_does_not_matter():
    small, large = (fit_risk(SIZES, scale * risks(noise=0.02)) for scale in (1e-6, 1e6))
    np.testing.assert_allclose(small.floors * 1e12, large.floors, rtol=1e-6)
    np.testing.assert_allclose(small.exponents, large.exponents)


@pytest.mark.parametrize("deviations", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(deviations):
    inside = np.zeros(3)
    for seed in range(100):
        noisy = risks(noise=0.03, seed=seed)
        fit = fit_risk(SIZES, noisy, 0.03 * noisy if deviations else None)
        found = fit.floor, fit.exponent, fit.predict(512)
        inside += [e.low <= t <= e.high for e, t in zip(found, (2.0, 0.8, 2 + 30 / 512**0.8), strict=True)]
    assert (inside >= 82).all(), inside
    assert inside[2] < 100, "an interval that always holds the truth is too wide"


def test_what_the_data_do_not_tell_is_not_claimed():
    flat = fit_risk(SIZES, risks(c=0.0, noise=0.02))
    assert not flat.identified
    assert flat.gain_db(256).value < 0.1
    few, all_ = fit_risk(SIZES[:3], risks()[:3] * (1, 1.03, 1)), fit_risk(SIZES, risks(noise=0.02))
    assert few.gain_db(32).high - few.gain_db(32).low > 5 * (all_.gain_db(32).high - all_.gain_db(32).low)


def test_repeats_make_it_surer():
    once = fit_risk(SIZES, risks(noise=0.03, seed=5))
    many = fit_risk(SIZES * 8, np.concatenate([risks(noise=0.03, seed=s) for s in range(8)]))
    assert many.floor.high - many.floor.low < 0.5 * (once.floor.high - once.floor.low)


def test_the_band_lies_around_the_curve_and_opens_outwards():
    fit = fit_risk(SIZES, risks(noise=0.03))
    middle, low, high = fit.curve([16, 128, 4096])
    assert (low < middle).all()
    assert (middle < high).all()
    relative = (high - low) / middle
    assert relative[2] > relative[1]
    plain = json.loads(json.dumps(fit.to_json()))
    assert plain["curve"][0]["size"] == 8
    assert plain["curve"][-1]["size"] == pytest.approx(1024)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ((8, 16), (2, 1), "three sizes or more"),
        ((8, 8, 8, 16), (2, 2, 2, 1), "three sizes or more"),
        ((8, 16, 32), (2, 1), "one risk for each size"),
        ((8, 16, 32), (2, 1, 0), "positive"),
        ((8, 16, 32), (2, np.nan, 1), "positive"),
    ],
)
def test_what_makes_no_curve_is_refused(sizes, values, message):
    with pytest.raises(ValueError, match=message):
        fit_risk(sizes, values)
    with pytest.raises(ValueError, match="deviations"):
        fit_risk((8, 16, 32), (3, 2, 1), (1, 0, 1))


def test_the_interval_of_a_measured_gain_holds_it_nine_times_in_ten():
    rng, truth, held = np.random.default_rng(0), 10 * np.log10(12 / 11), 0
    for _ in range(400):
        found = measured_gain(rng.normal(12, 0.3, 3), rng.normal(11, 0.3, 3))
        held += found.low < truth < found.high
    assert 0.85 < held / 400 < 0.95
