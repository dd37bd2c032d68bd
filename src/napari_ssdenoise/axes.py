"""Name the dimensions of an array and bring its data into the order a network works in.

A volume has named axes, any order of ``T C Z Y X`` plus ``S`` (the samples of an RGB pixel). A network sees tensors
``(batch, channels, *spatial)``. `Layout` is the bridge: it says which axes the network convolves over, which one holds
its channels, and that every other axis is just a series of independent images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = "TCZYXS"
Channels = Literal["auto", "independent", "joint"]
Region = tuple[slice, ...]

# Fewer planes than this along Z hold too little context to learn from in 3D.
MIN_3D_PLANES = 8


def parse_axes(axes: str, shape: Sequence[int]) -> str:
    """Check an axis string against an array's shape.

    Parameters
    ----------
    axes
        One letter of ``TCZYXS`` per dimension, in the array's order; case does not matter.
    shape
        The array's shape.

    Returns
    -------
    str
        The axes in capitals.

    Raises
    ------
    ValueError
        If a letter is unknown or repeated, the count differs from the dimensions, or Y or X is missing.
    """
    named = axes.upper()
    unknown = sorted(set(named) - set(AXES))
    if unknown:
        raise ValueError(f"axes {axes!r} contain {''.join(unknown)!r}. Use only the letters {AXES}, e.g. 'ZYX'.")
    if len(set(named)) != len(named):
        raise ValueError(f"axes {axes!r} name a dimension twice. Give each letter of {AXES} at most once.")
    if len(named) != len(shape):
        raise ValueError(
            f"axes {axes!r} name {len(named)} dimensions, but the array has {len(shape)}: {tuple(shape)}. "
            f"Give one letter of {AXES} per dimension, e.g. {guess_axes(shape)!r}."
        )
    if not {"Y", "X"} <= set(named):
        raise ValueError(f"axes {axes!r} must contain Y and X, the two axes of an image plane.")
    return named


def guess_axes(shape: Sequence[int], dtype: Any = None) -> str:
    """Guess axes for an array that does not name its own.

    The last two dimensions are Y and X, unless the last one holds three or four 8-bit samples (RGB or RGBA). A
    third dimension is Z; of four, a first one of at most four entries is C, else T; five are TCZYX.

    Raises
    ------
    ValueError
        If the array has fewer than two or more than five dimensions (six with RGB samples).
    """
    dims = len(shape)
    if dims < 2:
        raise ValueError(f"an array of shape {tuple(shape)} is not an image: at least two dimensions are needed.")
    if dims > 2 and shape[-1] in (3, 4) and dtype is not None and np.dtype(dtype) == np.uint8 and min(shape[-3:-1]) > 4:
        return guess_axes(shape[:-1]) + "S"
    if dims > 5:
        raise ValueError(f"cannot guess the axes of {dims} dimensions {tuple(shape)}. Name them, e.g. axes='TCZYX'.")
    if dims == 4:
        return ("C" if shape[0] <= 4 else "T") + "ZYX"
    return {2: "YX", 3: "ZYX", 5: "TCZYX"}[dims]


def default_spatial(axes: str, shape: Sequence[int]) -> str:
    """Choose the axes a network should convolve over: ``ZYX`` for a real stack, else ``YX``."""
    if "Z" in axes and shape[axes.index("Z")] >= MIN_3D_PLANES:
        return "ZYX"
    return "YX"


@dataclass(frozen=True)
class Layout:
    """How an array with named axes maps to ``(channels, *spatial)`` images.

    Parameters
    ----------
    axes
        The array's axes, in its own order.
    spatial
        The two or three axes that a network convolves over, in the network's order.
    channel
        The axis that a network sees as its channels, or ``""``. All remaining axes are batch axes.
    """

    axes: str
    spatial: str
    channel: str = ""

    def __post_init__(self) -> None:
        missing = [a for a in self.spatial + self.channel if a not in self.axes]
        if missing:
            raise ValueError(
                f"the network works on {self.spatial + self.channel!r}, but the image has axes {self.axes!r}: "
                f"{', '.join(missing)} is missing. Check axes=, or train a model on images like this one."
            )
        if len(self.spatial) not in (2, 3) or not {"Y", "X"} <= set(self.spatial) or "S" in self.spatial:
            raise ValueError(f"spatial axes {self.spatial!r} are not supported. Use 'YX', 'ZYX' or 'TYX'.")
        if self.channel and self.channel in self.spatial:
            raise ValueError(f"axis {self.channel!r} cannot be both a channel and a spatial axis.")

    @classmethod
    def choose(cls, axes: str, shape: Sequence[int], spatial: str | None = None, channels: Channels = "auto") -> Layout:
        """Pick a layout for an array.

        Parameters
        ----------
        axes, shape
            Of the array.
        spatial
            ``"YX"``, ``"ZYX"`` or ``"TYX"`` (time as context); by default 3D if there are enough planes.
        channels
            ``"joint"``: one network sees all channels of a pixel at once. ``"independent"``: every channel is an
            image by itself. ``"auto"``: joint for RGB samples, independent for fluorescence channels.
        """
        spatial = (spatial or default_spatial(axes, shape)).upper()
        channel = "S" if "S" in axes else ""
        if channels == "joint" and not channel and "C" in axes:
            channel = "C"
        elif channels == "independent":
            channel = ""
        return cls(axes, spatial, channel)

    @property
    def batch(self) -> str:
        """Axes along which images are independent of each other."""
        return "".join(a for a in self.axes if a not in self.spatial + self.channel)

    @property
    def channel_images(self) -> str:
        """Axis whose entries are images of one channel each, or ``""``: colours, fluorescence channels."""
        return next((a for a in "SC" if a in self.batch), "")

    def sizes(self, axes: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths of the named axes, in the order asked for."""
        return tuple(shape[self.axes.index(a)] for a in axes)

    def spatial_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths of the spatial axes, in the network's order."""
        return self.sizes(self.spatial, shape)

    def n_channels(self, shape: Sequence[int]) -> int:
        """Return how many channels a network sees."""
        return self.sizes(self.channel, shape)[0] if self.channel else 1

    def indices(self, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Iterate over the positions along the batch axes: one independent image each."""
        return product(*(range(n) for n in self.sizes(self.batch, shape)))

    def key(self, index: Sequence[int], region: Sequence[slice]) -> tuple[slice, ...]:
        """Return the slices, in the array's order, of one region of one image; batch axes keep length 1."""
        by_axis = {a: slice(i, i + 1) for a, i in zip(self.batch, index, strict=True)}
        by_axis |= dict(zip(self.spatial, region, strict=True))
        return tuple(by_axis.get(a, slice(None)) for a in self.axes)

    def read(self, data: Any, index: Sequence[int], region: Sequence[slice]) -> NDArray[Any]:
        """Read one region of one image, and nothing else; the dtype stays.

        Parameters
        ----------
        data
            Array-like with the layout's axes.
        index
            Position along the batch axes.
        region
            One slice per spatial axis.

        Returns
        -------
        ndarray, (channels, *region)
        """
        return self.to_network(np.asarray(data[self.key(index, region)]))

    def to_network(self, block: NDArray[Any]) -> NDArray[Any]:
        """Reorder a block with batch axes of length 1 to ``(channels, *spatial)``."""
        order = [self.axes.index(a) for a in self.batch + self.channel + self.spatial]
        moved = np.transpose(block, order)
        kept = moved.shape[len(self.batch) :]
        return moved.reshape(kept if self.channel else (1, *kept))

    def from_network(self, block: NDArray[Any]) -> NDArray[Any]:
        """Undo `to_network`: ``(channels, *spatial)`` back to the array's order, batch axes of length 1."""
        inner = block if self.channel else block[0]
        order = self.batch + self.channel + self.spatial
        expanded = inner.reshape((1,) * len(self.batch) + inner.shape)
        return np.transpose(expanded, [order.index(a) for a in self.axes])
