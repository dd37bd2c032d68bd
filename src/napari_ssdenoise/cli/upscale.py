"""``ssdenoise upscale``: give an image smaller pixels, with what it teaches about itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise.algorithms._super_resolution import METHODS
from napari_ssdenoise.batch import known_suffix
from napari_ssdenoise.cli._applying import apply, try_writing
from napari_ssdenoise.cli._outputs import plan_jobs
from napari_ssdenoise.cli._program import common, seconds_since_start
from napari_ssdenoise.cli._report import Reporter, duration
from napari_ssdenoise.cli._scores import open_reference, scores, show_scores
from napari_ssdenoise.cli._settings import UpscaleSettingsCommand, given_values
from napari_ssdenoise.cli._training import computing_options, describe_volume, open_all, run_training
from napari_ssdenoise.cli.denoise import DTYPES, check_memory, named

if TYPE_CHECKING:
    from napari_ssdenoise.superres import Upscaler
    from napari_ssdenoise.volume import Volume


@click.command(cls=UpscaleSettingsCommand, name="upscale")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("-o", "--output", "target", required=True, type=click.Path(), help="A file (.ome.zarr, .tif, .npy, …).")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="mzsr",
    help="mzsr adapts weights that come with the program, zssr learns from the image alone; ibp and bicubic, nothing.",
)
@click.option(
    "--adapt",
    metavar="N|best",
    default=None,
    help="Updates on this image: 10 for mzsr, 1000 for zssr by default; best: up to 200, until they stop helping.",
)
@click.option("--denoise", is_flag=True, help="Denoise the image first: noise would be sharpened with it.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--memory", default="2 GB", help="For the network while it is applied, e.g. 4GB; 2 GB by default.")
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", help="auto: the input's, if its steps are fine.")
@click.option("--save-kernel", type=click.Path(path_type=Path), help="Also write the blur, as a picture or .npy.")
@click.option("--reference", type=click.Path(path_type=Path), help="The sharp truth: gives PSNR and SSIM.")
@click.option("--data-range", type=click.FloatRange(min=0, min_open=True), help="Of PSNR and SSIM.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of weights and patches.")
@computing_options
@common
@click.pass_context
def command(context: click.Context, /, source: Path, target: str, *, as_json: bool, **flags: Any) -> None:
    """Give an image of any size smaller pixels; the result lies exactly where the image lies.

    The blur is measured from the image, or given: a number is the standard deviation of a Gaussian in new pixels, with
    a unit (0.15um) in the image's own scale.
    """
    from napari_ssdenoise.io._writer import check_output

    reporter = Reporter(as_json=as_json)
    adapt, until_best = _updates(flags["adapt"])
    values = given_values(context.command, METHODS[flags["method"]].key, flags)
    output = plan_jobs([source], named(target), mark=".upscaled")[0].output
    options = {"memory": check_memory(flags["memory"]), **{name: flags[name] for name in ("dtype", "overwrite")}}
    (volume,) = open_all([source], flags["axes"])
    check_output(output, overwrite=flags["overwrite"], folder=known_suffix(output).endswith(".zarr"))
    reporter.say(f"image: {describe_volume(volume)}")
    computing = {name: flags[name] for name in ("device", "precision")}
    source_volume = _denoised(volume, output, reporter, computing) if flags["denoise"] else volume
    from napari_ssdenoise.superres import Upscaler, at_new_pixels, noise_warning

    if not flags["denoise"] and flags["method"] != "bicubic":
        warning = noise_warning(volume)
        if warning:
            reporter.say(f"warning: {warning}")
    upscaler = Upscaler(
        source_volume,
        flags["method"],
        adapt=adapt,
        until_best=until_best,
        seed=flags["seed"],
        **computing,
        **values,
    )
    reference = _reference(upscaler, flags)
    if flags["save_kernel"]:
        _save_kernel(upscaler, flags["save_kernel"])
    _try_output(upscaler, output, flags)
    result = {"input": str(source), "output": str(output), **_adapt(upscaler, output, reporter)}
    apply(upscaler.model, source_volume, output, reporter, verb="enlarging", **computing, **options)
    reporter.say(f"enlarged: {output} (in {duration(seconds_since_start())})")
    if reference is not None:
        found = scores(at_new_pixels(upscaler.volume, upscaler.algorithm), output, reference, flags["data_range"])
        show_scores(found, reporter, ("pixels repeated", "enlarged"))
        result |= found
    _clean_up(output)
    reporter.result({**result, "seconds": seconds_since_start()})


def _updates(adapt: str | None) -> tuple[int | None, bool]:
    if adapt == "best":
        return 200, True
    try:
        count = None if adapt is None else int(adapt)
    except ValueError:
        count = -1
    if count is not None and count < 0:
        raise click.BadParameter(f"{adapt!r} is neither a number of updates nor 'best'.", param_hint="--adapt")
    return count, False


def _adapt(upscaler: Upscaler, output: Path, reporter: Reporter) -> dict[str, Any]:
    """Say what the blur is, and take the updates."""
    from napari_ssdenoise.ops.kernels import widths
    from napari_ssdenoise.superres import blur_warning

    sigma = [round(width, 3) for width in widths(upscaler.kernel)]
    reporter.say(f"blur: {' x '.join(f'{s:.2f}' for s in sigma)} new pixels (standard deviation along each axis)")
    warning = blur_warning(upscaler)
    if warning:
        reporter.say(f"warning: {warning}")
    result: dict[str, Any] = {"kernel_sigma": sigma, "steps": 0, "train_seconds": 0.0}
    if upscaler.adapt:
        from napari_ssdenoise.io.checkpoint import checkpoint_path

        result |= run_training(upscaler, checkpoint_path(output), reporter)
    return result


def _save_kernel(upscaler: Upscaler, path: Path) -> None:
    """Write the blur: as numbers, or stretched to a grey picture."""
    import numpy as np

    kernel = upscaler.kernel
    if path.suffix == ".npy":
        np.save(path, kernel)
        return
    from PIL import Image

    flat = kernel.max(int(np.argmin(kernel.shape))) if kernel.ndim == 3 else kernel
    grey = np.clip(255 * flat / flat.max(), 0, 255)  # a bicubic reduction has negative weights
    Image.fromarray(np.uint8(np.round(grey))).resize(
        [8 * n for n in reversed(flat.shape)], Image.Resampling.NEAREST
    ).save(path)


def _intermediate(output: Path) -> Path:
    return output.with_name(f".{output.name}.denoised.ome.zarr")


def _denoised(volume: Volume, output: Path, reporter: Reporter, computing: Mapping[str, Any]) -> Volume:
    """Denoise an image into a hidden file beside the output, with the method that a diagnosis chooses."""
    from napari_ssdenoise.algorithms import get_algorithm
    from napari_ssdenoise.cli._choosing import diagnosed
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.io.checkpoint import checkpoint_path, load_checkpoint
    from napari_ssdenoise.volume import open_volume

    path = _intermediate(output)
    algorithm, _ = diagnosed(volume, None, lambda key, recommended: get_algorithm(key, **recommended), reporter)
    trainer = Trainer(algorithm, volume, **computing)
    # What a stopped run left is of use if it was made of this image.
    if not path.exists() or load_checkpoint(checkpoint_path(path), trainer) is None:
        run_training(trainer, checkpoint_path(path), reporter)
        apply(trainer.model, volume, path, reporter, dtype="float32", overwrite=True, **computing)
    trainer.close()
    return open_volume(path)


def _clean_up(output: Path) -> None:
    """Remove what a stopped run would have gone on from."""
    import shutil

    from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

    remove_checkpoint(checkpoint_path(output))
    remove_checkpoint(checkpoint_path(_intermediate(output)))
    shutil.rmtree(_intermediate(output), ignore_errors=True)


def _reference(upscaler: Upscaler, flags: Mapping[str, Any]) -> Volume | None:
    """Open the truth, if there is one, and see whether it fits the result."""
    if not flags["reference"]:
        return None
    from napari_ssdenoise.superres import at_new_pixels

    return open_reference(flags["reference"], at_new_pixels(upscaler.volume, upscaler.algorithm), flags["axes"])


def _try_output(upscaler: Upscaler, output: Path, flags: Mapping[str, Any]) -> None:
    """Find out before the updates whether their result could be written: format, dtype, space, permission."""
    from napari_ssdenoise.engine.stream import choose_dtype
    from napari_ssdenoise.superres import at_new_pixels

    dtype = choose_dtype(upscaler.model, upscaler.volume, flags["dtype"])
    like = at_new_pixels(upscaler.volume, upscaler.algorithm)
    try_writing(output, like, dtype, overwrite=flags["overwrite"])
