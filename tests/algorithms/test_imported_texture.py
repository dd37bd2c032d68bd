"""The program's weights bring no texture of the images that they were made from into one that has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import get_algorithm

NOISE = 20.0
PERIOD = 7  # pixels of the grating
BORDER = 96  # the grating ends, and the flat area begins
BESIDE = 16  # pixels on either side of it that are left out
TILE = 32
HEIGHT, WIDTH = 192, 288
FAINT = 0.1 * NOISE

Y, X = np.mgrid[:HEIGHT, :WIDTH]
CLEAN = np.where(BORDER > X, 100 + 2 * NOISE * np.cos(2 * np.pi * X / PERIOD), 100.0)
FLAT = np.s_[:, BORDER + BESIDE :]
GRATING = np.s_[:, BESIDE : BORDER - BESIDE]
TEXTURES = {
    "grating": np.cos(2 * np.pi * X / PERIOD),
    "oblique": np.cos(2 * np.pi * (X + 2 * Y) / 9),
    "weave": np.cos(2 * np.pi * X / 5) * np.cos(2 * np.pi * Y / 5),
}


def peak(error: np.ndarray) -> float:
    """Return the largest power of the mean spectrum over the median of those that are as fine.

    What is left of noise is coarse, but has no direction, so that its power depends on fineness alone.
    """
    window = np.outer(*2 * (np.hanning(TILE + 2)[1:-1],))
    tiles = np.lib.stride_tricks.sliding_window_view(error, (TILE, TILE))[:: TILE // 2, :: TILE // 2]
    tiles = tiles - tiles.mean((-2, -1), keepdims=True)
    power = (np.abs(np.fft.fft2(window * tiles)) ** 2).mean((0, 1))
    frequency = TILE * np.fft.fftfreq(TILE)
    fineness = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    rings = [power[fineness == radius] for radius in range(2, TILE // 2 + 1)]
    return float(max(ring.max() / np.median(ring) for ring in rings))


def amplitude(error: np.ndarray) -> float:
    """Return how much of the grating is in the flat area, however shifted, in parts of the noise."""
    wave = np.exp(2j * np.pi * X[FLAT] / PERIOD)
    return float(2 * np.abs((error * wave).mean()) / NOISE)


@pytest.mark.parametrize(("steps", "left"), [(1, 0.2), (10, 0.15)])
def test_flat_areas_stay_flat(steps: int, left: float) -> None:
    data = np.random.default_rng(0).normal(CLEAN, NOISE).astype(np.float32)
    values: dict[str, Any] = {"noise": "gaussian", "sigma": NOISE, "patch": 64, "batch": 2}
    model = ssd.train(data, get_algorithm("blindspot", **values), steps=steps)
    assert not model.algorithm.from_scratch
    error = model.predict(data) - CLEAN
    # It does see the grating; only so could it continue it.
    assert error[GRATING].std() < 0.6 * NOISE

    flat = error[FLAT]
    assert np.sqrt(np.mean(flat**2)) < left * NOISE
    assert peak(flat) < 6
    assert amplitude(flat) < 0.01

    for name, texture in TEXTURES.items():
        assert peak(flat + FAINT * texture[FLAT]) > 20, name
    assert amplitude(flat + FAINT * TEXTURES["grating"][FLAT]) > 0.05
