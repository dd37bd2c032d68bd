"""Begin a training with weights that come with the program, where they fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from napari_ssdenoise.algorithms._base import Algorithm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from napari_ssdenoise.algorithms._base import Conditions
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.normalize import Normalization


@dataclass(frozen=True, kw_only=True)
class WarmStarted(Algorithm):
    """Base of the algorithms whose network may begin as one that has seen many images and kinds of noise.

    The training stays self-supervised, on the user's images alone; it only begins elsewhere. Weights are there for
    images in one channel, looked at plane by plane (`blindspot`: stacks as well), and for networks of the usual size.
    """

    weights: ClassVar[str]  # file, in the package's folder of weights
    # Of a warm start, the step size in parts of the usual one, and the steps where no budget is given.
    warm_rate: ClassVar[float] = 0.25
    warm_steps: ClassVar[int] = 300

    from_scratch: Annotated[
        bool,
        {"label": "From scratch", "advanced": True},
        "Begin with random weights, not with those that come with the program: slower, and free of what other images "
        "taught.",
    ] = False

    def fitted(
        self, views: Sequence[View], normalization: Normalization, rng: np.random.Generator
    ) -> tuple[Self, Conditions]:
        return self.begun_for(views), ()

    def begun_for(self, views: Sequence[View]) -> Self:
        """Return itself, or with random weights where those at hand do not fit the images or the settings."""
        flat = views[0].channels == 1 and len(views[0].layout.spatial) == 2
        return self if self.from_scratch or (flat and self._fits()) else replace(self, from_scratch=True)

    def begin(self, network: Any, views: Sequence[View]) -> None:
        if self.is_warm:
            network.load_state_dict(shipped(self.weights))

    @property
    def is_warm(self) -> bool:
        return not self.from_scratch

    @property
    def rate(self) -> float:
        """Step size at its height."""
        return self.learning_rate * (self.warm_rate if self.is_warm else 1.0)

    @property
    def usual_steps(self) -> int:
        """Steps where the user gives no budget."""
        return self.warm_steps if self.is_warm else super().usual_steps

    def _fits(self) -> bool:
        """Tell whether the network with these settings is the one that the weights are of."""
        network = self.build(1, (True, True))
        own = {name: value.shape for name, value in network.state_dict().items()}
        return own == {name: value.shape for name, value in shipped(self.weights).items()}


@cache
def shipped(name: str) -> Mapping[str, Tensor]:
    """Return weights that come with the program."""
    from safetensors.torch import load

    return load(files("napari_ssdenoise").joinpath("weights", name).read_bytes())
