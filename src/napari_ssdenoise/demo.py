"""Judge a denoised sample fairly: the best Gaussian filter to compare with, and a before/after picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.samples.imaging import smooth

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    Floats = NDArray[np.float32]

# Standard deviations, in pixels, that a filter is tried with: of the planes, and across them.
IN_PLANE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
ACROSS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3, 1.7)

PANEL = 512
GAP, HEADING = 14, 64
BACKGROUND, INK, MUTED, FRAME = (20, 20, 23), (245, 245, 245), (165, 165, 172), (255, 200, 60)


def best_gaussian(noisy: NDArray[Any], clean: NDArray[Any]) -> tuple[Floats, tuple[float, ...]]:
    """Filter with the Gaussian that comes closest to the truth, which no user could choose that well.

    Parameters
    ----------
    noisy, clean : ([Z | T,] Y, X)
        An image and its truth.

    Returns
    -------
    image : float32, shape as ``noisy``
    sigmas
        Standard deviation per axis, in pixels; equal along Y and X.
    """
    image, truth = np.asarray(noisy, np.float32), np.asarray(clean, np.float32)
    across, in_plane = 0.0, 1.0

    def blurred(across: float, in_plane: float) -> Floats:
        return smooth(image, [*(across,) * (image.ndim - 2), in_plane, in_plane])

    def error(across: float, in_plane: float) -> float:
        return float(np.mean(np.square(blurred(across, in_plane) - truth), dtype=np.float64))

    # The error has one valley, so two rounds of one parameter at a time find its floor.
    for _ in range(2 if image.ndim > 2 else 1):
        in_plane = min(IN_PLANE, key=lambda s: error(across, s))
        if image.ndim > 2:
            across = min(ACROSS, key=lambda s: error(s, in_plane))
    return blurred(across, in_plane), (*(across,) * (image.ndim - 2), in_plane, in_plane)


@dataclass(frozen=True)
class Panel:
    """One column of the picture: a plane (Y, X), and what is written above it."""

    plane: NDArray[Any]
    title: str
    figures: str = ""


def save_picture(path: Path, panels: Sequence[Panel], truth: NDArray[Any]) -> None:
    """Draw panels side by side, and below each the same detail enlarged, all with the contrast of the truth.

    Parameters
    ----------
    path
        A .png, written under a temporary name until it is complete.
    panels
        Planes of one shape.
    truth : (Y, X)
        Gives the contrast (0.1st to 99.8th percentile) and the detail: where it varies most.
    """
    from PIL import Image, ImageDraw

    low, high = np.percentile(truth, (0.1, 99.8)).tolist()
    scale = max(1, PANEL // max(truth.shape))
    height, width = (n * scale for n in truth.shape)
    detail = most_varied(truth, max(16, min(min(truth.shape), 64 * max(1, max(truth.shape) // 256))))
    size = len(range(*detail[0].indices(truth.shape[0])))
    zoom = max(1, width // size)
    canvas = Image.new("RGB", (GAP + len(panels) * (width + GAP), HEADING + height + 2 * GAP + size * zoom), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, panel in enumerate(panels):
        left = GAP + number * (width + GAP)
        _write(draw, left, panel)
        canvas.paste(_grey(panel.plane, low, high, scale), (left, HEADING))
        box = (detail[1].start, detail[0].start, detail[1].stop, detail[0].stop)
        x0, y0, x1, y1 = (edge * scale for edge in box)
        draw.rectangle((left + x0 - 1, HEADING + y0 - 1, left + x1, HEADING + y1), outline=FRAME, width=2)
        below = HEADING + height + GAP
        canvas.paste(_grey(panel.plane[detail], low, high, zoom), (left, below))
        draw.rectangle((left, below, left + size * zoom - 1, below + size * zoom - 1), outline=FRAME, width=2)
    with written_whole(path) as partial:
        canvas.save(partial, format="PNG", optimize=True)


def save_grid(
    path: Path,
    panels: Sequence[tuple[str, NDArray[Any]]],
    truth: NDArray[Any],
    detail: tuple[slice, slice],
    columns: int = 5,
) -> None:
    """Draw the same detail of many planes (Y, X), each with a title, in rows; with the contrast of the truth's."""
    from PIL import Image, ImageDraw, ImageFont

    low, high = np.percentile(truth[detail], (0.1, 99.8)).tolist()
    height, width = truth[detail].shape
    scale = max(1, 256 // max(height, width))
    height, width, caption = scale * height, scale * width, 26
    rows = -(-len(panels) // columns)
    size = (GAP + min(columns, len(panels)) * (width + GAP), rows * (height + caption + GAP))
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for number, (title, plane) in enumerate(panels):
        left = GAP + number % columns * (width + GAP)
        top = number // columns * (height + caption + GAP)
        draw.text((left, top + 4), title, fill=INK, font=ImageFont.load_default(15))
        canvas.paste(_grey(plane[detail], low, high, scale), (left, top + caption))
    with written_whole(path) as partial:
        canvas.save(partial, format="PNG", optimize=True)


def most_varied(plane: NDArray[Any], size: int) -> tuple[slice, slice]:
    """Return the square of a grid of overlapping ones in which a plane varies most."""
    height, width = plane.shape
    step = max(1, size // 2)
    corners = [(y, x) for y in range(0, height - size + 1, step) for x in range(0, width - size + 1, step)]
    y, x = max(corners, key=lambda c: float(plane[c[0] : c[0] + size, c[1] : c[1] + size].std()))
    return slice(y, y + size), slice(x, x + size)


def _grey(plane: NDArray[Any], low: float, high: float, scale: int) -> Image:
    """Show a plane between two intensities, every pixel as a square: nothing is smoothed."""
    from PIL import Image

    levels = np.clip((np.asarray(plane, np.float32) - low) / max(high - low, 1e-12), 0, 1)
    pixels = np.rint(255 * levels).astype(np.uint8)
    return Image.fromarray(np.repeat(np.repeat(pixels, scale, 0), scale, 1))


def _write(draw: ImageDraw, left: int, panel: Panel) -> None:
    from PIL import ImageFont

    draw.text((left, 8), panel.title, fill=INK, font=ImageFont.load_default(22))
    draw.text((left, 36), panel.figures, fill=MUTED, font=ImageFont.load_default(17))
