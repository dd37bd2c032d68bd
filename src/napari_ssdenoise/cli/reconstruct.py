"""``ssdenoise reconstruct``: images from raw MRI data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from napari_ssdenoise._words import counted
from napari_ssdenoise.batch import known_suffix
from napari_ssdenoise.cli._program import Stopped, common, seconds_since_start
from napari_ssdenoise.cli._report import Reporter, duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ssdenoise.reconstruction import Reconstruction, Reconstructor
    from napari_ssdenoise.volume import Volume

_METHODS = "auto, zero-filled, cg-sense, cs, zs-ssdu or a saved model"


@click.command(name="reconstruct")
@click.argument("source", metavar="KSPACE", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", "target", required=True, type=click.Path(path_type=Path), help="A file (.nii.gz, .tif, …)."
)
@click.option(
    "--method", default="auto", metavar="METHOD", help=f"{_METHODS}; auto: what predicts held-out lines best."
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Updates of zs-ssdu per slice: 200; auto learns only if it is given."
)
@click.option(
    "--part", type=click.Choice(["magnitude", "phase", "complex"]), default="magnitude", help="What to write."
)
@click.option(
    "--mask", type=click.Path(path_type=Path), help="Which samples count as acquired (.npy); else those not 0."
)
@click.option("--axes", metavar="TZCYX", help="One letter per dimension, for .npy and .mat, e.g. YXC.")
@click.option("--variable", help="Name of the array in a file that holds several.")
@click.option("--save-maps", type=click.Path(path_type=Path), help="Also write the magnitudes of the coil maps.")
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of the choice of held-out lines.")
@click.option("--reference", type=click.Path(path_type=Path), help="The true magnitudes: gives PSNR and SSIM.")
@click.option("--data-range", type=click.FloatRange(min=0, min_open=True), help="Of PSNR and SSIM.")
@common
def command(source: Path, target: Path, *, as_json: bool, **flags: Any) -> None:
    """Reconstruct undersampled k-space (fastMRI or ISMRMRD HDF5, .npy, .mat); samples that were not acquired are 0.

    Every result comes with its error on acquired lines that were held out: how well it predicts what it was not shown.
    """
    from napari_ssdenoise.io import WRITABLE
    from napari_ssdenoise.io._writer import check_output

    reporter = Reporter(as_json=as_json)
    outputs = [target, *([flags["save_maps"]] if flags["save_maps"] else [])]
    for path in outputs:
        if known_suffix(path) not in WRITABLE:
            raise ValueError(f"{path.name}: output of this kind is not known. Use one of {', '.join(WRITABLE)}.")
        check_output(path, overwrite=flags["overwrite"], folder=known_suffix(path).endswith(".zarr"))
    reconstructor = _open(source, flags)
    slices, coils, rows, columns = reconstructor.kspace.shape
    reporter.say(f"k-space: {counted(slices, 'slice')}, {counted(coils, 'coil')}, {rows} x {columns}")
    reference = _reference(flags["reference"], reconstructor)
    started = time.perf_counter()
    result = _run(reconstructor, reporter)
    figures = _describe(result, reporter)
    _write(result.volume(flags["part"]), target, overwrite=flags["overwrite"])
    if flags["save_maps"]:
        _write(result.maps_volume(), flags["save_maps"], overwrite=flags["overwrite"])
    reporter.say(f"reconstructed: {target} (in {duration(time.perf_counter() - started)})")
    if reference is not None:
        figures |= _scores(result, reference, flags["data_range"], reporter)
    reporter.result({"input": source, "output": target, "seconds": seconds_since_start(), **figures})


def _open(source: Path, flags: dict[str, Any]) -> Reconstructor:
    from napari_ssdenoise.reconstruction import Reconstructor

    options = {name: flags[name] for name in ("axes", "variable", "device", "seed", "steps")}
    return Reconstructor(source, flags["method"], mask=_mask(flags["mask"]), **options)


def _mask(path: Path | None) -> NDArray[np.bool_] | None:
    """Read a sampling mask."""
    if path is None:
        return None
    import numpy as np

    try:
        return np.asarray(np.load(path, allow_pickle=False) != 0, np.bool_)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a sampling mask: {error}. Give a .npy file of 0 and 1.") from error


def _run(reconstructor: Reconstructor, reporter: Reporter) -> Reconstruction:
    """Compute, with progress; Ctrl-C keeps nothing, as slices are written together."""
    started = time.perf_counter()
    try:
        with reporter.progress("reconstructing") as update:
            for step in reconstructor:
                left = (time.perf_counter() - started) * (1 / step.done - 1) if step.done else float("inf")
                update(step.done, left, f"slice {step.slice + 1}/{step.slices}, {step.method}")
    except KeyboardInterrupt as error:
        reconstructor.close()
        raise Stopped("nothing was written. The same command starts again.") from error
    return reconstructor.result


def _describe(result: Reconstruction, reporter: Reporter) -> dict[str, Any]:
    """Say how well held-out lines were predicted."""
    from napari_ssdenoise.reconstruction import WRAPPED

    first = result.slices[0]
    sampled = float(first.mask.mean())
    reporter.say(f"acquired: {sampled:.0%} of the samples of the first slice")
    if first.errors:
        import numpy as np

        rows = [(name, f"{np.mean([s.errors[name] for s in result.slices]):.3f}") for name in first.errors]
        reporter.table(("method", "error on held-out lines"), rows)
    else:
        reporter.say("warning: too few lines outside the centre to hold any out; the result cannot be judged.")
    chosen = ", ".join(sorted(set(result.methods)))
    reporter.say(f"method: {chosen}" + (f" (error on held-out lines {result.error:.3f})" if result.error else ""))
    wrapped = max(s.wrapped for s in result.slices)
    if wrapped > WRAPPED:
        reporter.say(
            f"warning: {wrapped:.0%} of the signal lies where parts of the object lie over one another, as it is "
            "larger than the field of view; there, the image is less certain."
        )
    return {
        "method": chosen,
        "held_out_error": result.error,
        "sampled": sampled,
        "wrapped": wrapped,
        "slices": json.loads(json.dumps(result.summary())),
    }


def _write(volume: Volume, path: Path, *, overwrite: bool) -> None:
    from napari_ssdenoise.io import write_volume

    write_volume(path, volume, overwrite=overwrite)


def _reference(path: Path | None, reconstructor: Reconstructor) -> Volume | None:
    """Open the truth before the long work, and see whether it fits."""
    if path is None:
        return None
    from napari_ssdenoise.volume import open_volume

    reference = open_volume(path)
    slices, _, *plane = reconstructor.kspace.shape
    if reference.shape not in ((slices, *plane), *([tuple(plane)] if slices == 1 else [])):
        image = f"{counted(slices, 'slice')} of {plane[0]} x {plane[1]}"
        raise ValueError(f"the reference {path} {reference.shape} does not fit {image}.")
    return reference


def _scores(result: Reconstruction, reference: Volume, data_range: float | None, reporter: Reporter) -> dict[str, Any]:
    import numpy as np

    from napari_ssdenoise.metrics import SSIM_WINDOW, choose_data_range, psnr, ssim

    span = choose_data_range(reference) if data_range is None else data_range
    truth = np.asarray(reference).reshape(result.image.shape)
    magnitude = np.abs(result.image)
    large = min(truth.shape[-2:]) >= SSIM_WINDOW
    found = {"psnr": psnr(magnitude, truth, span), "ssim": ssim(magnitude, truth, span) if large else None}
    reporter.say(f"against the reference: {found['psnr']:.2f} dB" + (f", SSIM {found['ssim']:.3f}" if large else ""))
    return {"data_range": span, **found}
