"""Whether a model is told apart from images that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_ssdenoise.algorithms import Noise2Void
from napari_ssdenoise.engine.trainer import train
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

UNITS = ("micrometer", "micrometer")


def cells(seed: int = 0, noise: float = 5, gain: float = 1, offset: float = 0) -> Volume:
    y, x = np.mgrid[:64, :72]
    clean = 100 + 40 * np.sin(x / 9) * np.cos(y / 11)
    noisy = gain * (clean + np.random.default_rng(seed).normal(0, noise, clean.shape)) + offset
    return Volume(noisy.astype(np.float32), "YX", (0.1, 0.1), UNITS, name="cells")


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return train(cells(), Noise2Void(width=4, depth=1), steps=1)


def test_the_noise_is_measured(model: TrainedModel) -> None:
    assert model.normalization.noise == pytest.approx((5,), rel=0.1)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (cells(1), None),
        (cells(1, noise=6), None),
        (cells(1, noise=12), "some noise may stay"),
        (cells(1, noise=2), "too smooth"),
        (cells(1, gain=0.01), "scaled"),
        (cells(1, offset=400), "scaled"),
        (replace(cells(1), scale=(0.2, 0.1)), "one pixel along Y is 0.2 micrometer"),
        (replace(cells(1), scale=(0.2, 0.1), units=(None, None)), None),
        (Volume(np.zeros((64, 72, 3), np.uint8), "YXS"), "3"),
        (Volume(np.full((64, 72), np.nan, np.float32), "YX"), "NaN"),
    ],
)
def test_what_is_said(model: TrainedModel, volume: Volume, words: str | None) -> None:
    found = model.differences(volume)
    assert found if words else not found
    assert words is None or words in " ".join(found)


def test_a_few_bright_spots_are_told_by_their_values(model: TrainedModel) -> None:
    volume = cells(1)
    volume.data[30, 30] = 900
    assert "900" in " ".join(model.differences(volume))


def test_models_that_know_no_noise_say_nothing_of_it(model: TrainedModel) -> None:
    older = replace(model, normalization=replace(model.normalization, noise=()))
    assert not older.differences(cells(1, noise=12, gain=0.9))
