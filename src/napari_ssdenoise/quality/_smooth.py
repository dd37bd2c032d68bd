"""Small filters of image planes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def smooth(image: Floats, sigma: float) -> Floats:
    """Blur the last two axes by a Gaussian, mirrored at the borders."""
    radius = int(3 * sigma + 0.5)
    position = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (position / sigma) ** 2)
    for axis in (-2, -1):
        image = _convolve(image, kernel / kernel.sum(), axis)
    return image


def _convolve(image: Floats, kernel: Floats, axis: int) -> Floats:
    radius, length = len(kernel) // 2, image.shape[axis]
    position = np.abs(np.arange(-radius, length + radius))
    last = max(1, length - 1)
    mirrored = last - np.abs(last - position % (2 * last))
    padded = np.moveaxis(np.take(image, np.minimum(mirrored, length - 1), axis), axis, -1)
    total = np.add.reduce([weight * padded[..., i : i + length] for i, weight in enumerate(kernel)])
    return np.asarray(np.moveaxis(total, -1, axis))


def fine(image: Floats) -> Floats:
    """Take second differences along Y and X, scaled to keep the variance of white noise; two pixels shorter each."""
    along_y = image[..., 2:, :] - 2 * image[..., 1:-1, :] + image[..., :-2, :]
    return np.asarray((along_y[..., 2:] - 2 * along_y[..., 1:-1] + along_y[..., :-2]) / 6)


def blockwise(image: Floats, side: int) -> Floats:
    """Average the last two axes over blocks; what does not fill one is left out."""
    rows, columns = (n // side for n in image.shape[-2:])
    whole = image[..., : rows * side, : columns * side]
    return np.asarray(whole.reshape(*image.shape[:-2], rows, side, columns, side).mean((-3, -1)))
