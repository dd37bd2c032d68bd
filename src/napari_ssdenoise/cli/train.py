"""``ssdenoise train``: learn from noisy images, and save the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
@training_options
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
    quality: bool,
    axes: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Learn to denoise from one noisy image or several of one kind, and save the model.

    Ctrl-C keeps a checkpoint beside the model; the same command goes on from there, and so it does after a crash.
    """
    reporter = Reporter(as_json=as_json)
    plan = TrainingPlan.from_flags(context, flags)
    check_model_output(output, overwrite=overwrite)
    volumes = open_all(inputs, axes)
    for volume in volumes:
        reporter.say(f"noisy: {describe_volume(volume)}")

    from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

    trainer, about = plan.trainer(volumes, axes, reporter)
    checkpoint = checkpoint_path(output)
    figures = run_training(trainer, checkpoint, reporter)
    trainer.model.save(output, overwrite=overwrite)
    remove_checkpoint(checkpoint)
    reporter.say(f"model: {output} ({figures['steps']} steps in {duration(figures['train_seconds'])})")
    if quality:
        where = {"axes": axes, "device": flags["device"]}
        figures["quality"] = show_quality(trainer.model, volumes, plan.targets, reporter, **where)
    reporter.result({"seconds": seconds_since_start(), **about, **figures, "output": output, "inputs": inputs})


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
