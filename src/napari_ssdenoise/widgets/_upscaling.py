"""Give an image smaller pixels in another thread: look at it, adapt to it, then enlarge what is wanted."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.axes import Region
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._denoising import ArrayDenoising, Filling
from napari_ssdenoise.widgets._layers import contrast_limits
from napari_ssdenoise.widgets._reports import sentence
from napari_ssdenoise.widgets._stopping import (
    guarded,
    interrupt_between_layers,
    interruptible,
    interrupting,
    load_torch,
)
from napari_ssdenoise.widgets._work import Preview, Stage, as_shown

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.superres import Upscaler

# A layer of the network is computed whole before a stop is noticed, so tiles are small (half a million pixels), unless
# most of the work would then be done in their halos.
LEAST_MEMORY = 256 << 20
MOST_WORK = 6.0  # pixels computed per pixel of the result
PREVIEW_PIXELS = 768 * 768  # of the result
PREVIEW_VOXELS = 1 << 20  # of the result in 3D, neighbouring planes included
PREVIEW_CONTEXT = 12  # of those, on either side


@dataclass(frozen=True)
class Upscale:
    """A method with its settings, and how it adapts to the image.

    Parameters
    ----------
    method
        Of `napari_ssdenoise.superres.METHODS`.
    key, values
        Of its algorithm, and the settings.
    adapt, until_best, device, seed
        As for `napari_ssdenoise.superres.Upscaler`.
    """

    method: str
    key: str
    values: dict[str, Any] = field(default_factory=dict)
    adapt: int | None = None
    until_best: bool = False
    device: str = "auto"
    seed: int = 0

    @property
    def algorithm(self) -> Any:
        """The algorithm; an error if a setting does not fit."""
        return get_algorithm(self.key, **self.values)


@dataclass(frozen=True)
class Looked:
    """What was seen before the adaptation: the blur that will be undone, and a warning if there is one."""

    kernel: NDArray[np.float32]
    warning: str = ""


@dataclass(frozen=True)
class Update:
    """An update of the adaptation."""

    done: int
    total: int
    remaining: float
    fraction: float


@dataclass(frozen=True)
class Adapted:
    """The method, adapted to the image."""

    model: TrainedModel
    updates: int


@dataclass
class Upscaling:
    """Adapt a method to an image, unless that has been done, and enlarge all of it or what is in view.

    Parameters
    ----------
    upscale
        How.
    volume
        The image.
    whole
        All of it, or `view` only.
    model
        From an earlier run with the same image and settings.
    view
        What people look at, in new pixels; the event loop may change it at any time.
    """

    upscale: Upscale
    volume: Volume
    whole: bool
    model: TrainedModel | None = None
    view: Region | None = None
    memory: int = LEAST_MEMORY  # that enlarging took

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, `Looked`, `Update` and `Adapted`; then `Preview`, or `Filling` and `Progress`."""
        yield Stage("Loading PyTorch…")
        load_torch(stop)
        with interrupting(stop):  # the blur is found, and corrected for, by operations that are no layers
            if self.model is None:
                yield from self._adapt(stop)
            if self.model is None:
                raise RuntimeError("there is no adapted model.")
            yield from (self._enlarge if self.whole else self._preview)(self.model, stop)

    def _adapt(self, stop: Event) -> Generator[Any, None, None]:
        from napari_ssdenoise.engine.device import describe_device
        from napari_ssdenoise.superres import blur_warning, noise_warning

        yield Stage("Looking at the image…")
        image = guarded(self.volume, stop)
        noisy = noise_warning(image) if self.upscale.method != "bicubic" else None
        upscaler = self._upscaler(image)
        warnings = [_for_the_viewer(text) for text in (noisy, blur_warning(upscaler)) if text]
        try:
            interrupt_between_layers(upscaler.network, stop)
            yield Stage("Adapting to the image…", describe_device(upscaler.device, upscaler.dtype))
            yield Looked(upscaler.kernel, " ".join(warnings))
            updates = 0
            for step in upscaler:
                updates = step.step
                yield Update(step.step, upscaler.adapt, step.remaining, step.fraction)
            self.model = upscaler.model
        finally:
            upscaler.close()
        yield Adapted(self.model, updates)

    def _upscaler(self, volume: Volume) -> Upscaler:
        from napari_ssdenoise.superres import Upscaler

        wanted = self.upscale
        options = {"device": wanted.device, "seed": wanted.seed, "until_best": wanted.until_best}
        try:
            return Upscaler(volume, wanted.method, adapt=wanted.adapt, **options, **wanted.values)
        except FileNotFoundError as error:
            missing = Path(str(error.filename))
            if missing.suffix != ".safetensors":
                raise
            raise FileNotFoundError(
                f"the weights that {wanted.method.upper()} begins with are not installed ({missing.name}). Choose "
                "ZSSR, which needs none, or install napari-ssdenoise again."
            ) from error

    def _enlarge(self, model: TrainedModel, stop: Event) -> Generator[Any, None, None]:
        new = model.algorithm.prepared(self.volume)
        dtype = self.volume.dtype.newbyteorder("=") if "S" in self.volume.axes else np.dtype(np.float32)
        out = np.zeros(new.shape, dtype)
        yield Filling("mean", out)
        device, text = self.upscale.device, "Enlarging…"
        self.memory = memory = tile_memory(model, new, device)
        work = ArrayDenoising(model, new, {"mean": out}, device, view=self.view, memory=memory, text=text)
        yield from work.reports(stop)

    def _preview(self, model: TrainedModel, stop: Event) -> Generator[Any, None, None]:
        yield Stage("Enlarging what is in view…")
        region = self.view
        if region is None:
            raise ValueError("the image is not in view. Move it into view, or use Run for all of it.")
        predictor = interruptible(model, stop).predictor(device=self.upscale.device)
        context = PREVIEW_CONTEXT if model.geometry.spatial == "ZYX" else None
        image = as_shown(model.predict_part(self.volume, region, predictor=predictor, context=context), self.volume)
        yield Preview(image, region, contrast_limits(image))


def tile_memory(model: TrainedModel, new: Volume, device: str) -> int:
    """Return the least memory with which the halos of tiles are affordable; at most about half of what is free."""
    import psutil

    from napari_ssdenoise.engine.plan import plan_volume

    predictor, layout = model.predictor(device=device), model.geometry.layout(new)
    memory, most = LEAST_MEMORY, psutil.virtual_memory().available // 2
    while 2 * memory <= most:
        # Where not even one tile fits, nothing is known of the work.
        with suppress(MemoryError):
            if plan_volume(predictor, new, layout, memory=memory).work <= MOST_WORK:
                break
        memory *= 2
    return memory


def preview_pixels(algorithm: Any) -> int:
    """Return how many pixels of an image a preview may enlarge for it to come within seconds."""
    made = prod(algorithm.along.values())
    if algorithm.factor_z == 1:
        return PREVIEW_PIXELS // made
    planes = 1 + 2 * PREVIEW_CONTEXT / algorithm.factor_z
    return int(PREVIEW_VOXELS / (made * planes))


def in_new_pixels(region: Region, factors: tuple[int, ...]) -> Region:
    """Return the part of the enlarged image that a part of an image becomes; samples of RGB stay."""
    every = (*factors, *(1,) * (len(region) - len(factors)))
    return tuple(slice(s.start * f, s.stop * f) for s, f in zip(region, every, strict=True))


def _for_the_viewer(warning: str) -> str:
    """Write a warning as a sentence, and name the widget that helps where it names a command."""
    return sentence(re.sub(r" \(ssdenoise [^)]*\)", " with the Denoise widget", warning))
