"""How a microscope or scanner makes few pixels of many: blur, then sampling; and the way back by interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_ssdenoise.ops.kernels import Grid, centred, convolved, cubic, cubic_taps, gaussian, parity

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Degradation:
    """Blur with a kernel, then keep one pixel of ``factors``.

    Parameters
    ----------
    kernel : (*spatial), float32
        Of sum 1, correlated with the image; its middle tap is the centre.
    factors
        High-resolution pixels per low-resolution pixel, for each spatial axis; 1 leaves an axis alone.
    grid
        Where low-resolution pixels lie: in the middle of the high-resolution ones (``"registered"``), or on the first
        of them (``"topleft"``).

    Raises
    ------
    ValueError
        If the kernel's size does not fit the grid, see `napari_ssdenoise.ops.kernels`.
    """

    kernel: NDArray[np.float32]
    factors: tuple[int, ...]
    grid: Grid = "registered"

    def __post_init__(self) -> None:
        if self.kernel.ndim != len(self.factors):
            raise ValueError(f"a kernel {self.kernel.shape} does not fit the factors {self.factors}.")
        # Zeros around it, so that it is never smaller than the cell of one low-resolution pixel.
        widths = [(max(0, f - n) + 1) // 2 for f, n in zip(self.factors, self.kernel.shape, strict=True)]
        kernel = np.pad(self.kernel, [(w, w) for w in widths]).astype(np.float32)
        for n, factor in zip(kernel.shape, self.factors, strict=True):
            if n % 2 != parity(factor, self.grid):
                raise ValueError(
                    f"a kernel of {n} taps has no middle on the {self.grid} grid with factor {factor}: "
                    f"make it {'odd' if n % 2 == 0 else 'even'}."
                )
        object.__setattr__(self, "kernel", kernel)

    @classmethod
    def gaussian(
        cls, covariance: ArrayLike, factors: Sequence[int], grid: Grid = "registered", size: int | None = None
    ) -> Degradation:
        """Blur with a Gaussian; see `napari_ssdenoise.ops.kernels.gaussian`."""
        return cls(gaussian(covariance, factors, grid, size).astype(np.float32), tuple(factors), grid)

    @classmethod
    def measured(cls, psf: ArrayLike, factors: Sequence[int], grid: Grid = "registered") -> Degradation:
        """Blur with a measured point-spread function; see `napari_ssdenoise.ops.kernels.centred`."""
        return cls(centred(psf, factors, grid).astype(np.float32), tuple(factors), grid)

    @classmethod
    def bicubic(cls, factors: Sequence[int], covariance: ArrayLike | None = None) -> Degradation:
        """Reduce as MATLAB's imresize does, after a Gaussian blur if a covariance is given; always registered."""
        odd = [1] * len(factors)
        blur = np.ones([1] * len(factors)) if covariance is None else gaussian(covariance, odd)
        taps = [cubic_taps(f) if f > 1 else np.ones(1) for f in factors]
        return cls(convolved(blur, taps).astype(np.float32), tuple(factors), "registered")

    @property
    def offsets(self) -> tuple[float, ...]:
        """Where the first low-resolution pixel lies, in high-resolution pixels."""
        return tuple((f - 1) / 2 if self.grid == "registered" else 0.0 for f in self.factors)

    @property
    def reach(self) -> tuple[int, ...]:
        """High-resolution pixels that one step of back-projection looks away, per axis."""
        blur = [n // 2 for n in self.kernel.shape]
        return tuple(b + 3 * f if f > 1 or b else 0 for b, f in zip(blur, self.factors, strict=True))

    def coarser(self, by: int) -> Degradation:
        """Return the same blur for factors that are ``by`` times smaller, in pixels that are as much larger.

        Raises
        ------
        ValueError
            If a factor cannot be divided.
        """
        if any(f % by for f in self.factors if f > 1):
            raise ValueError(f"the factors {self.factors} cannot be divided by {by}.")
        factors = tuple(f // by if f > 1 else 1 for f in self.factors)
        kernel = self.kernel
        for d, (old, new) in enumerate(zip(self.factors, factors, strict=True)):
            if old > 1:
                kernel = np.moveaxis(_spread(np.moveaxis(kernel, d, 0), by, parity(new, self.grid)), 0, d)
        return Degradation(kernel, factors, self.grid)

    def down(self, sharp: Tensor) -> Tensor:
        """Make the low-resolution image.

        Parameters
        ----------
        sharp : (B, C, *spatial)
            Lengths are multiples of the factors.
        """
        kernel = torch.as_tensor(self.kernel, dtype=sharp.dtype, device=sharp.device)[None, None]
        padded = sharp
        for d, (n, offset) in enumerate(zip(self.kernel.shape, self.offsets, strict=True)):
            before = round((n - 1) / 2 - offset)
            padded = mirrored(padded, d + 2, before, n - self.factors[d] - before)
        batch, channels = padded.shape[:2]
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.kernel.ndim]
        with torch.autocast(sharp.device.type, enabled=False):  # what is measured must not be rounded
            out = convolve(padded.reshape(batch * channels, 1, *padded.shape[2:]), kernel, stride=self.factors)
        return out.reshape(batch, channels, *out.shape[2:])

    def up(self, coarse: Tensor) -> Tensor:
        """Interpolate with cubic convolution to the high-resolution grid: the same place in both.

        Parameters
        ----------
        coarse : (B, C, *spatial)
        """
        for d, (factor, offset) in enumerate(zip(self.factors, self.offsets, strict=True)):
            coarse = interpolated(coarse, d + 2, factor, offset)
        return coarse

    def refine(self, sharp: Tensor, coarse: Tensor, rounds: int) -> Tensor:
        """Make an estimate agree with the low-resolution image: iterative back-projection (Irani and Peleg 1991)."""
        for _ in range(rounds):
            sharp = sharp + self.up(coarse - self.down(sharp))
        return sharp


def _spread(kernel: NDArray[np.float32], by: int, odd: int) -> NDArray[np.float32]:
    """Put a kernel's taps along its first axis onto pixels ``by`` times as large, each onto the two next to it."""
    count = -(-len(kernel) // by) + 1
    count += count % 2 != odd
    places, found = ((np.arange(n) - (n - 1) / 2) for n in (count, len(kernel)))
    weights = np.maximum(0, 1 - np.abs(places[:, None] - found / by))
    return np.tensordot(weights, kernel, 1).astype(np.float32)


def mirrored(image: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Mirror an image beyond its border, the border pixel included; cut it where a number is negative."""
    n = image.shape[dim]
    if before <= 0 and after <= 0:
        return image.narrow(dim, -before, n + before + after)
    places = torch.arange(-before, n + after, device=image.device) % (2 * n)
    return image.index_select(dim, torch.where(places < n, places, 2 * n - 1 - places))


def interpolated(image: Tensor, dim: int, factor: int, offset: float) -> Tensor:
    """Enlarge one axis by cubic convolution; the first pixel comes to lie at ``offset``."""
    if factor == 1:
        return image
    places, weights = _taps(image.shape[dim], factor, offset)
    shape = [-1 if d == dim else 1 for d in range(image.ndim)]
    total: Tensor | None = None
    for column in range(4):
        part = image.index_select(dim, places[column].to(image.device))
        part = part * weights[column].to(image.device, image.dtype).reshape(shape)
        total = part if total is None else total.add_(part)
    if total is None:
        raise AssertionError
    return total


@lru_cache(maxsize=64)
def _taps(n: int, factor: int, offset: float) -> tuple[Tensor, Tensor]:
    """Return, for each of four taps, which pixel it takes and with what weight."""
    place = (np.arange(n * factor) - offset) / factor
    first = np.floor(place).astype(int) - 1
    taken = first + np.arange(4)[:, None]
    weights = cubic(place - taken)
    taken = taken % (2 * n)
    taken = np.where(taken < n, taken, 2 * n - 1 - taken)
    with torch.inference_mode(False):  # what is kept may be needed in a training
        return torch.from_numpy(taken), torch.from_numpy(weights)
