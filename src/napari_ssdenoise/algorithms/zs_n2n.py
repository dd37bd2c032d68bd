"""Zero-Shot Noise2Noise (Mansour and Heckel 2023): a result in seconds, from one image and a tiny network."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from napari_ssdenoise.algorithms._base import Algorithm, Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.engine.patches import Batch


@dataclass(frozen=True, kw_only=True)
class ZeroShotNoise2Noise(Algorithm):
    """Learn in seconds: make two half-size images of the diagonals of 2 x 2 pixels, and predict one from the other.

    Assumes noise of zero mean that is independent between diagonal neighbours, and a signal that is nearly the same
    in both diagonals: sampled finely. Good for a first look; longer methods see further and give cleaner images.
    """

    key: ClassVar[str] = "zs-n2n"
    title: ClassVar[str] = "Zero-Shot Noise2Noise"
    reference: ClassVar[str] = "Mansour and Heckel: Zero-Shot Noise2Noise. CVPR 2023."
    doi: ClassVar[str] = "10.48550/arXiv.2303.11253"
    # The paper takes the whole image in each step. In equal time, many steps on a few small crops come further.
    patch_side: ClassVar[int] = 32

    width: Annotated[
        int,
        {"min": 4, "max": 256, "step": 4, "label": "Filters", "advanced": True},
        "Filters of the network's two layers.",
    ] = 48
    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Adam's step size before annealing.",
    ] = 4e-3  # four times the paper's, for a budget of seconds

    def batch_size(self, patch: Sequence[int]) -> int:
        """Choose about 8,000 pixels: see `patch_side`."""
        return max(1, 8192 // prod(patch))

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.shallow import ShallowNet

        return ShallowNet(len(pooled), channels, width=self.width)

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the residual and the consistency loss (Mansour and Heckel, eq. 4 and 5)."""
        import torch

        from napari_ssdenoise.ops.subsample import diagonal_pair

        noisy = diagonal_pair(batch.noisy)
        clean = network(torch.cat(noisy)).float().chunk(2)
        whole = diagonal_pair(network(batch.noisy).float())
        residual = (clean[0] - noisy[1]).square().mean() + (clean[1] - noisy[0]).square().mean()
        consistency = (clean[0] - whole[0]).square().mean() + (clean[1] - whole[1]).square().mean()
        return 0.5 * (residual + consistency)
