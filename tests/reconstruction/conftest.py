"""A small head-like object, seen by coils around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

SHAPE = (64, 48)


def transform(images: Any) -> Any:
    """Centred, orthonormal."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)


@dataclass
class Scan:
    image: Any  # (Y, X) complex
    maps: Any  # (coils, Y, X)
    kspace: Any  # (coils, Y, X), all of it
    mask: Any  # (Y,) lines

    @property
    def measured(self) -> Any:
        return self.kspace * self.mask[:, None]


def lines(n: int, centre: int, others: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    mask = np.zeros(n, bool)
    start = n // 2 - centre // 2
    mask[start : start + centre] = True
    mask[rng.choice(np.flatnonzero(~mask), others, replace=False)] = True
    return mask


@pytest.fixture
def make_scan() -> Callable[..., Scan]:
    def make(
        coils: int = 6, noise: float = 0.004, centre: int = 16, others: int = 16, seed: int = 0, spread: float = 0.9,
        size: float = 0.75, shape: tuple[int, int] = SHAPE,
    ) -> Scan:  # fmt: skip
        rng = np.random.default_rng(seed)
        y, x = np.meshgrid(*(2 * (np.arange(n) - n // 2) / n for n in shape), indexing="ij")
        image = 0.7 * (np.hypot(y / size, x / size) < 1)
        for _ in range(12):
            (b, a), r, level = rng.uniform(-0.45, 0.45, 2), rng.uniform(0.05, 0.2), rng.uniform(-0.5, 0.5)
            image = image + level * (np.hypot(y - b, 1.3 * (x - a)) < r) * (image > 0)
        image = image * np.exp(1j * (0.8 * y + 0.4 * x * y))
        angles = 2 * np.pi * np.arange(coils) / coils
        distance = [np.square(y - 1.3 * np.sin(t)) + np.square(x - 1.3 * np.cos(t)) for t in angles]
        phase = [0.7 * (y * np.cos(t) - x * np.sin(t)) + t for t in angles]
        maps = np.stack([np.exp(-d / (2 * spread) + 1j * p) for d, p in zip(distance, phase, strict=True)])
        maps /= np.sqrt(np.square(np.abs(maps)).sum(0))
        kspace = transform(maps * image)
        kspace = kspace + noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
        return Scan(image, maps, kspace.astype(np.complex64), lines(shape[0], centre, others, seed))

    return make
