"""Measure how the noise of one pixel goes along with that of its neighbours, in images full of structure.

Correlated noise has unequal power in the cosine coefficients, and so has structure. Three things part them. In the
flattest blocks there is least structure. A correlation along one axis shows in the coefficients that are high along the
other axis, where structure hardly ever is. And structure, unlike noise, grows from the flattest blocks to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise.diagnosis._blocks import GROUPS, HIGH, ORDER, SIDE, Blocks, cosines

if TYPE_CHECKING:
    from napari_ssdenoise.diagnosis._blocks import Cut, Floats
    from napari_ssdenoise.diagnosis._photon_transfer import Line

# Correlations of neighbours below this harm no algorithm that is told to expect none.
LEAST: Final = 0.12
LAGS: Final = 3
# Neighbours with at least this correlation are hidden along with a pixel.
HIDDEN: Final = 0.08
# A correlation below `LEAST` is allowed for up to this: it may be texture after all.
_SLIGHT: Final = 0.06
_FLATTEST: Final = 0.03
_FLAT: Final = 0.3
_FEWEST: Final = 300
_ENOUGH: Final = 400  # blocks, to decide anything
# Power of the lowest coefficients, by that of the noise, up to which blocks always count as flat.
_FLAT_ENOUGH: Final = 5.0
_LOWEST: Final = (ORDER >= 1) & (ORDER <= 3)
# Power at the highest frequencies by power around the middle: 1 for white noise, below this if blurred both ways.
_SHARP: Final = 0.46
# How much more correlation wider choices of blocks may show, if it is the noise's.
_GROWTH: Final = 1.15
# Along a line only: the other axis has less than this share of the correlation.
_ONE_WAY: Final = 0.4


@dataclass(frozen=True)
class Correlation:
    """Autocorrelation of the noise between neighbouring pixels.

    Attributes
    ----------
    y, x
        At lags 1, 2 and 3 along each axis.
    error
        Standard error at lag 1.
    correlated
        Whether neighbours share noise.
    certain
        False if what looks like correlated noise may as well be fine texture.
    spectrum : (SIDE, SIDE)
        Power of the noise in the cosine coefficients, relative to its variance; None if white, as it is 1 then.
    """

    y: tuple[float, ...]
    x: tuple[float, ...]
    error: float
    correlated: bool
    certain: bool
    spectrum: Floats | None = None


def correlated_reach(correlation: Correlation) -> tuple[int, int]:
    """Return how many neighbours on either side, along Y and X, share a pixel's noise."""
    if not correlation.correlated:
        return 0, 0
    return lags_reach(correlation.y), lags_reach(correlation.x)


def lags_reach(lags: Sequence[float]) -> int:
    """Return the last lag with a correlation that matters; one more if that is the last that was measured."""
    reach = max((n for n, value in enumerate(lags, 1) if abs(value) >= HIDDEN), default=0)
    return reach + 1 if reach == LAGS else reach


def measure_correlation(blocks: Blocks, line: Line, *, static: bool = False) -> Correlation:
    """Measure the correlation of the noise between neighbours, and decide whether there is any.

    Parameters
    ----------
    blocks
        Of single images, or of differences between frames.
    line
        Fitted to them under the assumption of white noise.
    static
        The blocks are differences between equal scenes, so that no structure is left.
    """
    groups, wider_groups = (_flat_power(blocks, line, share) for share in (_FLATTEST, _FLAT))
    power, wider = _normalised(groups.sum(0)), _normalised(wider_groups.sum(0))
    across, wider_across = ([_along(p, axis) for axis in (0, 1)] for p in (power, wider))
    error = _error(groups)
    strongest = max(map(abs, across))
    present = strongest > max(LEAST, 3 * error)
    # In wider choices of blocks, structure adds to the correlation, and noise does not.
    ratio = max(wider_across) / max(*across, 0.01)
    alike = (static or ratio < _GROWTH) and ratio > 0.6
    sharpness = float(power[ORDER >= 12].mean() / power[(ORDER >= 7) & (ORDER <= 8)].mean())
    as_noise = _one_way(across) or min(across) < -LEAST or sharpness < _SHARP or line.structureless > 0.3 or static
    # Noise blurred far beyond the pixel leaves so little fine power that the lags come from rounding alone.
    enough = len(blocks) >= _ENOUGH
    if enough and alike and ((present and as_noise) or (sharpness < _SHARP / 2 and error < LEAST)):
        return _separable(power, error)
    lags = [tuple(_profile(power, axis)) for axis in (0, 1)]
    spectrum = None
    # A slight correlation along the scan harms nothing, but makes the high coefficients weaker than the variance.
    slight = alike and not present and (static or line.structureless > 0.1) and _one_way(wider_across)
    if slight and enough and max(wider_across) > max(0.03, 4 * _error(wider_groups)):
        spectrum = np.outer(*(_waves(1) @ (1, min(max(lag, 0.0), _SLIGHT)) for lag in wider_across))
    return Correlation(lags[0], lags[1], error, correlated=False, certain=enough and not present, spectrum=spectrum)


