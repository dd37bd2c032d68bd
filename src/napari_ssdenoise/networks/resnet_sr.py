"""The super-resolution network of ZSSR and MZSR: eight convolutions that sharpen an enlarged image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_ssdenoise.networks.blocks import CONV
from napari_ssdenoise.ops.degrade import Degradation

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ssdenoise.ops.kernels import Grid


class ResidualNet(nn.Sequential):
    """Convolutions (3 wide) with ReLU, whose result is added to the image.

    With eight layers of 64 filters it has 222,785 parameters for grey images (Soh et al. 2020).

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    depth, width
        Layers, and filters of each.
    """

    def __init__(self, ndim: int, *, depth: int = 8, width: int = 64) -> None:
        conv = CONV[ndim]
        layers: list[nn.Module] = [conv(1, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [conv(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(conv(width, 1, 3, padding=1))
        super().__init__(*layers)
        self.depth = depth
        for layer in self:
            if isinstance(layer, CONV[ndim]):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        last: Any = self[-1]
        nn.init.normal_(last.weight, std=1e-3)  # begin close to the enlarged image

    def forward(self, enlarged: Tensor) -> Tensor:
        """Sharpen images (B, 1, *spatial)."""
        out: Tensor = enlarged + super().forward(enlarged).float()
        return out


class SuperResolver(nn.Module):
    """Enlarges images that are given with every pixel repeated, so that input and output have one size.

    Parameters
    ----------
    body
        The network; shared, not copied.
    degradation
        How the image was made of the sharp one.
    rounds
        Of back-projection in the end.
    """

    kernel: Tensor

    def __init__(self, body: ResidualNet, degradation: Degradation, rounds: int = 0) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("kernel", torch.from_numpy(degradation.kernel.copy()))
        self.factors = degradation.factors
        self.grid: Grid = degradation.grid
        self.rounds = rounds

    @property
    def degradation(self) -> Degradation:
        """How a sharp image becomes a coarse one."""
        return Degradation(self.kernel.float().cpu().numpy(), self.factors, self.grid)

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit: one pixel of the coarse image."""
        return self.factors

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are: two layers."""
        first: Any = self.body[0]
        return 3 * int(first.out_channels)

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        degradation = self.degradation
        return tuple(
            self.body.depth + (3 * f if f > 1 else 0) + self.rounds * step
            for f, step in zip(self.factors, degradation.reach, strict=True)
        )

    def forward(self, repeated: Tensor) -> Tensor:
        degradation = self.degradation
        coarse = repeated[(..., *(slice(None, None, f) for f in self.factors))]
        return degradation.refine(self.sharpen(degradation.up(coarse)), coarse, self.rounds)

    def sharpen(self, enlarged: Tensor) -> Tensor:
        """Run the network on each channel of images (B, C, *spatial)."""
        batch, channels = enlarged.shape[:2]
        alone = enlarged.reshape(batch * channels, 1, *enlarged.shape[2:])
        out: Tensor = self.body(alone)
        return out.reshape(enlarged.shape)


def split(factors: Sequence[int]) -> list[tuple[int, ...]]:
    """Reach a large factor gradually: steps of 2 or 3 per axis, as far as they divide it."""
    steps: list[tuple[int, ...]] = []
    left = list(factors)
    while max(left) > 1:
        step = tuple(next((p for p in (2, 3) if n % p == 0), n) if n > 1 else 1 for n in left)
        left = [n // s for n, s in zip(left, step, strict=True)]
        steps.append(step)
    return steps
