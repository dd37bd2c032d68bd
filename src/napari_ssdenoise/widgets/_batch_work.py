"""Denoise many images in another thread: with one model, or one that learns from each image first."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.batch import Batch, Finished, Job, Result, resume_training, train_with_checkpoints
from napari_ssdenoise.engine.outputs import UNCERTAINTY
from napari_ssdenoise.recipe import weights_digest
from napari_ssdenoise.volume import Volume, open_volume, require_intensities
from napari_ssdenoise.widgets._denoising import APPLY_MEMORY
from napari_ssdenoise.widgets._job import Stopped
from napari_ssdenoise.widgets._stopping import (
    guarded,
    interrupt_between_layers,
    interruptible,
    interrupting,
    load_torch,
    release,
)
from napari_ssdenoise.widgets._work import Method, Stage, diagnosis_of

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

# Of the time for an image that is learnt from first: what the bar takes the training for.
TRAINING_SHARE = 0.8


@dataclass(frozen=True)
class Share:
    """How much of one image is done, and what goes on."""

    fraction: float
    text: str


@dataclass
class BatchDenoising:
    """Images, how to denoise each, and whether outputs that exist are replaced or left.

    Attributes
    ----------
    model
        A trained model, or the path of one; None: each image is learnt from, by ``method``.
    axes
        Of files that name none, or wrong ones.
    batch
        There once the work has begun.
    """

    jobs: Sequence[Job]
    method: Method
    model: TrainedModel | Path | None = None
    replace: bool = False
    axes: str | None = None
    batch: Batch | None = None

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then for each image `Begun`, `Share` again and again, and `Outcome`."""
        yield Stage("Loading PyTorch…")
        load_torch(stop)
        from napari_ssdenoise.model import TrainedModel

        if isinstance(self.model, Path):
            self.model = TrainedModel.load(self.model)
        finished = Finished(self.jobs[0].output.parent, self._task())
        self.batch = Batch(self.jobs, finished)
        yield Stage("")
        yield from self.batch.run(lambda job: self._denoise(job, stop), stop.is_set)

    def _task(self) -> Mapping[str, Any]:
        """Say what is done to each image: results of another task are not taken for done."""
        method = self.method
        also: dict[str, Any] = {"std": True} if self.jobs[0].std is not None else {}
        also |= {"axes": self.axes} if self.axes else {}
        if self.model is None:
            how: dict[str, Any] = {
                **also,
                "algorithm": method.algorithm,
                "settings": method.values,
                "seed": method.seed,
            }
            return {**how, "steps": method.steps, "seconds": method.seconds, "augment": method.augment}
        digest = weights_digest(self.model).hexdigest()
        return {**also, "model": self.model.describe(), "weights": digest, "augment": method.augment}

    def _denoise(self, job: Job, stop: Event) -> Generator[Any, None, Result]:
        """Denoise one image."""
        from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

        about = {"input": str(job.source), "output": str(job.output)}
        if job.done and not self.replace:
            return {**about, "skipped": True}
        volume = guarded(open_volume(job.source, axes=self.axes) if job.volume is None else job.volume, stop)
        require_intensities(volume)
        job.check_outputs(overwrite=self.replace)
        kept = checkpoint_path(job.output)
        model = self.model
        if model is None:
            model = yield from self._train(volume, kept, stop, job)
        before = TRAINING_SHARE if self.model is None else 0.0
        require_uncertainty(model.algorithm, job)
        also = {} if job.std is None else {UNCERTAINTY: job.std}
        how = {"also": also, "memory": APPLY_MEMORY, "device": self.method.device, "augment": self.method.augment}
        yield Share(before, "denoising")  # the first tile may take long, and be all
        tiles = interruptible(model, stop).predict_into(volume, job.output, overwrite=self.replace, **how)
        try:
            for tile in tiles:
                yield Share(before + (1 - before) * tile.done / tile.total, "denoising")
        finally:
            tiles.close()
        # Only now: until the output is complete, the checkpoint is what makes the same weights again.
        remove_checkpoint(kept)
        return {**about, "steps": model.record.get("steps")}

    def _train(self, volume: Volume, kept: Path, stop: Event, job: Job) -> Generator[Any, None, TrainedModel]:
        """Learn from one image; what a stopped run had learnt is kept."""
        from napari_ssdenoise.algorithms import get_algorithm
        from napari_ssdenoise.engine.trainer import Trainer

        method = self.method
        key, values = method.algorithm, method.values
        if key == AUTO:
            from napari_ssdenoise.diagnosis import left_open

            yield Share(0.0, "looking")
            report = diagnosis_of(volume, stop)
            key, values = report.algorithm, left_open(report.settings)
        yield Share(0.0, "reading")
        budget = {"steps": method.steps, "seconds": method.seconds, "seed": method.seed, "device": method.device}
        algorithm = get_algorithm(key, **values)
        require_uncertainty(algorithm, job)
        trainer = Trainer(algorithm, volume, **budget)
        resume_training(trainer, kept)
        interrupt_between_layers(trainer.network, stop)
        # Released, as the checkpoint knows an image again by parts of it.
        how: dict[str, Any] = {"interruptions": (Stopped,), "before_keeping": lambda: release(volume)}
        with closing(train_with_checkpoints(trainer, kept, **how)) as steps:
            for step in steps:
                yield Share(TRAINING_SHARE * step.fraction, "learning")
        if stop.is_set():
            raise Stopped
        yield Share(TRAINING_SHARE, "learning")
        with interrupting(stop):
            return trainer.model


def require_uncertainty(algorithm: Any, job: Job) -> None:
    """Refuse to write an uncertainty that an algorithm does not tell.

    Raises
    ------
    ValueError
        If it is wanted all the same.
    """
    if job.std is not None and UNCERTAINTY not in algorithm.outputs:
        raise ValueError(
            f"{algorithm.title} does not tell the uncertainty of its results. Choose the blind-spot network, or write "
            "no uncertainty."
        )
