"""Made images of known noise: cells, filaments and spots behind cameras."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

Array = np.ndarray


def blurred(image: Array, sigma: float) -> Array:
    """Blur with a Gaussian, around the borders."""
    y, x = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    return np.fft.irfft2(np.fft.rfft2(image) * np.exp(-2 * (np.pi * sigma) ** 2 * (y**2 + x**2)), image.shape)


def cells(rng: np.random.Generator, size: int = 384) -> Array:
    """Return textured cells, filaments, spots and a faint gradient over a dark background, in about [0, 1]."""
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for _ in range(rng.integers(8, 20)):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(size / 25, size / 9)
        inside = np.hypot(y - centre[0], (x - centre[1]) * rng.uniform(0.7, 1.4)) < radius
        image[inside] = np.maximum(image[inside], rng.uniform(0.1, 0.6))
    texture = blurred(rng.normal(size=image.shape), rng.uniform(1.5, 4))
    image *= np.clip(1 + rng.uniform(0.05, 0.4) * texture / texture.std(), 0, None)
    starts, angles = rng.uniform(0, size, (20, 2, 1)), rng.uniform(0, 2 * np.pi, (20, 1))
    angles = angles + np.cumsum(rng.normal(0, 0.08, (20, 300)), 1)
    path = starts + 0.7 * np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1), 2)
    rows, columns = np.moveaxis(path, 1, 0).astype(int)
    seen = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    np.add.at(image, (rows[seen], columns[seen]), 0.5)
    image[tuple(rng.integers(0, size, (2, 40)))] += rng.uniform(1, 5, 40)
    image = np.clip(blurred(image, 1.2), 0, None)
    return image / np.quantile(image, 0.999) + x / size * rng.uniform(0, 0.05)


def surface(rng: np.random.Generator, size: int = 256, contrast: float = 40.0) -> Array:
    """Return a texture without any flat part, with detail of all sizes (amplitude ~ frequency^-1.5), around 128."""
    y, x = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    radius = np.maximum(np.hypot(y, x), 1 / size)
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * radius**-1.5, (size, size))
    return 128 + contrast * image / image.std()


def scmos(rng: np.random.Generator, photons: Array, gain: float, read_noise: float, offset: float = 100.0) -> Array:
    """Count photons, amplify, add read noise and offset, and round."""
    electrons = gain * rng.poisson(photons)
    return np.rint(np.clip(electrons + offset + rng.normal(0, read_noise, photons.shape), 0, 65535)).astype(np.uint16)


def emccd(rng: np.random.Generator, photons: Array, gain: float, read_noise: float, offset: float = 100.0) -> Array:
    """Multiply electrons at random, which doubles the variance: ``gain`` is variance by mean, with that excess."""
    electrons = rng.poisson(photons)
    multiplied = rng.gamma(np.maximum(electrons, 1e-9), gain / 2) * (electrons > 0)
    return np.rint(np.clip(multiplied + offset + rng.normal(0, read_noise, photons.shape), 0, 65535)).astype(np.uint16)


def blurred_noise(rng: np.random.Generator, shape: tuple[int, int], blur: float, sigma: float) -> Array:
    """Return noise that neighbouring pixels share."""
    noise = blurred(rng.normal(size=shape), blur)
    return sigma * noise / noise.std()


def scanned_noise(rng: np.random.Generator, shape: tuple[int, int], correlation: float, sigma: float) -> Array:
    """Return noise that a pixel shares with its neighbours along Y only."""
    share = (1 - np.sqrt(1 - 4 * correlation**2)) / (2 * correlation)
    noise = rng.normal(size=(shape[0] + 1, shape[1]))
    return sigma * (noise[1:] + share * noise[:-1]) / np.sqrt(1 + share**2)


@pytest.fixture
def make() -> SimpleNamespace:
    """Return what makes images."""
    functions = (blurred, cells, surface, scmos, emccd, blurred_noise, scanned_noise)
    return SimpleNamespace(**{function.__name__: function for function in functions})
