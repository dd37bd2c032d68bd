"""A trained network with all that its application needs, as one TorchScript module that other programs run.

It takes and gives images in the input's units: normalisation, what the network is told about the noise, mirrored
borders and the reading of its output are inside. In float32, its pixels are those of `TrainedModel.predict`.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from copy import deepcopy
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from napari_ssdenoise.engine.patches import condition_of
from napari_ssdenoise.engine.tiles import MARGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from napari_ssdenoise.model import TrainedModel

# In the images' standard deviations: what a trace may differ by. Rounding comes to 1e-4 where a result is a difference
# of large numbers, as the deviation of Rician noise; a size that was not traced gives other pixels, or none.
TOLERANCE = 1e-3


class Portable(nn.Module):
    """See the module.

    Parameters
    ----------
    model
        The network is copied.

    Raises
    ------
    ValueError
        If the model looks at every image anew before it is applied.
    """

    mean: Tensor
    std: Tensor
    told: Tensor

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        algorithm, geometry = model.algorithm, model.geometry
        if algorithm.purpose != "denoise":
            raise ValueError(
                f"{algorithm.title} computes where its pixels lie for every image size anew, which cannot be written "
                "as TorchScript, which other programs run. Share the saved model itself instead."
            )
        if algorithm.per_image:
            raise ValueError(
                f"this {algorithm.title} model measures the noise of every image that it is applied to, which other "
                "programs cannot. Train it with per_image off to export it."
            )
        self.algorithm = algorithm
        self.network = deepcopy(model.network).eval().requires_grad_(False)
        self.joint = geometry.n_channels > 1
        self.channels = max(geometry.n_channels, len(model.normalization.mean))
        ndim = len(geometry.spatial)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.normalization, name), dtype=torch.float32)
            self.register_buffer(name, values.reshape(1, -1, *(1,) * ndim))
        told = [condition_of(model.conditions, c) for c in range(1 if self.joint else self.channels)]
        self.register_buffer("told", torch.tensor(told, dtype=torch.float32).reshape(1, len(told), -1, *(1,) * ndim))
        self.stride: tuple[int, ...] = self.network.stride
        self.halo: tuple[int, ...] = self.network.reach()
        margin = MARGIN if algorithm.mirrored else 0
        # As `TilePlan` does it for a tile that is the whole image.
        wanted = [ceil(margin / grid) * grid for grid in self.stride]
        self.before = tuple(min(w, ceil(h / g) * g) for w, h, g in zip(wanted, self.halo, self.stride, strict=True))
        self.behind = tuple(min(w, h) for w, h in zip(wanted, self.halo, strict=True))

    @property
    def smallest(self) -> tuple[int, ...]:
        """Least size of an image along each spatial axis: a border as wide as the margin can be mirrored."""
        return tuple(before + grid for before, grid in zip(self.before, self.stride, strict=True))

    def forward(self, image: Tensor) -> Any:
        """Return what the algorithm makes of images (B, C, *spatial): its outputs, or the only one."""
        normalised = (image - self.mean) / self.std
        for axis in range(2, image.ndim):
            normalised = self._widened(normalised, axis)
        apart = normalised.unsqueeze(1 if self.joint else 2)  # (B, images, channels of one, *spatial)
        if self.told.shape[2]:
            told = self.told.expand(apart.shape[0], *self.told.shape[1:3], *apart.shape[3:])
            apart = torch.cat([apart, told], 2)
        made = self.algorithm.predict(self.network, apart.flatten(0, 1))
        results = []
        for name in self.algorithm.outputs:
            result = made[name].reshape(normalised.shape)
            for axis, before in enumerate(self.before, 2):
                result = result.narrow(axis, before, image.shape[axis])
            results.append(result * self.std + (0.0 if name == "std" else self.mean))
        return results[0] if len(results) == 1 else tuple(results)

    def _widened(self, image: Tensor, axis: int) -> Tensor:
        """Mirror the borders along an axis, or put zeros there; behind, as far as the network's grid needs."""
        before, behind, grid = self.before[axis - 2], self.behind[axis - 2], self.stride[axis - 2]
        n = image.shape[axis]
        behind = (n + behind + grid - 1) // grid * grid - n
        if not self.algorithm.mirrored:  # zeros surround the image, as in every convolution
            return F.pad(image, [0, 0] * (image.ndim - 1 - axis) + [0, behind])
        first = [image.narrow(axis, 0, before).flip(axis)] if before else []
        return torch.cat([*first, image, image.narrow(axis, n - behind, behind).flip(axis)], axis)


def to_torchscript(model: TrainedModel, image: np.ndarray[Any, Any]) -> tuple[Any, Portable]:
    """Trace a model, and make sure that the trace gives the model's pixels, of images of other sizes too.

    Parameters
    ----------
    model
        Of any algorithm.
    image : (C, *spatial)
        To run it on, in the input's units.

    Returns
    -------
    script
        The TorchScript module.
    portable
        What it was made of.

    Raises
    ------
    ValueError
        If the algorithm computes something that cannot be traced.
    """
    portable = Portable(model)
    example = torch.from_numpy(image)[None]
    grown = torch.cat([example, example.flip(-1)], -1).narrow(-1, 0, example.shape[-1] + 1)
    with quiet():
        try:
            jit: Any = torch.jit  # untyped
            script = jit.trace(portable, example, check_trace=False)
            with torch.no_grad():
                pairs = [(script(x), portable(x)) for x in (example, torch.cat([grown, grown.flip(-2)]))]
        except RuntimeError as error:
            raise _cannot(model, str(error).strip().splitlines()[-1]) from error
    unit = float(portable.std.min())
    if not all(_alike(one, other, TOLERANCE * unit) for one, other in pairs):
        raise _cannot(model, "its trace only fits images of one size")
    return script, portable


def save_torchscript(script: Any, path: Path) -> None:
    """Write a traced module."""
    with quiet():
        torch.jit.save(script, path)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from warning that sizes are traced, which is meant, and that TorchScript is old: others read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _cannot(model: TrainedModel, reason: str) -> ValueError:
    return ValueError(
        f"{model.algorithm.title} with these settings cannot be written as TorchScript, which other programs run: "
        f"{reason}. Share the saved model itself instead."
    )


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= tolerance
        for a, b in zip(each(one), each(other), strict=True)
    )


def each(made: Any) -> Sequence[Tensor]:
    """Return the results of a module as a sequence, also if there is only one."""
    return made if isinstance(made, tuple) else (made,)
