"""Blur kernels: their sum, their width, and above all where their middle is."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_ssdenoise.ops.kernels import (
    centred,
    convolved,
    cubic,
    cubic_taps,
    gaussian,
    parity,
    random_covariance,
    rotated,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.ops.kernels import Grid

GRIDS: tuple[Grid, ...] = ("registered", "topleft")


def moments(kernel: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centre of mass, counted from the middle of the taps, and the covariance."""
    places = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in kernel.shape], indexing="ij"), -1)
    places, weights = places.reshape(-1, kernel.ndim), kernel.reshape(-1) / kernel.sum()
    mean = weights @ places
    return mean, np.einsum("n,ni,nj->ij", weights, places - mean, places - mean)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("covariance", "factors"),
    [
        ((2.0, 2.0), (2, 2)),
        ((0.7, 3.0), (3, 2)),
        (((2.0, 0.8), (0.8, 1.5)), (2, 3)),
        (rotated((4.0, 0.8), 0.6), (4, 4)),
        ((5.0, 0.0, 0.0), (4, 1, 1)),
        ((1.5, 1.0, 2.0), (2, 2, 2)),
    ],
    ids=str,
)
def test_gaussians_have_the_asked_covariance(covariance: Any, factors: tuple[int, ...], grid: Grid) -> None:
    kernel = gaussian(covariance, factors, grid)
    expected = np.asarray(covariance, float)
    expected = np.diag(expected) if expected.ndim == 1 else expected
    mean, found = moments(kernel)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())
    for n, factor, variance in zip(kernel.shape, factors, np.diag(expected), strict=True):
        assert n == 1 if not variance else n % 2 == (factor % 2 if grid == "registered" else 1)


@pytest.mark.parametrize(("factor", "grid"), list(product((1, 2, 3, 4), GRIDS)))
def test_the_number_of_taps_fits_the_grid(factor: int, grid: Grid) -> None:
    odd = 1 if grid == "topleft" or factor in (1, 3) else 0
    assert parity(factor, grid) == odd
    for size in (None, 5, 8, 21):
        n = gaussian((2.0,), (factor,), grid, size).shape[0]
        assert n % 2 == odd
        assert size is None or n in (size, size + 1)


def test_a_gaussian_without_width_keeps_one_pixel_or_the_two_beside_the_middle() -> None:
    assert gaussian((0.0, 0.0), (1, 1)).tolist() == [[1.0]]
    np.testing.assert_allclose(gaussian((0.0,), (2,)), [0.5, 0.5])
    assert gaussian((0.0,), (2,), "topleft").argmax() == gaussian((0.0,), (2,), "topleft").shape[0] // 2
    np.testing.assert_allclose(gaussian((0.0,), (3,), size=3), [0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2, 2.0])
