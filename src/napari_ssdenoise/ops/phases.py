"""Phases of complex images, as arrays (2, *spatial) of real and imaginary part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH: Final = 2.0  # pixels: standard deviation of the neighbourhood that tells how phases differ


def matched(image: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the phases of another image onto those of the first, as far as they differ smoothly.

    Between repeats of a scan, motion and drift change the phase from place to place, and the mean of the complex images
    is less than each of them. By how much phases differ is taken from the neighbours of a pixel, without the pixel
    itself: else its noise would be turned towards that of the first image, and no longer be independent of it.

    Parameters
    ----------
    image, other : (2, *spatial)

    Returns
    -------
    ndarray, (2, *spatial)
        The magnitudes of ``other``.
    """
    a, b = torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(other))
    difference = torch.stack([a[0] * b[0] + a[1] * b[1], a[1] * b[0] - a[0] * b[1]])
    axes = image.ndim - 1
    around = _neighbours(axes)
    convolve: Any = torch.nn.functional.conv2d if axes == 2 else torch.nn.functional.conv3d
    mean = convolve(difference[:, None], around[None, None], padding="same")[:, 0]
    size = mean.square().sum(0).sqrt()
    # Nothing is around: no turn.
    c = torch.where(size > 0, mean[0] / size, 1.0)
    s = torch.where(size > 0, mean[1] / size, 0.0)
    return torch.stack([c * b[0] - s * b[1], s * b[0] + c * b[1]]).numpy()


def _neighbours(axes: int) -> torch.Tensor:
    """Return Gaussian weights whose middle is 0."""
    reach = round(3 * WIDTH)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    line = torch.exp(-0.5 * (places / WIDTH).square())
    weights = line
    for _ in range(axes - 1):
        weights = weights[..., None] * line
    weights[(reach,) * axes] = 0
    return weights / weights.sum()
