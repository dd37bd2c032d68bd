"""Where training patches come from: scenes, each seen in one or more views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.complex_parts import is_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True, eq=False)
class View:
    """One image of a volume, or a part of it.

    Attributes
    ----------
    volume, layout
        Where it is from, and how the axes of that are understood.
    index
        Its position along the volume's batch axes.
    origin, extent
        Lowest corner and size of the part, per spatial axis; all of the image by default.
    """

    volume: Volume
    layout: Layout
    index: tuple[int, ...]
    origin: tuple[int, ...] = ()
    extent: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the spatial axes."""
        return self.extent or self.layout.spatial_shape(self.volume.shape)

    @property
    def corner(self) -> tuple[int, ...]:
        """Where in the image it begins."""
        return self.origin or (0,) * len(self.layout.spatial)

    @property
    def channels(self) -> int:
        """Channels that a network sees."""
        return self.layout.n_channels(self.volume.shape)

    @property
    def channel(self) -> int:
        """Index of this image's first channel among all that are normalised: not 0 where channels are images."""
        axis = "C" if is_parts(self.volume) else self.layout.channel_images  # both parts are normalised alike
        return self.channels * self.index[self.layout.batch.index(axis)] if axis in [*self.layout.batch] else 0

    def read(self, region: Sequence[slice]) -> NDArray[Any]:
        """Read ``(channels, *region)`` and refuse values that no network can take.

        Raises
        ------
        ValueError
            If there are NaN or infinite values.
        """
        if self.origin:
            region = [slice(r.start + o, r.stop + o) for r, o in zip(region, self.origin, strict=True)]
        block = self.layout.read(self.volume.data, self.index, region)
        require_finite(block, self.volume.name)
        return block


@dataclass(frozen=True, eq=False)
class Scene:
    """Views of the same thing, equal in shape."""

    views: tuple[View, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.views[0].shape

    @property
    def voxels(self) -> int:
        return int(np.prod(self.shape))

    def read(self, region: Sequence[slice], normalization: Normalization) -> NDArray[np.float32]:
        """Return the views of a region, normalised, as ``(views, channels, *region)``."""
        return np.stack([normalization.apply(view.read(region), view.channel) for view in self.views])

    def varied(self, patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a patch of what was read, drawn anew as far as views can stand for each other; here, as it is."""
        return patch


def require_finite(block: NDArray[Any], name: str) -> None:
    """Refuse NaN, infinities, and numbers too large for single precision.

    Raises
    ------
    ValueError
        Saying how many there are and what to do.
    """
    if block.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = 1 - np.isfinite(block.astype(np.float32, copy=False)).mean()
    if bad:
        raise ValueError(
            f"{name!r} has NaN, infinite or huge values (beyond 3e38) in {bad:.2%} of the pixels of one block. "
            "Replace them first, for example by the median of their neighbours."
        )
