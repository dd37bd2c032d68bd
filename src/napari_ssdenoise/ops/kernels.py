"""Blur kernels: Gaussians of any shape, measured point-spread functions, and where their centre lies.

A low-resolution pixel is a weighted sum of high-resolution ones. On the *registered* grid it lies in the middle of the
``factor`` pixels that it stands for, which is between two pixels where the factor is even: the kernel must then have an
even number of taps. On the *top-left* grid, which benchmarks of super-resolution use, it lies on the first of them, and
the number of taps is odd.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, sin
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Grid = Literal["registered", "topleft"]
SUPPORT = 3.5  # standard deviations of a Gaussian that its taps reach to
SMALLEST = 1e-3  # variance, in pixels squared; narrower Gaussians are one tap


def parity(factor: int, grid: Grid) -> int:
    """Return 0 where a kernel for this factor has an even number of taps, 1 where it is odd."""
    return factor % 2 if grid == "registered" else 1


def gaussian(
    covariance: ArrayLike, factors: Sequence[int], grid: Grid = "registered", size: int | None = None
) -> NDArray[np.float64]:
    """Return a Gaussian kernel.

    Parameters
    ----------
    covariance : (d, d), or (d,) for its diagonal
        In high-resolution pixels squared, per spatial axis.
    factors
        By which the image is to be shrunk, per axis: see the module.
    size
        Taps per axis, about; enough for the covariance by default.

    Returns
    -------
    ndarray, float64
        Of sum 1; proportional to exp(-x' C^-1 x / 2) at the taps (Soh et al. 2020, section 3.1).
    """
    matrix = np.asarray(covariance, float)
    matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
    lengths = []
    for d, factor in enumerate(factors):
        odd = parity(factor, grid)
        taps = size or 2 * ceil(SUPPORT * max(matrix[d, d], 0) ** 0.5) + 1
        taps += (taps - odd) % 2
        lengths.append(1 if factor == 1 and matrix[d, d] < SMALLEST else max(taps, 2 - odd))
    places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in lengths), indexing="ij"), -1)
    inverse = np.linalg.inv(matrix + SMALLEST * np.eye(len(lengths)) * (np.diag(matrix) < SMALLEST))
    weights = np.exp(-0.5 * np.einsum("...i,ij,...j->...", places, inverse, places))
    return np.asarray(weights / weights.sum())


def rotated(variances: Sequence[float], angle: float) -> NDArray[np.float64]:
    """Return the covariance matrix (2, 2) with these eigenvalues, turned by ``angle`` (radians)."""
    turn = np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
    return np.asarray(turn @ np.diag(variances) @ turn.T)


def centred(psf: ArrayLike, factors: Sequence[int], grid: Grid = "registered") -> NDArray[np.float64]:
    """Prepare a measured point-spread function: of sum 1, its centre of mass in the middle of the taps.

    A kernel that is off its middle would shift the image. It is moved by less than a pixel by a phase ramp in the
    Fourier domain, which is exact for functions that are sampled finely enough.

    Parameters
    ----------
    psf : (*spatial)
        In high-resolution pixels.

    Raises
    ------
    ValueError
        If it is empty, not finite, not positive in sum, or has other axes than ``factors``.
    """
    raw = np.asarray(psf, float)
    if raw.ndim != len(factors):
        raise ValueError(
            f"the kernel has {raw.ndim} axes {raw.shape}, but the image is enlarged along {len(factors)} spatial axes. "
            "Give one with the same axes, e.g. a 3D point-spread function for a 3D stack."
        )
    if not raw.size or not np.isfinite(raw).all() or raw.sum() <= 0:
        raise ValueError("the kernel must be a picture of a bright spot: finite values, with a sum above zero.")
    raw = raw / raw.sum()
    odd = [parity(factor, grid) for factor in factors]
    lengths = [n + (n - p) % 2 for n, p in zip(raw.shape, odd, strict=True)]
    wide = np.pad(raw, [(0, m - n) for m, n in zip(lengths, raw.shape, strict=True)])
    for _ in range(20):  # what wraps around, or is clipped, moves the centres a little
        for d, n in enumerate(wide.shape):
            away = (n - 1) / 2 - _centre(wide, d)
            if abs(away) > 1e-6:
                wide = _moved(wide, d, away)
    return np.asarray(wide / wide.sum())


def widths(kernel: NDArray[Any]) -> list[float]:
    """Return a kernel's standard deviation along each axis; 0 where negative weights leave none."""
    share = kernel / kernel.sum()
    found = []
    for place in np.indices(kernel.shape):
        middle = (share * place).sum()
        found.append(float(np.sqrt(max(0.0, (share * (place - middle) ** 2).sum()))))
    return found


def _centre(kernel: NDArray[np.float64], axis: int) -> float:
    profile = np.moveaxis(kernel, axis, -1).reshape(-1, kernel.shape[axis]).sum(0)
    return float((profile * np.arange(len(profile))).sum() / profile.sum())


def _moved(kernel: NDArray[np.float64], axis: int, by: float) -> NDArray[np.float64]:
    n = kernel.shape[axis]
    room = 2 * n  # of zeros, so that nothing comes in at the other side
    padded = np.pad(kernel, [(0, room) if d == axis else (0, 0) for d in range(kernel.ndim)])
    ramp = np.exp(-2j * np.pi * np.fft.rfftfreq(n + room) * by)
    shape = [-1 if d == axis else 1 for d in range(kernel.ndim)]
    moved = np.fft.irfft(np.fft.rfft(padded, axis=axis) * ramp.reshape(shape), n + room, axis)
    return np.clip(np.take(moved, range(n), axis), 0, None)


def cubic_taps(factor: int) -> NDArray[np.float64]:
    """Return the taps by which an antialiased bicubic reduction (as MATLAB's imresize) makes a pixel, registered."""
    places = np.arange(4 * factor + factor % 2) - (4 * factor + factor % 2 - 1) / 2
    taps = cubic(places / factor)
    return np.asarray(taps / taps.sum())


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' cubic convolution kernel (1981), with a = -1/2."""
    a = np.abs(x)
    near, far = 1.5 * a**3 - 2.5 * a**2 + 1, -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return np.where(a <= 1, near, np.where(a < 2, far, 0.0))


def convolved(kernel: NDArray[np.float64], taps: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return a kernel convolved, axis by axis, with further taps."""
    for d, line in enumerate(taps):
        rows = [np.convolve(row, line) for row in np.moveaxis(kernel, d, -1).reshape(-1, kernel.shape[d])]
        others = kernel.shape[:d] + kernel.shape[d + 1 :]
        kernel = np.moveaxis(np.reshape(rows, (*others, -1)), -1, d)
    return kernel


def random_covariance(
    rng: np.random.Generator, factors: Sequence[int], low: float = 0.1, high: float | None = None
) -> NDArray[np.float64]:
    """Draw a kernel's covariance as Soh et al. (2020, section 4.1) do, in the axes that are enlarged.

    The variances are uniform: the larger one in [``low``, 2.5 factor], the other one below it, the angle in [0, pi].
    Axes that are not enlarged stay sharp.
    """
    d = len(factors)
    active = [axis for axis, factor in enumerate(factors) if factor > 1]
    largest = [rng.uniform(low, high or 2.5 * factors[axis]) for axis in active]
    variances = [largest[0], *(rng.uniform(low, largest[0]) for _ in largest[1:])]
    out = np.zeros((d, d))
    block = np.diag(variances)
    if len(active) == 2:
        block = rotated(variances, rng.uniform(0, np.pi))
    out[np.ix_(active, active)] = block
    return out
