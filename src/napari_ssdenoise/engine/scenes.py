"""Where training patches come from: scenes, each seen in one or more views."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.ops.brightness import Brightness
from napari_ssdenoise.ops.phases import matched
from napari_ssdenoise.ops.registration import middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume

PLANES = 4  # of stacks, where views are compared


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
    def shows_complex(self) -> bool:
        """Whether its channels are the two parts of a complex image."""
        return is_parts(self.volume) and self.channels == 2

    @property
    def channel(self) -> int:
        """Index of this image's first channel among all that are normalised: along C where channels are images."""
        return self.channels * self.index[self.layout.batch.index("C")] if "C" in self.layout.batch else 0

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
    """Views of the same thing, equal in shape.

    Attributes
    ----------
    views
        One or more.
    match
        Whether the other views are brought to the brightness of the first one, or, if they are complex, to its phase.
    """

    views: tuple[View, ...]
    match: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.views[0].shape

    @property
    def voxels(self) -> int:
        return int(np.prod(self.shape))

    def read(self, region: Sequence[slice], normalization: Normalization) -> NDArray[np.float32]:
        """Return the views of a region, normalised, as ``(views, channels, *region)``."""
        first, *others = (view.read(region) for view in self.views)
        if self.match and not self.views[0].shows_complex:
            others = [line.apply(image) for line, image in zip(self._brightness, others, strict=True)]
        images = [normalization.apply(i, v.channel) for i, v in zip([first, *others], self.views, strict=True)]
        if self.match and self.views[0].shows_complex:
            images[1:] = [matched(images[0], image) for image in images[1:]]
        return np.stack(images)

    @cached_property
    def _brightness(self) -> list[Brightness]:
        """What brings the other views to the brightness of the first, as their middle tells."""
        region = middle(self.shape, planes=PLANES)
        first, *others = (view.read(region) for view in self.views)
        return [Brightness.between(first, image) for image in others]


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
