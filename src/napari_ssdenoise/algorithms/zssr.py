"""ZSSR: zero-shot super-resolution (Shocher, Cohen and Irani 2018), learnt from nothing but the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from napari_ssdenoise.algorithms._super_resolution import SuperResolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.algorithms._base import Network
    from napari_ssdenoise.engine.patches import Batch


@dataclass(frozen=True, kw_only=True)
class ZeroShotSuperResolution(SuperResolution):
    """Sharpen an image with a network that is trained, from random weights, on that image alone.

    Assumes that small structures look like larger ones: what the image shows at its own scale also tells how details
    look that are half as large. Noise is enlarged with the image: denoise first.
    """

    key: ClassVar[str] = "zssr"
    title: ClassVar[str] = "ZSSR (zero-shot super-resolution)"
    reference: ClassVar[str] = (
        "Shocher, Cohen, Irani: Zero-Shot Super-Resolution using Deep Internal Learning. CVPR 2018."
    )

    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Adam's step size before annealing.",
    ] = 1e-3
    scales: Annotated[
        bool,
        {"label": "Smaller copies", "advanced": True},
        "Learn from smaller copies of the image too (planes only).",
    ] = True

    def batch_size(self, patch: Sequence[int]) -> int:
        """Choose about 16,000 pixels: the paper takes one crop of 128 x 128."""
        return max(1, (1 << 14) // prod(patch))

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the error on fathers of the image's scale, or (half of the time) of a smaller one."""
        import torch
        import torch.nn.functional as F

        from napari_ssdenoise.engine.patches import Batch as Patches

        scale = 1 - 0.5 * float(torch.rand((), generator=rng)) ** 2
        images: Any = batch.noisy
        least = 4 * max(self.factor, self.factor_z)
        if self.scales and images.ndim == 4 and float(torch.rand((), generator=rng)) < 0.5:
            size = [max(least, int(n * scale) // self.factor * self.factor) for n in images.shape[2:]]
            images = F.interpolate(images.float(), size, mode="bicubic", antialias=True)
        return super().loss(network, Patches(images, images), rng)
