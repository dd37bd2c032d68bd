"""``ssdenoise denoise``: clean images with a saved model, or learn from each image first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise.batch import FORMATS, Finished, Job, is_folder, known_suffix
from napari_ssdenoise.cli._applying import apply, try_writing
from napari_ssdenoise.cli._batch import Batch, connected
from napari_ssdenoise.cli._choosing import AUTO, require_outputs
from napari_ssdenoise.cli._outputs import plan_jobs, with_std
from napari_ssdenoise.cli._program import FailedError, common, seconds_since_start
from napari_ssdenoise.cli._quality import quality_option, show_quality
from napari_ssdenoise.cli._report import Reporter, duration
from napari_ssdenoise.cli._scores import open_reference, scores, show_scores
from napari_ssdenoise.cli._settings import SettingsCommand, given_settings
from napari_ssdenoise.cli._training import (
    TrainingPlan,
    computing_options,
    describe_volume,
    load_model,
    open_all,
    run_training,
    training_options,
)
from napari_ssdenoise.complex_parts import real_view

if TYPE_CHECKING:
    from napari_ssdenoise.engine.distributed import Scheduler
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume

TRAINING_FLAGS = ("algorithm", "steps", "seconds", "spatial", "channels", "target", "start")
DTYPES = ("auto", "uint8", "uint16", "uint32", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class Request:
    """What the command line asks for, for every image."""

    model: TrainedModel | None
    plan: TrainingPlan
    axes: str | None
    reference: Path | None
    data_range: float | None
    overwrite: bool
    skip_existing: bool
    quality: bool
    applying: Mapping[str, Any]
    magnitude: tuple[int | None, float | None] = (None, None)  # coils and sigma
    scheduler: Scheduler | None = None


@click.command(cls=SettingsCommand, name="denoise")
@click.argument("inputs", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-m", "--model", type=click.Path(path_type=Path), help="A saved model; without it, one is trained first.")
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="A file; for several images, a folder for all of them."
)
@click.option(
    "--std",
    type=click.Path(),
    help="Also write the standard deviation of every pixel's estimate, like -o; for models that give it (blindspot).",
)
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option("--skip-existing", is_flag=True, help="Leave out images whose output exists.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Of outputs in a folder; by default that of each input."
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|local",
    help="Apply the model on the workers of a dask cluster, or on local ones: one for each GPU.",
)
@click.option("--workers", type=click.IntRange(min=1), help="How many, with --scheduler local.")
@click.option(
    "--memory", help="For the network while it is applied, e.g. 2GB; 4 GB by default, more where a network takes more."
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="auto", help="auto: the input's, if its steps are fine enough."
)
@click.option("--augment", is_flag=True, help="Average over flips and turns: a little better, up to 8 times slower.")
@click.option(
    "--magnitude-coils",
    type=click.IntRange(1, 256),
    help="For magnitudes (MRI): take off the mean that noise adds; of how many coils' squares, 1 for Rician noise.",
)
@click.option(
    "--magnitude-sigma",
    type=click.FloatRange(min=0, min_open=True),
    help="The noise of real and imaginary part, with --magnitude-coils; by default found in the background.",
)
@click.option("--reference", type=click.Path(path_type=Path), help="The clean truth of one image: gives PSNR and SSIM.")
@click.option(
    "--data-range",
    type=click.FloatRange(min=0, min_open=True),
    help="Of PSNR and SSIM; by default 255 for a uint8 reference, else its 99.9th percentile minus its minimum.",
)
@partial(training_options, default=AUTO)
@quality_option
@computing_options
@common
@click.pass_context
def command(
    context: click.Context,
    /,
    inputs: tuple[Path, ...],
    output: str,
    std: str | None,
    model: Path | None,
    *,
    form: str | None,
    scheduler: str | None,
    workers: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Denoise images of any size, tile by tile, with a model; or diagnose and train on each image first, then apply.

    Outputs get their names when they are complete. After Ctrl-C, or if some images failed, the same command goes on
    with what is missing. One image: -o names a file (.ome.zarr, .tif, .ome.tif, .npy, .png), or a folder if it is one
    or ends in /. Outputs in a folder are called like their inputs, with .denoised added.
    """
    reporter = Reporter(as_json=as_json)
    plan = TrainingPlan.from_flags(context, flags, AUTO)
    check_usage(context, flags, inputs, has_model=model is not None)
    suffix = f".{form}" if form else ""
    jobs = plan_jobs(inputs, named(output), suffix, shared=scheduler is not None)
    if std is not None:
        jobs = with_std(jobs, named(std), suffix, shared=scheduler is not None)
    if len(inputs) > 1:
        for folder in {path.parent for path in jobs[0].outputs}:
            check_folder(folder)
    if scheduler:
        check_shared(jobs)
    applying = {name: flags[name] for name in ("dtype", "precision", "device", "augment")}
    applying |= {"memory": check_memory(flags["memory"])} if flags["memory"] else {}
    if len(jobs) == 1:  # a wrong name should not wait for torch
        open_all([jobs[0].source], flags["axes"])
    with connected(scheduler, workers) as cluster:
        kept = ("axes", "reference", "data_range", "overwrite", "skip_existing", "quality")
        about = {name: flags[name] for name in kept}
        trained = load_model(model) if model else None
        about["magnitude"] = flags["magnitude_coils"], flags["magnitude_sigma"]
        request = Request(model=trained, plan=plan, applying=applying, scheduler=cluster, **about)
        result = denoise_one(jobs[0], request, reporter) if len(jobs) == 1 else denoise_all(jobs, request, reporter)
    reporter.result({**result, "seconds": seconds_since_start()})
    if result.get("failed"):
        raise FailedError


