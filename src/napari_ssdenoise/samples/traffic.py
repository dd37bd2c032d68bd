"""A film of a living cell: vesicles that run and diffuse, swaying microtubules, a bleaching dye."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise.samples.cell import Cell, draw_body
from napari_ssdenoise.samples.imaging import Camera, Optics, deposit, direction, filaments, photograph

if TYPE_CHECKING:
    from napari_ssdenoise.samples.imaging import Points, Sample


def _drift(frames: int, n: int, memory: float, rng: np.random.Generator) -> Points:
    """Draw ``n`` random motions of unit size that forget themselves after ``memory`` frames; (frames, n)."""
    keep = np.exp(-1 / memory)
    state = rng.standard_normal((frames, n))
    for t in range(1, frames):
        state[t] = keep * state[t - 1] + np.sqrt(1 - keep**2) * state[t]
    return state


def _swaying(paths: Points, frames: int, rng: np.random.Generator) -> Points:
    """Let filaments bend to and fro, free ends most; (frames, N, points, 2) in micrometres."""
    along = np.linspace(0, 1, paths.shape[1])
    tangent = np.gradient(paths, axis=1)
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], -1) / np.linalg.norm(tangent, axis=-1, keepdims=True)
    shift = np.zeros((frames, *paths.shape[:2]))
    for mode, size in ((1, 0.3), (2, 0.16), (3, 0.08)):
        bend = along**0.7 * np.sin((mode - 0.5) * np.pi * along)
        shift += size * _drift(frames, len(paths), 15 / mode, rng)[..., None] * bend
    return np.asarray(paths + normal * shift[..., None])


def _traffic(tracks: Points, n: int, interval: float, rng: np.random.Generator) -> Points:
    """Move vesicles: runs of about 1 micrometre a second along filaments, with pauses and turns, and diffusion.

    Returns
    -------
    ndarray, (frames, substeps, n, 2)
        Several positions an exposure, so that fast ones smear.
    """
    frames, chains, points = tracks.shape[:3]
    substeps, chain = 4, rng.integers(0, chains, n)
    place, speed = rng.uniform(0, points, n), np.zeros(n)
    wander, at = np.zeros((n, 2)), np.empty((frames, substeps, n, 2))
    diffusion = np.where(rng.random(n) < 0.4, 0.03, 0.002)
    dt = interval / substeps
    for t in range(frames):
        switch = rng.random(n) < 0.25 * interval
        speed[switch] = (rng.choice((-0.9, 0.0, 0.0, 1.1), n) * rng.lognormal(0, 0.3, n) / 0.05)[switch]
        for sub in range(substeps):
            place = np.abs(place + speed * dt)
            place = np.minimum(place, 2 * (points - 1) - place)
            wander += np.sqrt(2 * diffusion * dt)[:, None] * rng.standard_normal((n, 2))
            at[t, sub] = tracks[t, chain, place.astype(int)] + wander
    return at


def timelapse(seed: int = 0) -> Sample:
    """Make a film of traffic in a living cell: 40 frames every 0.5 seconds, 256 x 256 pixels of 0.108 micrometres."""
    rng, shape, pixel, interval = np.random.default_rng([seed, 4]), (256, 256), (0.108, 0.108), 0.5
    frames, turn = 40, rng.uniform(0, 2 * np.pi)
    inward = direction(turn)
    cell = Cell.draw(np.array(shape) * pixel[0] / 2 - 8.5 * inward, 19.0, rng)
    origin = cell.centre + 7.5 * inward
    heading = turn + rng.normal(0, 1.3, 75)
    path = filaments(origin + rng.normal(0, 0.8, (75, 2)), direction(heading), 22.0, 40.0, rng)
    moving = _swaying(path, frames, rng)
    tip = 0.05 * path.shape[1] * (12 + 6 * _drift(frames, 75, 25, rng))
    vesicles = _traffic(moving[:, :, :260], 90, interval, rng)
    spots = rng.lognormal(4.9, 0.5, 90) / vesicles.shape[1]
    body = 0.5 * draw_body(cell, shape, pixel, rng)
    optics, film = Optics(1.4, 1.518, 0.58, haze=0.15), np.empty((frames, *shape), np.float32)
    for t in range(frames):
        grown = (np.arange(path.shape[1]) < tip[t][:, None]) & cell.covers(moving[t])
        light = deposit(moving[t], 3.2 * grown, shape, pixel)
        light += deposit(vesicles[t], spots * cell.covers(vesicles[t]), shape, pixel)
        bleached = 0.45 + 0.85 * np.exp(-t * interval / 14)
        film[t] = 0.9 + bleached * optics.blur(light + body, pixel)
    text = (
        "Vesicles run along swaying microtubules and diffuse, while the dye bleaches to about half. 60x/1.4 oil, sCMOS "
        "camera, two frames a second."
    )
    return photograph(film, Camera(), rng, "TYX", (interval, *pixel), "Traffic", text)
