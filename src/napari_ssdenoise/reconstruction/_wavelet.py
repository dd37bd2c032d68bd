"""Compressed sensing: images that are sparse in wavelets, wherever the wavelets' grid lies."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from napari_ssdenoise.ops.kspace import Sense, conjugate_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_ssdenoise.reconstruction._problem import Problem

WAVELET: Final = "db2"
LEVELS: Final = 4
# Thresholds that are tried, the largest first, in units of `Problem`; each starts from the one before.
THRESHOLDS: Final = tuple(0.024 * 2 ** (-i / 2) for i in range(12))
STEPS: Final = 16
LAST_STEPS: Final = 60
# Iterates that are averaged: each has another grid.
AVERAGED: Final = 10
# How much of the sparse image is kept where data say something else.
KEPT: Final = 0.1


def shrink(image: Tensor, threshold: float, shift: tuple[int, int]) -> Tensor:
    """Make the wavelet coefficients of complex images (sets, Y, X) smaller by a threshold, on a shifted grid."""
    import pywt

    rows, columns = image.shape[-2:]
    levels = min(LEVELS, *(max(1, int(math.log2(max(2, n)) - 2)) for n in (rows, columns)))
    moved = torch.roll(image, shift, (-2, -1)).cpu().numpy()
    coarse, *details = _quiet(pywt.wavedec2, moved, WAVELET, mode="periodization", level=levels)
    small = [tuple(_soft(band, threshold) for band in level) for level in details]
    back = pywt.waverec2([coarse, *small], WAVELET, mode="periodization")[..., :rows, :columns]
    found = torch.from_numpy(np.ascontiguousarray(back, np.complex64)).to(image.device)
    return torch.roll(found, (-shift[0], -shift[1]), (-2, -1))


def _quiet(transform: Any, *args: Any, **options: Any) -> Any:
    """Call without the warning that coefficients of coarse levels see the border: the image wraps there anyway."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Level value of")
        return transform(*args, **options)


def _soft(band: Any, threshold: float) -> Any:
    return band * np.maximum(1 - threshold / np.maximum(np.abs(band), 1e-12), 0)


def iterate(operator: Sense, data: Tensor, threshold: float, start: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield the iterates of FISTA (Beck and Teboulle, 2009), each with another shift of the wavelets, without end."""
    image = ahead = start
    momentum = 1.0
    while True:
        step = ahead - operator.adjoint(operator.forward(ahead) - data)
        rows, columns = torch.randint(2**LEVELS, (2,), generator=rng).tolist()
        found = shrink(step, threshold, (rows, columns))
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = found + (momentum - 1) / following * (found - image)
        image, momentum = found, following
        yield image


def compressed_sensing_path(problem: Problem, rng: torch.Generator) -> Iterator[tuple[float, Tensor]]:
    """Reconstruct with ever smaller thresholds, each from the image of the one before."""
    operator, data = problem.sense()
    image = operator.adjoint(data)
    for threshold in THRESHOLDS:
        steps = list(islice(iterate(operator, data, threshold, image, rng), STEPS))
        image = steps[-1]
        yield threshold, torch.stack(steps[-AVERAGED:]).mean(0)


def compressed_sensing(
    problem: Problem, threshold: float, rng: torch.Generator, steps: int = LAST_STEPS, *, fit: bool = True
) -> Iterator[Tensor]:
    """Yield images on the way to the one whose wavelet coefficients are sparse (Lustig et al., 2007); the last is it.

    Parameters
    ----------
    threshold
        The weight of the coefficients' sum of magnitudes, in units of `Problem`.
    rng
        Of the shifts.
    steps
        Iterations.
    fit
        Bring the last image back towards the data: the threshold makes all coefficients smaller, those that were
        measured as well.

    Notes
    -----
    The last image is the mean of ten iterates, whose wavelets lie on ten grids.
    """
    operator, data = problem.sense()
    last: list[Tensor] = []
    for image in islice(iterate(operator, data, threshold, operator.adjoint(data), rng), steps):
        last = [*last[1 - AVERAGED :], image]
        yield image
    mean = torch.stack(last).mean(0)
    if not fit:
        yield mean
        return
    right = operator.adjoint(data) + KEPT * mean
    yield conjugate_gradients(lambda x: operator.normal(x) + KEPT * x, right, mean, steps=8)
