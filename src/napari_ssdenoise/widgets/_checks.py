"""Look at the noise before a training, and at what a training has left, in another thread."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._stopping import guarded, interruptible
from napari_ssdenoise.widgets._work import Diagnosed, Stage, diagnosis_of

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel


@dataclass(frozen=True)
class Assessed:
    """What a denoiser's results are worth."""

    report: Any


@dataclass
class Diagnosing:
    """A diagnosis as a job."""

    volume: Volume

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then `Diagnosed`."""
        yield Stage("Looking at the noise…")
        yield Diagnosed(diagnosis_of(self.volume, stop))


@dataclass
class Assessing:
    """The check of a trained model as a job."""

    model: TrainedModel
    volume: Volume
    target: Volume | None = None
    device: str = "auto"

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Assessed`."""
        from napari_ssdenoise.quality import assess

        volume, target = (v and guarded(v, stop) for v in (self.volume, self.target))
        yield Assessed(assess(interruptible(self.model, stop), volume, target=target, device=self.device))


@dataclass(frozen=True)
class Compared:
    """In which ways an image is unlike those that a model was trained on."""

    differences: tuple[str, ...]


@dataclass
class Comparing:
    """The comparison of an image with a model's training images as a job."""

    model: TrainedModel
    volume: Volume

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Compared`."""
        yield Compared(self.model.differences(guarded(self.volume, stop)))
