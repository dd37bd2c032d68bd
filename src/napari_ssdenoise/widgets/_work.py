"""What the widget does in other threads: train, denoise, load and save. Torch is imported when such work begins."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ssdenoise._errors import is_input_error
from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.axes import Channels, Region
from napari_ssdenoise.batch import resume_training, train_with_checkpoints
from napari_ssdenoise.io.unfinished import Unfinished, place_of, tidy
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._job import Stopped
from napari_ssdenoise.widgets._layers import contrast_limits
from napari_ssdenoise.widgets._stopping import (
    guarded,
    interrupt_between_layers,
    interruptible,
    interrupting,
    load_torch,
    release,
)

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import Trainer, TrainStep
    from napari_ssdenoise.model import TrainedModel

logger = logging.getLogger(__name__)
Limits = tuple[float, float]

PREVIEW_INTERVAL = 2.0
PREVIEW_SHARE = 0.2  # of the time, at most
# Of 3D networks, neighbouring planes are computed too, and an image plane of 256 x 256 should fit whole.
PREVIEW_CONTEXT = 8
PREVIEW_VOXELS = 17 * 256 * 256
SLOW_PREVIEW = 1.0
LONGEST_PREVIEW = 3.0  # seconds foretold: a stop comes after one of its layers, and they are a few
PASSES = 3  # through the network, in time, that a step of the training takes


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
class Resumed:
    """Steps and losses of an earlier session, from which a training goes on."""

    losses: list[tuple[int, float]]


@dataclass(frozen=True)
class Preview:
    """A denoised part of the image."""

    image: NDArray[np.float32]
    region: Region
    limits: Limits


@dataclass(frozen=True)
class Unseen:
    """A preview that could not be made, and why."""

    error: Exception


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

    def foresee(self, pace: float) -> bool:
        """Make previews as cheap as can be if a full one would last too long at so many seconds a voxel."""
        too_long = pace * self.voxels > LONGEST_PREVIEW
        if too_long:
            self.voxels, self.context = PREVIEW_VOXELS // 3, PREVIEW_CONTEXT // 2
        return too_long

    def planes(self, axes: str, sizes: Mapping[str, int]) -> int:
        """Return how many planes a preview of one plane computes."""
        return min([2 * self.context + 1, *(sizes[a] for a in axes if a not in "YX")]) if len(axes) > 2 else 1


def diagnosis_of(volume: Volume, stop: Event) -> Any:
    """Diagnose an image; between two reads or operations it can be stopped."""
    from napari_ssdenoise.diagnosis import diagnose

    return diagnose(guarded(volume, stop))


@dataclass
class Training:
    """One training; `model` is there when it has ended, however it ended, if there was a step at all.

    Attributes
    ----------
    shelf
        The folder of unfinished trainings, if this one is to be there until it has ended.
    resume
        Go on with what an earlier session left there.
    taken
        Set by the event loop: if it is stopped, its model is taken as it is.
    """

    method: Method
    volume: Volume
    target: Volume | None
    spatial: str
    channels: Channels
    shelf: Path | None = None
    resume: bool = False
    taken: bool = False
    window: Window = field(default_factory=Window)
    model: TrainedModel | None = None

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, `Diagnosed` and `Resumed` if there is one, then `TrainStep` and `Preview` to the end."""
        images = [image and guarded(image, stop) for image in (self.volume, self.target)]
        if self.shelf is not None:
            yield Stage("Reading the image…")
        kept = self._place(images)
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
        load_torch(stop)
        from napari_ssdenoise.algorithms import get_algorithm
        from napari_ssdenoise.engine.device import describe_device
        from napari_ssdenoise.engine.trainer import Trainer

        start = self._start()
        yield Stage("Reading the image…")
        trainer = Trainer(
            get_algorithm(key, **values) if start is None else None,
            images[0],
            target=images[1],
            steps=self.method.steps,
            seconds=self.method.seconds,
            device=self.method.device,
            seed=self.method.seed,
            spatial=self.spatial,
            channels=self.channels,
            start=start,
        )
        try:
            if self.resume and kept is not None:
                yield _resumed(trainer, kept)
            interrupt_between_layers(trainer.network, stop)
            yield Stage("First step…", describe_device(trainer.device, trainer.dtype))
            with closing(_kept_steps(trainer, kept, images)) as steps:
                yield from self._steps(trainer, steps, stop)
        finally:
            trainer.close()
            release(*images)
            if self.model is None and trainer.step:
                self.model = trainer.sketch()
            if kept is not None and (self.taken or not stop.is_set()):  # else napari, or the widget, is being closed
                _remove(kept)

    def _start(self) -> TrainedModel | None:
        """Load the model to go on from, and look along its axes."""
        if self.method.start is None:
            return None
        from napari_ssdenoise.model import TrainedModel

        start = TrainedModel.load(self.method.start)
        self.spatial, self.channels = start.geometry.spatial, start.geometry.channels
        return start

    def left(self) -> Unfinished | None:
        """Return what an earlier session left of this training, if anything; this may read parts of the images."""
        if self.shelf is None or not self.shelf.is_dir():
            return None
        tidy(self.shelf)
        kept = self._place((self.volume, self.target)) if any(self.shelf.iterdir()) else None
        found = kept and Unfinished.read(kept)
        steps, seconds = self.method.steps, self.method.seconds
        if not found or (steps and found.step >= steps) or (seconds and found.seconds >= seconds):
            return None
        return found

    def _place(self, images: Iterable[Volume | None]) -> Path | None:
        """Return where its checkpoint lies: for the same images and settings, in every session."""
        if self.shelf is None:
            return None
        method = self.method
        how = {"algorithm": method.algorithm, "settings": method.values, "seed": method.seed}
        how |= {"spatial": self.spatial, "channels": self.channels}
        return place_of(self.shelf, how, [image for image in images if image is not None])

    def _steps(self, trainer: Trainer, steps: Iterable[TrainStep], stop: Event) -> Generator[Any, None, None]:
        previewer = Previewer(self.volume, self.window, str(trainer.device))
        for step in steps:
            yield step
            if previewer.due() and not previewer.postponed(trainer):
                with interrupting(stop):
                    yield from previewer.show(lambda: interruptible(trainer.sketch(), stop))
        yield Stage("Completing the model…")
        with interrupting(stop):
            self.model = model = trainer.model
        yield from previewer.show(lambda: interruptible(model, stop))


