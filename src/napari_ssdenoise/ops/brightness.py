"""Bring one view of a scene to the brightness of another: lamps and lasers drift, dyes bleach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL: Final = 16  # pixels: averages over so many along Y and X have little noise
ALIKE: Final = 0.9  # correlation of these averages from which views count as the same but for their brightness


@dataclass(frozen=True)
class Brightness:
    """A straight line between the intensities of two views, for each channel.

    Attributes
    ----------
    factor, offset : (channels,)
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def between(cls, first: NDArray[Any], other: NDArray[Any]) -> Brightness:
        """Find the line by which another view comes to the brightness of the first.

        Both are noisy, so that neither is fitted to the other: means and deviations of averages are made equal.

        Parameters
        ----------
        first, other : (channels, *spatial)

        Returns
        -------
        Brightness
            That changes nothing where the views do not tell: without structure, or with another one.
        """
        a, b = _averages(first), _averages(other)
        deviations, others = a.std(1), b.std(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = ((a - a.mean(1, keepdims=True)) * (b - b.mean(1, keepdims=True))).mean(1) / (deviations * others)
            factor = np.where(alike >= ALIKE, deviations / others, 1.0)  # NaN is not alike
        return cls(factor, np.where(alike >= ALIKE, a.mean(1) - factor * b.mean(1), 0.0))

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Bring the other view, (channels, *spatial), to the brightness of the first."""
        return np.asarray(_along(self.factor, image) * image + _along(self.offset, image), np.float32)

    def undo(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Bring the first view to the brightness of the other."""
        return np.asarray((image - _along(self.offset, image)) / _along(self.factor, image), np.float32)


def _along(values: NDArray[np.float64], image: NDArray[Any]) -> NDArray[np.float64]:
    """Shape one value for each channel to go with an image."""
    return values.reshape(-1, *(1,) * (image.ndim - 1)).astype(image.dtype)


def _averages(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of cells, (channels, n); of images smaller than two cells along an axis, of smaller cells."""
    y, x = (max(1, min(CELL, n // 2)) for n in image.shape[-2:])
    rows, columns = image.shape[-2] // y, image.shape[-1] // x
    cut = image[..., : rows * y, : columns * x].astype(np.float64)
    cells = cut.reshape(*cut.shape[:-2], rows, y, columns, x).mean((-3, -1))
    return np.asarray(cells.reshape(len(image), -1))
