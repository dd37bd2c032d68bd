"""Noise2Noise: what its views exchange, and how they are brought together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import get_algorithm

Y, X = np.mgrid[:96, :96]
SCENE = 100 + 50 * np.sin(X / 5) * np.cos(Y / 7)


def frames(scenes: Any, *, shared: bool = False) -> ssd.Volume:
    noise = np.random.default_rng(0).normal(0, 20, (len(scenes), *SCENE.shape))
    if shared:
        noise = (noise + np.roll(noise, 1, -1)) / np.sqrt(2)
    return ssd.Volume((np.asarray(scenes) + noise).astype(np.float32), "TYX")


def trainer(volume: ssd.Volume, steps: int = 1, **values: Any) -> ssd.Trainer:
    small = get_algorithm("n2n", pairs="frames", width=8, depth=1, batch=2, **values)
    return ssd.Trainer(small, volume, steps=steps)


def pair(volume: ssd.Volume) -> tuple[Any, Any]:
    """Return the first pair of frames, and what is read of it."""
    run = trainer(volume)
    scene = run.sampler.scenes[0]
    return scene, scene.read([slice(0, 96)] * 2, run.normalization)


@pytest.mark.parametrize(
    ("volume", "exchanged"),
    [
        (frames([SCENE] * 2), True),
        (frames([SCENE, 1.5 * SCENE + 20]), True),
        (frames([SCENE] * 2, shared=True), False),
        (frames([SCENE, np.roll(SCENE, 6, -1)]), False),
    ],
    ids=["white", "brighter lamp", "shared noise", "motion"],
)
def test_pixels_are_exchanged_where_that_changes_nothing_but_the_noise(volume: ssd.Volume, exchanged: bool) -> None:
    scene, views = pair(volume)
    varied = scene.varied(views, np.random.default_rng(0))
    assert np.array_equal(views, varied) != exchanged
    scene = replace(scene, exchange=False)
    scene.read([slice(0, 96)] * 2, trainer(volume).normalization)
    np.testing.assert_array_equal(scene.varied(views, np.random.default_rng(0)), views)


def test_views_keep_brightness_and_have_noise_of_their_own_after_an_exchange() -> None:
    scene, views = pair(frames([SCENE, 1.5 * SCENE + 20]))
    varied = scene.varied(views, np.random.default_rng(0))
    assert varied.dtype == np.float32
    lines = [np.polyfit(SCENE.ravel(), view.ravel(), 1) for view in (*views[:, 0], *varied[:, 0])]
    np.testing.assert_allclose(lines[2:], lines[:2], rtol=0.05)
    noise = [view - np.polyval(line, SCENE) for line, view in zip(lines, (*views[:, 0], *varied[:, 0]), strict=True)]
    assert abs(np.corrcoef(noise[2].ravel(), noise[3].ravel())[0, 1]) < 0.05
    for other in noise[:2]:  # half of each
        assert 0.2 < np.corrcoef(noise[2].ravel(), other.ravel())[0, 1] < 0.8


def test_what_is_seen_with_both_parts_is_exchanged_together() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (2, 2, *SCENE.shape))
    volume = ssd.Volume((SCENE + noise[0] + 1j * (SCENE + noise[1])).astype(np.complex64), "TYX")
    run = ssd.Trainer(get_algorithm("n2n", pairs="frames", width=8, depth=1), volume, steps=1, channels="joint")
    scene = run.sampler.scenes[0]
    views = scene.read([slice(0, 96)] * 2, run.normalization)
    same = scene.varied(views, np.random.default_rng(0)) == views
    assert 0.3 < same.mean() < 0.7
    np.testing.assert_array_equal(same[:, 0], same[:, 1])


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_frames_become_clean(exchange: bool, loss: str) -> None:
    volume = frames([SCENE] * 4)
    run = trainer(volume, 250, exchange=exchange, loss_function=loss, frame_distance=3)
    for _ in run:
        pass
    made = run.model.predict(volume)
    assert np.mean((made - SCENE) ** 2) < 0.25 * 20**2
