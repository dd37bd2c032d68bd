"""The linear theory: simulations against closed forms, and the filters against what they stand for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_ssdenoise.study.linear import STEP, LinearTheory, _risks, linear_theory, stopping_times

LEVELS = (0.0, 0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def study():
    return linear_theory(sizes=(60, 100, 164, 256, 512, 1024, 2048), repeats=30)


@pytest.mark.parametrize("level", LEVELS)
def test_both_closed_forms_hold_within_three_per_cent(study, level):
    for point in study.curve(level):
        if point.size >= 164:
            assert point.converged == pytest.approx(point.converged_theory, rel=0.03)
            assert point.stopped == pytest.approx(point.stopped_theory, rel=0.03)


@pytest.mark.parametrize("level", LEVELS)
def test_the_excess_falls_as_one_over_the_number_of_images(study, level):
    assert study.slope(level) == pytest.approx((-1, -1), abs=0.03)


def test_published_values():
    theory = LinearTheory()
    assert theory.best_risk == pytest.approx(0.000999, abs=5e-7)
    published = (0.001242, 0.001850, 0.003675, 0.010974)
    assert [theory.converged_risk(512, s) for s in LEVELS] == pytest.approx(published, abs=6e-7)
    assert [theory.cost(s) for s in LEVELS] == pytest.approx([1, 3.5, 11, 41], rel=0.01)
    assert theory.converged_risk([50, 101], 0.1).tolist() == [np.inf, np.inf]


def test_least_squares_has_a_peak_where_images_equal_unknowns_and_stopping_has_none(study):
    for level in LEVELS:
        by_size = {p.size: p for p in study.curve(level)}
        assert by_size[100].converged > 20 * max(by_size[60].converged, by_size[164].converged)
        assert by_size[60].stopped > by_size[100].stopped > by_size[164].stopped


def test_stopping_is_never_worse_than_converging(study):
    assert all(p.stopped < p.converged for p in study.points if p.size > 100)


def test_a_curve_fitted_without_the_theory_finds_its_limit(study):
    fit = study.fit(0.2)
    assert fit.floor.value == pytest.approx(study.theory.best_risk, rel=0.05)
    assert fit.exponent.value == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [9, 40])
def test_filters_are_gradient_descent_and_least_squares(size):
    theory, rng = LinearTheory(n=15, d=4), np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((15, 4)))[0]
    clean = u @ rng.standard_normal((4, size)) / 2
    noisy, target = (clean + 0.1 * rng.standard_normal(clean.shape) for _ in range(2))
    covariance, cross = noisy @ noisy.T / size, target @ noisy.T / size
    values, vectors = np.linalg.eigh(covariance)
    converged, stopped = _risks(theory, u, values, vectors, cross)
    assert converged == pytest.approx(theory.risk(target @ np.linalg.pinv(noisy), u), rel=1e-6)
    w, step = np.zeros((15, 15)), 2 * STEP / values.max()
    for t in range(1, 51):
        w -= step * (w @ covariance - cross)
        for number in np.flatnonzero(stopping_times() == t):
            assert stopped[number] == pytest.approx(theory.risk(w, u), rel=1e-9)


def test_it_is_reproducible_and_plain(study):
    again = linear_theory(sizes=(256,), target_noise=LEVELS, repeats=30)
    assert again.curve(0.1) == [p for p in study.curve(0.1) if p.size == 256]
    plain = json.loads(json.dumps(study.to_json(), allow_nan=False))
    assert plain["targets"][2]["sample_cost"] == pytest.approx(11.01)
    assert len(plain["points"]) == 28
    assert plain["points"][0]["converged_theory"] is None, "JSON has no infinity"


@pytest.mark.parametrize("setting", [{"d": 0}, {"n": 5, "d": 6}, {"noise": 0.0}])
def test_settings_without_meaning_are_refused(setting):
    with pytest.raises(ValueError, match="1 <= d <= n"):
        LinearTheory(**setting)


@pytest.mark.parametrize("setting", [{"sizes": ()}, {"sizes": (0, 5)}, {"repeats": 0}, {"target_noise": (-1.0,)}])
def test_a_study_of_nothing_is_refused(setting):
    with pytest.raises(ValueError, match="must be 1 or more"):
        linear_theory(**setting)
