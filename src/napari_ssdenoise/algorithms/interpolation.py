"""Cubic interpolation and iterative back-projection: what every method of super-resolution has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from napari_ssdenoise.algorithms._super_resolution import SuperResolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Interpolation(SuperResolution):
    """Enlarge by cubic convolution, then correct until the result, blurred and reduced, gives the image again.

    Learns nothing. Without back-projections it is plain interpolation; with many, it sharpens noise too.
    """

    key: ClassVar[str] = "interpolation"
    title: ClassVar[str] = "Cubic interpolation and back-projection"
    reference: ClassVar[str] = (
        "Keys: Cubic convolution interpolation. IEEE TASSP 1981. Irani, Peleg: Improving resolution. CVGIP 1991."
    )
    learns: ClassVar[bool] = False

    back_projections: Annotated[
        int,
        {"min": 0, "max": 50, "step": 1, "label": "Back-projections"},
        "How often to correct the result so that, blurred and reduced, it gives the image again.",
    ] = 10

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.resnet_sr import Still

        network = super().build(channels, pooled)
        network.body = Still(network.body.ndim)
        return network

    def optimizer(self, parameters: Sequence[Tensor]) -> Any:
        return None