def _resumed(trainer: Trainer, kept: Path) -> Resumed:
    """Go on where an earlier session ended.

    Raises
    ------
    ValueError
        If that is not possible.
    """
    resume_training(trainer, kept)
    if not trainer.step:
        raise ValueError("what is left of the earlier training is damaged, or of another version. Train anew.")
    return Resumed([(step, loss) for step, _, loss in trainer.history])


def _kept_steps(trainer: Trainer, kept: Path | None, images: Sequence[Volume | None]) -> Any:
    """Return the steps, with a checkpoint now and then if there is a place for it; to be closed."""
    if kept is None:
        return trainer
    with suppress(OSError):  # as of a checkpoint that cannot be written: the training goes on
        kept.parent.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {"interruptions": (Stopped,), "before_keeping": lambda: release(*images)}
    return train_with_checkpoints(trainer, kept, **how)


def _remove(kept: Path) -> None:
    """Remove a checkpoint of no further use; if that is not possible, `tidy` does it some day."""
    from napari_ssdenoise.io.checkpoint import remove_checkpoint

    with suppress(OSError):
        remove_checkpoint(kept)


class Previewer:
    """Denoise what people look at every few seconds, in a bounded share of the time."""

    def __init__(self, volume: Volume, window: Window, device: str) -> None:
        self.volume = volume
        self.window = window
        self.device = device
        self.cost = 0.0
        self.shown: Region | None = None
        self.ended = time.perf_counter()
        self._foreseen = False

    def postponed(self, trainer: Trainer) -> bool:
        """Put the first preview off until people are shown a smaller part, if it would keep a stop waiting."""
        if self._foreseen:
            return False
        self._foreseen = True
        pace = trainer.seconds / trainer.step / PASSES / (trainer.sampler.batch * math.prod(trainer.sampler.patch))
        if self.window.foresee(pace):
            self.ended = time.perf_counter()
            return True
        return False

    def due(self) -> bool:
        """Whether it is time for another one: sooner if people look elsewhere than before."""
        region = self.window.region
        if region is None:
            return False
        wait = 0.0 if self.shown is not None and region != self.shown else PREVIEW_INTERVAL
        return time.perf_counter() - self.ended >= max(wait, self.cost * (1 / PREVIEW_SHARE - 1))

    def show(self, make: Callable[[], TrainedModel]) -> Iterator[Preview | Unseen]:
        """Denoise the region with a model, which is made if there is one; what fails does not end the training."""
        region = self.window.region
        if region is None:
            return
        try:
            yield self._denoise(make, region)
        except Stopped:
            raise
        except Exception as error:
            if not is_input_error(error):
                logger.error("a preview failed unexpectedly", exc_info=error)
            self.window.region, self.ended = None, time.perf_counter()
            yield Unseen(error)

    def _denoise(self, make: Callable[[], TrainedModel], region: Region) -> Preview:
        started = time.perf_counter()
        model = make()
        image = model.predict_part(
            self.volume, region, predictor=model.predictor(device=self.device), context=self.window.context
        )
        image = as_shown(image, self.volume)
        self.ended = time.perf_counter()
        self.cost, self.shown = self.ended - started, region
        self.window.adapt(self.cost)
        return Preview(image, region, contrast_limits(image))


def as_shown(image: NDArray[np.float32], volume: Volume) -> NDArray[Any]:
    """Return values that the viewer can show: colours as integers of the source's kind, all else as it is."""
    if "S" not in volume.axes:
        return image
    from napari_ssdenoise.engine.job import to_dtype

    return np.clip(image, 0, 1) if volume.dtype.kind == "f" else to_dtype(image, volume.dtype)


@dataclass
class Task:
    """A single call as a job; `heavy` if it needs torch."""

    text: str
    call: Callable[[], Any]
    heavy: bool = False

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then what the call returns."""
        yield Stage(self.text)
        if self.heavy:
            load_torch(stop)
        yield self.call()


@dataclass
class Saving:
    """Save a model, with a picture of what it makes of an image if it fits that; a stop comes before anything lasts."""

    model: TrainedModel
    path: Path
    volume: Volume | None

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then the path."""
        yield Stage("Saving the model…")
        sample = self.volume and guarded(self.volume, stop)
        try:
            if sample is not None:
                self.model.fit(sample)
        except ValueError:
            sample = None
        interruptible(self.model, stop).save(self.path, sample=sample)
        yield self.path
