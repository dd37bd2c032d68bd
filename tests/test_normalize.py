"""Normalisation: measured from samples, exact back and forth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_ssdenoise.axes import Layout
from napari_ssdenoise.engine.scenes import View
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.volume import Volume


def views(data: np.ndarray[Any, Any], axes: str, **options: Any) -> list[View]:
    volume = Volume(data, axes)
    layout = Layout.choose(axes, data.shape, **options)
    return [View(volume, layout, index) for index in layout.indices(data.shape)]


def test_small_images_are_measured_whole(rng: np.random.Generator) -> None:
    data = rng.gamma(2, 30, (3, 40, 50))
    found = Normalization.fit(views(data, "TYX"), rng)
    assert found.mean[0] == pytest.approx(data.mean())
    assert found.std[0] == pytest.approx(data.std())
    assert (found.low, found.high) == (data.min(), data.max())


def test_large_images_are_sampled(rng: np.random.Generator) -> None:
    data = np.broadcast_to(rng.normal(500, 20, (1, 256, 256)).astype(np.float32), (100, 256, 256))
    found = Normalization.fit(views(data, "ZYX", spatial="ZYX"), rng)
    assert found.mean[0] == pytest.approx(data[0].mean(), rel=0.01)
    assert found.std[0] == pytest.approx(data[0].std(), rel=0.05)


@pytest.mark.parametrize("channels", ["joint", "independent"])
def test_each_channel_by_itself(channels: Any, rng: np.random.Generator) -> None:
    data = np.stack([rng.normal(10, 1, (32, 32)), rng.normal(1000, 50, (32, 32))])
    found = Normalization.fit(views(data, "CYX", channels=channels), rng)
    np.testing.assert_allclose(found.mean, data.mean((1, 2)))
    np.testing.assert_allclose(found.std, data.std((1, 2)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", "float64", ">u2"])
def test_there_and_back(dtype: str, rng: np.random.Generator) -> None:
    block = rng.integers(0, 200, (1, 20, 20)).astype(dtype)
    found = Normalization((100.0,), (50.0,))
    normalised = found.apply(block)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(found.undo(normalised), block.astype(float), atol=1e-3)


def test_small_differences_on_a_large_offset_survive() -> None:
    block = (2**31 + np.arange(100).reshape(1, 10, 10)).astype(np.uint32)
    found = Normalization((2.0**31 + 50,), (30.0,))
    np.testing.assert_allclose(found.apply(block)[0].ravel(), (np.arange(100) - 50) / 30, atol=1e-6)


def test_values_too_large_for_their_differences_are_remarked_on() -> None:
    (remark,) = Normalization((1e9,), (20.0,), 1e9 - 100, 1e9 + 100).remarks
    assert "values near 1e+09 vary by 20 only" in remark
    assert "steps of 64" in remark
    assert not Normalization((1e4,), (20.0,), 9900, 10100).remarks
    assert not Normalization((1e9,), (1e7,), 0, 2e9).remarks


def test_too_many_channels() -> None:
    with pytest.raises(ValueError, match="trained on 2 channels"):
        Normalization((1.0, 2.0), (1.0, 1.0)).apply(np.zeros((3, 4, 4)))


def test_constant_channel_among_others(rng: np.random.Generator) -> None:
    data = np.stack([rng.normal(10, 1, (32, 32)), np.full((32, 32), 7.0)])
    with pytest.raises(ValueError, match="same value"):
        Normalization.fit(views(data, "CYX"), rng)
