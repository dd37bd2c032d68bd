"""Fourier transforms and coil sensitivities: how an image becomes k-space, and what of it was acquired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PLANE = (-2, -1)


def fft(image: Tensor, axes: tuple[int, ...] = PLANE) -> Tensor:
    """Transform to k-space: orthonormal, with index ``n // 2`` as the origin on both sides."""
    shifted = torch.fft.fftn(torch.fft.ifftshift(image, axes), dim=axes, norm="ortho")
    moved: Tensor = torch.fft.fftshift(shifted, axes)
    return moved


def ifft(kspace: Tensor, axes: tuple[int, ...] = PLANE) -> Tensor:
    """Transform back to an image; the inverse of `fft`."""
    shifted = torch.fft.ifftn(torch.fft.ifftshift(kspace, axes), dim=axes, norm="ortho")
    moved: Tensor = torch.fft.fftshift(shifted, axes)
    return moved


def root_sum_of_squares(images: Tensor, axis: int = -3) -> Tensor:
    """Combine coil images to one magnitude."""
    return images.abs().square().sum(axis).sqrt()


class Sense:
    """What the coils measure of an image: sensitivities, Fourier transform, sampling (Pruessmann et al., 1999).

    Parameters
    ----------
    maps : (sets, coils, Y, X) complex
        Sensitivities, with squares that sum over the coils to 1 (or 0 outside the object), so that no eigenvalue of
        `normal` exceeds 1. One set is enough unless parts of the object lie over one another, as where it is larger
        than the field of view: each set has its own image.
    mask : (Y, X) bool
        The samples that are measured.

    Notes
    -----
    Where whole lines are sampled, the transform along them is done once, to the data, and not in every application;
    the shifts of the origin are phases that are multiplied into maps and data beforehand. Data must therefore come
    from `prepare`, and `forward` gives such data.
    """

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        self.mask = mask
        rows, columns = mask.any(1), mask.any(0)
        # Along an axis whose samples were all measured wherever any was, nothing has to be transformed.
        full = [bool((mask == rows[:, None]).all()), bool((mask == columns).all())]
        self.axes = (-2,) if full[0] else (-1,) if full[1] else PLANE
        self._other = tuple(a for a in PLANE if a not in self.axes)
        into, self._out = self._phases(mask.shape, maps.device)
        self._maps: Tensor = maps * into
        self._conjugate = self._maps.conj().resolve_conj()
        self._mask = mask.to(maps.real.dtype)
        if self.axes == (-2,):
            self._mask = self._mask.amax(1, keepdim=True)
        elif self.axes == (-1,):
            self._mask = self._mask.amax(0, keepdim=True)

    def _phases(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return factors of the image and of k-space that move the origin from index 0 to ``n // 2``."""
        phase = torch.zeros(shape, dtype=torch.float64, device=device)
        total = 0.0
        for axis in self.axes:
            n = shape[axis]
            turn = 2 * torch.pi * (n // 2) * torch.arange(n, dtype=torch.float64, device=device) / n
            phase = phase + (turn[:, None] if axis == -2 else turn)
            total += 2 * torch.pi * (n // 2) ** 2 / n
        unit = torch.ones_like(phase)
        return torch.polar(unit, phase).to(torch.complex64), torch.polar(unit, phase - total).to(torch.complex64)

    def prepare(self, kspace: Tensor) -> Tensor:
        """Turn measured (coils, Y, X) k-space into the data of this operator; what was not measured becomes 0."""
        masked = kspace * self.mask
        return (ifft(masked, self._other) if self._other else masked) * self._out.conj()

    def forward(self, image: Tensor) -> Tensor:
        """Measure images (..., sets, Y, X): data (..., coils, Y, X)."""
        coils = (image.unsqueeze(-3) * self._maps).sum(-4)
        spectrum: Tensor = torch.fft.fftn(coils, dim=self.axes, norm="ortho")
        return spectrum * self._mask

    def adjoint(self, data: Tensor) -> Tensor:
        """Bring data (..., coils, Y, X) back to images (..., sets, Y, X)."""
        coils: Tensor = torch.fft.ifftn(data * self._mask, dim=self.axes, norm="ortho")
        return (coils.unsqueeze(-4) * self._conjugate).sum(-3)

    def normal(self, image: Tensor) -> Tensor:
        """Measure images and bring the data back."""
        return self.adjoint(self.forward(image))


def conjugate_gradients(normal: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, *, steps: int) -> Tensor:
    """Solve ``normal(x) = right`` for images (..., sets, Y, X), each for itself.

    Parameters
    ----------
    normal
        A Hermitian, positive definite operator on such images.
    right, start : (..., sets, Y, X) complex
        The right side, and where to begin.
    steps
        Iterations.
    """
    x, r = start, right - normal(start)
    p, rr = r, _inner(r, r)
    for _ in range(steps):
        q = normal(p)
        step = rr / _inner(p, q).clamp_min(1e-30)
        x, r = x + step * p, r - step * q
        before, rr = rr, _inner(r, r)
        p = r + rr / before.clamp_min(1e-30) * p
    return x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the real inner product of images, kept as (..., 1, 1, 1)."""
    return (a.real * b.real + a.imag * b.imag).sum((-3, -2, -1), keepdim=True)
