"""A microscope and a camera: from fluorescent emitters to photons to counts.

Positions and widths are in micrometres unless a name says pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float32]
    Points = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A scientific camera: shot noise, read noise, offset, rounding, saturation.

    Parameters
    ----------
    gain
        Photoelectrons per count.
    offset
        Counts read in the dark.
    read_noise
        Standard deviation of the Gaussian read noise, in electrons.
    bits
        Depth of the converter; counts above ``2**bits - 1`` saturate.
    """

    gain: float = 0.46
    offset: float = 100.0
    read_noise: float = 1.4
    bits: int = 16

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.read_noise < 0 or self.offset < 0:
            raise ValueError(f"{self} is not a camera: gain must be above 0, offset and read_noise at least 0.")
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits={self.bits} is outside 1 to 16, what a uint16 image can hold.")

    def expected(self, photons: ArrayLike) -> Array:
        """Return the mean reading in counts, shape as ``photons`` (detected photons, quantum efficiency included)."""
        return (self.offset + np.asarray(photons, np.float32) / np.float32(self.gain)).astype(np.float32)

    def expose(self, photons: ArrayLike, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Take one exposure.

        Parameters
        ----------
        photons
            Expected detected photons per pixel, quantum efficiency included.
        rng
            Source of the noise.

        Returns
        -------
        ndarray, uint16, shape as ``photons``
            Its variance is ``(mean - offset) / gain + (read_noise / gain)**2 + 1/12`` (the last from rounding).

        Raises
        ------
        ValueError
            If ``photons`` holds negative or non-finite values.
        """
        mean = np.asarray(photons, np.float32)
        if not np.all(np.isfinite(mean)) or np.any(mean < 0):
            raise ValueError("photons must be finite and at least 0 everywhere; clip them before the exposure.")
        electrons = rng.poisson(mean) + self.read_noise * rng.standard_normal(mean.shape, dtype=np.float32)
        counts = np.rint(self.offset + electrons / self.gain)
        return np.clip(counts, 0, 2**self.bits - 1).astype(np.uint16)


@dataclass(frozen=True)
class Optics:
    """A microscope's point spread function, as a Gaussian.

    Parameters
    ----------
    numerical_aperture, refractive_index
        Of the objective and its immersion.
    wavelength
        Of the emission, in micrometres.
    sheet
        Thickness (standard deviation, micrometres) of the light sheet that lights the specimen; None: everything.
    haze
        Fraction of the light that arrives out of focus, spread over ``haze_width`` micrometres.

    Notes
    -----
    The Gaussian has the curvature of the scalar Debye integral at the focus, aplanatic lens. With u the cosine of the
    ray angle and averages weighted by sqrt(u) over the aperture: lateral width 1 / (k n sqrt(<1 - u^2>)), axial
    width 1 / (k n sqrt(2 var u)). These are the non-paraxial wide-field widths of Zhang, Zerubia and Olivo-Marin,
    Applied Optics 46, 1819 (2007).
    """

    numerical_aperture: float
    refractive_index: float
    wavelength: float
    sheet: float | None = None
    haze: float = 0.0
    haze_width: float = 1.5

    def widths(self) -> tuple[float, float]:
        """Return the axial and the lateral standard deviation, in micrometres."""
        edge = np.sqrt(1 - (self.numerical_aperture / self.refractive_index) ** 2)

        def moment(power: int) -> float:
            total, weighted = ((1 - edge ** (p + 1.5)) / (p + 1.5) for p in (0, power))
            return float(weighted / total)

        wavenumber = 2 * np.pi * self.refractive_index / self.wavelength
        lateral = 1 / (wavenumber * np.sqrt(1 - moment(2)))
        axial = 1 / (wavenumber * np.sqrt(2 * (moment(2) - moment(1) ** 2)))
        if self.sheet is not None:
            axial = 1 / np.hypot(1 / axial, 1 / self.sheet)
        return float(axial), float(lateral)

    def blur(self, specimen: Array, pixel: Sequence[float]) -> Array:
        """Image a specimen ``([Z,] Y, X)`` of the given pixel size in micrometres."""
        axial, lateral = self.widths()
        widths = (axial, lateral, lateral)[-specimen.ndim :]
        sharp = smooth(specimen, [w / p for w, p in zip(widths, pixel, strict=True)])
        if not self.haze:
            return sharp
        return (1 - self.haze) * sharp + self.haze * smooth(specimen, [self.haze_width / p for p in pixel])


@dataclass(frozen=True)
class Sample:
    """A noisy image and its truth, in the same units (camera counts)."""

    noisy: Volume
    clean: Volume
    title: str
    description: str


def photograph(
    photons: Array, camera: Camera, rng: np.random.Generator, axes: str, scale: Sequence[float], title: str, text: str
) -> Sample:
    """Photograph a blurred specimen; the truth is what the same camera reads on average."""
    units = tuple("second" if a == "T" else "micrometer" for a in axes)
    noisy = Volume(camera.expose(photons, rng), axes, tuple(scale), units, name=f"{title} (noisy)")
    return Sample(noisy, noisy.like(camera.expected(photons), f"{title} (truth)"), title, text)


def grid(shape: Sequence[int], pixel: Sequence[float]) -> list[Array]:
    """Return open coordinate arrays in micrometres."""
    lines = [np.arange(n, dtype=np.float32) * np.float32(p) for n, p in zip(shape, pixel, strict=True)]
    return list(np.meshgrid(*lines, indexing="ij", sparse=True))


def smooth(image: Array, widths: Sequence[float]) -> Array:
    """Blur with a Gaussian of one standard deviation (in pixels) per axis; weights are renormalised at the borders."""
    for axis, width in enumerate(widths):
        if width <= 0:
            continue
        position = np.arange(image.shape[axis])
        kernel = np.exp(-0.5 * ((position[:, None] - position) / width) ** 2)
        kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
        image = np.moveaxis(np.tensordot(kernel, image, (1, axis)), 0, axis)
    return np.ascontiguousarray(image)


def texture(shape: Sequence[int], size: float, pixel: Sequence[float], rng: np.random.Generator) -> Array:
    """Draw a smooth random field of mean 0 and standard deviation 1, correlated over ``size`` micrometres."""
    field = smooth(rng.standard_normal(shape, dtype=np.float32), [size / p for p in pixel])
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def soft_inside(distance: ArrayLike, edge: float) -> Array:
    """Turn a signed distance (negative inside) into a mask that falls from 1 to 0 over about ``4 * edge``."""
    return np.asarray(0.5 - 0.5 * np.tanh(np.asarray(distance, np.float32) / (2 * edge)), np.float32)


def direction(angle: ArrayLike) -> Points:
    """Return unit vectors (..., 2) in Y and X."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def deposit(points: Points, brightness: ArrayLike, shape: Sequence[int], pixel: Sequence[float]) -> Array:
    """Add up emitters on a grid, each shared linearly among its neighbouring pixels.

    Parameters
    ----------
    points : (..., len(shape))
        Positions in micrometres; those outside the grid are dropped.
    brightness
        Photons per emitter, broadcast over ``points``.
    shape, pixel
        Of the grid, in pixels and micrometres.
    """
    light = np.broadcast_to(np.asarray(brightness, np.float32), points.shape[:-1]).ravel()
    flat = points.reshape(-1, len(shape)) / np.asarray(pixel)
    low = np.floor(flat).astype(np.int64)
    inside = np.all((low >= 0) & (low < np.asarray(shape) - 1), axis=1) & (light > 0)
    low, light, share = low[inside], light[inside], (flat - low)[inside]
    image = np.zeros(int(np.prod(shape)))
    for corner in product((0, 1), repeat=len(shape)):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1) * light
        image += np.bincount(np.ravel_multi_index(tuple((low + corner).T), tuple(shape)), weight, image.size)
    return image.reshape(tuple(shape)).astype(np.float32)


def filaments(starts: Points, headings: Points, length: float, persistence: float, rng: np.random.Generator) -> Points:
    """Grow worm-like chains, 0.05 micrometres a step.

    Parameters
    ----------
    starts, headings : (N, D)
        First point (micrometres) and direction of every chain.
    length, persistence
        In micrometres.

    Returns
    -------
    ndarray, (N, steps, D)
    """
    step, heading, position = 0.05, headings.copy(), starts
    path = np.empty((len(starts), max(2, int(length / step)), starts.shape[1]))
    for i in range(path.shape[1]):
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        path[:, i] = position
        position = position + step * heading
        heading += np.sqrt(2 * step / persistence) * rng.standard_normal(heading.shape) / np.sqrt(heading.shape[1] - 1)
    return path
