"""``ssdenoise train``: learn from noisy images, and save the model."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise.cli._program import common, seconds_since_start
from napari_ssdenoise.cli._quality import quality_option, show_quality
from napari_ssdenoise.cli._report import Reporter, duration
from napari_ssdenoise.cli._settings import SettingsCommand
from napari_ssdenoise.cli._training import (
    TrainingPlan,
    computing_options,
    describe_volume,
    open_all,
    run_training,
    training_options,
)
from napari_ssdenoise.cli._training_mri import ALGORITHM, train_mri

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import Trainer


@click.command(cls=SettingsCommand, name="train")
@click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The model: a folder, or a file ending in .zip.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing model.")
@click.option(
    "--against-scratch",
    is_flag=True,
    help="Then train once more as long, from random weights, and compare: does what other images taught help here?",
)
@partial(training_options, more=(ALGORITHM,))
@quality_option
@computing_options
@common
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Path, ...],
    output: Path,
    *,
    overwrite: bool,
    against_scratch: bool,
    quality: bool,
    axes: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Learn to denoise from one noisy image or several of one kind, and save the model.

    With --algorithm ssdu-mri, IN is undersampled k-space, and the model is for ssdenoise reconstruct --method.

    Ctrl-C keeps a checkpoint beside the model; the same command goes on from there, and so it does after a crash.
    """
    reporter = Reporter(as_json=as_json)
    if flags["algorithm"] == ALGORITHM:
        train_mri(inputs, output, reporter, flags, axes=axes, overwrite=overwrite)
        return
    plan = TrainingPlan.from_flags(context, flags)
    check_model_output(output, overwrite=overwrite)
    volumes = open_all(inputs, axes)
    for volume in volumes:
        reporter.say(f"noisy: {describe_volume(volume)}")

    from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

    trainer, about = plan.trainer(volumes, axes, reporter)
    checkpoint = checkpoint_path(output)
    figures = run_training(trainer, checkpoint, reporter)
    trainer.model.save(output, overwrite=overwrite, sample=volumes[0])
    remove_checkpoint(checkpoint)
    reporter.say(f"model: {output} ({figures['steps']} steps in {duration(figures['train_seconds'])})")
    if against_scratch:
        figures["scratch_held_out_loss"] = train_from_scratch(trainer, reporter)
    if quality:
        where = {"axes": axes, "device": flags["device"]}
        figures["quality"] = show_quality(trainer.model, volumes, plan.targets, reporter, **where)
    reporter.result({"seconds": seconds_since_start(), **about, **figures, "output": output, "inputs": inputs})


def train_from_scratch(trainer: Trainer, reporter: Reporter) -> float | None:
    """Train as long from random weights, and say which of both knows more about what was held out."""
    from napari_ssdenoise.engine.trainer import Trainer

    if trainer.held_out_loss is None or not trainer.algorithm.is_warm:
        why = "no part is held out" if trainer.algorithm.is_warm else "the weights were random to begin with"
        reporter.say(f"nothing to compare: {why}.")
        return None
    scratch: Any = replace(trainer.algorithm, from_scratch=True)  # type: ignore[call-arg]
    options: dict[str, Any] = {
        "spatial": trainer.geometry.spatial,
        "channels": trainer.geometry.channels,
        "seed": trainer.seed,
    }
    other = Trainer(
        scratch,
        trainer.volumes,
        target=trainer.targets or None,
        steps=trainer.step,
        device=str(trainer.device),
        **options,
    )
    with reporter.progress("training from scratch") as update:
        for step in other:
            update(step.fraction, step.remaining, f"step {step.step}/{step.steps}")
    other.close()
    reporter.say(
        f"after as many steps, the loss on parts held out is {trainer.held_out_loss:.4f}, and from random weights "
        f"{other.held_out_loss:.4f}."
    )
    return other.held_out_loss


def check_model_output(output: Path, *, overwrite: bool) -> None:
    """Refuse before training what could not be saved after it.

    Raises
    ------
    FileExistsError, FileNotFoundError, PermissionError
        As the message says.
    """
    from napari_ssdenoise.io.bundle import is_model

    if output.exists():
        if not overwrite:
            raise FileExistsError(f"{output} exists. Pass --overwrite to replace it, or choose another name.")
        if not is_model(output):
            raise FileExistsError(f"{output} exists and is not a saved model, so it stays. Choose another name.")
    folder = output.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist. Make it first, or choose another place.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"no permission to write into {folder}. Choose another folder for {output.name}.")
