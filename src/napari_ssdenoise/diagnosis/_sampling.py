"""Read a few places of a volume, however large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.engine.scenes import require_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.volume import Volume

# Pixels read of a channel: enough for estimates within a few per cent.
PIXELS: Final = 2_000_000
# Sides of a place along Y and X, and planes along its series.
SIDE: Final = 256
PLANES: Final = 4
CHANNELS: Final = 6


def channel_axis(volume: Volume) -> str:
    """Return the axis whose entries have noise of their own, or ``""``: RGB samples, fluorescence channels, coils."""
    # Real and imaginary part have the same noise.
    return next((axis for axis in ("C" if is_parts(volume) else "SC") if axis in volume.axes), "")


def choose_channels(volume: Volume) -> list[int]:
    """Return some channels, evenly spread; of RGBA pixels, not the opacity."""
    axis = channel_axis(volume)
    if not axis:
        return [0]
    count = min(volume.sizes[axis], 3) if axis == "S" else volume.sizes[axis]
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, CHANNELS))})


def read_places(
    volumes: Sequence[Volume], channel: int, series: str, rng: np.random.Generator, pixels: int = PIXELS
) -> list[NDArray[Any]]:
    """Read the same places of one volume, or of two that show the same scene.

    Parameters
    ----------
    volumes
        Of equal axes and shapes. Of two, each place holds a plane of both.
    channel
        Index along `channel_axis`.
    series
        Axis along which a place holds neighbouring planes, or ``""``.
    rng
        Chooses the places.
    pixels
        About how many to read.

    Returns
    -------
    list of (P, Y, X)
        The whole channel if it is small.

    Raises
    ------
    ValueError
        If there are NaN or infinite values.
    """
    volume = volumes[0]
    sizes = {a: n for a, n in volume.sizes.items() if a != channel_axis(volume)}
    if np.prod(list(sizes.values()), dtype=np.int64) * len(volumes) <= pixels:
        lengths = {a: n if a in ("Y", "X", series) else 1 for a, n in sizes.items()}
        corners = [dict(zip(sizes, c, strict=True)) for c in np.ndindex(*(n // lengths[a] for a, n in sizes.items()))]
    else:
        lengths = {a: min(n, {"Y": SIDE, "X": SIDE, series: PLANES}.get(a, 1)) for a, n in sizes.items()}
        count = max(4, pixels // (int(np.prod(list(lengths.values()))) * len(volumes)))
        chunks = dict(zip(volume.axes, volume.chunks, strict=True))
        corners = [{a: _corner(n, lengths[a], chunks[a], rng) for a, n in sizes.items()} for _ in range(count)]
        corners.sort(key=lambda corner: tuple(corner.values()))  # in the order of storage
    places = []
    for corner in corners:
        region = {a: slice(start, start + lengths[a]) for a, start in corner.items()}
        region |= {channel_axis(volume): slice(channel, channel + 1)}
        places.append(np.concatenate([_read(v, region, series) for v in volumes]))
    return places


def _corner(size: int, length: int, chunk: int, rng: np.random.Generator) -> int:
    """Choose where a place begins, within a chunk if it fits into one."""
    if chunk < length or chunk >= size:
        return int(rng.integers(size - length + 1))
    first = int(rng.integers(-(-size // chunk))) * chunk
    room = min(chunk, size - first) - length
    return first + int(rng.integers(room + 1)) if room >= 0 else size - length


def _read(volume: Volume, region: dict[str, slice], series: str) -> NDArray[Any]:
    block = volume[tuple(region[a] for a in volume.axes)]
    require_finite(block, volume.name)
    order = [volume.axes.index(a) for a in (series, "Y", "X") if a]
    rest = [d for d in range(volume.ndim) if d not in order]
    moved = np.transpose(block, rest + order)
    return moved.reshape(-1, *moved.shape[-2:])
