"""Noise2Void (Krull, Buchholz, Jug 2019), with N2V2 (Höck et al. 2022) and structN2V (Broaddus et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.engine.patches import Batch


@dataclass(frozen=True, kw_only=True)
class Noise2Void(UNetAlgorithm):
    """Learn from one noisy image: hide pixels and predict them from their surroundings.

    Assumes noise of zero mean that is independent between pixels (of structured noise, set ``struct_mask``), and a
    signal that neighbouring pixels predict.
    """

    key: ClassVar[str] = "n2v"
    title: ClassVar[str] = "Noise2Void"
    reference: ClassVar[str] = "Krull, Buchholz and Jug: Noise2Void. CVPR 2019. N2V2: Höck et al., ECCVW 2022."
    doi: ClassVar[str] = "10.48550/arXiv.1811.10980"

    n2v2: Annotated[
        bool,
        {"label": "N2V2"},
        "Median replacement and pooling without aliasing, against checkerboard patterns.",
    ] = False
    struct_mask: Annotated[
        str,
        {"label": "Structured noise mask"},
        "Neighbours that share a pixel's noise, as rows of 0 and 1: '11111' along X, '1/1/1' along Y, planes by '|'.",
    ] = ""
    masked_percent: Annotated[
        float,
        {"min": 0.05, "max": 10.0, "step": 0.05, "label": "Masked pixels (%)", "advanced": True},
        "Share of the pixels hidden in each patch.",
    ] = 1.0  # five times the paper's: more to learn from in every step, see benchmarks/README.md
    radius: Annotated[
        int,
        {"min": 1, "max": 15, "step": 1, "label": "Replacement radius", "advanced": True},
        "Half-width, in pixels, of the window that a hidden pixel's replacement is drawn from.",
    ] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.struct_mask:
            self._struct(3)

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.unet import UNet

        if not self.n2v2:
            return super().build(channels, pooled)
        return UNet(len(pooled), channels, channels, depth=self.depth, width=self.width, pooled=pooled, blurpool=True)

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the mean squared error of the hidden pixels (Krull et al., eq. 8)."""
        from napari_ssdenoise.ops.masking import mask_pixels

        masked = mask_pixels(
            batch.noisy,
            rng,
            masked_percent=self.masked_percent,
            radius=self.radius,
            replacement="median" if self.n2v2 else "uniform",
            struct=self._struct(batch.noisy.ndim - 2),
        )
        unet: Any = network
        error: Tensor = unet.at(masked.noisy, masked.batch, masked.pixel).float() - masked.at(batch.noisy)
        return error.square().mean()

    def symmetries(self, spatial: str) -> tuple[str, ...]:
        """Leave out what would move the structured mask onto other neighbours."""
        allowed = super().symmetries(spatial)
        offsets = set(self._struct(len(spatial)))
        kept = []
        for name in allowed:
            if name == "YX":
                moved = {(*o[:-2], o[-1], o[-2]) for o in offsets}
            else:
                axis = spatial.index(name)
                moved = {tuple(-v if d == axis else v for d, v in enumerate(o)) for o in offsets}
            if moved == offsets:
                kept.append(name)
        return tuple(kept)

    def _struct(self, ndim: int) -> tuple[tuple[int, ...], ...]:
        """Return the structured mask's offsets in the network's dimensions."""
        if not self.struct_mask:
            return ()
        from napari_ssdenoise.ops.struct_mask import parse_struct

        offsets = parse_struct(self.struct_mask)
        if ndim == 2 and any(o[0] for o in offsets):
            raise ValueError(f"struct_mask {self.struct_mask!r} has planes, but the network works on 2D images.")
        return tuple(o[-ndim:] for o in offsets)
