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

# Entries of a volume's metadata that may hold an ``affine``: four rows, from voxel X, Y, Z to millimetres in RAS+, of
# the voxels as they were read; and a ``code``, which says what RAS+ means (1, the default: the scanner).
_KEYS: Final = ("dicom",)
# Sizes that differ by less have only been rounded.
_ROUNDED: Final = 1e-6


def factor_to(unit: str | None, other: str | None) -> float:
    """Return how many of the other unit are one unit; 1 where either is not known."""
    return FACTORS[unit] / FACTORS[other] if unit in FACTORS and other in FACTORS else 1.0


def known_affine(volume: Volume) -> tuple[NDArray[np.float64], int] | None:
    """Return the affine of a volume's voxels as they are now, and its code; None if the file it came from had none."""
    kept: dict[str, Any] = next((volume.metadata[k] for k in _KEYS if "affine" in volume.metadata.get(k, {})), {})
    if not kept:
        return None
    affine = np.array(kept["affine"], float)
    return affine @ steps_since(volume, np.linalg.norm(affine[:3, :3], axis=0)), int(kept.get("code", 1))


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
