"""Noise2Noise: what its views exchange, and how they are brought together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.algorithms.noise2noise import NEAR, _blocks

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


@pytest.mark.parametrize(
    ("volume", "exchange"),
    [
        (frames([SCENE] * 3), "pixels"),
        (frames([SCENE, 1.5 * SCENE, 0.8 * SCENE + 20]), "pixels"),
        (frames([SCENE] * 3, shared=True), "blocks"),
        (frames([np.roll(SCENE, 6 * n, -1) for n in range(3)]), "blocks"),
    ],
    ids=["white", "drifting lamp", "shared noise", "motion"],
)
def test_single_pixels_are_exchanged_where_nothing_else_is_shared(volume: ssd.Volume, exchange: str) -> None:
    assert trainer(volume).algorithm.exchange == exchange
    assert trainer(volume, exchange="blocks").algorithm.exchange == "blocks"


@pytest.mark.parametrize("shape", [(64, 48), (5, 40, 64)])
def test_what_is_learnt_from_blocks_is_far_from_other_blocks(shape: tuple[int, ...]) -> None:
    swap, learnt = _blocks(4, shape, torch.Generator().manual_seed(0))
    swap, learnt = swap.expand(4, 1, *shape).numpy(), learnt.expand(4, 1, *shape).numpy()
    assert 0.3 < swap.mean() < 0.7
    assert 0.3 < learnt.mean() < 0.95
    planes, chosen = swap.reshape(-1, *shape[-2:]), learnt.reshape(-1, *shape[-2:])
    for number, y, x in zip(*np.nonzero(chosen), strict=True):
        around = planes[number, max(0, y - NEAR) : y + NEAR + 1, max(0, x - NEAR) : x + NEAR + 1]
        assert around.min() == around.max()


@pytest.mark.parametrize("exchange", ["pixels", "blocks"])
@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_frames_become_clean(exchange: str, loss: str) -> None:
    volume = frames([SCENE] * 4)
    run = trainer(volume, 250, exchange=exchange, loss_function=loss, frame_distance=3)
    for _ in run:
        pass
    made = run.model.predict(volume)
    assert np.mean((made - SCENE) ** 2) < 0.25 * 20**2


def test_every_frame_keeps_its_brightness() -> None:
    scenes = np.array([1, 1.5, 0.75, 1.25])[:, None, None] * SCENE
    run = trainer(frames(scenes), 250, frame_distance=3)
    for _ in run:
        pass
    made = run.model.predict(frames(scenes))
    np.testing.assert_allclose(made.mean((1, 2)), scenes.mean((1, 2)), rtol=0.03)


def test_tiny_images_are_learnt_from() -> None:
    volume = ssd.Volume(frames([SCENE] * 3, shared=True)[:, :16, :16], "TYX")
    run = trainer(volume, 2, exchange="blocks")
    assert all(np.isfinite(step.loss) for step in run)
