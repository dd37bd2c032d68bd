"""Two noisy views of everything in a user's data, cut into tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Kind = Literal["target", "frames", "pixels"]
FEWEST = 6  # pairs of views: four to learn from make three sizes
HELD_OUT = 4  # one image of so many judges
SIDE = 64  # of a tile, in pixels
TILES = 64  # of one image, at most: a training sees a few thousand tiles in all


@dataclass(frozen=True)
class Pair:
    """Two noisy views of one image: tiles (N, side, side) of each."""

    first: Floats
    second: Floats


def read_pairs(
    images: Any, *, target: Any, series: bool, axes: str | None, side: int, seed: int
) -> tuple[list[Pair], Kind]:
    """Cut two views of each image.

    The views are the image and its target; neighbouring frames of a series; or the two diagonals of every 2 x 2 pixels,
    each averaged, which see the image at half its resolution and need noise that is independent between pixels.

    Parameters
    ----------
    images
        A volume, array or path, or a list of them. What is counted are frames (T), else slices (Z), else the images.
    target
        Other noisy views, one for each image.
    series
        The images of a list are the frames of one series.
    axes
        Of arrays and files that name none.
    side
        Of a tile, in pixels.
    seed
        Of the choice among many tiles.

    Raises
    ------
    ValueError
        If target and images do not fit, frames of a series differ in shape, or images are too small or not finite.
    """
    volumes = [_open(image, axes) for image in _several(images)]
    if target is not None:
        targets = [_open(t, axes) for t in _several(target)]
        if [(v.axes, v.shape) for v in volumes] != [(t.axes, t.shape) for t in targets]:
            raise ValueError("targets must be as many as the images, each with the axes and shape of its image.")
        couples = [
            (a, b) for v, t in zip(volumes, targets, strict=True) for a, b in zip(_units(v), _units(t), strict=True)
        ]
        kind: Kind = "target"
    elif series:
        if len({(volume.axes, volume.shape) for volume in volumes}) > 1:
            raise ValueError("the frames of a series must have the same axes and shape.")
        every = [unit for volume in volumes for unit in _units(volume)]
        couples, kind = list(zip(every[::2], every[1::2], strict=False)), "frames"
    elif all(volume.sizes.get("T", 1) > 1 for volume in volumes):
        frames = [_units(volume) for volume in volumes]
        couples = [(series[i], series[i + 1]) for series in frames for i in range(0, len(series) - 1, 2)]
        kind = "frames"
    else:
        couples = [(unit, unit) for volume in volumes for unit in _units(volume)]
        kind = "pixels"
    pairs = [_cut(a, b, kind, side, np.random.default_rng([seed, i])) for i, (a, b) in enumerate(couples)]
    return pairs, kind


def count_pairs(volume: Volume, *, target: bool, side: int = SIDE) -> tuple[int, Kind]:
    """Return how many pairs of views there are in one volume, and of what kind, without reading it.

    Raises
    ------
    ValueError
        If it has no Y and X or is too small, or there are too few.
    """
    units = len(_units(_open(volume, None)))
    kind: Kind = "target" if target else "frames" if volume.sizes.get("T", 1) > 1 else "pixels"
    pairs = units // 2 if kind == "frames" else units
    require_pairs(pairs, kind)
    _tiles_along(volume.name, (volume.sizes["Y"], volume.sizes["X"]), kind, side)
    return pairs, kind


def require_pairs(pairs: int, kind: Kind) -> None:
    """Refuse too few pairs of views."""
    if pairs < FEWEST:
        needed = f"{2 * FEWEST} frames" if kind == "frames" else f"{FEWEST} images"
        raise ValueError(f"there are {pairs} images with two views; a curve needs {needed} or more.")


def held_out(pairs: int) -> list[int]:
    """Choose the pairs that judge."""
    return list(range(HELD_OUT // 2, pairs, HELD_OUT))


@dataclass(frozen=True)
class _Unit:
    """What counts as one image: a frame, a slice, or all of a volume."""

    volume: Volume
    index: tuple[int | slice, ...]

    def read(self) -> Floats:
        """Return its planes (N, Y, X)."""
        data = self.volume[self.index]
        left = [a for a, i in zip(self.volume.axes, self.index, strict=True) if isinstance(i, slice)]
        order = sorted(range(len(left)), key=lambda i: "YX".find(left[i]))
        planes = data.transpose(order).reshape(-1, *(data.shape[i] for i in order[-2:])).astype(np.float32)
        if not np.isfinite(planes).all():
            raise ValueError(f"{self.volume.name!r} has NaN, infinite or huge values. Replace them first.")
        return planes


def _open(image: Any, axes: str | None) -> Volume:
    volume = open_volume(image, axes=axes)
    require_intensities(volume)
    if not {"Y", "X"} <= set(volume.axes):
        raise ValueError(f"{volume.name!r} has axes {volume.axes}; images need Y and X.")
    return volume


def _several(images: Any) -> Sequence[Any]:
    return images if isinstance(images, (list, tuple)) else [images]


def _units(volume: Volume) -> list[_Unit]:
    axis = next((a for a in "TZ" if volume.sizes.get(a, 1) > 1), None)
    if axis is None:
        return [_Unit(volume, (slice(None),) * volume.ndim)]
    position = volume.axes.index(axis)
    around = [slice(None)] * volume.ndim
    return [
        _Unit(volume, (*around[:position], number, *around[position + 1 :])) for number in range(volume.shape[position])
    ]


def _cut(a: _Unit, b: _Unit, kind: Kind, side: int, rng: np.random.Generator) -> Pair:
    """Read two views, and keep some of their tiles, the same of both."""
    first = a.read()
    if kind == "pixels":
        height, width = (n // 2 * 2 for n in first.shape[-2:])
        cells = first[:, :height, :width].reshape(-1, height // 2, 2, width // 2, 2)
        views = [((cells[:, :, 0, :, i] + cells[:, :, 1, :, 1 - i]) / 2).astype(np.float32) for i in (0, 1)]
    else:
        views = [first, b.read()]
    high, wide = _tiles_along(a.volume.name, first.shape[-2:], kind, side)
    tiles = [
        view[:, : high * side, : wide * side].reshape(-1, high, side, wide, side).swapaxes(2, 3).reshape(-1, side, side)
        for view in views
    ]
    chosen = np.sort(rng.permutation(len(tiles[0]))[:TILES])
    return Pair(tiles[0][chosen], tiles[1][chosen])


def _tiles_along(name: str, shape: Sequence[int], kind: Kind, side: int) -> tuple[int, int]:
    """Return how many tiles lie along Y and X."""
    smallest = side * (2 if kind == "pixels" else 1)
    height, width = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"{name!r} has {height} x {width} pixels; this study needs {smallest} x {smallest} or more. Choose larger "
            "images or a smaller side."
        )
    return height // smallest, width // smallest
