"""A drawn head in an MRI scanner: magnitudes as NIfTI, and undersampled k-space of several coils."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import nibabel
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Like Shepp and Logan's head, with a brighter brain: intensity, half axes, centre (both X, Y, Z), angle about Z.
ELLIPSOIDS = (
    (1.0, (0.69, 0.92, 0.90), (0, 0, 0), 0),
    (-0.5, (0.6624, 0.874, 0.88), (0, -0.0184, 0), 0),
    (-0.2, (0.11, 0.31, 0.41), (0.22, 0, 0), -18),
    (-0.2, (0.16, 0.41, 0.41), (-0.22, 0, 0), 18),
    (0.2, (0.21, 0.25, 0.5), (0, 0.35, 0), 0),
    (0.2, (0.046, 0.046, 0.1), (0, 0.1, 0), 0),
    (0.2, (0.046, 0.046, 0.1), (0, -0.1, 0), 0),
    (0.3, (0.046, 0.023, 0.1), (-0.08, -0.605, 0), 0),
    (0.3, (0.023, 0.046, 0.1), (0.06, -0.605, 0), 0),
)


def head(*shape: int) -> NDArray[np.float32]:
    """Draw the head, (Z, Y, X), values of 0 to 1; a few folds make its tissue less smooth than theirs."""
    grid = [2 * (np.arange(n) - n / 2 + 0.5) / n for n in shape]
    grid[0] = grid[0] * 0.5  # the middle half of the head
    z, y, x = np.meshgrid(*grid, indexing="ij")
    image = np.zeros(shape)
    for intensity, axes, centre, angle in ELLIPSOIDS:
        turn = np.deg2rad(angle)
        dx, dy, dz = x - centre[0], -y - centre[1], z - centre[2]
        along = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn), dz
        image += intensity * (sum(np.square(d / a) for d, a in zip(along, axes, strict=True)) <= 1)
    folds = np.sin(14 * np.hypot(x, y) + 3 * np.sin(5 * np.arctan2(y, x) + 4 * z))
    return (image * (1 + 0.15 * folds * (image < 0.9))).clip(0).astype(np.float32)


def write_scan(path: Path, *shape: int, noise: float = 0.1) -> NDArray[np.float32]:
    """Write magnitudes with Rician noise as NIfTI, voxels of 3 x 1 x 1 mm; return what they would be without it."""
    rng = np.random.default_rng(0)
    clean = 1000 * head(*shape)
    parts = rng.normal(0, 1000 * noise, (2, *shape))
    magnitude = np.hypot(clean + parts[0], parts[1]).astype(np.float32)
    image = nibabel.Nifti1Image(magnitude.T, np.diag([1.0, 1.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return clean


def write_kspace(path: Path, *shape: int, coils: int = 4) -> None:
    """Write k-space of slices as fastMRI does, a third of the lines and the centre; (slices, coils, Y, X)."""
    rng = np.random.default_rng(0)
    images = head(*shape)
    y, x = np.meshgrid(*(2 * (np.arange(n) - n // 2) / n for n in shape[1:]), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-(np.square(x - np.cos(a)) + np.square(y - np.sin(a))) / 2 + 1j * a) for a in angles])
    seen = np.fft.ifftshift(images[:, None] * maps, (2, 3))
    kspace = np.fft.fftshift(np.fft.fft2(seen, norm="ortho"), (2, 3))
    kspace += rng.normal(0, 0.01, (*kspace.shape, 2)) @ (1, 1j)
    columns = shape[2]
    acquired = rng.random(columns) < 1 / 3
    acquired[columns // 2 - 8 : columns // 2 + 8] = True
    with h5py.File(path, "w") as file:
        file["kspace"] = (kspace * acquired).astype(np.complex64)
        file["mask"] = acquired
