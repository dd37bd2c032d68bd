"""Say what a result is worth, after a training: what ``train`` and ``denoise`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from napari_ssdenoise._errors import explain, is_input_error

if TYPE_CHECKING:
    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume

Command = TypeVar("Command", bound=Callable[..., Any])


def quality_option(command: Command) -> Command:
    """Add ``--quality/--no-quality``."""
    text = "Whether to estimate, after a training, how good the result is; takes seconds. On by default."
    return click.option("--quality/--no-quality", default=True, help=text)(command)


def show_quality(
    model: TrainedModel,
    volumes: Sequence[Volume],
    targets: Sequence[Path],
    reporter: Reporter,
    *,
    axes: str | None,
    device: str,
    data_range: float | None = None,
) -> dict[str, Any] | None:
    """Write the estimates for people, and return them for a script.

    The work that it is about is done and saved, so that nothing here may fail the command: what goes wrong is said.

    Parameters
    ----------
    model
        Just trained.
    volumes, targets
        The images that it was trained on, and second ones of the same scenes.
    """
    from napari_ssdenoise.cli._training import open_all
    from napari_ssdenoise.quality import assess

    try:
        found = assess(
            model, list(volumes), target=open_all(targets, axes) or None, data_range=data_range, device=device
        )
    except Exception as error:
        if not is_input_error(error):
            raise
        reporter.say(f"the quality could not be estimated: {explain(error)}")
        return None
    reporter.table(("", ""), found.rows())
    for warning in found.warnings:
        reporter.say(f"warning: {warning}")
    return found.to_json()
