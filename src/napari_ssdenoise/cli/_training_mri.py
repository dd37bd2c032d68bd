"""``ssdenoise train --algorithm ssdu-mri``: learn to reconstruct from undersampled k-space."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from napari_ssdenoise._words import counted
from napari_ssdenoise.algorithms import RECONSTRUCTION
from napari_ssdenoise.cli._program import Stopped, seconds_since_start
from napari_ssdenoise.cli._report import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.reconstruction import ReconstructionTrainer

ALGORITHM: Final = RECONSTRUCTION
# Flags of `ssdenoise train` that have no meaning here.
_OTHER: Final = ("seconds", "spatial", "channels", "target", "start")


def train_mri(
    inputs: Sequence[Path],
    output: Path,
    reporter: Reporter,
    flags: Mapping[str, Any],
    *,
    axes: str | None,
    overwrite: bool,
) -> None:
    """Train over the slices of all files, and save the model for ``ssdenoise reconstruct --method``.

    Raises
    ------
    Stopped
        After Ctrl-C; what has been learnt is saved.
    click.UsageError
        If flags are given that this algorithm does not have.
    """
    given = [f"--{name}" for name in _OTHER if flags.get(name)]
    given += [
        f"--{name.removeprefix('setting_').replace('_', '-')}"
        for name, v in flags.items()
        if "setting_" in name and v is not None
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {ALGORITHM} takes --steps, --seed and --device only.")
    _check_output(output, overwrite=overwrite)
    from napari_ssdenoise.io.kspace import open_kspace
    from napari_ssdenoise.reconstruction import ReconstructionTrainer

    sources = [open_kspace(path, axes=axes) for path in inputs]
    for source in sources:
        slices, coils, rows, columns = source.shape
        size = f"{counted(slices, 'slice')}, {counted(coils, 'coil')}, {rows} x {columns}"
        reporter.say(f"k-space: {source.name}, {size}")
    reporter.say("estimating coil maps…")
    options = {"steps": flags["steps"] or 2000, "seed": flags["seed"], "device": flags["device"]}
    trainer = ReconstructionTrainer(sources, **options)
    started = time.perf_counter()
    try:
        loss = _run(trainer, reporter, started)
    except KeyboardInterrupt as error:
        if not trainer.step:
            raise Stopped("nothing was learnt yet.") from error
        trainer.model.save(output, overwrite=overwrite)
        raise Stopped(f"what {trainer.step} steps have taught is saved in {output}.") from error
    trainer.model.save(output, overwrite=overwrite)
    took = time.perf_counter() - started
    reporter.say(f"model: {output} ({trainer.step} steps in {duration(took)})")
    figures = {"algorithm": ALGORITHM, "steps": trainer.step, "loss": loss, "slices": len(trainer.problems)}
    reporter.result(
        {"seconds": seconds_since_start(), "train_seconds": took, **figures, "output": output, "inputs": list(inputs)}
    )


def _run(trainer: ReconstructionTrainer, reporter: Reporter, started: float) -> float:
    """Train, and return the mean loss of the last steps."""
    losses: list[float] = []
    with reporter.progress("training") as update:
        for step in trainer:
            losses = [*losses[-49:], step.loss]
            left = (time.perf_counter() - started) * (step.steps / step.step - 1)
            update(step.step / step.steps, left, f"step {step.step}/{step.steps}, loss {sum(losses) / len(losses):.3f}")
    return sum(losses) / len(losses)


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse before training what could not be saved after it."""
    from napari_ssdenoise.reconstruction._model import is_reconstruction_model

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists. Pass --overwrite to replace it, or choose another name.")
    if output.exists() and not is_reconstruction_model(output):
        raise FileExistsError(f"{output} exists and is not a saved model of a reconstruction, so it stays.")
    if not output.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder {output.absolute().parent} does not exist. Make it first.")
