"""Coil sensitivities from the fully sampled middle of k-space: ESPIRiT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from napari_ssdenoise.ops.kspace import ifft

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

KERNEL: Final = 6
# Fewer lines than this determine no sensitivities.
LEAST: Final = 8
# Singular values below this part of the largest are noise.
NOISE: Final = 0.02
# A second eigenvalue from which a second image lies over the first, and the part of the energy that makes it count.
SECOND: Final = 0.95
WRAPPED: Final = 0.02


def calibration(mask: NDArray[np.bool_], most: int) -> tuple[slice, slice]:
    """Return the largest fully sampled rectangle around the centre of k-space, up to ``most`` samples a side.

    Raises
    ------
    ValueError
        If there is none of at least 8 x 8 samples.
    """
    middle = [n // 2 for n in mask.shape]

    def region(sizes: list[int]) -> tuple[slice, slice]:
        rows, columns = (slice(m - s // 2, m - s // 2 + s) for m, s in zip(middle, sizes, strict=True))
        return rows, columns

    sizes = [0, 0]
    for size in range(1, most + 1):
        square = [min(size, n) for n in mask.shape]
        if not mask[region(square)].all():
            break
        sizes = square
    for axis in (0, 1):
        while sizes[axis] < min(most, mask.shape[axis]) and min(sizes):
            grown = [s + (a == axis) for a, s in enumerate(sizes)]
            if not mask[region(grown)].all():
                break
            sizes = grown
    if min(sizes) < min(LEAST, *mask.shape):
        raise ValueError(
            f"the centre of k-space (index {middle[0]} of Y, {middle[1]} of X) is fully sampled over {sizes[0]} x "
            f"{sizes[1]} samples only; coil maps need {LEAST} x {LEAST} (autocalibration lines, ACS). Give maps of the "
            "coils, or k-space with such lines; if it has them, their middle must be at n // 2."
        )
    return region(sizes)


def coil_maps(kspace: Tensor, centre: tuple[slice, slice]) -> tuple[Tensor, float]:
    """Estimate the sensitivities of the coils (Uecker et al., Magn Reson Med 2014).

    Parameters
    ----------
    kspace : (coils, Y, X) complex
    centre
        The fully sampled rectangle they are estimated from.

    Returns
    -------
    maps : (sets, coils, Y, X) complex
        Of unit norm over the coils; their common phase is that of the coils' principal component. A second set, 0 where
        it is not needed, is there if parts of the object lie over one another.
    wrapped
        The part of the image's energy that lies where the second set is needed.
    """
    coils, *shape = kspace.shape
    block = kspace[:, centre[0], centre[1]]
    if coils == 1:
        return torch.ones_like(kspace)[None], 0.0
    signal, main = _signal_space(block)
    gram = _gram(signal, (shape[0], shape[1]))
    values, vectors = torch.linalg.eigh(gram)
    maps = vectors[..., [-1, -2]].permute(3, 2, 0, 1)
    reference = (maps * main.conj()[:, None, None]).sum(1, keepdim=True)
    maps = maps * torch.polar(torch.ones_like(reference.real), -reference.angle())
    second = values[..., -2] > SECOND
    low = torch.zeros_like(kspace)
    taper = [torch.hann_window(s + 2, periodic=False, device=kspace.device)[1:-1] for s in block.shape[1:]]
    low[:, centre[0], centre[1]] = block * (taper[0][:, None] * taper[1])
    energy = ifft(low).abs().square().sum(0)
    wrapped = float((energy * second).sum() / energy.sum())
    if wrapped < WRAPPED:
        return maps[:1].contiguous(), wrapped
    return torch.stack([maps[0], maps[1] * second]), wrapped


def _signal_space(block: Tensor) -> tuple[Tensor, Tensor]:
    """Return kernels (n, coils, k, k) that span the block's patches, and the coils' principal component."""
    coils = block.shape[0]
    k = min(KERNEL, *(n // 2 for n in block.shape[1:]))
    patches = block.unfold(1, k, 1).unfold(2, k, 1).permute(1, 2, 0, 3, 4).reshape(-1, coils * k * k)
    # The right singular vectors of the patches, from their small Gram matrix; doubled precision, as it squares.
    wide = patches.to(torch.complex128)
    values, vectors = torch.linalg.eigh(wide.mH @ wide)
    kept = values > NOISE**2 * values[-1]
    kernels = vectors[:, kept].mH.reshape(-1, coils, k, k)
    flat = block.reshape(coils, -1).to(torch.complex128)
    main = torch.linalg.eigh(flat @ flat.mH)[1][:, -1]
    return kernels.to(torch.complex64), main.to(torch.complex64)


def _gram(kernels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return, for each pixel, the coils x coils matrix whose first eigenvector is the sensitivity.

    It is the sum over kernels of their outer products in the image, and so the transform of the kernels' correlations:
    these are small, and only their coils x coils sums are brought to the size of the image.
    """
    _, coils, k, _ = kernels.shape
    spectrum = torch.fft.fft2(kernels, s=(2 * k, 2 * k))
    correlation = torch.fft.ifft2(torch.einsum("nayx,nbyx->abyx", spectrum, spectrum.conj()))
    padded = torch.zeros(coils, coils, *shape, dtype=kernels.dtype, device=kernels.device)
    lags = torch.arange(1 - k, k, device=kernels.device)
    # Images smaller than the kernels' correlation: lags beyond the border wrap, as they do in the transform.
    rows, columns = ((n // 2 + lags) % n for n in shape)
    padded.index_put_(
        (
            torch.arange(coils, device=kernels.device)[:, None, None, None],
            torch.arange(coils, device=kernels.device)[None, :, None, None],
            rows[None, None, :, None],
            columns[None, None, None, :],
        ),
        correlation[:, :, lags[:, None], lags],
        accumulate=True,
    )
    gram = ifft(padded).permute(2, 3, 0, 1) * (float(np.sqrt(shape[0] * shape[1])) / k**2)
    return (gram + gram.mH) / 2
