"""A cell on glass, seen from above: actin, mitochondria, vesicles, nucleus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.samples.imaging import (
    Camera,
    Optics,
    deposit,
    direction,
    filaments,
    grid,
    photograph,
    soft_inside,
    texture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.samples.imaging import Array, Points, Sample


@dataclass(frozen=True)
class Cell:
    """A spread cell seen from above: a wavy outline around a centre, and an elliptic nucleus."""

    centre: Points
    radius: float
    waves: Points
    phases: Points
    axis: float

    @classmethod
    def draw(cls, centre: Points, radius: float, rng: np.random.Generator) -> Cell:
        waves = rng.normal(0, 0.17, 7) / np.arange(2, 9) ** 0.8
        return cls(centre, radius, waves, rng.uniform(0, 2 * np.pi, 7), rng.uniform(0, np.pi))

    def outline(self, angle: Any) -> Any:
        """Return the distance from the centre to the edge."""
        waves = sum(a * np.cos(k * angle + p) for k, (a, p) in enumerate(zip(self.waves, self.phases, strict=True), 2))
        return self.radius * (1 + 0.16 * np.cos(2 * (angle - self.axis)) + waves)

    def depth(self, y: Any, x: Any) -> Any:
        """Return 0 at the centre, 1 at the edge."""
        dy, dx = y - self.centre[0], x - self.centre[1]
        return np.hypot(dy, dx) / self.outline(np.arctan2(dy, dx))

    def covers(self, at: Points) -> NDArray[np.bool_]:
        """Return which positions (..., 2) lie within the outline."""
        return np.asarray(self.depth(at[..., 0], at[..., 1]) < 0.98)

    def nuclear(self, y: Any, x: Any) -> Any:
        """Return 0 at the centre of the nucleus, 1 at its envelope."""
        dy, dx = y - self.centre[0], x - self.centre[1]
        along = dx * np.cos(self.axis) + dy * np.sin(self.axis)
        across = dy * np.cos(self.axis) - dx * np.sin(self.axis)
        bumps = 1 + 0.04 * np.cos(3 * np.arctan2(across, along) + self.phases[0])
        return np.hypot(along / 8.2, across / 6.0) / bumps


def draw_body(cell: Cell, shape: tuple[int, int], pixel: Sequence[float], rng: np.random.Generator) -> Array:
    """Draw what fills a cell: cytosol with its mesh of membranes, and the nucleus with chromatin and nucleoli."""
    y, x = grid(shape, pixel)
    depth, core = cell.depth(y, x), cell.nuclear(y, x)
    inside = soft_inside((depth - 1) * cell.radius, 0.1)
    height = inside * (0.22 + np.exp(-((depth / 0.55) ** 2)))
    mesh = np.exp(0.35 * texture(shape, 0.32, pixel, rng) - 0.9 * np.abs(texture(shape, 0.54, pixel, rng)))
    nucleus = soft_inside((core - 1) * 6.0, 0.12)
    chromatin = np.exp(0.22 * texture(shape, 0.32, pixel, rng) + 0.28 * texture(shape, 0.97, pixel, rng))
    chromatin *= 1 + 0.5 * np.exp(-(((core - 0.95) / 0.06) ** 2))
    for _ in range(rng.integers(2, 5)):
        angle, off = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3.4)
        spot = np.hypot(y - cell.centre[0] - off * np.sin(angle), x - cell.centre[1] - off * np.cos(angle))
        chromatin *= 1 - 0.75 * soft_inside(spot - rng.uniform(0.7, 1.5), 0.12)
    return np.asarray(4.2 * height * mesh * (1 - 0.8 * nucleus) + 8.5 * nucleus * chromatin, np.float32)


def _fibres(cell: Cell, shape: tuple[int, int], pixel: Sequence[float], rng: np.random.Generator) -> Array:
    """Draw actin: stress fibres along the cell, a mesh of short filaments, and the cortex."""

    def grow(n: int, length: float, persistence: float, spread: float, light: float, reach: float) -> Array:
        radius, angle = np.sqrt(rng.uniform(0.1, reach, n)), rng.uniform(0, 2 * np.pi, n)
        at = (radius * cell.outline(angle))[:, None] * direction(angle) + cell.centre
        turn = cell.axis + rng.normal(0, spread, n) + np.pi * rng.integers(0, 2, n)
        path = filaments(at, direction(turn), length, persistence, rng)
        taper = np.sin(np.linspace(0, np.pi, path.shape[1])) ** 0.4
        return deposit(path, light * rng.lognormal(0, 0.45, n)[:, None] * taper * cell.covers(path), shape, pixel)

    angle = np.linspace(0, 2 * np.pi, 6000)
    cortex = np.zeros(shape, np.float32)
    for inset in rng.uniform(0.955, 0.99, 4):
        ripple = inset + 0.01 * np.sin(rng.integers(5, 25) * angle + rng.uniform(0, 6))
        edge = (ripple * cell.outline(angle))[:, None] * direction(angle) + cell.centre
        patchy = np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6)) + np.sin(rng.integers(7, 19) * angle)
        light = 1.3 * np.clip(0.8 + patchy, 0.1, None)
        cortex += deposit(edge, light, shape, pixel)
    fibres = grow(110, 18, 250, 0.18, 1.9, 0.85) + grow(26, 22, 300, 0.14, 4.2, 0.8)
    return fibres + grow(600, 3.5, 8, 1.8, 0.9, 1.0) + cortex


def _organelles(cell: Cell, shape: tuple[int, int], pixel: Sequence[float], rng: np.random.Generator) -> Array:
    """Draw mitochondria, tubes that crowd around the nucleus, and vesicles."""

    def around(n: int, spread: float) -> Points:
        turn = rng.uniform(0, 2 * np.pi, n)
        radius = 6.5 + rng.gamma(1.6, spread, n)
        return radius[:, None] * direction(turn) + cell.centre

    def outside_nucleus(at: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(cell.nuclear(at[..., 0], at[..., 1]) > 1.05) & cell.covers(at)

    starts = around(230, 2.8)
    path = filaments(starts, rng.standard_normal(starts.shape), 6.0, 3.0, rng)
    longest = rng.uniform(0.15, 1.0, (len(path), 1)) * path.shape[1]
    alive = outside_nucleus(path) & (np.arange(path.shape[1]) < longest)
    # Emitters fill a tube of 0.4 micrometres across, thicker here and thinner there.
    tube = path[:, :, None] + rng.normal(0, 0.13, (*path.shape[:2], 6, 2))
    light = 1.3 * rng.lognormal(0, 0.35, (len(path), 1, 1)) * alive[..., None]
    vesicles = around(150, 4.5)
    spots = rng.lognormal(3.9, 0.7, len(vesicles)) * outside_nucleus(vesicles)
    return deposit(tube, light, shape, pixel) + deposit(vesicles, spots, shape, pixel)


def cell_2d(seed: int = 0) -> Sample:
    """Make a spread cell with neighbours at its sides: 512 x 512 pixels of 0.108 micrometres."""
    rng, shape, pixel = np.random.default_rng([seed, 2]), (512, 512), (0.108, 0.108)
    middle, photons = np.array(shape) * pixel[0] / 2, np.full(shape, 1.2, np.float32)
    away = rng.uniform(0, 2 * np.pi)
    beside = [middle + 36 * direction(turn) for turn in (away, away + rng.uniform(1.9, 2.6))]
    cells = [Cell.draw(middle + rng.normal(0, 1.5, 2), 18.5, rng)] + [Cell.draw(at, 16.5, rng) for at in beside]
    for cell in cells:
        for draw in (draw_body, _fibres, _organelles):
            photons += rng.uniform(1.1, 1.5) * draw(cell, shape, pixel, rng)
    optics = Optics(1.4, 1.518, 0.58, haze=0.18)
    text = (
        "Actin, mitochondria, vesicles and nuclei of cultured cells, all in one colour. Wide field with a 60x/1.4 oil "
        "objective, sCMOS camera, short exposure."
    )
    return photograph(optics.blur(photons, pixel), Camera(), rng, "YX", pixel, "Cell", text)
