"""Train with a checkpoint beside the output, so that a run that is stopped at any moment goes on where it was."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ssdenoise._errors import explain

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import Trainer, TrainStep

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0


def resume_training(trainer: Trainer, checkpoint: Path) -> str:
    """Take up what an earlier run of the same training had learnt, if there is something; say so.

    Returns
    -------
    str
        What there was to take up, or why it was not; empty without a checkpoint.
    """
    from napari_ssdenoise.io.checkpoint import load_checkpoint

    state = load_checkpoint(checkpoint, trainer)
    if state:
        trainer.resume(state)
        return f"resuming the training at step {trainer.step} (from {checkpoint})"
    if checkpoint.exists():
        return f"{checkpoint} is of another training or damaged: starting from the beginning."
    return ""


def train_with_checkpoints(
    trainer: Trainer,
    checkpoint: Path,
    *,
    interruptions: tuple[type[BaseException], ...] = (),
    before_keeping: Callable[[], None] | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Generator[TrainStep, None, None]:
    """Take all steps of a training, with a checkpoint now and then and at the end, however it comes.

    The generator is closed to stop after a step. The checkpoint is left to the caller, who removes it when what it
    serves is on disk: a run that is stopped before that need not train again. Of a training that diverges nothing is
    left. The trainer is closed at the end.

    Parameters
    ----------
    checkpoint
        A folder: see `napari_ssdenoise.io.checkpoint.checkpoint_path`.
    interruptions
        Exceptions with which a step may be cut short; what was learnt before it is kept.
    before_keeping
        Called before what a stopped training had learnt is written.
    warn
        Is told of a checkpoint that cannot be written: the training still has its worth, and goes on.
    """
    from napari_ssdenoise.io.checkpoint import remove_checkpoint, save_checkpoint

    def keep() -> None:
        try:
            save_checkpoint(checkpoint, trainer)
        except OSError as error:
            warn(f"the checkpoint {checkpoint} could not be written: {explain(error)}.")

    stops: tuple[type[BaseException], ...] = (GeneratorExit, *interruptions)
    saved = time.monotonic()
    try:
        for step in trainer:
            yield step
            if time.monotonic() - saved > CHECKPOINT_SECONDS and step.fraction < 1:
                keep()
                saved = time.monotonic()
        keep()
    except ArithmeticError:
        remove_checkpoint(checkpoint)  # going on from it would diverge again
        raise
    except stops:
        if before_keeping is not None:
            before_keeping()
        if trainer.step:
            keep()
        raise
    finally:
        trainer.close()
