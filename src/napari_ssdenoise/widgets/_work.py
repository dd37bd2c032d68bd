"""What the widget does in other threads: train, denoise, load and save. Torch is imported when such work begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.axes import Channels, Region
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._job import Stopped
from napari_ssdenoise.widgets._layers import contrast_limits

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.model import TrainedModel

Limits = tuple[float, float]

PREVIEW_INTERVAL = 2.0
PREVIEW_SHARE = 0.2  # of the time, at most
# Of 3D networks, neighbouring planes are computed too, and an image plane of 256 x 256 should fit whole.
PREVIEW_CONTEXT = 8
PREVIEW_VOXELS = 17 * 256 * 256
SLOW_PREVIEW = 1.0


@dataclass(frozen=True)
class Method:
    """An algorithm with its settings (or "auto", which a diagnosis replaces), and how long and where to run it."""

    algorithm: str
    values: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    device: str = "auto"
    augment: bool = False
    seed: int = 0
    start: Path | None = None  # a saved model to go on from, with its algorithm and settings


@dataclass(frozen=True)
class Stage:
    """What is going on, in words; `device` once it is known."""

    text: str
    device: str = ""


@dataclass(frozen=True)
class Diagnosed:
    """What a diagnosis found."""

    report: Any


@dataclass(frozen=True)
class Preview:
    """A denoised part of the image."""

    image: NDArray[np.float32]
    region: Region
    limits: Limits


@dataclass
class Window:
    """Where people look: written by the event loop, read by the training."""

    region: Region | None = None
    voxels: int = PREVIEW_VOXELS
    context: int = PREVIEW_CONTEXT

    def adapt(self, cost: float) -> None:
        """Make previews cheaper if one took long: with less context first, then of fewer pixels; undo it if not."""
        if cost > SLOW_PREVIEW:
            self.voxels = self.voxels if self.context > PREVIEW_CONTEXT // 2 else PREVIEW_VOXELS // 3
            self.context = PREVIEW_CONTEXT // 2
        elif cost < SLOW_PREVIEW / 8:
            self.voxels, self.context = PREVIEW_VOXELS, PREVIEW_CONTEXT

    def planes(self, axes: str, sizes: Mapping[str, int]) -> int:
        """Return how many planes a preview of one plane computes."""
        return min([2 * self.context + 1, *(sizes[a] for a in axes if a not in "YX")]) if len(axes) > 2 else 1


def interrupt_between_layers(network: Any, stop: Event) -> None:
    """Let a network raise `Stopped` before its next layer once the event is set: steps and tiles can take seconds."""

    def check(*_: Any) -> None:
        if stop.is_set():
            raise Stopped

    for module in network.modules():
        # Layers only: blocks are also called while the network is written down, which must not be cut short.
        if next(module.children(), None) is None:
            module.register_forward_pre_hook(check)


def interrupting(stop: Event) -> AbstractContextManager[Any]:
    """Return a context in which torch, in this thread, raises `Stopped` instead of computing once the event is set.

    What takes no tensor goes on: it may be the end of a ``no_grad``, which must not stay behind in the thread.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Interrupting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if stop.is_set() and any(isinstance(arg, Tensor) for arg in args):
                raise Stopped
            return function(*args, **(kwargs or {}))

    return Interrupting()


def interruptible(model: TrainedModel, stop: Event) -> TrainedModel:
    """Return the same model with a network that can be interrupted."""
    from copy import deepcopy

    network = deepcopy(model.network)
    interrupt_between_layers(network, stop)
    return replace(model, network=network)


class Guarded:
    """The data of an image, which raises `Stopped` when it is read after a stop."""

    def __init__(self, data: Any, stop: Event) -> None:
        self._data = data
        self._stop = stop
        self.shape: tuple[int, ...] = data.shape
        self.dtype = np.dtype(data.dtype)
        self.chunks = None if isinstance(data, np.ndarray) else getattr(data, "chunks", None)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self._stop.is_set():
            raise Stopped
        return np.asarray(self._data[key])


def diagnosis_of(volume: Volume, stop: Event) -> Any:
    """Diagnose an image; between two reads it can be stopped."""
    from napari_ssdenoise.diagnosis import diagnose

    return diagnose(volume.like(Guarded(volume.data, stop)))


