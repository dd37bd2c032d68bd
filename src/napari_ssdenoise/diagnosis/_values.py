"""What the bare intensities tell: clipping, rounding, replaced pixels, and the background of magnitude images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise._pauses import pause
from napari_ssdenoise.diagnosis._blocks import SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.diagnosis._blocks import Floats, Levels

# Values looked at one by one.
_SAMPLE: Final = 300_000
# A pile of values counts as clipping from this share on.
_FEW: Final = 1e-4


@dataclass(frozen=True)
class Clipping:
    """Where intensities end, and how many pixels lie at the ends.

    Attributes
    ----------
    low, high
        The levels, or infinities where nothing is clipped.
    dark, bright
        Share of the pixels at each.
    """

    low: float = -np.inf
    high: float = np.inf
    dark: float = 0.0
    bright: float = 0.0

    @property
    def levels(self) -> Levels:
        return self.low, self.high


def find_clipping(places: Sequence[NDArray[Any]]) -> Clipping:
    """Find values at the end of the range that far more pixels have than the values beside them.

    Parameters
    ----------
    places : each (P, Y, X)
    """
    values = np.concatenate([place.ravel() for place in places])
    highest = values.max()
    bright = _pile(highest - values)
    # Black margins are no clipped noise: pixels in blocks of one single value do not count.
    values = np.concatenate([_outside_constant_blocks(place) for place in places])
    lowest = values.min() if values.size else highest
    dark = _pile(values - lowest)
    return Clipping(float(lowest) if dark else -np.inf, float(highest) if bright else np.inf, dark, bright)


def _pile(distance: NDArray[Any]) -> float:
    """Return the share of pixels at the end of the range if they are clipped there, by their distance from it."""
    count = int((distance == 0).sum())
    if count < 10 or count < _FEW * distance.size or count == distance.size:
        return 0.0
    near = np.partition(distance, min(4 * count, distance.size - 1))[: 4 * count]
    counts = np.unique(near, return_counts=True)[1]
    # Below the clipped tail of a distribution, neighbouring levels are about equally filled. Few photons, by contrast,
    # fall off from level to level, 0 included.
    following = int(counts[1]) if len(counts) > 1 else 0
    after = int(counts[2]) if len(counts) > 2 else following
    return count / distance.size if count > 3 * following and after * count >= 2 * following**2 else 0.0


def _outside_constant_blocks(place: NDArray[Any]) -> NDArray[Any]:
    tiles = _tiles(place)
    return np.asarray(tiles[tiles.max(1) > tiles.min(1)].ravel())


def _tiles(place: NDArray[Any]) -> NDArray[Any]:
    """Cut planes (P, Y, X) into blocks side by side, (N, SIDE²)."""
    planes, rows, columns = place.shape[0], place.shape[1] // SIDE, place.shape[2] // SIDE
    whole = place[:, : rows * SIDE, : columns * SIDE].reshape(planes, rows, SIDE, columns, SIDE)
    return np.asarray(whole.swapaxes(2, 3).reshape(-1, SIDE * SIDE))


def find_step(places: Sequence[NDArray[Any]]) -> float:
    """Return the step in which intensities are rounded, or 0 if they are not."""
    values = np.concatenate([place.ravel()[: _SAMPLE // len(places) + 1] for place in places])
    levels = np.unique(values)
    if len(levels) < 2:
        return 0.0
    if values.dtype.kind in "ui":
        return float(np.gcd.reduce(np.diff(levels.astype(np.int64))))
    # Numbers with a fraction: a grid is one only if it is coarser than the numbers are exact.
    step = float(np.diff(levels).min())
    grid = (levels - levels[0]) / step
    exact = np.finfo(values.dtype).eps * float(np.abs(levels).max()) / step
    on_grid = bool(np.all(np.abs(grid - np.rint(grid)) < 0.01 + 4 * exact)) and exact < 0.05
    return step if on_grid and 2 * len(levels) < values.size else 0.0


@dataclass(frozen=True)
class Replaced:
    """Impulse noise: pixels that were replaced by values of their own.

    Attributes
    ----------
    share
        Of the pixels; 0 if there are none.
    low, high
        Smallest and largest value they got.
    """

    share: float = 0.0
    low: float = 0.0
    high: float = 0.0


def find_replaced(places: Sequence[NDArray[Any]]) -> Replaced:
    """Find pixels whose values have nothing to do with their surroundings, such as salt and pepper.

    Photons and hot pixels make bright pixels in the dark as well, but few of them come near the largest value of the
    image. Values drawn from the whole range do so half of the time.
    """
    planes = [place[0, :256, :256].astype(np.float64) for place in places[:4] if min(place.shape[1:]) >= SIDE]
    if not planes:
        return Replaced()
    low, high = (float(f([f(plane) for plane in planes])) for f in (np.min, np.max))
    centre = np.concatenate([plane[1:-1, 1:-1].ravel() for plane in planes])
    around, spread = (np.concatenate(parts) for parts in zip(*map(_neighbours, planes), strict=True))
    away = np.abs(centre - around)
    usual = float(np.quantile(away, 0.25)) / 0.3186  # a standard deviation that outliers do not move
    limit = max(6 * usual, 0.1 * (high - low))
    # Edges and lines make outliers too, but not amidst pixels that agree with each other.
    flat = spread <= max(3 * usual, 0.02 * (high - low))
    outliers = away > limit
    dark = around <= np.quantile(around, 0.3)
    share = float(outliers[flat].mean()) if flat.sum() > 1000 else 0.0
    if high <= low or 4 * limit > high - low or share < 0.01 or not (dark & flat & outliers).any():
        return Replaced()
    if (centre[dark & flat & outliers] > (low + high) / 2).mean() < 0.25:
        return Replaced()
    # Replaced values near the true one are not seen.
    at_ends = float(((centre == low) | (centre == high))[flat & outliers].mean())
    seen = 1.0 if at_ends > 0.8 else 1 - limit / (high - low)
    return Replaced(min(share / seen, 0.95), low, high)


def _neighbours(plane: Floats) -> tuple[Floats, Floats]:
    """Return, for every inner pixel, the median of its eight neighbours and their spread between the quartiles."""
    windows = np.lib.stride_tricks.sliding_window_view(plane, (3, 3)).reshape(-1, 9)
    ordered = np.sort(np.delete(windows, 4, axis=1), axis=1)
    return (ordered[:, 3] + ordered[:, 4]) / 2, ordered[:, 6] - ordered[:, 1]


def _chi(degrees: int) -> tuple[float, float]:
    """Return mean / standard deviation, and skewness, of a chi distribution: 1.913 and 0.631 for two degrees."""
    mean = sqrt(2) * exp(lgamma((degrees + 1) / 2) - lgamma(degrees / 2))
    std = sqrt(degrees - mean**2)
    return mean / std, mean * (1 - 2 * std**2) / std**3


def find_rician(places: Sequence[NDArray[Any]], coils: int = 1) -> float:
    """Return the noise of magnitude images (MRI), found in their background, or 0 if it does not look like one.

    Without signal, the magnitude of a complex number with normal noise has a Rayleigh distribution: its mean is 1.913
    standard deviations, and it is skewed by 0.63. Noise of photons is told apart by bright regions, where it grows on.

    Parameters
    ----------
    places : each (planes, Y, X)
    coils
        Whose squares were summed: their distribution is chi with twice as many degrees of freedom.

    Returns
    -------
    float
        Standard deviation of the real and the imaginary part.
    """
    pause()
    tiles = np.concatenate([_tiles(place) for place in places]).astype(np.float64)
    tiles = tiles[tiles.max(1) > tiles.min(1)]
    if len(tiles) < 40 or tiles.min() < 0:
        return 0.0
    mean = tiles.mean(1)
    mean_of, skewness_of = _chi(2 * coils)
    spread = _chi(2)[0] / mean_of  # in parts of that of Rician noise
    level = float(np.quantile(mean, 0.02)) * 1.1
    for _ in range(10):  # settle in the middle of the darkest group of blocks
        level = float(np.median(mean[np.abs(mean - level) < 0.2 * spread * level])) if level > 0 else 0.0
    # An edge shows in values that noise alone does not reach.
    background = (np.abs(mean - level) < 0.15 * spread * level) & (tiles.max(1) < (1 + 3.3 * spread) * level)
    if background.sum() < max(40, 0.02 * len(tiles)) or level <= 0:
        return 0.0
    values = tiles[background].ravel()
    centred = values - values.mean()
    ratio = float(values.mean() / values.std())
    skewness = float((centred**3).mean() / values.std() ** 3)
    if not (0.94 < ratio / mean_of < 1.06 and abs(skewness - skewness_of) < 0.13):
        return 0.0
    # From background to signal, the variance grows by 2.33; that of photons grows with the intensity, threefold here.
    rough = np.square(np.diff(tiles.reshape(-1, SIDE, SIDE), 2)).mean((1, 2))
    bright = mean > 3 * level
    growth = float(np.quantile(rough[bright], 0.25) / np.median(rough[background])) if bright.sum() >= 20 else 0.0
    return float(sqrt((values**2).mean() / (2 * coils))) if 1.4 < growth < 2.6 else 0.0
