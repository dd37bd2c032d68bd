"""``ssdenoise diagnose``: what an image's noise is, and which algorithm fits it."""

from __future__ import annotations

from pathlib import Path

import click

from napari_ssdenoise.cli._program import common, seconds_since_start
from napari_ssdenoise.cli._report import Reporter


@click.command(name="diagnose")
@click.argument("path", metavar="IN", type=click.Path(path_type=Path))
@click.option("--axes", metavar="TCZYXS", help="One letter per dimension, if the file names none.")
@click.option("--target", type=click.Path(path_type=Path), help="A second noisy image of the same scene.")
@click.option("--offset", type=float, help="Intensity without light, if it is known; an image cannot tell it.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of the choice of places to look at.")
@common
def command(
    path: Path, axes: str | None, target: Path | None, offset: float | None, seed: int, *, as_json: bool
) -> None:
    """Measure an image's noise, check what denoising assumes, and recommend an algorithm.

    Gain, offset and read noise, correlation between pixels and frames, saturation, rounding and camera patterns, in
    seconds for images of any size: only a few places are read.
    """
    reporter = Reporter(as_json=as_json)
    from napari_ssdenoise.diagnosis import diagnose

    report = diagnose(path, target=target, axes=axes, offset=offset, seed=seed)
    reporter.say(report.describe())
    reporter.result({"seconds": seconds_since_start(), "path": path, **report.to_json()})
