"""Scores against a reference: by hand, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ssdenoise.metrics import affine_psnr, choose_data_range, psnr, ssim
from napari_ssdenoise.volume import Volume


def test_psnr_of_a_known_error():
    reference = np.zeros((4, 16, 16), np.float32)
    assert psnr(reference + 0.1, reference, 1.0) == pytest.approx(20.0, abs=1e-5)
    assert psnr(reference, reference, 1.0) == float("inf")


def test_integers_do_not_wrap_around():
    reference = np.full((16, 16), 10, np.uint8)
    assert psnr(np.full((16, 16), 5, np.uint8), reference) == pytest.approx(20 * np.log10(255 / 5))


@pytest.mark.parametrize("shape", [(64, 64), (3, 40, 50)])
def test_ssim_is_that_of_scikit_image(shape, rng):
    metrics = pytest.importorskip("skimage.metrics")
    reference = rng.normal(1000, 50, shape)
    image = reference + rng.normal(0, 30, shape)
    planes = zip(image.reshape(-1, *shape[-2:]), reference.reshape(-1, *shape[-2:]), strict=True)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 200.0}
    expected = np.mean([metrics.structural_similarity(a, b, **options) for a, b in planes])
    assert ssim(image, reference, 200.0) == pytest.approx(expected, abs=1e-9)
    assert ssim(reference, reference) == pytest.approx(1.0)


def test_ssim_planes_of_a_volume_are_y_and_x(rng):
    reference = rng.normal(size=(20, 24, 3))
    image = reference + rng.normal(0, 0.5, reference.shape)
    by_axes = ssim(Volume(image, "YXC"), Volume(reference, "YXC"), 4.0)
    assert by_axes == pytest.approx(ssim(np.moveaxis(image, 2, 0), np.moveaxis(reference, 2, 0), 4.0))


def test_affine_psnr_forgives_gain_and_offset(clean_image, noisy_image):
    fitted = np.polynomial.polynomial.polyfit(noisy_image.ravel(), clean_image.ravel(), 1)
    by_hand = psnr(fitted[0] + fitted[1] * noisy_image, clean_image, 1.0)
    assert affine_psnr(noisy_image, clean_image, 1.0) == pytest.approx(by_hand, abs=1e-3)
    assert affine_psnr(3 * noisy_image - 7, clean_image, 1.0) == pytest.approx(by_hand, abs=1e-3)
    assert affine_psnr(np.ones((4, 4)), np.eye(4), 1.0) == pytest.approx(-10 * np.log10(np.eye(4).var()))


def test_data_range_ignores_hot_pixels(rng):
    reference = rng.uniform(10, 110, (200, 200))
    reference[0, 0] = 1e6
    assert choose_data_range(reference) == pytest.approx(100, rel=0.01)
    assert choose_data_range(np.zeros((4, 4), np.uint8)) == 255
    almost_empty = np.zeros((100, 100))
    almost_empty[0, 0] = 5.0
    assert choose_data_range(almost_empty) == 5.0


@pytest.mark.parametrize(
    ("image", "reference", "words"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "differ in shape"),
        (np.zeros((4, 4)), np.ones((4, 4)), "same value everywhere"),
        (np.full((4, 4), np.nan), np.eye(4), "NaN"),
        (np.eye(4), np.full((4, 4), np.nan), "NaN"),
        (np.zeros(4), np.zeros(4), "no image plane"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "no image plane"),
    ],
)
@pytest.mark.parametrize("metric", [psnr, affine_psnr, ssim])
def test_what_cannot_be_compared_is_refused(metric, image, reference, words):
    with pytest.raises(ValueError, match=words):
        metric(image, reference)


def test_other_refusals():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(np.eye(10), np.eye(10))
    with pytest.raises(ValueError, match="data_range"):
        psnr(np.eye(4), np.eye(4), 0.0)
