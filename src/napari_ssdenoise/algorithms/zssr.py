"""ZSSR: zero-shot super-resolution (Shocher, Cohen and Irani 2018), learnt from nothing but the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from napari_ssdenoise.algorithms._super_resolution import SuperResolution, drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.algorithms._base import Network
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.ops.degrade import Degradation


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
    doi: ClassVar[str] = "10.48550/arXiv.1712.06087"

    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Adam's step size before annealing.",
    ] = 1e-3
    gradual: Annotated[
        bool,
        {"label": "Gradual factors", "advanced": True},
        "For even factors from 4 on, in planes: learn half the factor first, then learn from what that makes as well.",
    ] = False
    ensemble: Annotated[
        bool,
        {"label": "All poses", "advanced": True},
        "Sharpen the image in all poses (flipped, Y and X exchanged) that its blur allows, and average: a little "
        "better, and up to eight times as slow to apply.",
    ] = True

    def optimizer(self, parameters: Sequence[Tensor]) -> Any:
        """Make AdamW, with centred gradients: no filter learns to answer to brightness (Yong et al. 2020, eq. 1).

        All that a layer receives is positive, so at this rate a filter's weights, moved alike, shift the whole image by
        more than there is to sharpen in a smooth one; back and forth, until no filter answers to anything any more.
        """
        for kernel in parameters:
            if kernel.ndim > 1:
                kernel.register_hook(_centred)  # type: ignore[no-untyped-call]
        return super().optimizer(parameters)

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the error on fathers of the image's scale, or of a smaller or a larger one."""
        resolver: Any = network
        fathers, degradation = batch.noisy, resolver.degradation
        if self.gradual and self.factor >= 4 and self.factor % 2 == 0 and self.factor_z == 1:
            half = degradation.coarser(2)
            kind = 3 * drawn(rng)
            if batch.progress < 0.5 or kind < 1:
                degradation = half
            elif kind < 2:
                fathers = _finer(network, fathers, half, rng)
        return self.error(network, self.rescaled(fathers, rng), degradation, rng)


def _centred(gradient: Tensor) -> Tensor:
    """Subtract from the gradient of each filter its mean over the filter's weights."""
    return gradient - gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)


def _finer(network: Any, fathers: Tensor, degradation: Degradation, rng: Generator) -> Tensor:
    """Return parts, as large as the fathers, of what the network makes of them so far."""
    import torch

    with torch.no_grad():
        finer: Tensor = network.sharpen(degradation.up(fathers)).float()
    for d, n in enumerate(fathers.shape[2:], 2):
        finer = finer.narrow(d, int(drawn(rng) * (finer.shape[d] - n + 1)), n)
    return finer
