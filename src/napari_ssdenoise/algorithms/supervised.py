"""Supervised learning: from noisy images and clean ones of the same scene. The yardstick of all that does without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm
from napari_ssdenoise.algorithms._warm_start import WarmStarted
from napari_ssdenoise.algorithms.noise2noise import with_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.engine.scenes import Scene
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Supervised(WarmStarted, UNetAlgorithm):
    """Learn to predict a clean image (the target) from a noisy one of the same scene.

    Where there are clean images, of a longer exposure for example, nothing learns faster. What it learns holds for
    images and noise of the same kind only.
    """

    key: ClassVar[str] = "supervised"
    title: ClassVar[str] = "Supervised (clean targets)"
    reference: ClassVar[str] = "Zhang et al.: Beyond a Gaussian denoiser. IEEE Transactions on Image Processing 2017."
    doi: ClassVar[str] = "10.1109/TIP.2017.2662206"
    weights: ClassVar[str] = "denoising-unet.safetensors"

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the squared error of what is made of the noisy image."""
        return (network(batch.noisy).float() - batch.target).square().mean()

    def scenes(self, volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
        """Pair noisy images with clean ones.

        Raises
        ------
        ValueError
            If there is no clean image for each noisy one, or they differ in axes or shape.
        """
        if len(targets) != len(volumes):
            raise ValueError(
                f"supervised learning needs a clean image of the same scene for each of the {len(volumes)} images, but "
                f"got {len(targets)}. Give target=, or choose a method that learns without."
            )
        return with_targets(volumes, layouts, targets)
