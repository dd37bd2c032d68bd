"""Measure how the variance of the noise grows with the intensity, in images full of structure.

The variance of a camera's noise is a line, ``slope * mean + intercept``. It is fitted to the power that blocks have in
their high cosine coefficients, over all blocks that show no structure there. What little structure is left in them is
subtracted by its own spectrum, seen in the blocks just rejected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise._pauses import pause
from napari_ssdenoise.diagnosis._blocks import FINE, FINEST, HIGH, LOW, ORDER, SIDE, Blocks

if TYPE_CHECKING:
    from napari_ssdenoise.diagnosis._blocks import Floats, Mask

# Bounds of the classes by how much more power than noise a block has in its low coefficients. The first bound is one
# standard deviation above noise alone.
_CLASSES: Final = (1 + sqrt(2 / int(LOW.sum())), 2.0, 4.0, 10.0, 30.0, 100.0)
# Shares of the blocks at which their intensities are divided, to judge dim and bright ones apart.
_SHARES: Final = (0.25, 0.5, 0.75, 0.9, 0.97)
# Orders of the low, fine and finest coefficients for blurred noise, which has hardly any power in the highest ones:
# rounding and the like fill them.
_CORRELATED: Final = ((1, 2, 3), (4, 5, 6), (7, 8))
# Classes with this much more power in the fine than in the finest coefficients still count as structureless.
_TOLERANCE: Final = 0.04
# With more fine power than this, relative to flatter blocks of the same intensity, they show hot pixels or tiny spots.
_SPOTS: Final = 1.5
_FEWEST: Final = 200
_ROUNDS: Final = 10
# Blocks overlap and their scatter is measured in few groups: intervals that hold the truth 95 times in 100 are this
# many jackknife deviations wide to each side.
CONFIDENCE: Final = 2.5
# Part of the spread of the blocks' means that noise may be, for these to be taken as free of errors.
_SURE: Final = 0.02
# Share of the growth that may be structure which was not told from noise: beside the scatter, part of the error.
_UNTOLD: Final = 0.015
# A slope counts if it is this many deviations above zero, and makes bright pixels noisier by this factor.
_SIGNIFICANT: Final = 3.0
_GROWTH: Final = 1.2


@dataclass(frozen=True, eq=False)
class Line:
    """Variance of the noise as a line over the intensity, and how well it is known.

    Attributes
    ----------
    slope, intercept
        Of the variance.
    covariance : (2, 2)
        Of slope and intercept.
    low, high
        Intensities between which the line was seen.
    structureless
        Share of the blocks that it was fitted to.
    blocks
        Their number.
    removed
        Share of their power that was taken for structure.
    """

    slope: float
    intercept: float
    covariance: Floats
    low: float
    high: float
    structureless: float
    blocks: int
    removed: float

    def at(self, mean: Floats) -> Floats:
        """Return the variance at intensities; where the line falls to zero or below, a small part of the usual one."""
        values = self.slope * mean + self.intercept
        least = 0.05 * max(self.variance_at(self.low), self.variance_at(self.high), 1e-30)
        return np.maximum(values, least)

    def variance_at(self, mean: float) -> float:
        """Return the variance at an intensity."""
        return self.slope * mean + self.intercept

    def deviation_at(self, mean: float) -> float:
        """Return the standard error of the variance at an intensity."""
        x = np.array([mean, 1.0])
        return float(sqrt(max(0.0, x @ self.covariance @ x)))

    @property
    def is_rising(self) -> bool:
        """Whether the noise certainly grows with the intensity."""
        error = sqrt(max(float(self.covariance[0, 0]), 0.0))
        dim, bright = self.variance_at(self.low), self.variance_at(self.high)
        return self.slope > _SIGNIFICANT * error and (dim <= 0 or bright > _GROWTH * dim)


@dataclass(frozen=True, eq=False)
class _Bands:
    """Mean power of blocks, (N,), in bands of coefficients."""

    low: Floats
    fine: Floats
    finest: Floats

    @property
    def high(self) -> Floats:
        return (self.fine * int(FINE.sum()) + self.finest * int(FINEST.sum())) / int(HIGH.sum())


def fit_line(blocks: Blocks, spectrum: Floats | None = None, *, dark: float | None = None) -> Line:
    """Fit the variance of the noise against the intensity.

    Parameters
    ----------
    blocks
        At least one.
    spectrum : (SIDE, SIDE)
        Power of the noise in each coefficient, relative to its variance; white by default.
    dark
        Intensity without light, if it is known: there, a variance cannot be below zero.

    Returns
    -------
    Line
        Constant where the variance does not certainly grow.
    """
    white = spectrum is None or float(spectrum[HIGH].mean()) > 0.5
    even = blocks if spectrum is None else replace(blocks, power=(blocks.power / spectrum).astype(np.float32))
    if white:
        bands = _Bands(*(even.band(mask) for mask in (LOW, FINE, FINEST)))
    else:
        bands = _Bands(*(even.band(np.isin(ORDER, orders)) for orders in _CORRELATED))
    slope, intercept = _first_guess(blocks.mean, bands)
    rising = _Fit(blocks, bands, rising=True, white=white, dark=dark).run(slope, intercept)
    if rising.is_rising:
        return rising
    middle = float(np.median(blocks.mean))
    return _Fit(blocks, bands, rising=False, white=white).run(0.0, slope * middle + intercept)


def _first_guess(mean: Floats, bands: _Bands) -> tuple[float, float]:
    """Fit a line to the flattest tenth of the blocks at every intensity."""
    count = int(np.clip(len(mean) // _FEWEST, 1, 12))
    bounds = np.quantile(mean, np.linspace(0, 1, count + 1))[1:-1]
    level = np.searchsorted(bounds, mean, side="right")
    points = []
    for number in range(count):
        here = np.flatnonzero(level == number)
        if len(here):
            kept = max(len(here) // 10, min(len(here), 20))
            flattest = here[np.argpartition(bands.low[here], kept - 1)[:kept]]
            points.append((mean[flattest].mean(), bands.high[flattest].mean()))
    means, powers = np.array(points).T
    weights = 1 / np.maximum(powers, max(0.1 * float(np.median(powers)), 1e-30)) ** 2
    slope, intercept = _weighted_line(means, powers, weights, means)
    if slope < 0 or len(points) < 2:
        return 0.0, float(np.average(powers, weights=weights))
    return slope, intercept


class _Fit:
    """Alternate between choosing structureless blocks and fitting the line to them."""

    def __init__(self, blocks: Blocks, bands: _Bands, *, rising: bool, white: bool, dark: float | None = None) -> None:
        self._mean, self._around, self._group, self._bands = blocks.mean, blocks.around, blocks.group, bands
        self._beside = (9 * blocks.around - blocks.mean) / 8
        self._rising, self._white, self._dark = rising, white, dark
        self._level = np.searchsorted(np.quantile(blocks.mean, _SHARES), blocks.mean, side="right")
        self._usual = float(np.median(bands.high))

    def run(self, slope: float, intercept: float) -> Line:
        for _ in range(_ROUNDS):
            expected = self._expected(slope, intercept)
            relative = _Bands(*(band / expected for band in (self._bands.low, self._bands.fine, self._bands.finest)))
            chosen, rejected = self._choose(relative)
            corrected = expected * _without_structure(relative, chosen, rejected)
            before = slope, intercept
            slope, intercept = self._line(corrected, expected, chosen)
            if np.allclose((slope, intercept), before, rtol=1e-4, atol=0):
                break
        share = 1 - float((corrected / expected)[chosen].mean() / relative.high[chosen].mean())
        low, high = np.quantile(self._mean[chosen], (0.05, 0.95)).tolist()
        untold = _UNTOLD * slope * np.array([1.0, -low])  # the more light, the more of it
        covariance = self._jackknife(corrected, expected, chosen) + np.outer(untold, untold)
        return Line(slope, intercept, covariance, low, high, float(chosen.mean()), int(chosen.sum()), max(0.0, share))

    def _expected(self, slope: float, intercept: float) -> Floats:
        # A block's own mean is low by chance where there is little noise by chance, if noise is skewed (few photons).
        # Weighted by it, such blocks would count for more. So average over more pixels where the image is even.
        deviation = np.sqrt(np.maximum(slope * self._around + intercept, 0)) / SIDE
        is_even = np.abs(self._around - self._mean) < 3 * deviation
        power = slope * np.where(is_even, self._around, self._mean) + intercept
        positive = power[power > 0]
        least = 0.05 * float(np.median(positive)) if 2 * len(positive) > len(power) else 0.1 * self._usual
        return np.maximum(power, max(least, 1e-30))

    def _choose(self, relative: _Bands) -> tuple[Mask, Mask]:
        """Choose the structureless blocks; of the others, those with the least structure show its spectrum."""
        kind = np.searchsorted(_CLASSES, relative.low)
        if (kind == 0).sum() < _FEWEST:
            flattest = np.argpartition(relative.low, min(_FEWEST, len(kind)) - 1)[:_FEWEST]
            kind[flattest] = 0
        chosen = kind == 0
        # Blocks with structure may do as well, if it has no fine detail: then all high coefficients have equal power.
        for level in range(len(_SHARES) + 1 if self._white else 0):
            usual = np.inf
            for degree in range(len(_CLASSES) + 1):
                cell = (self._level == level) & (kind == degree)
                count = int(cell.sum())
                if count < 20:
                    continue
                fine, finest = float(relative.fine[cell].mean()), float(relative.finest[cell].mean())
                # Neighbouring blocks overlap: about a third of them are independent.
                error = sqrt(3 / count * 2 * (1 / int(FINE.sum()) + 1 / int(FINEST.sum())))
                if degree and (fine - finest > (_TOLERANCE + error) * finest or finest > _SPOTS * usual):
                    break
                usual = min(usual, finest)
                chosen |= cell
        return chosen, ~chosen & (kind <= 3)

    def _line(self, power: Floats, expected: Floats, chosen: Mask) -> tuple[float, float]:
        pause()
        weights = 1 / expected[chosen] ** 2
        if self._rising:
            mean, beside, seen = self._mean[chosen], self._beside[chosen], power[chosen]
            spread = np.average((mean - np.average(mean, weights=weights)) ** 2, weights=weights)
            if np.average(expected[chosen], weights=weights) < _SURE * SIDE**2 * spread:
                beside = mean
            slope, intercept = _weighted_line(mean, seen, weights, beside)
            if self._dark is not None and slope * self._dark + intercept < 0:
                weights *= beside - self._dark
                slope = float((weights * seen).sum() / (weights * (mean - self._dark)).sum())
                intercept = -slope * self._dark
            return slope, intercept
        return 0.0, float(np.average(power[chosen], weights=weights))

    def _jackknife(self, power: Floats, expected: Floats, chosen: Mask) -> Floats:
        """Return the covariance of slope and intercept from leaving out one group of neighbours after the other."""
        numbers = np.unique(self._group[chosen])
        if len(numbers) < 3:
            return np.full((2, 2), np.inf)
        lines = np.array([self._line(power, expected, chosen & (self._group != n)) for n in numbers])
        away = lines - lines.mean(0)
        return np.asarray((len(numbers) - 1) / len(numbers) * away.T @ away)


def _without_structure(relative: _Bands, chosen: Mask, rejected: Mask) -> Floats:
    """Return every block's high power, relative to the expected, with the structure taken out that is left on average.

    Structure has a fixed ratio of finest to fine power, seen where there is more of it, and noise has the same in both.
    The correction counts as far as it exceeds its own error.
    """
    ratio = 0.0
    if rejected.sum() > 50:
        fine = relative.fine[rejected].mean() - relative.fine[chosen].mean()
        finest = relative.finest[rejected].mean() - relative.finest[chosen].mean()
        ratio = max(0.0, float(finest / fine)) if fine > 0 else 0.0
    trust = float(np.clip((0.85 - ratio) / 0.2, 0, 1))  # towards 1, structure cannot be told from noise
    ratio = min(ratio, 0.7)
    corrected = (relative.finest - ratio * relative.fine) / (1 - ratio)
    removed = float(relative.high[chosen].mean() - corrected[chosen].mean())
    count = float(chosen.sum()) / 3
    error = sqrt(2 / count * (1 / int(FINEST.sum()) + ratio**2 / int(FINE.sum()))) / (1 - ratio)
    weight = 0.0
    if removed > 0:
        most = 0.8 * float(relative.high[chosen].mean()) / removed
        weight = min(trust * removed**2 / (removed**2 + error**2), most)
    return (1 - weight) * relative.high + weight * corrected


def _weighted_line(x: Floats, y: Floats, weights: Floats, beside: Floats) -> tuple[float, float]:
    """Return slope and intercept of the weighted least-squares line.

    With few photons, ``x`` has errors, which flatten the line, and which skewed noise shares with ``y``. Values
    ``beside`` that go along with ``x`` but not with its errors (an instrumental variable) take both away; without
    errors, they are ``x`` itself.
    """
    middle, height = float(np.average(x, weights=weights)), float(np.average(y, weights=weights))
    away = weights * (beside - np.average(beside, weights=weights))
    spread = float((away * (x - middle)).sum())
    slope = float((away * (y - height)).sum()) / spread if spread > 0 else 0.0
    return slope, height - slope * middle
