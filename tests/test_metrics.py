"""Scores against a reference: by hand, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ssdenoise.metrics import FRC_THRESHOLD, RingCorrelation, affine_psnr, choose_data_range, frc, psnr, ssim
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


def band_limited(shape, cutoff, rng):
    """Return an image with all frequencies (cycles per pixel) up to a cutoff, and none above."""
    spectrum = np.fft.fftn(rng.normal(size=shape))
    squares = np.zeros(())
    for n in shape:
        squares = np.add.outer(squares, np.fft.fftfreq(n) ** 2)
    return np.fft.ifftn(np.where(squares < cutoff**2, spectrum, 0)).real


@pytest.mark.parametrize("shape", [(128, 144), (48, 64, 60)], ids=["ring", "shell"])
def test_frc_falls_where_the_common_signal_ends(shape, rng):
    signal = band_limited(shape, 0.2, rng)
    first, second = (signal / signal.std() + rng.normal(0, 0.5, shape) for _ in range(2))
    found = frc(first, second)
    assert found.resolution() == pytest.approx(5.0, rel=0.15)
    assert min(found.correlation[2:][: int(0.15 * max(shape))]) > 0.8
    above = np.array(found.correlation)[np.array(found.frequencies) > 0.25]
    assert np.abs(above.mean()) < 0.1
    assert found.frequencies[-1] == pytest.approx(0.5, abs=0.01)


def test_frc_of_white_images_is_their_signal_to_noise_ratio(rng):
    signal = rng.normal(size=(256, 256))
    first, second = (signal + rng.normal(0, 2, signal.shape) for _ in range(2))
    assert np.mean(frc(first, second).correlation[3:]) == pytest.approx(1 / (1 + 4), abs=0.02)
    assert np.mean(frc(first, rng.normal(size=signal.shape)).correlation[3:]) == pytest.approx(0, abs=0.02)
    assert frc(first, first).correlation[5] == pytest.approx(1)
    assert frc(first, -first).correlation[5] == pytest.approx(-1)


def test_frc_uses_pixel_sizes_and_averages_over_other_axes(rng):
    signal = band_limited((96, 96), 0.125, rng)
    signal /= signal.std()
    first, second = (np.stack([signal + rng.normal(0, 0.7, signal.shape) for _ in range(3)], -1) for _ in range(2))
    volumes = [Volume(image, "YXT", (0.1, 0.1, 1.0), ("micrometer",) * 2 + ("second",)) for image in (first, second)]
    found = frc(*volumes)
    assert found.resolution() == pytest.approx(0.8, rel=0.15)
    assert frc(first[..., 0], second[..., 0], scale=(2.0, 2.0)).resolution() == pytest.approx(16, rel=0.15)
    thin = [Volume(np.moveaxis(image, 2, 0), "ZYX") for image in (first, second)]
    assert frc(*thin).frequencies == frc(first[..., 0], second[..., 0]).frequencies  # planes, not a stack of three


def test_frc_of_flipped_images_is_the_same(rng):
    images = rng.normal(size=(2, 32, 40))
    here, flipped = ([Volume(image, "YX", scale) for image in images] for scale in ((0.2, 0.1), (-0.2, -0.1)))
    assert frc(*flipped) == frc(*here)


def test_frc_sees_coarse_axes_at_their_own_frequencies(rng):
    """Of a stack, shells hold the same period along every axis."""
    signal = band_limited((256, 64), 0.5, rng)
    signal = np.real(np.fft.ifft2(np.fft.fft2(signal) * (np.abs(np.fft.fftfreq(256))[:, None] < 0.1)))
    first, second = (signal / signal.std() + rng.normal(0, 0.3, signal.shape) for _ in range(2))
    # Along Y, periods of 10 pixels of size 1; along X, every period that pixels of size 4 can have (8 or more).
    found = frc(first, second, scale=(1.0, 4.0))
    assert found.resolution() == pytest.approx(8, rel=0.25)


def test_resolution_is_interpolated():
    curve = RingCorrelation((0.0, 0.1, 0.2, 0.3), (1.0, 0.9, FRC_THRESHOLD + 0.1, FRC_THRESHOLD - 0.1))
    assert curve.resolution() == pytest.approx(1 / 0.25)
    assert curve.resolution(threshold=0.01) == pytest.approx(1 / 0.3)  # the finest there is
    assert RingCorrelation((0.0, 0.1, 0.2), (1.0, 0.0, 0.0)).resolution() is None


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (np.eye(16), np.eye(17), "differ in shape"),
        (np.eye(16), np.full((16, 16), np.nan), "NaN"),
        (np.eye(7), np.eye(7), "8 pixels or more"),
        (np.zeros(20), np.zeros(20), "2 or 3 dimensions"),
        (np.zeros((2, 9, 9, 9)), np.zeros((2, 9, 9, 9)), "2 or 3 dimensions"),
    ],
)
def test_frc_refuses_what_has_no_rings(first, second, words):
    with pytest.raises(ValueError, match=words):
        frc(first, second)


def test_frc_of_constant_images_is_zero():
    assert set(frc(np.ones((16, 16)), np.eye(16)).correlation) == {0.0}
