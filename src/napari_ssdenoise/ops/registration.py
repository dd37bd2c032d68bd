"""How far images of one scene are moved against each other; scikit-image finds it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST = 512  # pixels along each axis that are looked at, in the middle
_FINE = 10  # parts of a pixel
_ROUNDS = 3


@dataclass(frozen=True)
class Shift:
    """Where the second of two images shows what the first one shows.

    Attributes
    ----------
    pixels
        How much further along each axis.
    """

    pixels: tuple[float, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """The same in whole pixels: moving by parts of one would mix the noise of neighbours."""
        return tuple(round(p) for p in self.pixels)

    @property
    def length(self) -> float:
        """In pixels."""
        return float(np.linalg.norm(self.pixels))

    @property
    def rest(self) -> float:
        """What whole pixels leave of it."""
        return float(np.linalg.norm(np.subtract(self.pixels, self.whole)))


def middle(shape: Sequence[int], planes: int = MOST) -> tuple[slice, ...]:
    """Return the part of an image that is looked at; of stacks, at most so many planes."""
    most = [planes] * (len(shape) - 2) + [MOST, MOST]
    sizes = [min(n, m) for n, m in zip(shape, most, strict=True)]
    return tuple(slice((n - size) // 2, (n - size) // 2 + size) for n, size in zip(shape, sizes, strict=True))


def find_shift(first: NDArray[Any], second: NDArray[Any]) -> Shift:
    """Find how far a noisy image is moved against another one of its shape.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    """
    total = np.zeros(first.ndim)
    for _ in range(_ROUNDS):  # of a moved window's two parts, the first look sees too little
        whole = np.rint(total).astype(int)
        parts = [
            image[tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(sign * whole, image.shape, strict=True))]
            for image, sign in ((first, -1), (second, 1))
        ]
        if min(parts[0].shape) < min(first.shape) / 4:
            break
        total = whole + _seen_shift(*parts)
    return Shift(tuple(float(p) for p in total))


def _seen_shift(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    import skimage.registration

    windows = np.ix_(*(np.hanning(n + 2)[1:-1] for n in first.shape))
    pair = []
    for image in (first, second):
        image = np.asarray(image, np.float64) - np.mean(image)
        for window in windows:
            image = image * window
        pair.append(image)
    registration: Any = skimage.registration
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants to tell an error, too, which empty images do not have
        # Plain cross-correlation: the phase of a noisy image is mostly noise.
        found = registration.phase_cross_correlation(*pair, upsample_factor=_FINE, normalization=None)[0]
    return -np.asarray(found, np.float64)
