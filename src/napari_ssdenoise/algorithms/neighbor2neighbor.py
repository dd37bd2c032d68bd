"""Neighbor2Neighbor (Huang et al. 2021): neighbouring pixels of one image as two noisy views of the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm
from napari_ssdenoise.algorithms._warm_start import WarmStarted

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from napari_ssdenoise.engine.patches import Batch


@dataclass(frozen=True, kw_only=True)
class Neighbor2Neighbor(WarmStarted, UNetAlgorithm):
    """Learn to predict one pixel of every 2 x 2 cell from another one: all pixels train, and none is hidden.

    Assumes noise of zero mean that is independent between neighbouring pixels, and a signal that changes little from
    one pixel to the next; what does change is held up by the regularisation.
    """

    key: ClassVar[str] = "nb2nb"
    title: ClassVar[str] = "Neighbor2Neighbor"
    reference: ClassVar[str] = "Huang et al.: Neighbor2Neighbor. CVPR 2021."
    doi: ClassVar[str] = "10.48550/arXiv.2101.02824"
    weights: ClassVar[str] = "denoising-unet.safetensors"

    regularisation: Annotated[
        float,
        {"min": 0.0, "max": 20.0, "step": 0.5, "label": "Regularisation"},
        "How much the difference between neighbours counts: 1 for real noise, 2 for synthetic; more keeps more detail.",
    ] = 1.0

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the error between neighbours, and how far it is from what the whole image says (eq. 8)."""
        import torch

        from napari_ssdenoise.ops.subsample import neighbour_choice, pick

        # Halves must fit the network's grid too.
        grid = [2 * s for s in network.stride[-2:]]
        rows, columns = (n // g * g for n, g in zip(batch.noisy.shape[-2:], grid, strict=True))
        noisy = batch.noisy[..., :rows, :columns]
        cells = (len(noisy), *noisy.shape[2:-2], rows // 2, columns // 2)
        first, second = neighbour_choice(cells, rng)
        error = network(pick(noisy, first)).float() - pick(noisy, second)
        with torch.no_grad():
            whole = network(noisy).float()
        expected = pick(whole, first) - pick(whole, second)
        weight = self.regularisation * batch.progress
        return error.square().mean() + weight * (error - expected).square().mean()