def test_a_turned_covariance_has_its_axis_where_it_is_turned_to(angle: float) -> None:
    matrix = rotated((4.0, 1.0), angle)
    axis = np.array([np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(matrix @ axis, 4 * axis, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), [1, 4])


def spot(shape: tuple[int, ...], centre: tuple[float, ...], tail: float = 0.0) -> NDArray[np.float64]:
    """Return a Gaussian with, if asked, a comet's tail on one side."""
    places = np.meshgrid(*map(np.arange, shape), indexing="ij")
    out = np.exp(-sum((p - c) ** 2 for p, c in zip(places, centre, strict=True)) / (2 * 1.3**2))
    return np.asarray(out + tail * np.exp(-sum((p - c - 2.5) ** 2 for p, c in zip(places, centre, strict=True)) / 2))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("tail", [0.0, 0.4])
@pytest.mark.parametrize(
    ("shape", "centre", "factors"),
    [
        ((21, 21), (9.3, 11.8), (2, 2)),
        ((20, 23), (6.2, 14.0), (3, 3)),
        ((17, 21), (8.0, 10.0), (2, 1)),
        ((15, 17, 16), (6.6, 9.1, 7.5), (4, 1, 2)),
    ],
    ids=str,
)
def test_measured_spots_are_brought_to_the_middle(
    shape: tuple[int, ...], centre: tuple[float, ...], factors: tuple[int, ...], tail: float, grid: Grid
) -> None:
    psf = 300 * spot(shape, centre, tail)
    before = psf.copy()
    kernel = centred(psf, factors, grid)
    mean, covariance = moments(kernel)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.min() >= 0
    np.testing.assert_allclose(mean, 0, atol=1e-3)
    np.testing.assert_allclose(covariance, moments(psf)[1], rtol=0.02, atol=0.02)  # moved, not blurred
    assert [n % 2 for n in kernel.shape] == [parity(f, grid) for f in factors]
    assert all(m - n in (0, 1) for m, n in zip(kernel.shape, shape, strict=True))
    np.testing.assert_array_equal(psf, before)


def test_coarsely_sampled_spots_are_brought_to_the_middle_too() -> None:
    sharp = np.zeros((7, 7))
    sharp[1:3, 2] = 1, 0.5
    for factors in ((2, 2), (3, 3), (2, 3)):
        np.testing.assert_allclose(moments(centred(sharp, factors))[0], 0, atol=1e-3)
    random = np.random.default_rng(0).uniform(0, 1, (9, 9))
    np.testing.assert_allclose(moments(centred(random, (2, 2)))[0], 0, atol=1e-3)


def test_a_spot_in_the_middle_is_left_alone() -> None:
    psf = spot((11, 11), (5.0, 5.0))
    np.testing.assert_allclose(centred(psf, (3, 3)), psf / psf.sum(), atol=1e-9)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (np.ones((3, 5, 5)), r"has 3 axes \(3, 5, 5\), but the image is enlarged along 2"),
        (np.full((5, 5), np.nan), "finite"),
        (np.zeros((5, 5)), "sum above zero"),
        (-np.ones((5, 5)), "sum above zero"),
        (np.ones((0, 5)), "bright spot"),
    ],
    ids=["3D", "NaN", "zero", "negative", "empty"],
)
def test_what_is_no_spot_is_refused(psf: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        centred(psf, (2, 2))


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_cubic_taps(factor: int) -> None:
    taps = cubic_taps(factor)
    assert taps.sum() == pytest.approx(1)
    assert len(taps) % 2 == parity(factor, "registered")
    np.testing.assert_allclose(taps, taps[::-1])
    assert taps.min() < 0 < taps.max()


def test_cubic_convolution_interpolates() -> None:
    np.testing.assert_allclose(cubic(np.arange(-3.0, 4.0)), [0, 0, 0, 1, 0, 0, 0], atol=1e-12)
    shifts = np.linspace(0, 1, 7)
    np.testing.assert_allclose(sum(cubic(shifts - k) for k in range(-2, 4)), 1)


def test_convolving_adds_covariances() -> None:
    taps = [gaussian((v,), (1,)) for v in (2.0, 0.5)]
    mean, covariance = moments(convolved(gaussian(((2.0, 0.8), (0.8, 1.5)), (2, 2)), taps))
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, [[4, 0.8], [0.8, 2]], atol=0.05)


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 1, 1), (2, 2, 2), (1, 2, 2)], ids=str)
def test_random_covariances_are_within_bounds(factors: tuple[int, ...], rng: np.random.Generator) -> None:
    active = [d for d, f in enumerate(factors) if f > 1]
    idle = [d for d, f in enumerate(factors) if f == 1]
    largest = []
    for _ in range(200):
        matrix = random_covariance(rng, factors)
        np.testing.assert_allclose(matrix, matrix.T)
        assert not matrix[idle].any()
        values = np.linalg.eigvalsh(matrix[np.ix_(active, active)])
        assert 0.1 - 1e-9 <= values[0] <= values[-1] <= 2.5 * max(factors) + 1e-9
        largest.append(values[-1])
    assert max(largest) > 2 * max(factors)  # all of the range is drawn from
    assert min(largest) < max(factors)


def test_random_covariances_between_given_bounds(rng: np.random.Generator) -> None:
    found = [np.linalg.eigvalsh(random_covariance(rng, (2, 2), 0.5, 0.9)) for _ in range(50)]
    assert 0.5 - 1e-9 <= np.min(found) < np.max(found) <= 0.9 + 1e-9
