"""Compare an image and its denoised version with a reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.metrics import SSIM_WINDOW, choose_data_range, psnr, ssim
from napari_ssdenoise.volume import Volume, open_volume

if TYPE_CHECKING:
    from napari_ssdenoise.cli._report import Reporter


def open_reference(path: Path, volume: Volume, axes: str | None) -> Volume:
    """Open the reference of an image.

    Raises
    ------
    ValueError
        If it is not of the same axes and shape.
    """
    reference = in_axes(open_volume(path, axes=axes), volume.axes)
    if reference.shape != volume.shape:
        raise ValueError(
            f"the reference {path} has axes {reference.axes} {reference.shape}, but {volume.name!r} has {volume.axes} "
            f"{volume.shape}. Give the same field of view, pixel by pixel."
        )
    return reference


def in_axes(volume: Volume, axes: str) -> Volume:
    """Bring a volume into another order of axes where that is all that differs; load it."""
    data = np.asarray(volume)
    if volume.axes == axes or sorted(volume.axes) != sorted(axes):
        return volume.like(data)
    order = [volume.axes.index(a) for a in axes]
    return Volume(np.transpose(data, order), axes, name=volume.name)


def scores(volume: Volume, output: Path, reference: Volume, data_range: float | None) -> dict[str, Any]:
    """Return PSNR (dB) and SSIM of the denoised file, and of the noisy volume under ``noisy``.

    SSIM is None for planes smaller than its window.
    """
    span = choose_data_range(reference) if data_range is None else data_range
    denoised = in_axes(open_volume(output, axes=volume.axes if output.suffix == ".npy" else None), volume.axes)
    noisy = volume.like(np.asarray(volume))
    sizes = volume.sizes
    large = min(sizes["Y"], sizes["X"]) >= SSIM_WINDOW
    found = [
        {"psnr": psnr(image, reference, span), "ssim": ssim(image, reference, span) if large else None}
        for image in (noisy, replace(denoised, axes=volume.axes))
    ]
    return {"data_range": span, **found[1], "noisy": found[0]}


def show_scores(found: dict[str, Any], reporter: Reporter, names: tuple[str, str] = ("noisy", "denoised")) -> None:
    """Write the scores for people."""

    def row(name: str, values: dict[str, Any]) -> tuple[str, str, str]:
        similarity = "-" if values["ssim"] is None else f"{values['ssim']:.3f}"
        return name, f"{values['psnr']:.2f} dB", similarity

    rows = [row(names[0], found["noisy"]), row(names[1], found)]
    if "gaussian" in found:
        rows.insert(1, row("best Gaussian filter", found["gaussian"]))
    reporter.table(("", "PSNR", "SSIM"), rows)