def named(output: str) -> Path:
    """Return the path of an output; one that ends in / is made a folder, which keeps the input's name."""
    path = Path(output)
    if output.endswith(("/", "\\")) and not known_suffix(path):
        check_folder(path)
    return path


def check_usage(context: click.Context, flags: Mapping[str, Any], inputs: Sequence[Path], *, has_model: bool) -> None:
    """Refuse flags that contradict each other."""
    given = [f"--{name}" for name in TRAINING_FLAGS if flags[name]]
    given += [option.opts[0] for option in given_settings(context.command, flags)]
    if has_model and given:
        raise click.UsageError(f"{', '.join(given)} is for training, but -m gives a model that is trained already.")
    if flags["target"] and len(inputs) > 1:
        raise click.UsageError("--target goes with one image. Train on all pairs with 'ssdenoise train', then use -m.")
    if flags["magnitude_sigma"] and not flags["magnitude_coils"]:
        raise click.UsageError("--magnitude-sigma goes with --magnitude-coils: 1 for Rician noise.")
    if flags["overwrite"] and flags["skip_existing"]:
        raise click.UsageError("--overwrite replaces existing outputs, --skip-existing leaves them: give one of both.")
    if flags["reference"] and len(inputs) > 1:
        raise click.UsageError("--reference goes with one image. Denoise the images one by one to compare them.")


def check_folder(out: Path) -> None:
    """Make the folder of the outputs.

    Raises
    ------
    FileNotFoundError, FileExistsError
        If the folder above it does not exist, or a file has that name.
    """
    if out.exists() and not is_folder(out):
        raise FileExistsError(f"{out} exists and is not a folder. Choose another name for the folder of the outputs.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder {out.absolute().parent} does not exist. Make it first.")
    out.mkdir(exist_ok=True)


def check_shared(jobs: Sequence[Job]) -> None:
    """Refuse outputs that several workers cannot write."""
    for path in (path for job in jobs for path in job.outputs):
        if not known_suffix(path).endswith(".zarr"):
            raise click.UsageError(
                f"{path} cannot be written by several workers at once. With --scheduler, write .ome.zarr."
            )


def check_memory(memory: str) -> str:
    """Return an amount of memory that can be read."""
    from napari_ssdenoise.engine.memory import memory_limits

    try:
        memory_limits(memory)
    except ValueError as error:
        text = f"{memory!r} is not an amount of memory. Write 4GB or 500MB."
        raise click.BadParameter(text, param_hint="--memory") from error
    return memory


def denoise_all(jobs: Sequence[Job], request: Request, reporter: Reporter) -> dict[str, Any]:
    """Denoise one image after the other, or several at a time on a cluster."""
    model = request.model
    task = {"model": model.describe() if model else None, **request.plan.describe(), "std": jobs[0].std is not None}
    task |= {"magnitude": request.magnitude} if request.magnitude[0] else {}
    finished = Finished(jobs[0].output.parent, {**task, **request.applying, "axes": request.axes})
    batch = Batch(jobs, lambda job, reporter: denoise_one(job, request, reporter), finished, reporter)
    # Trainings take turns: each of them uses all of this machine.
    return batch.denoise(request.scheduler if model else None)


