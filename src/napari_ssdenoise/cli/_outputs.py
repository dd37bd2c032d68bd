"""Name outputs as the command line asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from napari_ssdenoise import batch
from napari_ssdenoise.batch import MARK, STD_MARK, Job


def plan_jobs(
    inputs: Sequence[Path], out: Path, suffix: str = "", *, shared: bool = False, mark: str = MARK
) -> list[Job]:
    """Choose an output for every input, by the rules of `napari_ssdenoise.batch.plan_jobs`.

    Raises
    ------
    click.UsageError
        If several inputs should go into one file, an input is given twice, or names cannot be told apart.
    """
    try:
        return batch.plan_jobs(inputs, out, suffix, shared=shared, mark=mark)
    except batch.NamesError as error:
        raise click.UsageError(str(error)) from error


def with_std(jobs: Sequence[Job], out: Path, suffix: str = "", *, shared: bool = False) -> list[Job]:
    """Add where the standard deviations go, by the rules of `plan_jobs`.

    Raises
    ------
    click.UsageError
        Also if it is where the denoised image goes.
    """
    stds = plan_jobs([job.source for job in jobs], out, suffix, shared=shared, mark=STD_MARK)
    for job, std in zip(jobs, stds, strict=True):
        if batch.absolute(job.output) == batch.absolute(std.output):
            raise click.UsageError(f"-o and --std both name {job.output}. Give each a name of its own.")
    return [replace(job, std=std.output) for job, std in zip(jobs, stds, strict=True)]
