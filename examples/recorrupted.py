"""Recorrupted-to-Recorrupted (Pang, Zheng, Quan, Ji: CVPR 2021) as an algorithm of napari-ssdenoise, from outside.

From one noisy image y with noise of deviation s, two are made: y + a s n and y - s n / a, with fresh normal numbers n.
Their noise is independent, so that a network which learns to make the second of the first learns to denoise, as with
two photographs of the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from napari_ssdenoise.algorithms import Network, UNetAlgorithm

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from napari_ssdenoise.engine.patches import Batch


@dataclass(frozen=True, kw_only=True)
class Recorrupted(UNetAlgorithm):
    """Learn from one noisy image, to which noise is added in two ways.

    Assumes normal noise of one strength, independent between pixels.
    """

    key: ClassVar[str] = "r2r"
    title: ClassVar[str] = "Recorrupted-to-Recorrupted"
    reference: ClassVar[str] = "Pang, Zheng, Quan, Ji: Recorrupted-to-Recorrupted. CVPR 2021."

    mixing: Annotated[
        float,
        {"min": 0.1, "max": 5.0, "step": 0.1, "label": "Mixing", "advanced": True},
        "How much noise goes to the input; the target gets as much more as this is less.",
    ] = 0.5

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the squared difference of what is made of the one, and the other (eq. 7)."""
        import torch

        noisy = batch.noisy
        fresh = deviation(noisy) * torch.randn(noisy.shape, generator=rng).to(noisy.device)
        made = network(noisy + self.mixing * fresh).float()
        return (made - (noisy - fresh / self.mixing)).square().mean()


def deviation(noisy: Tensor) -> Tensor:
    """Measure the noise by how much pixels differ from the mean of their neighbours along X; edges count little."""
    bends = noisy[..., 1:-1] - (noisy[..., :-2] + noisy[..., 2:]) / 2
    return bends.abs().median() / (0.6745 * 1.5**0.5)
