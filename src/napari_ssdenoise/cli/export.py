"""``ssdenoise export``: a saved model as a package of the BioImage Model Zoo."""

from __future__ import annotations

from pathlib import Path

import click

from napari_ssdenoise.cli._program import common
from napari_ssdenoise.cli._report import Reporter


@click.command(name="export")
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The package, a .zip file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing package.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="An image to cut the test image out of, which is published with the model; a made-up one by default.",
)
@click.option("--axes", metavar="TCZYXS", help="One letter per dimension of the sample, if its file names none.")
@click.option("--name", default="", help="What to call it; algorithm and image by default.")
@click.option("--description", default="", help="What it is good for, in a sentence or two.")
@click.option("--author", "authors", multiple=True, help="Name of an author; may be given several times.")
@click.option("--license", "terms", metavar="SPDX", help="Terms under which others may use it, e.g. CC-BY-4.0.")
@common
def command(
    model: Path,
    output: Path,
    *,
    overwrite: bool,
    sample: Path | None,
    axes: str | None,
    name: str,
    description: str,
    authors: tuple[str, ...],
    terms: str | None,
    as_json: bool,
) -> None:
    """Write a saved model as a package that Fiji, ilastik and others run: the BioImage Model Zoo's format.

    The zoo's own library tests the package before it gets its name. "ssdenoise denoise -m" takes the package as well.
    """
    reporter = Reporter(as_json=as_json)
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import open_volume

    loaded = TrainedModel.load(model)
    made = loaded.export_bioimage(
        output,
        sample=None if sample is None else open_volume(sample, axes=axes),
        name=name,
        description=description,
        authors=authors,
        license=terms,
        overwrite=overwrite,
    )
    reporter.say(f"package: {made} (tested by the BioImage Model Zoo's library)")
    missing = [option for option, given in (("--author", authors), ("--license", terms)) if not given]
    if missing:
        reporter.say(f"The zoo asks for more before it publishes a model: {' and '.join(missing)}.")
    reporter.result({"output": made, "algorithm": loaded.algorithm.key, "tested": True})
