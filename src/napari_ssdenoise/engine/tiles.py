"""Cut images into tiles that a network computes one by one, without seams.

A tile's input is its output plus the network's exact reach on every side, and starts on the network's stride grid, so
that every layer sees what it would see in the whole image. At the image's border the input is mirrored a few pixels
further. Geometry only: nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import ceil, prod

import numpy as np

# Networks pad with zeros, which are no image: without some mirrored pixels, the outermost rows get twice the error.
# Four are enough (0.35 dB on a stack of 48 planes), and more change nothing.
MARGIN = 4

Axis = tuple[slice, tuple[int, int], slice, slice]


class SmallestTileError(MemoryError):
    """Even the smallest tile has more pixels than allowed."""

    def __init__(self, pixels: int, allowed: int) -> None:
        super().__init__(f"the smallest tile has {pixels:,} input pixels, but memory allows {allowed:,}.")
        self.pixels = pixels


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes
    ----------
    source
        What to read from the image.
    padding
        Pixels to mirror before and behind, per axis, beyond the image's border and to fill the network's grid.
    inner
        Which part of the network's output to keep.
    target
        Where in the output image it belongs.
    """

    source: tuple[slice, ...]
    padding: tuple[tuple[int, int], ...]
    inner: tuple[slice, ...]
    target: tuple[slice, ...]


@dataclass(frozen=True)
class TilePlan:
    """All tiles of an image: every pixel is written exactly once.

    Parameters
    ----------
    shape
        Of the image, per spatial axis.
    tile
        Of the outputs; the last one of an axis may be smaller.
    halo
        Input needed on either side, per axis.
    stride
        The network's grid; tiles are multiples of it unless they span the axis.
    margin
        Pixels to mirror beyond the image's border, if the halo needs them.

    Raises
    ------
    ValueError
        If a tile is not on the grid.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    halo: tuple[int, ...]
    stride: tuple[int, ...]
    margin: int = MARGIN

    def __post_init__(self) -> None:
        for size, n, grid in zip(self.tile, self.shape, self.stride, strict=True):
            if size < 1 or (size < n and size % grid):
                raise ValueError(f"tile {self.tile} must be a multiple of the network's stride {self.stride}.")

    def __len__(self) -> int:
        return prod(ceil(n / size) for n, size in zip(self.shape, self.tile, strict=True))

    def __iter__(self) -> Iterator[Tile]:
        axes = [list(self._axis(d)) for d in range(len(self.shape))]
        for parts in product(*axes):
            source, padding, inner, target = zip(*parts, strict=True)
            yield Tile(source, padding, inner, target)

    def _axis(self, d: int) -> Iterator[Axis]:
        n = self.shape[d]
        for start in range(0, n, self.tile[d]):
            stop = min(start + self.tile[d], n)
            yield _tile_axis(start, stop, n, self.halo[d], self.stride[d], self.margin)

    @property
    def work(self) -> float:
        """Pixels computed per pixel of output: 1 without halos."""
        computed = prod(sum(self._inputs(d)) for d in range(len(self.shape)))
        return float(computed / prod(self.shape))

    @property
    def largest_input(self) -> int:
        """Pixels of the largest input."""
        return prod(self.largest(d) for d in range(len(self.shape)))

    def largest(self, d: int) -> int:
        """Length of the longest input along one axis."""
        return max(self._inputs(d))

    def sources(self, d: int) -> list[slice]:
        """Return what is read along one axis, tile by tile."""
        return [source for source, *_ in self._axis(d)]

    def _inputs(self, d: int) -> list[int]:
        return [source.stop - source.start + sum(padding) for source, padding, _, _ in self._axis(d)]


def single_tile(
    target: Sequence[slice], shape: Sequence[int], halo: Sequence[int], stride: Sequence[int], margin: int = MARGIN
) -> Tile:
    """Return the tile that computes just one region of an image, anywhere in it."""
    spans = zip(target, shape, halo, stride, strict=True)
    source, padding, inner, place = zip(
        *(_tile_axis(t.start, t.stop, n, h, g, margin) for t, n, h, g in spans), strict=True
    )
    return Tile(source, padding, inner, place)


def _tile_axis(start: int, stop: int, n: int, halo: int, grid: int, margin: int) -> Axis:
    """Return source, padding, inner and target along one axis; the input lies on the grid."""
    margin = ceil(margin / grid) * grid
    low = max(-margin, (start - halo) // grid * grid)
    high = min(ceil((stop + halo) / grid) * grid, ceil(n / grid) * grid + margin)
    source, padding = slice(max(low, 0), min(high, n)), (max(0, -low), max(0, high - n))
    return source, padding, slice(start - low, stop - low), slice(start, stop)


def choose_tile(
    shape: Sequence[int],
    halo: Sequence[int],
    stride: Sequence[int],
    max_pixels: int,
    grain: Sequence[int] | None = None,
    margin: int = MARGIN,
) -> tuple[int, ...]:
    """Choose the tile that wastes least in halos while its input stays within ``max_pixels``.

    Parameters
    ----------
    shape, halo, stride, margin
        As for `TilePlan`.
    max_pixels
        Bound on a tile's input.
    grain
        Output chunks: tiles are whole multiples of them.

    Raises
    ------
    SmallestTileError
        If even the smallest tile is larger.
    """
    choices = [_sizes(n, g, s) for n, g, s in zip(shape, grain or stride, stride, strict=True)]
    plans = [
        [TilePlan((n,), (size,), (h,), (s,), margin) for size in sizes]
        for n, h, s, sizes in zip(shape, halo, stride, choices, strict=True)
    ]
    # Every measure of a plan is a product over its axes, so all combinations come from a few numbers per axis.
    largest, work, count = (
        reduce(np.multiply.outer, [np.array([measure(p) for p in axis], float) for axis in plans])
        for measure in (lambda p: p.largest_input, lambda p: p.work, len)
    )
    fits = largest <= max_pixels
    if not fits.any():
        raise SmallestTileError(int(largest.min()), max_pixels)
    # Of equally efficient plans, the one with fewest tiles; `lexsort` sorts by its last key first.
    order = np.lexsort((count.ravel(), np.where(fits, work.round(3), np.inf).ravel()))
    best = np.unravel_index(order[0], fits.shape)
    return tuple(sizes[i] for sizes, i in zip(choices, best, strict=True))


def _sizes(n: int, grain: int, stride: int) -> list[int]:
    """List a dozen candidate tile lengths of one axis: multiples of the grain and of the stride."""
    unit = grain if grain % stride == 0 else grain * stride
    counts = sorted({max(1, round(n / unit / parts)) for parts in range(1, 33)} | {1, 2, 3, 4, 6, 8})
    return sorted({unit * count for count in counts if unit * count < n} | {n})
