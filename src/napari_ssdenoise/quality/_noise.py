"""Measure the noise to within about a percent, which an estimate of the remaining error needs.

Denoising leaves a tenth of the noise's variance or so. A variance that is wrong by one percent moves the estimate of
what is left by ten. So the line of `estimate_noise` is scaled by a second look at the flattest parts of the image, in
the finest detail alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.diagnosis import estimate_noise
from napari_ssdenoise.quality._smooth import blockwise, fine, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.diagnosis._photon_transfer import Line
    from napari_ssdenoise.quality._smooth import Floats

_SIDE: Final = 8
_FEWEST: Final = 12  # blocks
# Shares of the image, the flattest first, that the variance is measured in.
_SHARES: Final = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
# A wider share is trusted if it shows no more noise than the narrower ones, to this part of the standard error.
_TRUST: Final = 0.7
# Pixels of `fine` that count as one independent one: the sum of its squared autocorrelation.
_DEPENDENT: Final = 3.78
# What texture that looks like noise adds, as a part of the variance: found on photographs of known noise.
_TEXTURE: Final = 0.007
# Correlations along one axis between these are taken into account. They are looked for in the first share of the image,
# and checked in the second one.
_CORRELATION, _MOST_CORRELATION = 0.025, 0.15
_FLAT_SHARES: Final = (0.1, 0.3)
# Error of the first look where the image is all structure, and where it has none, as parts of the variance.
_STRUCTURE: Final = 0.12
_LEAST: Final = 0.003
_TOLD: Final = 0.002  # relative error of a variance that the user gave


@dataclass(frozen=True)
class NoiseLine:
    """The noise's variance as a line over the intensity, ``gain * intensity + floor``.

    Attributes
    ----------
    gain, floor
        In the image's units, and their square.
    error
        Standard error of the variance, relative to it.
    along_y, along_x
        Correlation with the next pixel along each axis.
    correlated
        Whether neighbouring pixels share so much noise that a single image does not tell how much there is.
    kind
        What `estimate_noise` calls it.
    saturated
        Share of the pixels at the upper end of the range.
    """

    gain: float
    floor: float
    error: float = 0.0
    along_y: float = 0.0
    along_x: float = 0.0
    correlated: bool = False
    kind: str = "gaussian"
    saturated: float = 0.0

    def variance(self, intensity: Floats) -> Floats:
        """Return the variance at an intensity; where the line falls to zero, a small part of its usual value."""
        line = self.gain * intensity + self.floor
        return np.maximum(line, max(0.05 * float(line.mean()), np.finfo(float).tiny))

    def draw(self, intensity: Floats, rng: np.random.Generator) -> Floats:
        """Draw noise like this, (..., Y, X)."""
        noise = rng.standard_normal(intensity.shape)
        for axis, correlation in ((-2, self.along_y), (-1, self.along_x)):
            # A moving average over two pixels has the correlation share / (1 + share²) at a distance of one.
            rho = float(np.clip(correlation, -0.49, 0.49))
            if rho and noise.shape[axis] > 1:
                share = (1 - np.sqrt(1 - 4 * rho**2)) / (2 * rho)
                noise = (noise + share * np.roll(noise, 1, axis)) / np.sqrt(1 + share**2)
        return np.asarray(noise * np.sqrt(self.variance(intensity)))


def measure_noise(places: Sequence[NDArray[np.float64]], *, frames: bool) -> NoiseLine | None:
    """Measure the noise of one channel.

    Parameters
    ----------
    places : each (P, Y, X)
        Planes; with ``frames``, those of one scene that follow each other: their differences hold less structure.

    Returns
    -------
    NoiseLine
        Or None if there is too little to look at.
    """
    try:
        fit = estimate_noise(places)
    except ValueError:
        return None
    line = fit.line
    if line is None:
        return None
    first = NoiseLine(line.slope, line.intercept)
    flat = _Flat.join([_Flat.of(place, first, frames=frames) for place in places])
    along_y, along_x = flat.one_way()
    scale, error = flat.scale()
    # Second differences along an axis see less of a noise that is correlated along it.
    scale /= (1 - 4 / 3 * along_y) * (1 - 4 / 3 * along_x)
    if along_y or along_x:
        error = float(np.hypot(error, _CORRELATION / 2))
    else:
        scale, error = _join(scale, error, line, float(np.mean([place.mean() for place in places])))
    return NoiseLine(
        scale * line.slope,
        scale * line.intercept,
        error,
        along_y,
        along_x,
        fit.correlation.correlated,
        fit.kind,
        fit.clipping.bright,
    )


def relative_strength(places: Sequence[NDArray[np.float64]], line: NoiseLine) -> float | None:
    """Return the variance of the noise in parts of what a line says; None if there is too little to look at.

    Parameters
    ----------
    places : each (P, Y, X)
    """
    flat = _Flat.join([_Flat.of(place, line, frames=False) for place in places])
    return flat.scale()[0] if len(flat.power) >= _FEWEST else None


def _join(scale: float, error: float, line: Line, mean: float) -> tuple[float, float]:
    """Join the second look with the first, which is the better one for images without structure."""
    variance = line.variance_at(mean)
    if variance <= 0:
        return scale, error
    first = float(np.hypot(line.deviation_at(mean) / variance, _STRUCTURE * (1 - line.structureless) + _LEAST))
    weight = error**2 / (error**2 + first**2)
    # Both look at the same pixels: their errors hardly cancel.
    return weight + (1 - weight) * scale, min(error, first)


def known_noise(algorithm: Any, chosen: Sequence[str]) -> NoiseLine | None:
    """Return the noise that a user has told an algorithm.

    Parameters
    ----------
    algorithm
        With settings.
    chosen
        Those that it chose by itself.
    """
    kind = getattr(algorithm, "noise", "")
    names = {
        "gaussian": ("sigma",),
        "poisson": ("gain", "offset"),
        "poisson-gaussian": ("gain", "offset", "read_noise"),
    }
    told = {name: getattr(algorithm, name) for name in names.get(kind, ()) if name not in chosen}
    if not told or len(told) < len(names[kind]) or None in told.values():
        return None
    if kind == "gaussian":
        return NoiseLine(0.0, told["sigma"] ** 2, _TOLD, kind=kind)
    gain = told["gain"]
    return NoiseLine(gain, told.get("read_noise", 0.0) ** 2 - gain * told["offset"], _TOLD, kind=kind)


@dataclass(frozen=True, eq=False)
class _Flat:
    """Blocks of the image, in the order of their roughness.

    Attributes
    ----------
    power, expected : (N,)
        Power of the finest detail, and the variance that is expected of the noise.
    squares, products : (2, N)
        Along Y and along X: of second differences across the axis, mean square and mean product of neighbours.
    """

    power: Floats
    expected: Floats
    squares: Floats
    products: Floats

    @classmethod
    def of(cls, place: Floats, first: NoiseLine, *, frames: bool) -> Floats:
        """Return all numbers of the blocks of a place, roughness first, (7, N)."""
        image, level = place, place
        if frames:
            image, level = (place[1:] - place[:-1]) / np.sqrt(2), (place[1:] + place[:-1]) / 2
        if min(image.shape[-2:]) < 2 * _SIDE:
            return np.zeros((7, 0))
        blurred = smooth(image, 1.5)
        # White noise in the coarse part is independent of that in the fine one: the order says nothing of the power.
        slopes = (blurred[..., 2:, 1:-1] - blurred[..., :-2, 1:-1]) ** 2
        slopes += (blurred[..., 1:-1, 2:] - blurred[..., 1:-1, :-2]) ** 2
        expected = blockwise(first.variance(smooth(level, 1.5))[..., 1:-1, 1:-1], _SIDE)
        roughness = smooth(blockwise(slopes, _SIDE) / expected, 0.8)
        across_x = image[..., 1:-1, 2:] - 2 * image[..., 1:-1, 1:-1] + image[..., 1:-1, :-2]
        across_y = image[..., 2:, 1:-1] - 2 * image[..., 1:-1, 1:-1] + image[..., :-2, 1:-1]
        found = [roughness, blockwise(fine(image) ** 2, _SIDE), expected]
        for across, axis in ((across_x, -2), (across_y, -1)):
            following = np.roll(across, -1, axis)
            found += [blockwise(part, _SIDE) / expected for part in (across**2, across * following)]
        used = found[1] > 0  # constant blocks come from stitching and cropping
        return np.stack([part[used] for part in found])

    @classmethod
    def join(cls, places: Sequence[Floats]) -> _Flat:
        roughness, power, expected, squares_y, products_y, squares_x, products_x = np.concatenate(places, 1)
        order = np.argsort(roughness)
        squares, products = np.stack([squares_y, squares_x]), np.stack([products_y, products_x])
        return cls(power[order], expected[order], squares[:, order], products[:, order])

    def one_way(self) -> tuple[float, float]:
        """Return the correlation with the next pixel along Y and X, as far as one of both has more than the other.

        A microscope that scans line by line does that to the pixels of a line. Texture does it to both axes.
        """
        few, more = (int(share * len(self.power)) for share in _FLAT_SHARES)
        if few < _FEWEST:
            return 0.0, 0.0
        found, wider = (self.products[:, :n].sum(1) / self.squares[:, :n].sum(1) for n in (few, more))
        error = float(np.sqrt(2 / (_SIDE**2 * few)))
        noise = found - max(0.0, float(found.min()))
        # What grows from the flattest parts to others is texture, and so is more than a detector does.
        texture = (wider - found > _CORRELATION) | (np.abs(noise) > _MOST_CORRELATION)
        along_y, along_x = np.where(texture | (np.abs(noise) < max(_CORRELATION, 3 * error)), 0.0, noise).tolist()
        return along_y, along_x

    def scale(self) -> tuple[float, float]:
        """Return the factor for the expected variance, and its relative error.

        Structure only adds to the fine power. So the widest share of the image is taken that does not show more of it
        than all narrower ones (Lepski's principle).
        """
        if len(self.power) < _FEWEST:
            return 1.0, 0.1
        powers, variances = np.cumsum(self.power), np.cumsum(self.expected)
        counts = [max(_FEWEST, int(share * len(self.power))) for share in _SHARES]
        scales = [float(powers[n - 1] / variances[n - 1]) for n in counts]
        errors = [float(np.sqrt(2 * _DEPENDENT / (_SIDE**2 * n))) for n in counts]
        best = 0
        for k in range(1, len(counts)):
            allowed = (scales[j] * (1 + _TRUST * np.sqrt(errors[j] ** 2 - errors[k] ** 2)) for j in range(k))
            if scales[k] <= min(allowed):
                best = k
        return scales[best], float(np.hypot(errors[best], _TEXTURE))
