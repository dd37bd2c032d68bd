"""Estimate the noise of one channel from a few places of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from napari_ssdenoise.diagnosis._blocks import SIDE, Blocks, Cut, cut_places, differences, single_planes
from napari_ssdenoise.diagnosis._correlation import Correlation, along_series, measure_correlation
from napari_ssdenoise.diagnosis._photon_transfer import CONFIDENCE, Line, fit_line
from napari_ssdenoise.diagnosis._series import STATIC, scene_change
from napari_ssdenoise.diagnosis._values import Clipping, Replaced, find_clipping, find_replaced, find_rician, find_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.diagnosis._blocks import Floats

Kind = Literal["gaussian", "poisson", "poisson-gaussian", "rician", "impulse"]

# Planes whose noise goes along by more than this are no independent views.
SHARED: Final = 0.05


class Estimate(float):
    """A number with the interval that holds the true one 95 times in 100; used like any number.

    Attributes
    ----------
    low, high
        Ends of the interval.
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float | None = None, high: float | None = None) -> Self:
        number = super().__new__(cls, value)
        number.low = float(value if low is None else min(low, value))
        number.high = float(value if high is None else max(high, value))
        return number

    def __getnewargs__(self) -> tuple[float, float, float]:  # type: ignore[override]
        return float(self), self.low, self.high

    def to_json(self) -> dict[str, float]:
        """Return value and interval."""
        return {"value": float(self), "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False)
class NoiseFit:
    """Noise of one channel, in the image's units: variance = gain * (intensity - offset) + read_noise².

    Attributes
    ----------
    kind
        The noise model that fits.
    gain
        Growth of the variance with the intensity; 0 if it does not certainly grow.
    offset
        Intensity without light. Images cannot tell it: unless given, the level of the darkest regions.
    read_noise
        Standard deviation of the noise at the offset; of Rician noise, that of its real and imaginary part.
    sigma
        Standard deviation of the noise, root mean square over the image.
    replaced
        Pixels with values of their own (impulse noise).
    clipping, step
        Where intensities end, and in which steps they are rounded (0: not).
    correlation
        Between neighbouring pixels.
    along
        Correlation of a pixel's noise in planes 1, 2 and 3 apart.
    change
        How much of the structure changes from plane to plane (0: nothing, 1: all), by distance of the planes; None
        where it cannot be told.
    structureless
        Share of the image without fine structure, which the estimate rests on.
    intensity
        Range of intensities that it was seen in.
    signal
        Variance of the image apart from its noise.
    """

    kind: Kind
    gain: Estimate
    offset: Estimate
    read_noise: Estimate
    sigma: Estimate
    replaced: Replaced
    clipping: Clipping
    step: float
    correlation: Correlation
    along: tuple[float, ...] = ()
    change: tuple[float | None, ...] = ()
    structureless: float = 1.0
    intensity: tuple[float, float] = (0.0, 0.0)
    signal: float = 0.0
    cuts: tuple[Cut, ...] = field(default=(), repr=False)
    line: Line | None = field(default=None, repr=False)

    @property
    def is_static(self) -> bool:
        """Whether neighbouring planes show the same scene with noise of their own."""
        return bool(self.change) and self.change[0] is not None and self.change[0] <= STATIC

    def variance(self, intensity: Any) -> Floats:
        """Return the variance of the noise at (mean) intensities; below the offset, that at the offset."""
        light = np.maximum(np.asarray(intensity, float) - float(self.offset), 0)
        return np.asarray(float(self.gain) * light + float(self.read_noise) ** 2)


def estimate_noise(places: Sequence[NDArray[Any]], *, offset: float | None = None) -> NoiseFit:
    """Estimate the noise of one channel from parts of it, whatever they show.

    Parameters
    ----------
    places : each (Y, X) or (planes, Y, X)
        Blocks of raw intensities, any dtype, 128 pixels or more a side for good estimates. Planes follow each other in
        time or depth; where they show the same scene, their differences are used.
    offset
        Intensity without light, if it is known.

    Returns
    -------
    NoiseFit

    Raises
    ------
    ValueError
        If there are NaN or infinite values, no place is at least 8 x 8 pixels, or all are constant.

    Notes
    -----
    A single image tells ``variance = gain * intensity + constant``, and not how the constant is made up of offset and
    read noise. Only the variance itself is certain.
    """
    planes = [place[None] if place.ndim == 2 else place for place in map(np.asarray, places)]
    _check(planes)
    clipping = find_clipping(planes)
    cuts = cut_places(planes, clipping.levels)
    blocks = single_planes(cuts)
    if not len(blocks):
        raise ValueError("the image has the same value everywhere: it shows no noise to measure.")
    blocks = blocks.without_clipping()
    line, correlation = _measure(blocks, offset)
    along = along_series(cuts, line)
    change = tuple(scene_change(cuts, line, correlation.spectrum, lag=lag) for lag in range(1, len(along) + 1))
    if change and change[0] is not None and change[0] <= STATIC and _differ(along):
        pairs = differences(cuts).without_clipping()
        if len(pairs) >= 50:
            blocks = pairs
            line, correlation = _measure(blocks, offset, static=True)
    mean_variance = float(line.at(blocks.mean).mean())
    values = np.concatenate([place.ravel() for place in planes]).astype(np.float64)
    return NoiseFit(
        **_interpret(planes, blocks, line, offset),
        sigma=_root(mean_variance, line.deviation_at(float(blocks.mean.mean()))),
        clipping=clipping,
        step=find_step(planes),
        correlation=correlation,
        along=along,
        change=change,
        structureless=line.structureless,
        intensity=(line.low, line.high),
        signal=max(0.0, float(values.var()) - mean_variance),
        cuts=tuple(cuts),
        line=line,
    )


def _check(planes: Sequence[NDArray[Any]]) -> None:
    if not any(min(place.shape[1:]) >= SIDE for place in planes):
        sizes = ", ".join(str(place.shape[1:]) for place in planes[:3])
        raise ValueError(f"planes of {sizes} pixels are too small to measure noise: give at least {SIDE} x {SIDE}.")
    if any(place.dtype.kind == "f" and not np.isfinite(place).all() for place in planes):
        raise ValueError("the image has NaN or infinite values. Replace them first, e.g. by the median around them.")


def _differ(along: tuple[float, ...]) -> bool:
    """Whether planes have noise of their own: what all of them share in equal measure is fine structure."""
    return along[0] - along[-1] < SHARED if len(along) > 1 else along[0] < 0.35


def _measure(blocks: Blocks, offset: float | None, *, static: bool = False) -> tuple[Line, Correlation]:
    """Fit the line for white noise, look whether the noise is white, and fit again if not."""
    line = fit_line(blocks, dark=offset)
    if float(line.at(blocks.mean).mean()) < 1e-10 * float(blocks.mean.var()):
        return line, Correlation((), (), 0.0, correlated=False, certain=True)  # computed: rounding errors only
    correlation = measure_correlation(blocks, line, static=static)
    if correlation.spectrum is not None:
        line = fit_line(blocks, correlation.spectrum, dark=offset)
    return line, correlation


def _interpret(planes: Sequence[NDArray[Any]], blocks: Blocks, line: Line, offset: float | None) -> dict[str, Any]:
    """Name the kind of noise, and turn the line into gain, offset and read noise."""
    replaced, component = find_replaced(planes), find_rician(planes)
    level = _given(offset) if offset is not None else _darkest(blocks, line)
    kind: Kind = "gaussian"
    # Of even noise, all is read noise.
    gain, read_noise = Estimate(0.0), _root(line.variance_at(level), line.deviation_at(level))
    if line.is_rising:
        kind, gain = "poisson-gaussian", _slope(line)
        if offset in (None, 0) and _counts_photons(line, level):
            kind, level, read_noise = "poisson", _given(0.0), Estimate(0.0, 0.0, read_noise.high)
    if replaced.share:
        kind = "impulse"
    elif component:
        kind, gain, level = "rician", Estimate(0.0), _given(0.0)
        read_noise = Estimate(component, 0.95 * component, 1.05 * component)
    return {"kind": kind, "gain": gain, "offset": level, "read_noise": read_noise, "replaced": replaced}


def _given(offset: float) -> Estimate:
    return Estimate(float(offset))


def _root(variance: float, error: float) -> Estimate:
    """Return a standard deviation and its interval."""
    spread = CONFIDENCE * error
    return Estimate(*(sqrt(max(v, 0.0)) for v in (variance, variance - spread, variance + spread)))


def _slope(line: Line) -> Estimate:
    spread = CONFIDENCE * sqrt(max(float(line.covariance[0, 0]), 0.0))
    return Estimate(line.slope, max(0.0, line.slope - spread), line.slope + spread)


def _darkest(blocks: Blocks, line: Line) -> Estimate:
    """Return the level of the darkest regions, which is the offset if no light falls there.

    The offset cannot be above it, and not be below the intensity at which the noise would vanish.
    """
    level = float(np.quantile(blocks.mean, 0.01))
    for _ in range(3):  # the lowest averages of blocks are low by chance: settle in the middle of the darkest group
        deviation = float(np.sqrt(line.at(np.array([level]))[0])) / SIDE
        level = float(np.median(blocks.mean[blocks.mean <= level + 2 * deviation]))
    vanishing = -line.intercept / line.slope if line.slope > 0 else float(blocks.mean.min())
    return Estimate(level, min(vanishing, level), level)


def _counts_photons(line: Line, darkest: float) -> bool:
    """Whether the noise vanishes at intensity zero, as where photons are counted without any electronics."""
    near_zero = abs(line.intercept) < CONFIDENCE * line.deviation_at(0.0)
    return near_zero and abs(line.intercept) < 0.1 * line.slope * max(line.high, 0.0) and darkest >= 0
