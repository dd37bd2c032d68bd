"""Where an image lies in a scanner: an affine that follows pixels which have become smaller or have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.volume import Volume

MILLIMETERS: Final = {
    "angstrom": 1e-7,
    "picometer": 1e-9,
    "nanometer": 1e-6,
    "micrometer": 1e-3,
    "millimeter": 1.0,
    "centimeter": 10.0,
    "decimeter": 100.0,
    "meter": 1e3,
    "kilometer": 1e6,
    "inch": 25.4,
    "foot": 304.8,
}
SECONDS: Final = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
FACTORS: Final = MILLIMETERS | SECONDS

KEY: Final = "space"
# Sizes that differ by less have only been rounded.
_ROUNDED: Final = 1e-6


def factor_to(unit: str | None, other: str | None) -> float:
    """Return how many of the other unit are one unit; 1 where either is not known."""
    return FACTORS[unit] / FACTORS[other] if unit in FACTORS and other in FACTORS else 1.0


def space_of(volume: Volume) -> dict[str, Any] | None:
    """Return where a volume lay when it was read, in a form that JSON can hold; None if no file said so.

    Returns
    -------
    dict
        ``affine``: four rows, from voxel X, Y, Z to millimetres in RAS+; ``sizes`` that these voxels had along X, Y and
        Z, in millimetres; ``code`` of what RAS+ means in a NIfTI (1, the default: the scanner).
    """
    kept = next((volume.metadata[k] for k in (KEY, "dicom", "nifti") if "affine" in volume.metadata.get(k, {})), None)
    return {k: kept[k] for k in ("affine", "sizes", "code") if k in kept} if kept else None


def read_space(note: Any) -> dict[str, Any]:
    """Return the metadata of a note in a file that `space_of` made; empty if it is none."""
    try:
        affine, sizes = np.array(note["affine"], float), np.array(note.get("sizes", (1, 1, 1)), float)
    except (KeyError, TypeError, ValueError):
        return {}
    sound = affine.shape == (4, 4) and sizes.shape == (3,) and np.isfinite(affine).all() and (sizes > 0).all()
    return {KEY: dict(note)} if sound and isinstance(note.get("code", 1), int) else {}


def known_affine(volume: Volume) -> tuple[NDArray[np.float64], int] | None:
    """Return the affine of a volume's voxels as they are now, and its code; None if the file it came from had none."""
    kept = space_of(volume)
    if not kept:
        return None
    affine = np.array(kept["affine"], float)
    sizes = np.array(kept.get("sizes", np.linalg.norm(affine[:3, :3], axis=0)), float)
    return affine @ steps_since(volume, sizes), int(kept.get("code", 1))


def steps_since(volume: Volume, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix from a volume's voxels X, Y, Z to those it was read with, which had these sizes in mm."""
    moved = np.eye(4)
    for axis, scale, unit, start in zip(volume.axes, volume.scale, volume.units, volume.translate, strict=True):
        if axis in "XYZ":
            i = "XYZ".index(axis)
            factor = factor_to(unit, "millimeter") / sizes[i]
            step = scale * factor
            moved[i, i] = 1.0 if abs(step - 1) < _ROUNDED else step
            moved[i, 3] = start * factor
    return moved
