"""What every algorithm declares: its settings, its network, its loss and its prediction.

An algorithm is a frozen dataclass in a file of its own. Its fields are its settings, written once as
``Annotated[type, {"min", "max", "step", "label", ...}]``: the form, the command-line flags, the range checks and the
JSON in a saved model all come from them. A number that may be left to the data is ``float | None`` with the default
None. No module here imports torch before a network is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cache
from math import prod
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    get_args,
    get_origin,
    get_type_hints,
)

from napari_ssdenoise.engine.scenes import Scene, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Generator, Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume

Conditions = tuple[tuple[float, ...], ...]

USUAL_STEPS = 2000
AUTO = "auto"  # how people see and write the None of an optional setting


class Network(Protocol):
    """A torch module that knows its geometry."""

    training: bool

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
    optional: bool = False  # None is a value too: "auto", which leaves the choice to the data

    def check(self, value: Any) -> Any:
        """Return the value in the setting's type, or None where the setting is optional.

        Raises
        ------
        ValueError
            If it is of another kind, out of range or not a choice.
        """
        if self.optional and value is None:
            return None
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name}={value!r} is unknown; choose one of {', '.join(self.choices)}.")
        fits = isinstance(value, (int, float)) if self.type is float else isinstance(value, self.type)
        if not fits or (isinstance(value, bool) and self.type is not bool):
            raise ValueError(f"{self.name}={value!r} must be of type {self.type.__name__}.")
        low, high = self.min, self.max
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise ValueError(f"{self.name}={value} is outside [{low}, {high}].")
        return self.type(value)

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for; ``"auto"`` is the None of an optional setting.

        Raises
        ------
        ValueError
            If the text does not fit.
        """
        return self.check(None if self.optional and text.strip().lower() == AUTO else self.type(text))


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """Base of all algorithms, and the settings they share."""

    key: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    doi: ClassVar[str] = ""  # of the reference
    # What it is for: "denoise", or "upscale" for a result with smaller pixels.
    purpose: ClassVar[Literal["denoise", "upscale"]] = "denoise"
    outputs: ClassVar[tuple[str, ...]] = ("mean",)
    # The output "std" in parts of the root mean square error: errors with heavy tails have narrower intervals.
    tails: ClassVar[float] = 1.0
    # Whether images are mirrored at their borders; else zeros surround them, as in every convolution.
    mirrored: ClassVar[bool] = True
    # How Adam averages gradients; the steps in which its rate rises, and the share of the training before it falls.
    momenta: ClassVar[tuple[float, float]] = (0.9, 0.999)
    warm_up: ClassVar[int] = 20
    steady: ClassVar[float] = 0.0
    # Shares of the training at which a stage begins; the step size falls in each of them.
    stages: ClassVar[tuple[float, ...]] = (0.0,)
    # How much of the averaged weights stays at each step, at most; 0 for no averaging.
    averaging: ClassVar[float] = 0.995
    weight_decay: ClassVar[float] = 0.0
    # Whether some pixels are spared in training, for `calibrate`.
    spares: ClassVar[bool] = False
    # Whether each colour of RGB is an image by itself, where the user leaves that open.
    colours_apart: ClassVar[bool] = False
    # Side of the training patches along Y and X where `patch` is 0.
    patch_side: ClassVar[int] = 64

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

    def batch_size(self, patch: Sequence[int]) -> int:
        """Choose how many patches a step takes where `batch` is 0: about 65,000 pixels in 2D, four at least."""
        return max(4, 65536 // prod(patch))

    def most_steps(self, epochs: float) -> int | None:
        """Return the steps after which more would do harm, for a budget in seconds; None if there is no such number.

        Parameters
        ----------
        epochs
            How often one step sees each pixel of the training images: less than 1, unless they are small.
        """
        return None

    @abstractmethod
    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        """Make a new network (a `Network`) for images of ``channels``, halved along the ``pooled`` spatial axes."""

    def begin(self, network: Any, views: Sequence[View]) -> None:  # noqa: B027 - most begin with random weights
        """Give a new network, in place, what it starts the training with; random weights by default."""

    def require_settled(self) -> None:  # noqa: B027 - most are, whatever their settings
        """Check that nothing is left open that a training finds out: of a saved model, which may be damaged.

        Raises
        ------
        ValueError
            If a setting still leaves it to the images.
        """

    @property
    def is_warm(self) -> bool:
        """Whether a training begins with weights that come with the program."""
        return False

    @property
    def rate(self) -> float:
        """Step size at its height."""
        return self.learning_rate

    @property
    def usual_steps(self) -> int:
        """Steps where the user gives no budget."""
        return USUAL_STEPS

    def within_stage(self, progress: float) -> tuple[int, float]:
        """Return the number of the stage, from 0, and the share of it that is done, for a share of the training."""
        number = max(n for n, begin in enumerate(self.stages) if begin <= progress)
        begin, end = self.stages[number], (*self.stages, 1.0)[number + 1]
        return number, (progress - begin) / (end - begin)

    def optimizer(self, parameters: Sequence[Tensor]) -> Any:
        """Make what moves the weights: AdamW by default."""
        import torch

        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},  # biases, scales
        ]
        return torch.optim.AdamW(groups, self.rate, self.momenta, fused=True)

    def prepared(self, volume: Volume) -> Volume:
        """Return what a network is to be applied to, for a volume: itself, if the result has the same pixels."""
        return volume

    @abstractmethod
    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the loss, a scalar, of a batch of normalised patches."""

    def calibrate(self, network: Network, batches: Sequence[Batch]) -> None:  # noqa: B027 - most have nothing to adjust
        """Adjust a trained network, in place, to the pixels that were spared (see `spares`); nothing by default."""

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

    def fitted(
        self, views: Sequence[View], normalization: Normalization, rng: np.random.Generator
    ) -> tuple[Self, Conditions]:
        """Look at the images before the training.

        Returns
        -------
        algorithm
            Itself, with settings that it chose where they were left open.
        conditions
            What the network is to be told about each channel, as constant images beside it: equally many numbers for
            each, or none at all.
        """
        return self, ()

    @property
    def per_image(self) -> bool:
        """Whether conditions are found anew for every image, those that a trained model is applied to included."""
        return False

    def scenes(self, volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
        """List the places to draw patches from: here, every image of every volume by itself."""
        if targets:
            raise ValueError(f"{self.title} learns from one noisy image and takes no target. Leave it out, or use n2n.")
        return [
            Scene((View(volume, layout, index),))
            for volume, layout in zip(volumes, layouts, strict=True)
            for index in layout.indices(volume.shape)
        ]

    def remarks(self, scenes: Sequence[Scene]) -> tuple[str, ...]:
        """Say, before the training, what people should know about what it learns from."""
        return ()

    def symmetries(self, spatial: str) -> tuple[str, ...]:
        """Name the transformations that leave the statistics of image and noise unchanged.

        Returns
        -------
        tuple of str
            Axes that may be flipped, by letter, and ``"YX"`` if these two may be exchanged.
        """
        return (*(axis for axis in spatial if axis != "T"), "YX")


@cache
def settings(algorithm: type[Algorithm]) -> tuple[Setting, ...]:
    """Return an algorithm's settings, its own before the shared ones."""
    hints = get_type_hints(algorithm, include_extras=True)
    shared = [f.name for base in (UNetAlgorithm, Algorithm) for f in fields(base)]
    own_first = sorted(fields(algorithm), key=lambda f: f.name in shared)
    return tuple(_setting(field.name, field.default, hints[field.name]) for field in own_first)


def _setting(name: str, default: Any, hint: Any) -> Setting:
    kind, facts, explanation = get_args(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    optional = not choices and type(None) in get_args(kind)
    if optional:
        (kind,) = (member for member in get_args(kind) if member is not type(None))
    kind = str if choices else kind
    return Setting(name, kind, default, help=explanation, choices=choices, optional=optional, **facts)


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
