"""The surface of an embryo in 3D: cell walls, nuclei, filaments, vesicles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.samples.imaging import Camera, Optics, deposit, filaments, grid, photograph, soft_inside, texture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.samples.imaging import Array, Points, Sample


@dataclass(frozen=True)
class Tissue:
    """Cells of an embryo: their middles, which are within the embryo, and which one fills each voxel."""

    seeds: Points
    alive: NDArray[np.bool_]
    label: NDArray[np.int16]

    def holds(self, points: Points, cell: NDArray[Any], pixel: Sequence[float]) -> NDArray[np.bool_]:
        """Return where points lie within the cell they belong to."""
        index = np.round(points / np.asarray(pixel)).astype(np.int64)
        inside = np.all((index >= 0) & (index < self.label.shape), axis=-1)
        index = np.clip(index, 0, np.subtract(self.label.shape, 1))
        return np.asarray(inside & (self.label[tuple(np.moveaxis(index, -1, 0))] == cell))


def _box(middle: Points, reach: float, pixel: Sequence[float]) -> tuple[slice, ...]:
    """Return the part of a grid that lies within ``reach`` micrometres of a position, along each axis."""
    sides = zip(middle, pixel, strict=True)
    return tuple(slice(max(0, int((m - reach) / p)), max(0, int((m + reach) / p))) for m, p in sides)


def _two_nearest(
    seeds: Points, space: Sequence[Array], pixel: Sequence[float], reach: float = 11.0
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Label every position with its nearest and its second nearest seed; farther ones than ``reach`` do not count."""
    near, label = np.full((2, *space[0].shape), np.inf, np.float32), np.zeros((2, *space[0].shape), np.int16)
    for i, seed in enumerate(seeds):
        box = _box(seed, reach, pixel)
        first, second = near[0][box], near[1][box]
        nearest, runner_up = label[0][box], label[1][box]
        far = np.square([g[box] - np.float32(s) for g, s in zip(space, seed, strict=True)]).sum(0)
        wins, places = far < first, far < second
        runner_up[...] = np.where(wins, nearest, np.where(places, i, runner_up))
        nearest[wins] = i
        second[...] = np.minimum(second, np.maximum(first, far))
        np.minimum(first, far, out=first)
    return label[0], label[1]


def _tissue(shape: tuple[int, ...], pixel: Sequence[float], rng: np.random.Generator) -> tuple[Tissue, Array]:
    """Fill the volume with cells and draw their walls: borders of a Voronoi diagram in warped space, so they curve."""
    extent, margin, seeds = np.multiply(shape, pixel), 8.0, np.empty((0, 3))
    for dart in rng.uniform(-margin, extent + margin, (8000, 3)):
        if not len(seeds) or np.min(np.sum((seeds - dart) ** 2, axis=1)) > 6.8**2:
            seeds = np.vstack([seeds, dart])
    side = rng.uniform(0, 2 * np.pi)
    centre = extent / 2 + 46 * np.array([0.35, np.sin(side), np.cos(side)])
    alive = np.linalg.norm(seeds - centre, axis=1) < 58
    space = [g + np.float32(0.5) * texture(shape, 2.5, pixel, rng) for g in grid(shape, pixel)]
    coarse = _two_nearest(seeds, [g[:, ::2, ::2] for g in space], (pixel[0], 2 * pixel[1], 2 * pixel[2]))
    first, second = (np.repeat(np.repeat(c, 2, 1), 2, 2)[:, : shape[1], : shape[2]] for c in coarse)
    at = np.flatnonzero((alive[first] | alive[second]) & (first != second))
    one, two = first.ravel()[at], second.ravel()[at]
    between = seeds[two] - seeds[one]
    normal = (between / np.linalg.norm(between, axis=1, keepdims=True)).astype(np.float32)
    middle = (seeds[two] + seeds[one]).astype(np.float32) / 2
    offset = np.einsum("na,na->n", np.stack([g.ravel()[at] for g in space], 1) - middle, normal)
    # A wall that lies across thick voxels is averaged over them: wider and dimmer, with the same light in all.
    width = np.hypot(0.1, 0.5 * np.sqrt((normal**2) @ np.square(pixel, dtype=np.float32)))
    vigour = rng.lognormal(0, 0.22, len(seeds)).astype(np.float32)
    walls = np.zeros(shape, np.float32)
    walls.ravel()[at] = vigour[one] * vigour[two] * 0.1 / width * np.exp(-0.5 * (offset / width) ** 2)
    patchy = np.exp(0.3 * texture(shape, 0.8, pixel, rng))
    return Tissue(seeds, alive, first), 52 * walls * patchy


