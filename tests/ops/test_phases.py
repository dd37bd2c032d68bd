"""Phases are matched without making the noise of two images alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_ssdenoise.ops.phases import matched


def parts(image: Any) -> Any:
    return np.stack([image.real, image.imag]).astype(np.float32)


def whole(parts: Any) -> Any:
    return parts[0] + 1j * parts[1]


def noise(shape: tuple[int, ...], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("shape", [(48, 64), (20, 28, 32)])
def test_phases_that_differ_smoothly_are_matched(shape: tuple[int, ...]) -> None:
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    image = (2 + np.sin(grids[-1] / 3)) * np.exp(1j * grids[-2] / 9)
    other = image * np.exp(1j * (2 + grids[-1] / 30 - grids[-2] / 20))
    found = whole(matched(parts(image), parts(other)))
    np.testing.assert_allclose(np.abs(found), np.abs(image), rtol=1e-4)
    inner = tuple(slice(6, -6) for _ in shape)
    assert np.abs(np.angle(found * image.conj()))[inner].max() < 0.05


def test_noise_stays_independent() -> None:
    image, other = noise((256, 256), 0), noise((256, 256), 1)
    found = whole(matched(parts(image), parts(other)))
    for shift in [(0, 0), (0, 1), (2, 1)]:
        alike = np.mean(image * np.roll(found, shift, (0, 1)).conj()) / 2
        assert np.abs(alike) < 4 / 256  # four standard errors


def test_where_nothing_is_nothing_is_turned() -> None:
    other = parts(noise((16, 16), 0))
    np.testing.assert_array_equal(matched(np.zeros_like(other), other), other)
