"""What several planes of one scene tell: whether it stays the same, and what the camera adds to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sin, sqrt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise._pauses import pause
from napari_ssdenoise.diagnosis._blocks import HIGH, ORDER, SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.diagnosis._blocks import Cut, Floats
    from napari_ssdenoise.diagnosis._photon_transfer import Line

# Differences of frames may hold this share of the structure's power and still count as noise.
STATIC: Final = 0.15
_LOW: Final = (ORDER >= 1) & (ORDER <= 4)
# Structure is a block's low power beyond this many times the noise's.
_STRUCTURE: Final = 4.0
# Parts of a line that must agree, and by how many standard errors.
_PARTS: Final = 4
_SURE: Final = 3.0


@dataclass(frozen=True)
class Pattern:
    """What the camera adds to every image in the same way, as standard deviations; 0 where nothing is found.

    Attributes
    ----------
    rows, columns
        Offsets of whole lines along X and along Y.
    pixels
        Offsets of single pixels that stay from plane to plane; None where there is one plane only.
    """

    rows: float = 0.0
    columns: float = 0.0
    pixels: float | None = None


def scene_change(cuts: Sequence[Cut], line: Line, spectrum: Floats | None = None, *, lag: int = 1) -> float | None:
    """Return how much of the structure remains in differences between planes.

    Parameters
    ----------
    cuts, line, spectrum
        Blocks, and what is known about their noise.
    lag
        How far the planes are apart.

    Returns
    -------
    float
        Power of the structure in the differences by that in the planes: 0 for equal scenes, 1 for unrelated ones. None
        if there are no such planes, or too little structure to tell.
    """
    usual = 1.0 if spectrum is None else float(spectrum[_LOW].mean())
    planes, differences, structured, count = 0.0, 0.0, 0, 0
    for cut in cuts:
        if len(cut.mean) <= lag:
            continue
        noise = line.at((cut.mean[lag:] + cut.mean[:-lag]) / 2) * usual
        low = cut.coefficients[..., _LOW]
        power = np.square(low).mean(-1)
        single = (power[lag:] + power[:-lag]) / 2 / noise
        change = np.square(low[lag:] - low[:-lag]).mean(-1) / 2 / noise
        # A few bright blocks must not speak for the scene: beyond ten times the noise, each counts about the same.
        seen = single > _STRUCTURE
        weights = 1 / (9 + single[seen])
        planes += float((weights * (single[seen] - 1)).sum())
        differences += float((weights * (change[seen] - 1)).sum())
        structured, count = structured + int(seen.sum()), count + seen.size
    if structured >= max(20, 0.002 * count):
        return max(0.0, differences / planes)
    return _coarse_change(cuts, line, 1.0 if spectrum is None else float(spectrum[0, 0]), lag)


def _coarse_change(cuts: Sequence[Cut], line: Line, usual: float, lag: int) -> float | None:
    """Compare planes whose noise hides all but averages over many pixels."""
    planes, differences, noise = 0.0, 0.0, 0.0
    for cut in cuts:
        if len(cut.mean) > lag:
            averages, pixels = _wide_averages(cut)
            planes += float(averages.var(1).mean())
            differences += float((averages[lag:] - averages[:-lag]).var(1).mean()) / 2
            noise += float(line.at(cut.mean).mean()) * usual / pixels
    if planes < 3 * noise or not planes:
        return None
    return max(0.0, (differences - noise) / (planes - noise))


def _wide_averages(cut: Cut) -> tuple[Floats, int]:
    """Return averages over up to 4 x 4 blocks, (P, M), and the pixels in each."""
    step = SIDE // cut.stride
    mean = cut.mean.reshape(-1, *cut.grid)[:, ::step, ::step]
    side = max(1, min(4, mean.shape[1] // 4, mean.shape[2] // 4))
    rows, columns = mean.shape[1] // side, mean.shape[2] // side
    tiles = mean[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)
    return tiles.mean((2, 4)).reshape(len(mean), -1), (side * SIDE) ** 2


def fine_detail(cuts: Sequence[Cut], line: Line, spectrum: Floats | None = None) -> float | None:
    """Return the share of the structure's power in the high coefficients: 0.44 for lone pixels, near 0 for optics.

    Returns
    -------
    float
        None if there is too little structure to tell.
    """
    shape = np.ones((SIDE, SIDE)) if spectrum is None else spectrum
    found, count = [np.zeros(0)], 0
    for cut in cuts:
        pause()
        noise = line.at(cut.mean)
        power = np.square(cut.coefficients)
        seen = power[..., _LOW].mean(-1) > _STRUCTURE * noise * float(shape[_LOW].mean())
        structure = power[seen] - noise[seen][:, None, None] * shape
        structure[:, 0, 0] = 0
        found.append(structure[:, HIGH].sum(1) / structure.sum((1, 2)))
        count += seen.size
    shares = np.concatenate(found)
    return float(np.clip(shares.mean(), 0, 1)) if len(shares) >= max(20, 0.002 * count) else None


def find_line_pattern(places: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Return the standard deviations of the offsets of rows and of columns, or 0 where there are none for sure.

    Offsets of a line are the same in all quarters of its length, and structure is not.

    Parameters
    ----------
    places : each (P, Y, X)
    """
    return _offsets(places, 1), _offsets(places, 2)


def _offsets(places: Sequence[NDArray[Any]], axis: int) -> float:
    agreements, sizes, count = [], [], 0
    for place in places:
        lines = np.moveaxis(place, axis, 1).astype(np.float64)
        length = lines.shape[2] // _PARTS
        if lines.shape[1] < 16 or length < SIDE:
            continue
        # A line beside its two neighbours, averaged over each part of its length.
        steps = (
            lines[:, 1:-1, : length * _PARTS] - (lines[:, 2:, : length * _PARTS] + lines[:, :-2, : length * _PARTS]) / 2
        )
        parts = steps.reshape(*steps.shape[:2], _PARTS, length).mean(3)
        parts -= np.median(parts, axis=1, keepdims=True)
        neighbours = np.roll(parts, 1, axis=2)
        # Signs, not products: a few long edges must not count as a pattern of all lines.
        agreements.append(np.sign(parts * neighbours).mean(1))
        sizes.append((np.median(np.abs(parts), axis=1) * np.median(np.abs(neighbours), axis=1)) / 0.6745**2)
        count += steps.shape[0] * steps.shape[1]
    if not count:
        return 0.0
    agreement = np.concatenate(agreements).mean(0)
    if agreement.min() < _SURE * sqrt(1.5 / count):
        return 0.0
    return sqrt(sin(pi / 2 * float(agreement.mean())) * float(np.concatenate(sizes).mean()) / 1.5)
