"""Cut images into small blocks and see each in the cosine basis, where noise and structure part.

White noise has the same power in every cosine coefficient of a block, and the coefficients of normal noise are
independent of one another. Structure that a microscope can resolve has its power in the low ones. So the low
coefficients tell which blocks are flat, and the high ones of those blocks measure the noise without being biased by
that choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise._pauses import pause

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Levels = tuple[float, float]

SIDE: Final = 8
# Blocks looked at: more would not change the estimates, but take memory (512 bytes each) and time.
MOST_BLOCKS: Final = 60_000
# Blocks near each other make one group, so that their scatter tells how uncertain an estimate is.
GROUPS: Final = 24

_ORDER = np.add.outer(np.arange(SIDE), np.arange(SIDE))
LOW: Final = (_ORDER >= 1) & (_ORDER <= 5)
FINE: Final = (_ORDER >= 8) & (_ORDER <= 9)
FINEST: Final = _ORDER >= 10
HIGH: Final = FINE | FINEST
ORDER: Final = _ORDER


@cache
def cosines() -> Floats:
    """Return the orthonormal cosine basis (type II), one wave a row, (SIDE, SIDE)."""
    frequency, position = np.arange(SIDE)[:, None], np.arange(SIDE)[None]
    basis = np.cos(np.pi * (2 * position + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis)


@dataclass(frozen=True, eq=False)
class Cut:
    """One place of a channel, cut into blocks: planes that follow each other in time or depth, or a single one.

    Attributes
    ----------
    coefficients : (P, N, SIDE, SIDE)
        Cosine coefficients of every block of every plane.
    mean, around, clipped : (P, N)
        Average intensity of the blocks and of 3 x 3 blocks around each, and the share of their pixels at a clipping
        level.
    group : (N,)
        Which blocks lie near each other, 0 to `GROUPS` - 1.
    grid
        Blocks along Y and X.
    stride
        Distance of neighbouring blocks.
    """

    coefficients: NDArray[np.float32]
    mean: Floats
    around: Floats
    clipped: Floats
    group: NDArray[np.intp]
    grid: tuple[int, int]
    stride: int


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks without their places.

    Attributes
    ----------
    power : (N, SIDE, SIDE)
        Squared cosine coefficients.
    mean, around, clipped : (N,)
        Average intensity of each and around it, and the share of the pixels at a clipping level.
    group : (N,)
        Which blocks lie near each other.
    """

    power: NDArray[np.float32]
    mean: Floats
    around: Floats
    clipped: Floats
    group: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, chosen: NDArray[Any]) -> Blocks:
        """Return some of the blocks."""
        return Blocks(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def band(self, mask: Mask) -> Floats:
        """Return the mean power of every block in some of the coefficients, (N,)."""
        pause()
        return np.asarray(self.power[:, mask].mean(1, dtype=np.float64))

    def without_clipping(self) -> Blocks:
        """Leave out intensities at which pixels are clipped, or return all blocks if they are everywhere.

        Whole ranges of intensity go, not single blocks: to keep those that happened to stay within the limits would
        keep those with little noise.
        """
        bounds = np.unique(np.quantile(self.mean, np.linspace(0, 1, 33)[1:-1]))
        level = np.searchsorted(bounds, self.mean, side="right")
        count = np.bincount(level, minlength=len(bounds) + 1)
        share = np.bincount(level, self.clipped, minlength=len(bounds) + 1) / np.maximum(count, 1)
        kept = (share <= 0.01)[level] & (self.clipped <= 0.1)
        return self.take(kept) if kept.sum() >= 50 else self


def cut_places(places: Sequence[NDArray[Any]], levels: Levels = (-np.inf, np.inf)) -> list[Cut]:
    """Cut places into overlapping blocks, at a distance that gives enough of them but not too many.

    Parameters
    ----------
    places : each (P, Y, X)
        Planes of one channel; places smaller than a block are left out.
    levels
        Values at and below, or at and above, which intensities are clipped.
    """
    usable = [place for place in places if min(place.shape[1:]) >= SIDE]
    pixels = sum(place.size for place in usable)
    stride = next((s for s in (2, 4) if pixels / s**2 <= 1.2 * MOST_BLOCKS), SIDE)
    return [_cut(place, stride, number, len(usable), levels) for number, place in enumerate(usable)]


def _cut(place: NDArray[Any], stride: int, number: int, places: int, levels: Levels) -> Cut:
    pause()
    windows = np.lib.stride_tricks.sliding_window_view(place, (SIDE, SIDE), axis=(1, 2))[:, ::stride, ::stride]
    rows, columns = windows.shape[1:3]
    windows = windows.reshape(len(place), rows * columns, SIDE, SIDE)
    low, high = levels
    clipped = ((windows <= low) | (windows >= high)).mean((2, 3))
    mean = windows.mean((2, 3), dtype=np.float64)
    basis = cosines().astype(np.float32)
    centred = (windows - mean[..., None, None]).astype(np.float32)
    coefficients = basis @ centred @ basis.T
    side = ceil(sqrt(GROUPS / places))  # tiles along each side of the place
    tile = np.add.outer(np.arange(rows) * side // rows * side, np.arange(columns) * side // columns)
    group = (number * side**2 + tile.ravel()) % GROUPS
    around = _average_around(mean.reshape(-1, rows, columns), SIDE // stride).reshape(mean.shape)
    return Cut(coefficients, mean, around, clipped, group, (rows, columns), stride)


def _average_around(mean: Floats, step: int) -> Floats:
    """Average blocks with those ``step`` before and after along both axes, mirrored at the border."""
    for axis in (1, 2):
        index, last = np.arange(mean.shape[axis]), mean.shape[axis] - 1
        mirrored = [(last - abs(last - abs(index + n))).clip(0) for n in (-step, 0, step)]
        mean = np.mean([np.take(mean, chosen, axis) for chosen in mirrored], axis=0)
    return mean


def single_planes(cuts: Sequence[Cut]) -> Blocks:
    """Return the blocks of all planes."""
    return _join([(cut.coefficients, cut.mean, cut.around, cut.clipped, cut.group) for cut in cuts])


def differences(cuts: Sequence[Cut]) -> Blocks:
    """Return the blocks of the differences between neighbouring planes, scaled to have the noise of one plane."""
    parts = []
    for cut in cuts:
        if len(cut.mean) > 1:
            step = (cut.coefficients[1:] - cut.coefficients[:-1]) / np.float32(sqrt(2))
            mean, around = ((values[1:] + values[:-1]) / 2 for values in (cut.mean, cut.around))
            parts.append((step, mean, around, np.maximum(cut.clipped[1:], cut.clipped[:-1]), cut.group))
    return _join(parts)


def _join(parts: Sequence[tuple[Any, ...]]) -> Blocks:
    if not parts:
        nothing = np.zeros(0)
        return Blocks(np.zeros((0, SIDE, SIDE), np.float32), nothing, nothing, nothing, np.zeros(0, np.intp))
    power = np.concatenate([np.square(part[0]).reshape(-1, SIDE, SIDE) for part in parts])
    mean, around, clipped = (np.concatenate([part[i].ravel() for part in parts]) for i in (1, 2, 3))
    group = np.concatenate([np.tile(part[4], len(part[1])) for part in parts])
    blocks = Blocks(power, mean, around, clipped, group)
    # Blocks of one single value: no camera makes them, but stitching and cropping do.
    return blocks.take(np.flatnonzero(power.any((1, 2))))
