"""One slice to be reconstructed: normalised data, coil maps, and which lines are kept back to judge results by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from napari_ssdenoise.ops.kspace import Sense
from napari_ssdenoise.reconstruction._maps import calibration, coil_maps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# One of so many acquired lines outside the centre is held out.
HELD_OUT: Final = 7
# Lines of the centre that are never held out: what maps are made of.
CENTRE: Final = 32


@dataclass(frozen=True, eq=False)
class Problem:
    """A slice in units in which the brightest pixels of its first image are about 1.

    Parameters
    ----------
    kspace : (coils, Y, X) complex64
    mask : (Y, X) bool
        The samples that were acquired.
    maps : (sets, coils, Y, X) complex64
        Coil sensitivities; squares sum to 1 over the coils. There are two sets where parts of the object lie over one
        another.
    centre : (Y, X) bool
        The fully sampled middle of k-space.
    scale
        What images are multiplied by to be in the file's units.
    wrapped
        The part of the image's energy that lies where parts of the object lie over one another, because it is larger
        than the field of view.
    """

    kspace: Tensor
    mask: Tensor
    maps: Tensor
    centre: Tensor
    scale: float = 1.0
    wrapped: float = 0.0

    def sense(self) -> tuple[Sense, Tensor]:
        """Return what the coils measure, and the data they measured, as that operator takes them."""
        operator = Sense(self.maps, self.mask)
        return operator, operator.prepare(self.kspace)

    def without(self, held: Tensor) -> Problem:
        """Return the problem as if these samples (Y, X) had not been acquired."""
        return replace(self, mask=self.mask & ~held)

    def error(self, image: Tensor, held: Tensor) -> float:
        """Return by how much an image misses samples: the norm of the difference over that of the samples."""
        operator = Sense(self.maps, held)
        data = operator.prepare(self.kspace)
        return float((operator.forward(image) - data).norm() / data.norm())


def prepare(
    kspace: NDArray[Any], mask: NDArray[np.bool_], maps: NDArray[Any] | None = None, device: Any = "cpu"
) -> Problem:
    """Make a problem of one slice.

    Parameters
    ----------
    kspace : (coils, Y, X) complex
    mask : (Y, X) bool
    maps : (coils, Y, X) or (sets, coils, Y, X) complex, optional
        Estimated from the centre of k-space if they are not given.
    device
        Where to compute.

    Raises
    ------
    ValueError
        If k-space is not centred, its centre is not fully sampled, or maps do not fit.
    """
    _check_origin(kspace)
    data, sampled = (torch.tensor(a, device=device) for a in (np.asarray(kspace, np.complex64), mask))
    middle = calibration(mask, CENTRE)
    centre = torch.zeros_like(sampled)
    centre[middle] = True
    wrapped = 0.0
    if maps is None:
        found, wrapped = coil_maps(data, middle)
    else:
        found = torch.tensor(np.asarray(maps, np.complex64), device=device)
        found = found[None] if found.ndim == 3 else found
        if found.shape[1:] != data.shape:
            raise ValueError(f"coil maps {tuple(found.shape)} do not fit k-space {tuple(data.shape)}.")
        found = found / found.abs().square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    problem = Problem(data, sampled, found, _lines_of(centre, sampled), wrapped=wrapped)
    operator, y = problem.sense()
    level = float(combined(operator.adjoint(y)).abs().flatten().cpu().quantile(0.999))
    return replace(problem, kspace=data / level, scale=level)


def combined(images: Tensor) -> Tensor:
    """Make one image (..., Y, X) of those of all sets (..., sets, Y, X): their energy, and the first one's phase."""
    if images.shape[-3] == 1:
        return images.squeeze(-3)
    first = images.select(-3, 0)
    return torch.polar(images.abs().square().sum(-3).sqrt(), first.angle())


def _check_origin(kspace: NDArray[Any]) -> None:
    """Refuse k-space whose strongest samples are at its corners, as FFTs leave them."""
    energy = np.square(np.abs(kspace)).sum(0)
    for axis, n in enumerate(energy.shape):
        peak = int(energy.sum(1 - axis).argmax())
        if n >= 8 and abs(peak - n // 2) > n // 4:
            raise ValueError(
                f"the strongest samples of k-space are at index {peak} of {n} along {'YX'[axis]}, and not in the "
                "middle. The zero frequency must be there: apply numpy.fft.fftshift along Y and X."
            )


def _lines_of(centre: Tensor, mask: Tensor) -> Tensor:
    """Extend the centre along lines that were acquired as a whole, as they are held out as a whole."""
    axis = line_axis(mask)
    if axis is None:
        return centre
    return centre.any(1 - axis).unsqueeze(1 - axis) & mask


def line_axis(mask: Tensor) -> int | None:
    """Return the axis along which lines were skipped, or None where single samples were."""
    rows, columns = mask.any(1), mask.any(0)
    if not bool((mask == (rows[:, None] & columns)).all()):
        return None
    # Padding at the ends of a readout is no skipping.
    return 0 if _gaps(rows) >= _gaps(columns) else 1


def _gaps(lines: Tensor) -> float:
    """Return the part of the lines that was skipped between the first and the last one acquired."""
    where = lines.nonzero()[:, 0]
    return 1 - len(where) / float(where[-1] - where[0] + 1)


def hold_out(problem: Problem, folds: int, rng: torch.Generator, every: int = HELD_OUT) -> list[Tensor]:
    """Choose acquired lines (single samples where no whole lines were acquired) to judge results by.

    Parameters
    ----------
    folds
        How many choices that share no line.
    every
        In each ring of frequencies, one of this many lines is held out.

    Returns
    -------
    list of (Y, X) bool
        Fewer than ``folds``, or none, if too few lines were acquired outside the centre.
    """
    free = problem.mask & ~problem.centre
    axis = line_axis(problem.mask)
    radius = _radius(problem.mask.shape, axis).to(free.device)
    flat = free.flatten() if axis is None else free.any(1 - axis)
    chosen = flat.nonzero()[:, 0]
    chosen = chosen[radius.flatten()[chosen].argsort(stable=True)]
    every = min(every, len(chosen) // 2)
    if every < 2:
        return []
    order = [group[torch.randperm(len(group), generator=rng).to(group.device)] for group in torch.split(chosen, every)]
    found = []
    for fold in range(min(folds, every - 1)):
        take = torch.stack([group[fold] for group in order if len(group) > fold])
        lines = torch.zeros_like(flat)
        lines[take] = True
        held = lines.view(free.shape) if axis is None else lines.unsqueeze(1 - axis) & free
        found.append(held)
    return found


def _radius(shape: Any, axis: int | None) -> Tensor:
    """Return how far lines or samples are from the centre, in parts of the largest frequency."""
    away = [(torch.arange(n) - n // 2).abs() / max(1, n // 2) for n in shape]
    return torch.hypot(away[0][:, None], away[1]) if axis is None else away[axis]
