"""MZSR: meta-transfer learning for zero-shot super-resolution (Soh, Cho and Cho 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from napari_ssdenoise.algorithms._super_resolution import SuperResolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_ssdenoise.engine.scenes import View


@dataclass(frozen=True, kw_only=True)
class MetaSuperResolution(SuperResolution):
    """Sharpen an image with a network that was trained on many images and kinds of blur, and adapts to this one.

    It begins with weights that come with the program, and learns this image's blur in a few updates, from the image
    itself. Noise is enlarged with the image: denoise first.
    """

    key: ClassVar[str] = "mzsr"
    title: ClassVar[str] = "MZSR (meta-learned super-resolution)"
    reference: ClassVar[str] = "Soh, Cho, Cho: Meta-Transfer Learning for Zero-Shot Super-Resolution. CVPR 2020."
    doi: ClassVar[str] = "10.48550/arXiv.2002.12213"
    warm_up: ClassVar[int] = 0
    steady: ClassVar[float] = 1.0
    averaging: ClassVar[float] = 0.0  # a few updates are too few to average

    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Step size of the updates; less where more than four pixels are made of one.",
    ] = 4e-4
    descent: Annotated[
        Literal["adam", "sgd"],
        {"label": "Updates", "advanced": True},
        "Adam, or plain gradient descent as in the paper (whose rate is about 0.002 here).",
    ] = "adam"

    def begin(self, network: Any, views: Sequence[View]) -> None:
        """Load the weights that come with the program, and find the blur."""
        from safetensors.torch import load

        super().begin(network, views)
        network.body.load_state_dict(load(files("napari_ssdenoise").joinpath("weights", self._weights).read_bytes()))

    @property
    def _weights(self) -> str:
        """Name of the weights for these factors."""
        if self.factor_z > 1 and self.factor > 1:
            raise ValueError("enlarge in two runs: the planes first, then Z (factor=1); or choose zssr.")
        kind = "z" if self.factor_z > 1 else "x2" if self.factor < 4 else "x4"
        return f"super-resolution-{kind}.safetensors"

    @property
    def rate(self) -> float:
        """Step size at its height: less where more than four pixels are made of one."""
        # The smaller the coarse image, the less it tells, and the sooner large steps learn it by heart.
        return self.learning_rate * min(1.0, 4 / (self.factor**2 * self.factor_z))

    def optimizer(self, parameters: Sequence[Tensor]) -> Any:
        import torch

        kind: Any = torch.optim.SGD if self.descent == "sgd" else torch.optim.Adam
        return kind(list(parameters), self.rate)