def _one_way(across: Sequence[float]) -> bool:
    """Whether one axis has nearly all of the correlation, as of noise along a scan, and hardly ever of structure."""
    return min(map(abs, across)) < _ONE_WAY * max(map(abs, across))


def along_series(cuts: Sequence[Cut], line: Line) -> tuple[float, ...]:
    """Return the correlation of a pixel's noise between planes 1, 2 and 3 apart, where there are that many."""
    found = []
    for lag in range(1, LAGS + 1):
        product, square = 0.0, 0.0
        for cut in cuts:
            if len(cut.mean) <= lag:
                continue
            low = np.square(cut.coefficients[..., _LOWEST]).mean(-1) / line.at(cut.mean)
            flat = low.mean(0) <= np.quantile(low.mean(0), 2 * _FLATTEST)
            high = cut.coefficients[:, flat][..., HIGH] / np.sqrt(line.at(cut.mean[:, flat]))[..., None]
            product += float((high[:-lag] * high[lag:]).mean())
            square += float((high[:-lag] ** 2 + high[lag:] ** 2).mean()) / 2
        if square > 0:
            found.append(product / square)
    return tuple(found)


def _flat_power(blocks: Blocks, line: Line, share: float) -> Floats:
    """Add up the power, relative to the line, of the flattest blocks of every intensity, (GROUPS, SIDE, SIDE).

    Intensities at which there are no flat blocks, as inside bright cells, are left out.
    """
    lowest = blocks.band(_LOWEST) / line.at(blocks.mean)
    level = np.searchsorted(np.quantile(blocks.mean, np.linspace(0, 1, 7)[1:-1]), blocks.mean, side="right")
    flattest = []
    for number in np.unique(level):
        here = np.flatnonzero(level == number)
        count = min(len(here), max(round(share * len(here)), _FEWEST // 6))
        flattest.append(here[np.argpartition(lowest[here], count - 1)[:count]])
    least = min(float(lowest[chosen].mean()) for chosen in flattest)
    total = np.zeros((GROUPS, SIDE, SIDE))
    for chosen in flattest:
        if lowest[chosen].mean() <= max(2 * least, _FLAT_ENOUGH):
            flat = blocks.take(chosen)
            np.add.at(total, flat.group, flat.power / line.at(flat.mean)[:, None, None])
    return total


def _normalised(power: Floats) -> Floats:
    return np.asarray(power / max(float(power[HIGH].mean()), 1e-30))


def _error(groups: Floats) -> float:
    """Return the jackknife error of the correlation at lag 1, of the worse axis."""
    present = [g for g in range(GROUPS) if groups[g].any()]
    if len(present) < 3:
        return np.inf
    total = groups.sum(0)
    found = np.array([[_along(total - groups[g], axis) for axis in (0, 1)] for g in present])
    return float(sqrt((len(present) - 1) * found.var(0).max()))


@cache
def _waves(lags: int) -> Floats:
    """Return the power in each frequency of noise with covariance 1 at one lag, 0 at others, (SIDE, lags + 1)."""
    distance = np.abs(np.subtract.outer(np.arange(SIDE), np.arange(SIDE)))
    return np.array([((cosines() @ (distance == lag)) * cosines()).sum(1) for lag in range(lags + 1)]).T


def _along(power: Floats, axis: int) -> float:
    """Return the correlation at lag 1 along Y (0) or X (1)."""
    return _profile(power, axis)[0]


def _profile(power: Floats, axis: int) -> list[float]:
    """Return the correlation at lags 1 and 2, from the coefficients that are highest along the other axis."""
    profile = (power if axis == 0 else power.T)[1:, -2:].mean(1)
    waves, weights = _waves(2)[1:], 1 / (profile + 0.2 * profile.mean() + 1e-30)
    covariance = np.linalg.lstsq(waves * weights[:, None], profile * weights, rcond=None)[0]
    return [float(c) for c in covariance[1:] / covariance[0]]


def _separable(power: Floats, error: float) -> Correlation:
    """Fit covariances that are a product of one function of the distance along Y and one along X.

    Only coefficients that structure does not reach are fitted. Those below are extrapolated.
    """
    waves, mask = _waves(LAGS), ORDER >= 4
    weights = mask / (power + 0.1 * power[mask].mean()) ** 2
    y = x = np.eye(LAGS + 1)[0]
    for _ in range(20):  # alternating least squares
        y = _one_axis(power, weights, waves, waves @ x)
        x = _one_axis(power.T, weights.T, waves, waves @ y)
        y, x = y * x[0], x / x[0]
    spectrum = np.maximum(np.outer(waves @ y, waves @ x), 0.02 * power.mean())
    lags = [tuple(np.clip(c[1:] / c[0], -1, 1).tolist()) for c in (y, x)]
    return Correlation(lags[0], lags[1], error, correlated=True, certain=True, spectrum=spectrum / float(y[0]))


def _one_axis(power: Floats, weights: Floats, waves: Floats, other: Floats) -> Floats:
    """Solve for one axis's covariances while those of the other are fixed."""
    design = (weights * other**2).sum(1)[:, None] * waves
    wanted = (weights * power * other).sum(1)
    return np.asarray(np.linalg.lstsq(waves.T @ design, waves.T @ wanted, rcond=None)[0])