def _nuclei(tissue: Tissue, shape: tuple[int, ...], pixel: Sequence[float], rng: np.random.Generator) -> Array:
    """Draw an ellipsoid with chromatin and nucleoli in every cell; a few cells divide and show a bright plate."""
    image, axes = np.zeros(shape, np.float32), [g.ravel() for g in grid(shape, pixel)]
    chromatin = np.exp(0.4 * texture(shape, 0.3, pixel, rng) + 0.3 * texture(shape, 0.7, pixel, rng))
    for seed in tissue.seeds[tissue.alive]:
        middle, turn = seed + rng.normal(0, 0.35, 3), np.linalg.qr(rng.standard_normal((3, 3)))[0]
        divides, light = rng.random() < 0.06, rng.lognormal(3.05, 0.2)
        radii = np.array((0.7, 2.3, 2.6)) if divides else rng.uniform(2.2, 3.1, 3)
        holes = rng.normal(0, 0.8, (0 if divides else rng.integers(1, 4), 3))
        box = _box(middle, 3.6, pixel)
        away = np.stack(np.meshgrid(*(g[b] - m for g, b, m in zip(axes, box, middle, strict=True)), indexing="ij"), -1)
        body = soft_inside(np.linalg.norm(away @ turn / radii, axis=-1) - 1, 0.07)
        for hole in holes:
            body *= 1 - 0.7 * soft_inside(np.linalg.norm(away - hole, axis=-1) - rng.uniform(0.5, 0.8), 0.08)
        image[box] = np.maximum(image[box], light * body * (2.2 if divides else chromatin[box]))
    return image


def tissue_3d(seed: int = 0) -> Sample:
    """Make the surface of an embryo: 48 planes of 0.5, 256 x 256 pixels of 0.16 micrometres."""
    rng, shape, pixel = np.random.default_rng([seed, 3]), (48, 256, 256), (0.5, 0.16, 0.16)
    tissue, photons = _tissue(shape, pixel, rng)
    photons += _nuclei(tissue, shape, pixel, rng)
    cytosol = tissue.alive[tissue.label] * np.exp(0.3 * texture(shape, 0.6, pixel, rng))
    photons += 0.9 + 2.4 * cytosol
    living = np.flatnonzero(tissue.alive)
    owner = np.repeat(living, 7)
    starts = tissue.seeds[owner] + rng.normal(0, 2.2, (len(owner), 3))
    path = filaments(starts, rng.standard_normal(starts.shape), 7.0, 12.0, rng)[:, ::2]
    photons += deposit(path, 22 * tissue.holds(path, owner[:, None], pixel), shape, pixel)
    owner = np.repeat(living, 9)
    spots = tissue.seeds[owner] + rng.normal(0, 2.6, (len(owner), 3))
    light = rng.lognormal(6.0, 0.6, len(owner)) * tissue.holds(spots, owner, pixel)
    photons += deposit(spots, light, shape, pixel)
    photons *= 0.6 * np.exp(-grid(shape, pixel)[0] / 60)
    optics = Optics(0.8, 1.333, 0.52, sheet=1.0, haze=0.15)
    text = (
        "Cell walls, nuclei, filaments and vesicles at the surface of an embryo, some cells dividing. Light sheet with "
        "a 40x/0.8 water objective, sCMOS camera, little light."
    )
    return photograph(optics.blur(photons, pixel), Camera(), rng, "ZYX", pixel, "Tissue", text)
