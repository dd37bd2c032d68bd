"""SASL (Li et al. 2023): self-supervised denoising where neighbouring pixels share noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Generator, Tensor

    from napari_ssdenoise.algorithms._base import Conditions
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.normalize import Normalization

# Deviations within a window, in grey levels, between which a place is neither flat nor textured (Li et al., eq. 6), and
# the deviation, in these, of the noise in the paper's photographs: other images are brought to it.
FLAT, TEXTURED = 1, 5
NOISE = 17


@dataclass(frozen=True, kw_only=True)
class SpatiallyAdaptive(UNetAlgorithm):
    """Denoise where neighbours share noise: learn flat places from far around, and texture from close by.

    Three stages: a network that does not look at a pixel's neighbourhood; one that only looks there and learns from
    the first, so that it has no choice but to keep the detail and to lose the noise; and a U-Net that learns from both,
    from the first where the image is flat, from the second where it has texture. Assumes noise of zero mean, whose
    correlation ends within the blind neighbourhood.
    """

    key: ClassVar[str] = "sasl"
    title: ClassVar[str] = "SASL (noise shared by neighbours)"
    reference: ClassVar[str] = (
        "Li, Zhang, Li, Feng, Gu and Zuo: Spatially adaptive self-supervised learning for real-world image denoising. "
        "CVPR 2023."
    )
    doi: ClassVar[str] = "10.48550/arXiv.2303.14934"
    mirrored: ClassVar[bool] = False
    stages: ClassVar[tuple[float, ...]] = (0.0, 0.5, 0.65)

    blind: Annotated[
        str,
        {"label": "Blind neighbourhood"},
        "Width, in pixels, of the neighbourhood that shares a pixel's noise: one odd number, or two for Y,X; auto "
        "measures how far the noise is correlated.",
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blind != "auto":
            self._widths(2)

    def batch_size(self, patch: Sequence[int]) -> int:
        return max(2, 32768 // prod(patch))

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.local import AdaptiveNet

        ndim = len(pooled)
        return AdaptiveNet(super().build(channels, pooled), ndim, channels, pooled, self._widths(ndim))

    def fitted(
        self, views: Sequence[View], normalization: Normalization, rng: np.random.Generator
    ) -> tuple[Self, Conditions]:
        """Measure how far the noise reaches, if that was left open."""
        from napari_ssdenoise.algorithms._noise_fit import correlated_widths

        if self.blind != "auto":
            return self, ()
        return replace(self, blind=",".join(map(str, correlated_widths(views, rng)))), ()

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the mean absolute error of the stage's network (Li et al., eq. 2, 4 and 7)."""
        import torch

        nets: Any = network
        # What is held out is judged by the blind network: the others have no target that is not a network's.
        stage = self.within_stage(batch.progress)[0] if network.training else 0
        if stage == 0:
            return _apart(nets.blind(batch.noisy), batch.target)
        with torch.no_grad():
            smooth = nets.blind(batch.noisy).float()
            sharp = nets.local(batch.noisy).float() if stage == 2 else smooth
        if stage == 1:
            return _apart(nets.local(batch.noisy), smooth)
        texture = self._texture(smooth, batch)
        made = nets.unet(batch.noisy)
        return _apart(made, smooth, 1 - texture) + _apart(made, sharp, texture)

    def _texture(self, smooth: Tensor, batch: Batch) -> Tensor:
        """Return how much texture there is (Li et al., eq. 6): 0.5 where it is undecided, towards 1 the more."""
        from napari_ssdenoise.networks.local import local_deviation

        noise = (batch.target - smooth).square().mean().sqrt()
        found = NOISE * local_deviation(smooth) / noise
        return (found - FLAT).clamp_max(0).sigmoid() + (found - TEXTURED).clamp_min(0).sigmoid() - 0.5

    def _widths(self, ndim: int) -> tuple[int, ...]:
        """Return the blind neighbourhood's width along each spatial axis.

        Raises
        ------
        ValueError
            If the setting is no such widths.
        """
        if self.blind == "auto":
            return (1,) * (ndim - 2) + (9, 9)
        try:
            widths = [int(part) for part in self.blind.split(",")]
        except ValueError:
            widths = []
        widths = widths * 2 if len(widths) == 1 else widths
        if len(widths) not in (2, 3) or any(n < 1 or n % 2 == 0 or n > 63 for n in widths):
            raise ValueError(
                f"blind={self.blind!r} is no neighbourhood. Give one odd number of pixels, or two for Y,X, e.g. '5,9'; "
                "or 'auto'."
            )
        return ((1,) * ndim + tuple(widths))[-ndim:]


def _apart(made: Tensor, target: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Return the mean absolute difference."""
    return (weight * (made.float() - target).abs()).mean()
