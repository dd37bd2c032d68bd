"""Views of one scene come to one brightness, and nothing else is changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_ssdenoise.ops.brightness import Brightness

Y, X = np.mgrid[:160, :200]
SCENE = 100 + 50 * np.sin(X / 15) * np.cos(Y / 20)


def noisy(clean: Any, seed: int) -> Any:
    return np.random.default_rng(seed).normal(clean, 30).astype(np.float32)


def test_a_lamp_that_drifts_is_found_for_each_channel() -> None:
    first = np.stack([noisy(SCENE, 0), noisy(SCENE + 20, 1)])
    other = np.stack([noisy(1.4 * SCENE - 10, 2), noisy(0.7 * SCENE, 3)])
    line = Brightness.between(first, other)
    np.testing.assert_allclose(line.factor, [1 / 1.4, 1 / 0.7], rtol=0.03)
    found = line.apply(other)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean((1, 2)), first.mean((1, 2)), atol=0.5)


def test_what_noise_there_is_does_not_matter_nor_which_view_is_first() -> None:
    first, other = noisy(SCENE, 0)[None], noisy(2 * SCENE, 1)[None]
    there, back = Brightness.between(first, other), Brightness.between(other, first)
    np.testing.assert_allclose(back.apply(there.apply(other)), other, atol=1e-3)


def test_views_without_common_structure_stay_as_they_are() -> None:
    first = noisy(SCENE, 0)[None]
    for other in (noisy(np.full_like(SCENE, 300), 1), noisy(300 - SCENE, 1), noisy(SCENE[::-1] * 2, 1), 0 * SCENE):
        np.testing.assert_array_equal(Brightness.between(first, other[None]).apply(other[None])[0], other.astype("f4"))
    single = np.ones((1, 1, 1), np.float32)
    np.testing.assert_array_equal(Brightness.between(single, 2 * single).apply(2 * single), 2 * single)


def test_small_stacks_are_compared_too() -> None:
    z = np.arange(3)[:, None, None]
    stack = (SCENE[:24, :30] + 10 * z)[None]
    line = Brightness.between(noisy(stack, 0), noisy(3 * stack, 1))
    np.testing.assert_allclose(line.factor, 1 / 3, rtol=0.2)
