"""Clean images to study with: square crops of a folder's images, or synthetic ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SUFFIXES = (".png", ".tif", ".tiff", ".npy")


def crops(folder: Path, side: int, per_image: int = 1) -> Floats:
    """Cut the middle of every image of a folder, in the order of the files' names.

    Parameters
    ----------
    folder
        Of images (Y, X), grey or RGB, or stacks of them: .png, .tif, .npy.
    side
        Of a crop, in pixels. Smaller images are left out.
    per_image
        Crops of each image that do not overlap, around its middle.

    Returns
    -------
    crops : float32 (N, side, side)
        Intensities from 0 to 1: those of 8-bit images divided by 255, others by the largest in their image.

    Raises
    ------
    ValueError
        If no image is large enough.
    """
    from napari_ssdenoise.volume import open_volume

    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of clean images.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    found = [crop for path in paths for crop in _middle(_planes(open_volume(path)), side, per_image)]
    if not found:
        raise ValueError(
            f"{folder} has {len(paths)} images ({', '.join(SUFFIXES)}), but none of {side} x {side} pixels or more. "
            "Choose another folder or a smaller side."
        )
    return np.stack(found)


def _planes(volume: Any) -> Floats:
    """Return grey planes (N, Y, X), from 0 to 1."""
    image = np.asarray(volume)
    top = 255.0 if image.dtype == np.uint8 else float(image.max()) or 1.0
    image = image.astype(np.float32) / np.float32(top)
    for axis in ("S", "C"):
        if axis in volume.axes:
            image = image.mean(volume.axes.index(axis), keepdims=True)
    order = [volume.axes.index(a) for a in volume.axes if a not in "YX"] + [volume.axes.index(a) for a in "YX"]
    grey = image.transpose(order)
    return grey.reshape(-1, *grey.shape[-2:])


def _middle(planes: Floats, side: int, per_image: int) -> list[Floats]:
    rows, columns = (n // side for n in planes.shape[-2:])
    high = min(rows, max(1, round(per_image**0.5)))
    wide = min(columns, -(-per_image // high)) if high else 0
    high = min(rows, -(-per_image // wide)) if wide else 0
    top, left = (planes.shape[-2] - high * side) // 2, (planes.shape[-1] - wide * side) // 2
    corners = [(top + r * side, left + c * side) for r in range(high) for c in range(wide)][:per_image]
    return [plane[y : y + side, x : x + side] for plane in planes for y, x in corners]


def dead_leaves(count: int, side: int, seed: int = 0) -> Floats:
    """Draw images of opaque discs that hide each other: edges at all sizes, as in photographs.

    Parameters
    ----------
    count, side
        How many images, and their height and width in pixels.
    seed
        Image i of a seed is the same whatever the count.

    Returns
    -------
    images : float32 (count, side, side)
        From 0 to 1.

    Notes
    -----
    Radii follow a density proportional to r**-3 between 2 pixels and the side, which makes the images look the same at
    all scales (Lee, Mumford and Huang, International Journal of Computer Vision 2001).
    """
    return np.stack([_leaves(side, np.random.default_rng([seed, number])) for number in range(count)])


def _leaves(side: int, rng: np.random.Generator) -> Floats:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    image = np.full((side, side), np.nan, np.float32)
    smallest, largest = 2.0, float(side)
    for _ in range(100):  # what is seen lies on top: draw from front to back, until nothing shows through
        n = 64
        u = rng.random(n)
        radii = 1 / np.sqrt(smallest**-2 - u * (smallest**-2 - largest**-2))
        at = rng.uniform(-0.2 * side, 1.2 * side, (n, 2))
        greys, slopes = rng.uniform(0.05, 0.95, n), rng.normal(0, 0.1, (n, 2))
        for radius, (cy, cx), grey, (dy, dx) in zip(radii, at, greys, slopes, strict=True):
            inside = np.isnan(image) & ((y - cy) ** 2 + (x - cx) ** 2 < radius**2)
            shade = grey + (dy * (y[inside] - cy) + dx * (x[inside] - cx)) / side
            image[inside] = np.clip(shade, 0, 1)
        if not np.isnan(image).any():
            break
    return np.nan_to_num(image, nan=0.5)
