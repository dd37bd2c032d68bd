"""Magnitudes of MRI: what noise adds to them on average, how to take that off, and how much noise there is.

The magnitude of a signal A with normal noise of deviation s in the real and the imaginary part of each of L coils, as
root of the sum of squares, has a noncentral chi distribution; for one coil it is called Rician (Gudbjartsson and Patz
1995; Constantinides et al. 1997). Its mean lies above A, the more so where A is small. A network that learns from
noisy magnitudes, by squared errors, finds that mean, so dark regions come out too bright. As the mean grows with A, it
can be turned back into A (Koay and Basser 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, lgamma
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.volume import Volume

MAX_COILS: Final = 256
_STEPS: Final = 2000


@dataclass(frozen=True)
class Magnitude:
    """The noise of magnitude images.

    Parameters
    ----------
    sigma
        Standard deviation of the real and of the imaginary part of each coil, in the image's units.
    coils
        Whose squares were summed; 1 for Rician noise. Other ways to combine coils, SENSE among them, give Rician noise.

    Raises
    ------
    ValueError
        If there is no such noise.
    """

    sigma: float
    coils: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.sigma < inf:
            raise ValueError(f"the noise of magnitudes must be a positive number, not sigma={self.sigma}.")
        if self.coils != int(self.coils) or not 1 <= self.coils <= MAX_COILS:
            raise ValueError(f"coils={self.coils} must be a whole number from 1 to {MAX_COILS}.")

    def mean(self, amplitude: Any) -> NDArray[Any]:
        """Return what magnitudes are on average.

        Parameters
        ----------
        amplitude : array, any shape
            Without noise, in the image's units.

        Returns
        -------
        ndarray
            In the image's units.
        """
        ratio = np.asarray(amplitude, np.float64) / self.sigma
        squares, means = _table(self.coils)
        far = np.sqrt(np.square(ratio) + 2 * self.coils - 1)
        near = np.interp(np.square(ratio), squares, means)
        return np.asarray(self.sigma * np.where(np.square(ratio) < squares[-1], near, far))

    def amplitude(self, mean: Any) -> NDArray[np.float32]:
        """Return the signal whose magnitudes are so on average; 0 for what is below the noise floor.

        Parameters
        ----------
        mean : array, any shape
            Denoised magnitudes, in the image's units.

        Returns
        -------
        ndarray, float32
            In the image's units.
        """
        ratio = np.asarray(mean, np.float64) / self.sigma
        squares, means = _table(self.coils)
        far = np.square(ratio) - (2 * self.coils - 1)
        square = np.where(ratio < means[-1], np.interp(ratio, means, squares), far)
        return np.asarray(self.sigma * np.sqrt(square), np.float32)


@lru_cache(maxsize=8)
def _table(coils: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return squared amplitudes and mean magnitudes, for noise of deviation 1, up to where a root tells the mean.

    A noncentral chi square is a mixture of central ones, of 2 (L + k) degrees of freedom, with Poisson weights of mean
    A²/2. The mean over A² is almost straight, also at 0, so a table over A² may be coarse.
    """
    squares = np.linspace(0, (8 + 4 * coils**0.5) ** 2, _STEPS)
    half = squares / 2
    k = np.arange(int(half[-1] + 12 * half[-1] ** 0.5 + 20))
    factorials = np.array([lgamma(i + 1.0) for i in k])
    chi = 2**0.5 * np.exp([lgamma(coils + i + 0.5) - lgamma(coils + i) for i in k.tolist()])
    with np.errstate(divide="ignore"):
        logarithm = np.log(half)
    means = np.empty_like(squares)
    for row, (value, log) in enumerate(zip(half, logarithm, strict=True)):
        weights = np.exp(k * log - value - factorials) if value else (k == 0).astype(float)
        means[row] = weights @ chi
    return squares, means


def estimate_magnitude_noise(volume: Any, *, coils: int = 1, axes: str | None = None, seed: int = 0) -> Magnitude:
    """Find the noise of a magnitude image in its background.

    Parameters
    ----------
    volume
        A volume, array or path.
    coils
        Whose squares were summed.
    axes
        One letter of ``TCZYXS`` for each dimension, for arrays and files that do not name them.
    seed
        Chooses the places that are looked at in large volumes.

    Raises
    ------
    ValueError
        If there is no background of noise alone: it was cut off, or the noise is another one.
    """
    from napari_ssdenoise.diagnosis._sampling import read_places
    from napari_ssdenoise.diagnosis._values import find_rician
    from napari_ssdenoise.volume import open_volume, require_intensities

    opened: Volume = open_volume(volume, axes=axes)
    require_intensities(opened)
    series = next((axis for axis in "ZT" if opened.sizes.get(axis, 1) > 1), "")
    places = read_places([opened], 0, series, np.random.default_rng(seed))
    sigma = find_rician([place[None] if place.ndim == 2 else place for place in places], coils)
    if not sigma:
        raise ValueError(
            f"{opened.name!r} shows no background with the noise of {coils} coil{'s' * (coils > 1)}: the scanner may "
            "have cut it off, or the coils were combined in another way. Measure the noise, and give sigma."
        )
    return Magnitude(sigma, coils)
