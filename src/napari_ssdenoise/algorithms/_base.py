"""What every algorithm declares: its settings, its network, its loss and its prediction.

An algorithm is a frozen dataclass in a file of its own. Its fields are its settings, written once as
``Annotated[type, {"min", "max", "step", "label", ...}]``: the form, the command-line flags, the range checks and the
JSON in a saved model all come from them. No module here imports torch before a network is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from napari_ssdenoise.engine.scenes import Scene, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.volume import Volume


class Network(Protocol):
    """A torch module that knows its geometry."""

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit."""

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are, which tells how much memory a tile takes."""

    def reach(self) -> tuple[int, ...]:
        """Return how many pixels on either side an output pixel depends on, per axis."""

    def __call__(self, noisy: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Setting:
    """One setting of an algorithm, as its dataclass field declares it."""

    name: str
    type: type
    default: Any
    label: str
    help: str
    choices: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    step: float | None = None
    advanced: bool = False

    def check(self, value: Any) -> Any:
        """Return the value in the setting's type.

        Raises
        ------
        ValueError
            If it is of another kind, out of range or not a choice.
        """
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}={value!r} is unknown; choose one of {', '.join(self.choices)}.")
        fits = isinstance(value, (int, float)) if self.type is float else isinstance(value, self.type)
        if not fits or (isinstance(value, bool) and self.type is not bool):
            raise ValueError(f"{self.name}={value!r} must be of type {self.type.__name__}.")
        low, high = self.min, self.max
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise ValueError(f"{self.name}={value} is outside [{low}, {high}].")
        return self.type(value)


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """Base of all algorithms, and the settings they share."""

    key: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ("mean",)

    patch: Annotated[
        int,
        {"min": 0, "max": 512, "step": 8, "label": "Patch size (0: automatic)", "advanced": True},
        "Side, in pixels, of the training patches along Y and X; 0 chooses one.",
    ] = 0
    batch: Annotated[
        int,
        {"min": 0, "max": 1024, "step": 1, "label": "Batch size (0: automatic)", "advanced": True},
        "Patches per training step; 0 chooses.",
    ] = 0
    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Adam's step size before annealing.",
    ] = 1e-3

    def __post_init__(self) -> None:
        for setting in settings(type(self)):
            object.__setattr__(self, setting.name, setting.check(getattr(self, setting.name)))

    @abstractmethod
    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        """Make a new network (a `Network`) for images of ``channels``, halved along the ``pooled`` spatial axes."""

    @abstractmethod
    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the loss, a scalar, of a batch of normalised patches."""

    def predict(self, network: Network, noisy: Tensor) -> dict[str, Tensor]:
        """Return, for normalised images (B, C, *spatial), one image for each of `outputs`.

        Override `read_out` instead where that suffices: only then can a stack flow through the network slab by slab.
        """
        return self.read_out(network(noisy).float(), noisy)

    def read_out(self, raw: Tensor, noisy: Tensor) -> dict[str, Tensor]:
        """Turn a network's output into one image for each of `outputs`, each pixel from its own values alone.

        Parameters
        ----------
        raw : (B, channels of the network, *spatial), float32
        noisy : (B, C, *spatial), float32
        """
        return {"mean": raw}

    def scenes(self, volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
        """List the places to draw patches from: here, every image of every volume by itself."""
        if targets:
            raise ValueError(f"{self.title} learns from one noisy image and takes no target. Leave it out, or use n2n.")
        return [
            Scene((View(volume, layout, index),))
            for volume, layout in zip(volumes, layouts, strict=True)
            for index in layout.indices(volume.shape)
        ]

    def symmetries(self, spatial: str) -> tuple[str, ...]:
        """Name the transformations that leave the statistics of image and noise unchanged.

        Returns
        -------
        tuple of str
            Axes that may be flipped, by letter, and ``"YX"`` if these two may be exchanged.
        """
        return (*(axis for axis in spatial if axis != "T"), "YX")


def settings(algorithm: type[Algorithm]) -> list[Setting]:
    """Return an algorithm's settings, its own before the shared ones."""
    hints = get_type_hints(algorithm, include_extras=True)
    shared = [f.name for base in (UNetAlgorithm, Algorithm) for f in fields(base)]
    own_first = sorted(fields(algorithm), key=lambda f: f.name in shared)
    return [_setting(field.name, field.default, hints[field.name]) for field in own_first]


def _setting(name: str, default: Any, hint: Any) -> Setting:
    kind, facts, explanation = get_args(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return Setting(name, str if choices else kind, default, help=explanation, choices=choices, **facts)


@dataclass(frozen=True, kw_only=True)
class UNetAlgorithm(Algorithm):
    """Base of the algorithms whose network is the shared U-Net."""

    depth: Annotated[
        int,
        {"min": 1, "max": 5, "step": 1, "label": "Network depth", "advanced": True},
        "How many times the network halves the image; deeper sees further and costs more.",
    ] = 2
    width: Annotated[
        int,
        {"min": 4, "max": 256, "step": 4, "label": "First filters", "advanced": True},
        "Filters of the network's first level.",
    ] = 32
    residual: Annotated[
        bool,
        {"label": "Residual", "advanced": True},
        "Let the network predict the difference from the noisy image.",
    ] = False

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.unet import UNet

        return UNet(
            len(pooled), channels, channels, depth=self.depth, width=self.width, pooled=pooled, residual=self.residual
        )
