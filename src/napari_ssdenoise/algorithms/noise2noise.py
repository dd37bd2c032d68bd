"""Noise2Noise (Lehtinen et al. 2018): learn from two noisy views of one scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm
from napari_ssdenoise.engine.scenes import Scene, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Noise2Noise(UNetAlgorithm):
    """Learn to predict one noisy view of a scene from another one.

    Assumes that both views show the same scene, registered to the pixel, with noise of zero mean that is independent
    between the views. The views are a second image (``target``), two channels, or neighbouring frames.
    """

    key: ClassVar[str] = "n2n"
    title: ClassVar[str] = "Noise2Noise"
    reference: ClassVar[str] = "Lehtinen et al.: Noise2Noise. ICML 2018."

    pairs: Annotated[
        Literal["target", "frames", "channels"],
        {"label": "Pairs"},
        "Where the second view is: in a target image, in the neighbouring frames, or in the second channel.",
    ] = "target"
    frame_distance: Annotated[
        int,
        {"min": 1, "max": 1000, "step": 1, "label": "Frame distance"},
        "How many frames apart two views may be, when pairs are frames; large only if nothing moves.",
    ] = 1
    loss_function: Annotated[
        Literal["l2", "l1"],
        {"label": "Loss", "advanced": True},
        "l2 estimates the mean of the noisy values; l1 their median, for outliers.",
    ] = "l2"

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the error against the other view, which of the two is the input being drawn at random."""
        import torch

        swap = torch.rand((len(batch.noisy),) + (1,) * (batch.noisy.ndim - 1), generator=rng) < 0.5
        swap = swap.to(batch.noisy.device)
        noisy = torch.where(swap, batch.target, batch.noisy)
        target = torch.where(swap, batch.noisy, batch.target)
        error = network(noisy).float() - target
        return error.square().mean() if self.loss_function == "l2" else error.abs().mean()

    def scenes(self, volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
        """Pair the views.

        Raises
        ------
        ValueError
            If the volumes hold no such pairs: no or misshapen target, no time axis, not two channels.
        """
        if self.pairs != "target" and targets:
            raise ValueError(f"pairs={self.pairs!r} finds both views in one image; leave the target out.")
        if self.pairs == "target" and len(targets) != len(volumes):
            raise ValueError(
                f"Noise2Noise needs a second noisy image of the same scene for each of the {len(volumes)} images, "
                f"but got {len(targets)}. Give target=, or set pairs to 'frames' or 'channels'."
            )
        find = {"target": self._targets, "frames": self._frames, "channels": self._channels}[self.pairs]
        seconds: Sequence[Volume] = targets or volumes
        return [
            Scene(tuple(views))
            for volume, layout, second in zip(volumes, layouts, seconds, strict=True)
            for views in find(volume, layout, second)
        ]

    def _targets(self, volume: Volume, layout: Layout, second: Volume) -> Iterator[list[View]]:
        if (second.axes, second.shape) != (volume.axes, volume.shape):
            raise ValueError(
                f"the target {second.name!r} ({second.axes} {second.shape}) and {volume.name!r} ({volume.axes} "
                f"{volume.shape}) differ. Both must show the same scene, pixel by pixel."
            )
        for index in layout.indices(volume.shape):
            yield [View(volume, layout, index), View(second, layout, index)]

    def _frames(self, volume: Volume, layout: Layout, _: Volume) -> Iterator[list[View]]:
        frames = volume.sizes.get("T", 1)
        if frames < 2 or "T" not in layout.batch:
            raise ValueError(
                f"pairs='frames' needs a time axis T of 2 frames or more; {volume.name!r} has {volume.axes}."
            )
        at = layout.batch.index("T")
        for index in layout.indices(volume.shape):
            for distance in range(1, min(self.frame_distance, frames - 1 - index[at]) + 1):
                later = (*index[:at], index[at] + distance, *index[at + 1 :])
                yield [View(volume, layout, index), View(volume, layout, later)]

    def _channels(self, volume: Volume, layout: Layout, _: Volume) -> Iterator[list[View]]:
        if volume.sizes.get("C") != 2 or "C" not in layout.batch:
            raise ValueError(
                f"pairs='channels' needs an axis C with 2 independent channels; {volume.name!r} has "
                f"{volume.axes} {volume.shape}."
            )
        at = layout.batch.index("C")
        for index in layout.indices(volume.shape):
            if index[at] == 0:
                yield [View(volume, layout, index), View(volume, layout, (*index[:at], 1, *index[at + 1 :]))]
