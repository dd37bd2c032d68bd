"""Which images a network is made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.axes import Channels, Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.volume import Volume

# Axes shorter than this are not halved by a network.
MIN_POOLED = 16


@dataclass(frozen=True)
class Geometry:
    """The images a network is made for.

    Parameters
    ----------
    spatial
        Axes that it convolves over.
    n_channels
        Channels that it sees at once.
    channels
        How axis C is understood; see `Trainer`.
    pooled
        Which spatial axes it halves.
    """

    spatial: str
    n_channels: int
    channels: Channels
    pooled: tuple[bool, ...]

    @classmethod
    def choose(cls, views: Sequence[View], channels: Channels) -> Geometry:
        """Make the geometry that fits all images.

        Raises
        ------
        ValueError
            If their channels or spatial axes differ.
        """
        kinds = {(view.layout.spatial, view.channels) for view in views}
        if len(kinds) > 1:
            raise ValueError(
                f"the images differ in spatial axes or channels: {sorted(kinds)}. Train on images of one kind, or "
                "name axes and spatial axes so that they agree."
            )
        spatial, n_channels = kinds.pop()
        thinnest = [min(view.shape[d] for view in views) for d in range(len(spatial))]
        return cls(spatial, n_channels, channels, tuple(n >= MIN_POOLED for n in thinnest))

    def build(self, algorithm: Algorithm) -> Any:
        """Make the algorithm's network, untrained."""
        return algorithm.build(self.n_channels, self.pooled)

    def layout(self, volume: Volume) -> Layout:
        """Return how a volume maps to this network.

        Raises
        ------
        ValueError
            If its axes or channels do not fit.
        """
        layout = Layout.choose(volume.axes, volume.shape, self.spatial, self.channels)
        found = layout.n_channels(volume.shape)
        if found != self.n_channels:
            raise ValueError(
                f"the model works on {self.n_channels} channels at once, but {volume.name!r} {volume.axes} "
                f"{volume.shape} has {found}. Choose an image like those it was trained on."
            )
        return layout
