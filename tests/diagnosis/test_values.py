"""Clipping, rounding, replaced pixels, magnitudes, and what the camera adds to lines."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ssdenoise.diagnosis import estimate_noise
from napari_ssdenoise.diagnosis._blocks import cut_places, single_planes
from napari_ssdenoise.diagnosis._photon_transfer import fit_line
from napari_ssdenoise.diagnosis._series import find_line_pattern, fine_detail, scene_change
from napari_ssdenoise.diagnosis._values import find_clipping, find_replaced, find_rician, find_step


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16])
def test_piles_at_the_ends_are_clipping(rng, dtype):
    noise = rng.normal(100, 10, (1, 128, 128))
    found = find_clipping([np.clip(noise, 90, 120).astype(dtype)])
    assert found.levels == (90, 120)
    assert found.dark == pytest.approx(0.16, abs=0.03)
    assert found.bright == pytest.approx(0.023, abs=0.01)
    assert find_clipping([noise.astype(dtype)]).levels == (-np.inf, np.inf)


def test_few_photons_are_no_clipping(rng):
    for photons in (0.1, 0.5, 2):
        assert find_clipping([rng.poisson(photons, (1, 128, 128)).astype(np.uint8)]).dark == 0


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (lambda noise: noise, 0),
        (np.rint, 1),
        (lambda noise: 4 * np.rint(noise).astype(np.int32) + 3, 4),
        (lambda noise: (np.rint(noise) / 255).astype(np.float32), 1 / 255),
    ],
    ids=["not rounded", "whole numbers", "multiples", "scaled"],
)
def test_rounding(rng, values, step):
    assert find_step([values(rng.normal(100, 10, (1, 128, 128)))]) == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("kind", ["salt and pepper", "any value"])
def test_replaced_pixels(make, rng, share, kind):
    image = make.surface(rng)
    image = 255 * (image - image.min()) / np.ptp(image)
    hit = rng.random(image.shape) < share
    image[hit] = rng.choice([0, 255], hit.sum()) if kind == "salt and pepper" else rng.uniform(0, 255, hit.sum())
    found = find_replaced([image[None]])
    assert found.share == pytest.approx(share, rel=0.35)
    assert (found.low, found.high) == (image.min(), image.max())
    fit = estimate_noise([image])
    assert fit.kind == "impulse"


@pytest.mark.parametrize("camera", ["scmos", "emccd"])
def test_photons_replace_nothing(make, rng, camera):
    image = getattr(make, camera)(rng, make.cells(rng, 256) * 20 + 0.3, 5, 3)[None]
    assert find_replaced([image]).share == 0
    assert find_rician([image]) == 0


def magnitude(rng, sigma, brightness):
    y, x = np.mgrid[:192, :192] - 96
    clean = (np.hypot(y, x) < 60) * brightness * sigma * (1 + 0.3 * np.sin(x / 9) * np.cos(y / 7))
    return np.hypot(clean + rng.normal(0, sigma, clean.shape), rng.normal(0, sigma, clean.shape))


@pytest.mark.parametrize("brightness", [6, 20])
def test_magnitudes_show_in_their_background(rng, brightness):
    image = magnitude(rng, 20, brightness)
    assert find_rician([image[None]]) == pytest.approx(20, rel=0.03)
    fit = estimate_noise([np.rint(image).astype(np.uint16)])
    assert (fit.kind, fit.gain) == ("rician", 0)
    assert fit.read_noise == pytest.approx(20, rel=0.03)


def test_photons_with_the_mean_of_a_magnitude_are_none(make, rng):
    assert find_rician([rng.poisson(make.cells(rng, 256) * 20 + 3.66)[None]]) == 0


def test_offsets_of_rows_and_columns(make, rng):
    clean = 100 * make.cells(rng, 256)
    white = clean + rng.normal(0, 10, (2, *clean.shape))
    assert find_line_pattern([white]) == (0, 0)
    rows, columns = find_line_pattern([white + rng.normal(0, 4, (2, 256, 1))])
    assert rows == pytest.approx(4, rel=0.25)
    assert columns == 0
    rows, columns = find_line_pattern([white + rng.normal(0, 4, (1, 1, 256))])
    assert rows == 0
    assert columns == pytest.approx(4, rel=0.25)


def test_how_much_of_a_scene_changes(make, rng):
    clean = 200 * make.cells(rng, 256)

    def change(second):
        cuts = cut_places([np.stack([clean, second]) + rng.normal(0, 5, (2, 256, 256))])
        return scene_change(cuts, fit_line(single_planes(cuts)))

    assert change(clean) < 0.01
    assert change(np.roll(clean, 3, 0)) > 0.3
    assert change(clean.T) > 0.5
    cuts = cut_places([rng.normal(0, 5, (2, 128, 128))])
    assert scene_change(cuts, fit_line(single_planes(cuts))) is None


def test_how_fine_the_structure_is(make, rng):
    spots = np.zeros((256, 256))
    spots[tuple(rng.integers(0, 256, (2, 400)))] = 400

    line = fit_line(single_planes(cut_places([rng.normal(0, 5, (1, 128, 128))])))

    def detail(image):
        return fine_detail(cut_places([image[None] + rng.normal(0, 5, image.shape)]), line)

    assert detail(spots) > 0.3
    assert detail(20 * make.blurred(spots, 1.5)) < 0.05
    assert detail(np.zeros((128, 128))) is None
