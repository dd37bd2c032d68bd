"""Build the lower resolutions of an image by averaging, block by block, from the level above."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import zarr
    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Region

# A level whose plane is this small is the last one: every viewer shows it at once.
SMALLEST = 256
# Z is halved with Y and X only while its pixels are at most this many times as long as theirs.
COMPARABLE = 1.5
# Fewer pixels are not worth a file.
SMALLEST_CHUNK = 2**12
# Blocks in memory at a time.
WORKERS = 4


@dataclass(frozen=True)
class Level:
    """One resolution: its place in the group and in space."""

    path: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]


def plan(
    axes: str, shape: tuple[int, ...], scale: tuple[float, ...], translate: tuple[float, ...]
) -> list[tuple[Level, tuple[int, ...]]]:
    """Decide the levels of a pyramid.

    Returns
    -------
    list of (Level, factors)
        The full resolution first; ``factors`` say by what each axis of the level above is divided.
    """
    levels = [(Level("0", shape, scale, translate), (1,) * len(axes))]
    while True:
        above = levels[-1][0]
        factors = _factors(axes, above)
        if all(f == 1 for f in factors):
            return levels
        level = Level(
            str(len(levels)),
            tuple(-(-n // f) for n, f in zip(above.shape, factors, strict=True)),
            tuple(s * f for s, f in zip(above.scale, factors, strict=True)),
            # The centre of a pixel made of two lies half a pixel further on.
            tuple(t + s * (f - 1) / 2 for t, s, f in zip(above.translate, above.scale, factors, strict=True)),
        )
        levels.append((level, factors))


def _factors(axes: str, level: Level) -> tuple[int, ...]:
    sizes = dict(zip(axes, level.shape, strict=True))
    scales = dict(zip(axes, map(abs, level.scale), strict=True))
    if max(sizes["Y"], sizes["X"]) <= SMALLEST:
        return (1,) * len(axes)
    halved = {a for a in "YX" if sizes[a] > SMALLEST // 2}
    if sizes.get("Z", 1) > 1 and scales["Z"] <= COMPARABLE * min(scales["Y"], scales["X"]):
        halved.add("Z")
    return tuple(2 if a in halved else 1 for a in axes)


def streamed_chunks(
    levels: list[tuple[Level, tuple[int, ...]]], chunks: tuple[int, ...], grid: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Choose chunks for the levels that blocks of a grid can fill one by one, each block whole chunks.

    Parameters
    ----------
    levels
        As `plan` gives them.
    chunks
        Of the full resolution.
    grid
        Lengths of which all blocks are multiples, apart from those at the end of an axis.

    Returns
    -------
    list
        Chunks of the first levels, as far as this is possible; further down, blocks would share pixels or chunks
        become crumbs.
    """
    found = [chunks]
    full, total = levels[0][0].shape, (1,) * len(chunks)
    for level, factors in levels[1:]:
        total = tuple(t * f for t, f in zip(total, factors, strict=True))
        if any(g < n and g % t for g, n, t in zip(grid, full, total, strict=True)):
            break
        found.append(
            tuple(
                min(c, size) if g >= n else gcd(g // t, c)
                for c, size, g, n, t in zip(chunks, level.shape, grid, full, total, strict=True)
            )
        )
        if prod(found[-1]) < min(SMALLEST_CHUNK, prod(level.shape)):
            return found[:-1]
    return found


def aligned(place: Sequence[slice], factors: tuple[int, ...], shape: tuple[int, ...]) -> list[slice]:
    """Widen a part of an image to whole pixels of the level below."""
    return [slice(s.start // f * f, min(-(-s.stop // f) * f, n)) for s, f, n in zip(place, factors, shape, strict=True)]


def halve(block: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Average neighbours along the axes whose factor is 2, in the block's own dtype.

    The last pixel of an odd axis stands for itself. Integers are rounded to the nearest.
    """
    dtype = block.dtype
    exact = dtype.kind == "f" or dtype.itemsize <= 2  # float32 holds integers of up to 24 bits
    wide = dtype if dtype.kind == "c" else np.float32 if exact and dtype.itemsize <= 4 else np.float64
    mean: Any = block.astype(wide, copy=False)
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        if mean.shape[axis] % 2:
            last = mean[(slice(None),) * axis + (slice(-1, None),)]
            mean = np.concatenate((mean, last), axis=axis)
        even = mean[(slice(None),) * axis + (slice(0, None, 2),)]
        odd = mean[(slice(None),) * axis + (slice(1, None, 2),)]
        mean = (even + odd) / 2
    if dtype.kind in "iu":
        mean = np.rint(mean)
    result: NDArray[Any] = mean.astype(dtype, copy=False)
    return result


def fill(above: zarr.Array[Any], below: zarr.Array[Any], factors: tuple[int, ...]) -> None:
    """Compute a level from the one above, one block of whole chunks at a time."""

    def one(region: Region) -> None:
        source = tuple(
            slice(s.start * f, min(s.stop * f, n)) for s, f, n in zip(region, factors, above.shape, strict=True)
        )
        below[region] = halve(np.asarray(above[source]), factors)

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(one, blocks(below.shape, below.chunks)):
            pass


def blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Region]:
    """Cut a shape into its chunks."""
    for starts in product(*(range(0, n, max(1, c)) for n, c in zip(shape, chunks, strict=True))):
        yield tuple(slice(a, min(a + c, n)) for a, c, n in zip(starts, chunks, shape, strict=True))