@dataclass
class Training:
    """One training; `model` is there when it has ended, however it ended, if there was a step at all."""

    method: Method
    volume: Volume
    target: Volume | None
    spatial: str
    channels: Channels
    window: Window = field(default_factory=Window)
    model: TrainedModel | None = None

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, `Diagnosed` if that is asked for, then `TrainStep` and `Preview` until the budget is used."""
        key, values = self.method.algorithm, self.method.values
        if key == AUTO and self.method.start is None:
            from napari_ssdenoise.diagnosis import left_open

            yield Stage("Looking at the noise…")
            report = diagnosis_of(self.volume, stop)
            yield Diagnosed(report)
            key, values = report.algorithm, left_open(report.settings)
            if values.get("pairs") == "frames":  # frames are then views, not context
                self.spatial = self.spatial.replace("T", "")
        yield Stage("Loading PyTorch…")
        from napari_ssdenoise.algorithms import get_algorithm
        from napari_ssdenoise.engine.device import describe_device
        from napari_ssdenoise.engine.trainer import Trainer

        start = self._start()
        yield Stage("Reading the image…")
        trainer = Trainer(
            get_algorithm(key, **values) if start is None else None,
            self.volume,
            target=self.target,
            steps=self.method.steps,
            seconds=self.method.seconds,
            device=self.method.device,
            seed=self.method.seed,
            spatial=self.spatial,
            channels=self.channels,
            start=start,
        )
        try:
            interrupt_between_layers(trainer.network, stop)
            yield Stage("First step…", describe_device(trainer.device, trainer.dtype))
            yield from self._steps(trainer, stop)
        finally:
            trainer.close()
            if trainer.step:
                self.model = trainer.model

    def _start(self) -> TrainedModel | None:
        """Load the model to go on from, and look along its axes."""
        if self.method.start is None:
            return None
        from napari_ssdenoise.model import TrainedModel

        start = TrainedModel.load(self.method.start)
        self.spatial, self.channels = start.geometry.spatial, start.geometry.channels
        return start

    def _steps(self, trainer: Trainer, stop: Event) -> Generator[Any, None, None]:
        previewer = Previewer(self.volume, self.window, str(trainer.device))
        for step in trainer:
            yield step
            if previewer.due():
                yield from previewer.show(interruptible(trainer.model, stop))
        yield from previewer.show(interruptible(trainer.model, stop))


class Previewer:
    """Denoise what people look at every few seconds, in a bounded share of the time."""

    def __init__(self, volume: Volume, window: Window, device: str) -> None:
        self.volume = volume
        self.window = window
        self.device = device
        self.cost = 0.0
        self.shown: Region | None = None
        self.ended = time.perf_counter()

    def due(self) -> bool:
        """Whether it is time for another one: sooner if people look elsewhere than before."""
        region = self.window.region
        if region is None:
            return False
        wait = 0.0 if self.shown is not None and region != self.shown else PREVIEW_INTERVAL
        return time.perf_counter() - self.ended >= max(wait, self.cost * (1 / PREVIEW_SHARE - 1))

    def show(self, model: TrainedModel) -> Iterator[Preview]:
        """Denoise the region."""
        region = self.window.region
        if region is None:
            return
        started = time.perf_counter()
        image = model.predict_part(
            self.volume, region, predictor=model.predictor(device=self.device), context=self.window.context
        )
        image = as_shown(image, self.volume)
        self.ended = time.perf_counter()
        self.cost, self.shown = self.ended - started, region
        self.window.adapt(self.cost)
        yield Preview(image, region, contrast_limits(image))


def as_shown(image: NDArray[np.float32], volume: Volume) -> NDArray[Any]:
    """Return values that the viewer can show: colours as integers of the source's kind, all else as it is."""
    if "S" not in volume.axes:
        return image
    from napari_ssdenoise.engine.job import to_dtype

    return np.clip(image, 0, 1) if volume.dtype.kind == "f" else to_dtype(image, volume.dtype)


@dataclass
class Task:
    """A single call as a job."""

    text: str
    call: Callable[[], Any]

    def reports(self, _: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then what the call returns."""
        yield Stage(self.text)
        yield self.call()


def save_with_picture(model: TrainedModel, path: Path, volume: Volume | None) -> None:
    """Save a model, with a picture of what it makes of an image if it fits that."""
    try:
        if volume is not None:
            model.fit(volume)
    except ValueError:
        volume = None
    model.save(path, sample=volume)
