"""``ssdenoise study``: whether images are enough, and what learning without clean ones costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise.cli._program import Stopped, common, seconds_since_start
from napari_ssdenoise.cli._report import Reporter
from napari_ssdenoise.io._whole import written_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.study.networks import NetworkStudy, Training

SIDE = 64


@click.command(name="study")
@click.argument("images", metavar="[IN]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--of",
    "subject",
    type=click.Choice(["data", "networks", "theory"]),
    default="data",
    help="Your own noisy images; networks on clean images (a folder IN, or synthetic ones); the linear theory.",
)
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), help="A folder for figures and results.")
@click.option("--target", "targets", multiple=True, type=click.Path(path_type=Path), help="Second views, one each.")
@click.option("--series", is_flag=True, help="The images are the frames of one series.")
@click.option("--axes", metavar="TCZYXS", help="One letter per dimension, if a file names none.")
@click.option("--sizes", metavar="N,N,...", help="Numbers of training images of networks: 8,16,32,64,128,256.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, help="Trainings of each kind.")
@click.option("--steps", type=click.IntRange(min=1), help="Of each training: 300, and 600 for networks.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@common
def command(images: tuple[Path, ...], subject: str, folder: Path | None, *, as_json: bool, **flags: Any) -> None:
    """Tell how far noisy images are from what more of them would give, without clean ones.

    Frames of a series, or images with a second view, are best. With -o, a stopped study goes on, and the table, the
    fitted curve and a plot are kept.
    """
    reporter = Reporter(as_json=as_json)
    if subject == "data" and not images:
        raise click.UsageError("Name noisy images, or choose --of networks or --of theory.")
    if (subject == "theory" and images) or (subject == "networks" and len(images) > 1):
        raise click.UsageError(
            f"--of {subject} takes {'no images' if subject == 'theory' else 'one folder of images'}."
        )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        found = {"data": _data, "networks": _networks, "theory": _theory}[subject](images, folder, flags, reporter)
    except KeyboardInterrupt as error:
        kept = "finished trainings were kept; the same command goes on." if folder else "nothing was kept; give -o."
        raise Stopped(kept) from error
    if folder is not None:
        _write(folder / f"{subject}.json", found)
        reporter.say(f"written: {folder / subject}.json, .png and .svg")
    reporter.result({"subject": subject, "seconds": seconds_since_start(), **found})


def _data(images: tuple[Path, ...], folder: Path | None, flags: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    from napari_ssdenoise.study.data import DataStudier, DataStudySettings

    settings = DataStudySettings(seeds=flags["seeds"], steps=flags["steps"] or 300)
    studier = DataStudier(
        list(images),
        target=list(flags["targets"]) or None,
        series=flags["series"],
        axes=flags["axes"],
        settings=settings,
        ledger=folder and folder / "data.jsonl",
        device=flags["device"],
    )
    with reporter.progress("studying") as update:
        for step in studier:
            update(step.done, step.remaining, f"training {step.number} of {step.trainings}, on {step.size} images")
    study = studier.result
    rows = [(str(n), f"{risk:.4g}", f"{spread:.2g}") for n, risk, spread in study.table]
    reporter.table(("images", "risk (squared intensity)", "± over seeds"), rows)
    reporter.say(study.describe())
    if folder is not None:
        from napari_ssdenoise.study.plot import plot_data

        for suffix in ("png", "svg"):
            plot_data(study, folder / f"data.{suffix}")
    return study.to_json()


def _networks(
    images: tuple[Path, ...], folder: Path | None, flags: dict[str, Any], reporter: Reporter
) -> dict[str, Any]:
    from dataclasses import asdict, replace

    from napari_ssdenoise.study.networks import NetworkStudy, study_networks

    study = NetworkStudy(seeds=flags["seeds"])
    if flags["sizes"]:
        study = replace(study, sizes=_numbers(flags["sizes"]))
    if flags["steps"]:
        study = replace(study, steps=flags["steps"])
    clean, study = _clean(images, study, fixed=bool(flags["sizes"]))
    trainings = []
    count = len(study.sizes) * len(study.target_noise) * study.seeds
    with reporter.progress("training") as update:
        for training in study_networks(
            clean, study, ledger=folder and folder / "networks.jsonl", device=flags["device"]
        ):
            trainings.append(training)
            update(len(trainings) / count, float("inf"), f"{training.size} images")
    _tell(trainings, reporter)
    if folder is not None:
        from napari_ssdenoise.study.plot import plot_networks

        for suffix in ("png", "svg"):
            plot_networks(trainings, folder / f"networks.{suffix}")
    source = str(images[0]) if images else "synthetic"
    return {"images": source, "trainings": [asdict(t) for t in trainings]}


def _clean(images: tuple[Path, ...], study: NetworkStudy, *, fixed: bool) -> tuple[NDArray[Any], NetworkStudy]:
    from napari_ssdenoise.study._images import crops, dead_leaves
    from napari_ssdenoise.study.networks import with_sizes

    if not images:
        return dead_leaves(study.images, SIDE), study
    clean = crops(images[0], SIDE, per_image=4)
    return clean, study if fixed else with_sizes(study, len(clean))


def _tell(trainings: list[Training], reporter: Reporter) -> None:
    """Show the mean risk of each size and target, and how much more noisy targets leave."""
    levels = sorted({t.target_noise for t in trainings})
    rows = []
    for size in sorted({t.size for t in trainings}):
        risks = [[t.risk for t in trainings if (t.size, t.target_noise) == (size, level)] for level in levels]
        rows.append((str(size), *(f"{sum(r) / len(r):.3e}" for r in risks)))
    reporter.table(("images", *(f"targets' noise {255 * level:.0f}/255" for level in levels)), rows)


def _theory(images: tuple[Path, ...], folder: Path | None, flags: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    from napari_ssdenoise.study.linear import linear_theory

    study = linear_theory()
    reporter.say(f"best possible risk: {study.theory.best_risk:.6f}")
    columns = ("stopped", "stopped_theory", "converged", "converged_theory")
    rows = [(f"{p.target_noise:g}", str(p.size), *(f"{getattr(p, c):.6f}" for c in columns)) for p in study.points]
    reporter.table(("target noise", "pairs", "stopped early", "theory", "converged", "theory"), rows)
    if folder is not None:
        from napari_ssdenoise.study.plot import plot_theory

        for suffix in ("png", "svg"):
            plot_theory(study, folder / f"theory.{suffix}")
    return study.to_json()


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers like 8,16,32.", param_hint="--sizes") from None


def _write(path: Path, values: dict[str, Any]) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
