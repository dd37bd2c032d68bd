"""``ssdenoise demo``: the main job, on built-in data whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from napari_ssdenoise.cli._applying import apply
from napari_ssdenoise.cli._program import common, seconds_since_start
from napari_ssdenoise.cli._report import Reporter, duration
from napari_ssdenoise.cli._scores import scores, show_scores
from napari_ssdenoise.cli._training import describe_volume, run_training
from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.samples import SAMPLES, load_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.samples import Sample
    from napari_ssdenoise.volume import Volume

SECONDS = 90.0


@click.command(name="demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="ssdenoise-demo",
    show_default=True,
    help="Folder for images, model, picture and figures; those of an earlier demo are replaced.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=SECONDS,
    show_default=True,
    help="Length of the training; longer is better.",
)
@click.option(
    "--sample", type=click.Choice(list(SAMPLES)), default="tissue-3d", show_default=True, help="What to denoise."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of the sample and the training.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@common
def command(out: Path, seconds: float, sample: str, seed: int, device: str, *, as_json: bool) -> None:
    """Make a noisy image whose truth is known, learn from the noisy one alone, and denoise it.

    Compares the result with the truth, and with the Gaussian filter that comes closest to it: a filter chosen with the
    truth in view, which real data does not allow.
    """
    reporter = Reporter(as_json=as_json)
    out.mkdir(parents=True, exist_ok=True)
    made = load_sample(sample, seed)
    reporter.say(f"{made.title}: {made.description}")
    reporter.say(f"noisy: {describe_volume(made.noisy)}")
    noisy, clean = _save_sample(made, out)

    from napari_ssdenoise.algorithms import BlindSpot
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

    model = out / "denoiser.model"
    trainer = Trainer(BlindSpot(), noisy, seconds=seconds, seed=seed, device=device)
    figures = run_training(trainer, checkpoint_path(model), reporter)
    trainer.model.save(model)
    denoised = out / "denoised.ome.zarr"
    started = seconds_since_start()
    apply(trainer.model, noisy, denoised, reporter, device=device, overwrite=True)
    figures["denoise_seconds"] = seconds_since_start() - started
    remove_checkpoint(checkpoint_path(model))
    figures |= scores(noisy, denoised, clean, None)
    filtered, figures["gaussian"] = _gaussian(noisy, clean, figures["data_range"])
    show_scores(figures, reporter)
    _picture(out / "before-after.png", noisy, filtered, denoised, clean, figures)
    figures |= {"sample": sample, "seed": seed, "output": denoised, "model": model}
    result = {"seconds": seconds_since_start(), **figures}
    reporter.say(f"before and after: {out / 'before-after.png'} (in {duration(result['seconds'])} in all)")
    _save_figures(out / "figures.json", result)
    reporter.result(result)


def _save_sample(made: Sample, out: Path) -> tuple[Volume, Volume]:
    """Write the noisy image and its truth, and open them again as a user would."""
    from napari_ssdenoise.io import write_volume
    from napari_ssdenoise.volume import open_volume

    paths = [
        write_volume(out / name, volume, overwrite=True)
        for name, volume in (("noisy.ome.zarr", made.noisy), ("truth.ome.zarr", made.clean))
    ]
    return open_volume(paths[0]), open_volume(paths[1])


def _gaussian(noisy: Volume, clean: Volume, data_range: float) -> tuple[NDArray[np.float32], dict[str, Any]]:
    from napari_ssdenoise.demo import best_gaussian
    from napari_ssdenoise.metrics import psnr, ssim

    filtered, sigmas = best_gaussian(np.asarray(noisy), np.asarray(clean))
    return filtered, {
        "psnr": psnr(filtered, clean, data_range),
        "ssim": ssim(filtered, clean, data_range),
        "sigma_pixels": list(sigmas),
    }


def _picture(
    path: Path, noisy: Volume, filtered: NDArray[np.float32], denoised: Path, clean: Volume, figures: dict[str, Any]
) -> None:
    from napari_ssdenoise.demo import Panel, save_picture
    from napari_ssdenoise.volume import open_volume

    middle = tuple(n // 2 for n in noisy.shape[:-2])
    truth = np.asarray(clean[middle])
    sigma = figures["gaussian"]["sigma_pixels"][-1]
    columns = (
        (noisy[middle], "Noisy", figures["noisy"]),
        (filtered[middle], f"Best Gaussian (sigma {sigma:g}, truth known)", figures["gaussian"]),
        (open_volume(denoised)[middle], "HQ-SSL, from the noisy image alone", figures),
    )
    panels = [Panel(plane, title, f"{of['psnr']:.1f} dB, SSIM {of['ssim']:.2f}") for plane, title, of in columns]
    save_picture(path, [*panels, Panel(truth, "Truth")], truth)


def _save_figures(path: Path, result: dict[str, Any]) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(result, indent=1, default=str), encoding="utf8")