def denoise_one(job: Job, request: Request, reporter: Reporter) -> dict[str, Any]:
    """Denoise one image; return what is to be said about it."""
    started = seconds_since_start()
    result: dict[str, Any] = {"input": str(job.source), "output": str(job.output)}
    if job.std is not None:
        result["std"] = str(job.std)
    if request.skip_existing and job.done:
        reporter.say(f"exists already: {job.output}")
        return {**result, "skipped": True}
    (volume,) = open_all([job.source], request.axes)
    job.check_outputs(overwrite=request.overwrite)
    reference = open_reference(request.reference, volume, request.axes) if request.reference else None
    reporter.say(f"noisy: {describe_volume(volume)}")
    model = request.model
    options = {**request.applying, "overwrite": request.overwrite, "scheduler": request.scheduler}
    further = {} if job.std is None else {"std": job.std}
    options["also"] = further
    if model is None:
        from napari_ssdenoise.io.checkpoint import checkpoint_path, remove_checkpoint

        trainer, about = request.plan.trainer([volume], request.axes, reporter, tuple(further))
        try_output(trainer, volume, job, request)
        result |= about
        result |= run_training(trainer, checkpoint_path(job.output), reporter)
        model = trainer.model
        apply(corrected(model, volume, request, reporter), volume, job.output, reporter, **options)
        # Only now: until the output is complete, the checkpoint is what makes the same weights again.
        remove_checkpoint(checkpoint_path(job.output))
    else:
        require_outputs(model.algorithm, tuple(further), "--std")
        result["differences"] = model.differences(volume)
        for difference in result["differences"]:
            reporter.say(f"unlike the training: {difference}")
        apply(corrected(model, volume, request, reporter), volume, job.output, reporter, **options)
        result["steps"] = model.record.get("steps")
    seconds = seconds_since_start() - started
    reporter.say(f"denoised: {job.output} (in {duration(seconds)})")
    if job.std is not None:
        reporter.say(f"uncertainty: {job.std}")
    result |= judge(model, volume, reference, job, request, reporter)
    return {**result, "seconds": seconds}


def corrected(model: TrainedModel, volume: Volume, request: Request, reporter: Reporter) -> TrainedModel:
    """Let a model take off what noise adds to magnitudes, if that was asked for."""
    from napari_ssdenoise.magnitude import Magnitude, estimate_magnitude_noise

    coils, sigma = request.magnitude
    if coils is None:
        return model
    noise = Magnitude(sigma, coils) if sigma else estimate_magnitude_noise(volume, coils=coils)
    reporter.say(f"magnitudes of {coils} coil{'s' * (coils > 1)}: noise {noise.sigma:.4g} in each part")
    return model.for_magnitudes(noise)


def judge(
    model: TrainedModel, volume: Volume, reference: Volume | None, job: Job, request: Request, reporter: Reporter
) -> dict[str, Any]:
    """Say how good the result is: an estimate after a training, and scores where there is a reference."""
    result: dict[str, Any] = {}
    if request.quality and request.model is None:
        where = {"axes": request.axes, "device": request.applying["device"], "data_range": request.data_range}
        result["quality"] = show_quality(model, [volume], request.plan.targets, reporter, **where)
    if reference is not None:
        found = scores(volume, job.output, reference, request.data_range)
        show_scores(found, reporter)
        result |= found
    return result


def try_output(trainer: Trainer, volume: Volume, job: Job, request: Request) -> None:
    """Find out before the training whether its result could be written: format, dtype, space, permission."""
    from napari_ssdenoise.engine.outputs import UNCERTAINTY, Output
    from napari_ssdenoise.engine.stream import choose_dtype

    seen = real_view(volume)
    dtype = choose_dtype(trainer.model, seen, request.applying["dtype"])
    for name, path in zip(("mean", UNCERTAINTY), job.outputs, strict=False):
        try_writing(path, volume, Output.of(name, path, dtype).stored(seen), overwrite=request.overwrite)
