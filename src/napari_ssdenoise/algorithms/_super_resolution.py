"""What the super-resolution methods share: they learn to undo a blur by undoing it once more on the image itself.

The image is reduced once more, with the blur that made it ("son" of the "father"; Shocher et al. 2018), and a network
learns to make the father of the son. Applied to the father, it makes an image with smaller pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from napari_ssdenoise.algorithms._base import Algorithm, Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.ops.degrade import Degradation
    from napari_ssdenoise.volume import Volume

PLANE_PIXELS = 1 << 15  # of the planes of a stack that one update looks at


class Method(NamedTuple):
    """A way to enlarge, as people choose it: an algorithm's key, settings of its own, and its usual updates."""

    key: str
    values: dict[str, Any]
    updates: int


METHODS = {
    "mzsr": Method("mzsr", {}, 10),
    "zssr": Method("zssr", {}, 1000),
    "ibp": Method("interpolation", {"back_projections": 10}, 0),
    "bicubic": Method("interpolation", {"back_projections": 0}, 0),
}


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Algorithm):
    """Base of the methods that make pixels smaller."""

    purpose: ClassVar[Literal["denoise", "upscale"]] = "upscale"
    patch_side: ClassVar[int] = 128
    # Whether there is anything to adapt to an image.
    learns: ClassVar[bool] = True

    factor: Annotated[
        int,
        {"min": 1, "max": 8, "step": 1, "label": "Factor"},
        "How many pixels to make of one, along Y and X.",
    ] = 2
    factor_z: Annotated[
        int,
        {"min": 1, "max": 8, "step": 1, "label": "Factor along Z"},
        "How many planes to make of one; learnt from the planes themselves, whose pixels are smaller.",
    ] = 1
    kernel: Annotated[
        str,
        {"label": "Blur"},
        "What blurred the image: auto; a standard deviation in new pixels, or with a unit as in '0.2 um' (one for "
        "each axis, z,y,x, if separated by commas); bicubic; or a file with a measured point-spread function.",
    ] = "auto"
    grid: Annotated[
        Literal["registered", "topleft"],
        {"label": "Grid", "advanced": True},
        "Where old pixels lie: in the middle of the new ones, or (in benchmarks) on the first of them.",
    ] = "registered"
    back_projections: Annotated[
        int,
        {"min": 0, "max": 50, "step": 1, "label": "Back-projections", "advanced": True},
        "How often to correct the result so that, blurred and reduced, it gives the image again.",
    ] = 2
    ensemble: Annotated[
        bool,
        {"label": "All poses", "advanced": True},
        "Sharpen the image in all poses (flipped, Y and X exchanged) that its blur allows, and average: a little "
        "better, and up to eight times as slow to apply.",
    ] = False
    scales: Annotated[
        bool,
        {"label": "Smaller copies", "advanced": True},
        "Learn from smaller copies of the image too (planes only): small structures look like larger ones.",
    ] = True
    son_noise: Annotated[
        float,
        {"min": 0.0, "max": 1.0, "step": 0.001, "label": "Noise on the son", "advanced": True},
        "Standard deviation, in parts of the image's, of noise added to what the network learns from.",
    ] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor == self.factor_z == 1:
            raise ValueError("factor 1 leaves the image as it is. Choose 2 or more, for the plane or for Z.")

    def factors(self, ndim: int) -> tuple[int, ...]:
        """Return the factor of each spatial axis.

        Raises
        ------
        ValueError
            If Z is to be enlarged, but is no spatial axis.
        """
        if ndim == 2 and self.factor_z > 1:
            raise ValueError("to enlarge along Z, learn in 3D: choose spatial='ZYX', for a stack with an axis Z.")
        return (self.factor_z, self.factor, self.factor)[3 - ndim :]

    def batch_size(self, patch: Sequence[int]) -> int:
        """Choose about 16,000 pixels, as ZSSR does: one crop of 128 x 128."""
        return max(1, (1 << 14) // prod(patch))

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.resnet_sr import ResidualNet, SuperResolver
        from napari_ssdenoise.ops.degrade import Degradation

        factors = self.factors(len(pooled))
        body = ResidualNet(2 if len(pooled) == 2 or self.factor == 1 else 3)
        placeholder = Degradation.gaussian([(f / 3) ** 2 if f > 1 else 0.0 for f in factors], factors, self.grid)
        return SuperResolver(body, placeholder, self.back_projections, ensemble=self.ensemble)

    def begin(self, network: Any, views: Sequence[View]) -> None:
        """Find the blur, and give it to the network."""
        from napari_ssdenoise.algorithms._blur import degradation_of

        network.degradation = degradation_of(views, self.factors(len(network.factors)), self.kernel, self.grid)

    @property
    def along(self) -> dict[str, int]:
        """The factors by axis."""
        return {"Z": self.factor_z, "Y": self.factor, "X": self.factor}

    def prepared(self, volume: Volume) -> Volume:
        from napari_ssdenoise.enlarged import enlarged

        return enlarged(volume, self.along, self.grid == "registered")

    def symmetries(self, spatial: str) -> tuple[str, ...]:
        """Patches are turned in `loss`, where the blur stays as it is."""
        return ()

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the mean absolute error of the fathers made of their sons (Shocher et al. 2018, section 3)."""
        resolver: Any = network
        return self.error(network, self.rescaled(batch.noisy, rng), resolver.degradation, rng)

    def rescaled(self, fathers: Tensor, rng: Generator) -> Tensor:
        """Return fathers (B, C, *spatial), every other time reduced, at most to half their size, if they are planes."""
        import torch.nn.functional as F

        if fathers.ndim > 4 or not self.scales or drawn(rng) >= 0.5:
            return fathers
        scale = 1 - 0.5 * drawn(rng) ** 2
        least = 4 * max(self.factor, self.factor_z)
        size = [max(least, int(n * scale) // self.factor * self.factor) for n in fathers.shape[2:]]
        return F.interpolate(fathers.float(), size, mode="bicubic", antialias=True)

    def error(self, network: Network, fathers: Tensor, degradation: Degradation, rng: Generator) -> Tensor:
        """Return the mean absolute error of fathers (B, C, *spatial) made of the sons that a degradation gives."""
        import torch

        resolver: Any = network
        fathers = _turned(fathers, rng)
        if fathers.ndim == 5 and resolver.body.ndim == 2:
            fathers, degradation = _in_plane(fathers, degradation, rng)
        sons = degradation.down(fathers)
        if self.son_noise:
            sons = sons + self.son_noise * torch.randn(sons.shape, generator=rng).to(sons.device)
        found: Tensor = resolver.sharpen(degradation.up(sons)).float() - fathers
        return found.abs().mean()


def drawn(rng: Generator) -> float:
    """Draw a number between 0 and 1."""
    import torch

    return float(torch.rand((), generator=rng))


def _turned(images: Tensor, rng: Generator) -> Tensor:
    """Flip images, and exchange Y and X, at random: what they show is as likely in any pose; the blur is not turned."""
    import torch

    choices = torch.randint(2, (3,), generator=rng).tolist()
    flips = [d for d, chosen in zip((-1, -2), choices, strict=False) if chosen]
    images = images.flip(flips) if flips else images
    square = images.shape[-1] == images.shape[-2]
    return images.transpose(-1, -2) if choices[2] and square else images


def _in_plane(stacks: Tensor, degradation: Degradation, rng: Generator) -> tuple[Tensor, Degradation]:
    """Return some planes of stacks (B, C, z, y, x) as images, and the blur along Z as one along their first axis."""
    import torch

    from napari_ssdenoise.ops.degrade import Degradation

    planes = stacks.transpose(1, 2).flatten(0, 1)  # (B z, C, y, x)
    count = max(1, PLANE_PIXELS // planes[0, 0].numel())
    chosen = torch.randperm(len(planes), generator=rng)[:count].to(planes.device)
    factor = degradation.factors[0]
    rows = planes.shape[-2] // factor * factor
    profile = degradation.kernel.sum((1, 2))[:, None]
    return planes[chosen, :, :rows], Degradation(profile, (factor, 1), degradation.grid)
