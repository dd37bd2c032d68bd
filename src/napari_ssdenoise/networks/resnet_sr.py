"""The super-resolution network of ZSSR and MZSR: eight convolutions that sharpen an enlarged image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from napari_ssdenoise.networks.blocks import CONV
from napari_ssdenoise.ops.degrade import Degradation

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ssdenoise.ops.kernels import Grid

PHOTOGRAPHS = (0.45, 0.22)  # mean and standard deviation of the grey values that shipped weights are trained on


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
        self.ndim, self.depth, self.width = ndim, depth, width
        for layer in self:
            if isinstance(layer, CONV[ndim]):
                nn.init.xavier_normal_(layer.weight)  # as ZSSR does; larger ones learn worse
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        last: Any = self[-1]
        nn.init.normal_(last.weight, std=1e-3)  # begin close to the enlarged image

    def forward(self, enlarged: Tensor) -> Tensor:
        """Sharpen images (B, 1, *spatial)."""
        body: Any = super().forward
        out: Tensor = enlarged + body(enlarged).float()
        return out


class Still(nn.Module):
    """Leaves images as they are."""

    depth = 0
    width = 1

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.ndim = ndim

    def forward(self, enlarged: Tensor) -> Tensor:
        """Return the images."""
        return enlarged


class Pose(NamedTuple):
    """One of the eight ways to lay a square on itself, along the last two axes."""

    flips: tuple[int, ...] = ()
    exchanged: bool = False

    def apply(self, image: Tensor) -> Tensor:
        """Bring an image into the pose."""
        flipped = image.flip(self.flips)
        return flipped.transpose(-1, -2) if self.exchanged else flipped

    def undo(self, image: Tensor) -> Tensor:
        """Bring it back."""
        return (image.transpose(-1, -2) if self.exchanged else image).flip(self.flips)


def poses_of(degradation: Degradation) -> list[Pose]:
    """List the poses in which a blur looks the same, the given one first."""
    kernel = torch.from_numpy(degradation.kernel)
    sides = [(), (-1,), (-2,), (-1, -2)]
    turns = (False, True) if kernel.shape[-1] == kernel.shape[-2] else (False,)
    poses = [Pose(flips, exchanged) for exchanged in turns for flips in sides]
    alike = 1e-3 * float(kernel.max())
    return [pose for pose in poses if float((pose.apply(kernel) - kernel).abs().max()) <= alike]


class SuperResolver(nn.Module):
    """Enlarges images that are given with every pixel repeated, so that input and output have one size.

    Parameters
    ----------
    body
        The network. In a stack that is enlarged along its first axis only, it may be one for planes: it then sees the
        planes on either side of that axis, and the mean of both counts.
    degradation
        How the image was made of the sharp one.
    rounds
        Of back-projection in the end.
    ensemble
        Whether an image is sharpened in every pose (flipped, Y and X exchanged) that leaves the blur as it is, and the
        mean of all is taken (Shocher et al. 2018, section 3.3).

    Notes
    -----
    Images come normalised to zero mean and unit variance; the network sees them as the photographs that its weights
    began with, whose grey values lie between 0 and 1.
    """

    kernel: Tensor
    is_chain = True  # see `learning_format`

    def __init__(
        self, body: ResidualNet | Still, degradation: Degradation, rounds: int = 0, *, ensemble: bool = False
    ) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("kernel", torch.from_numpy(degradation.kernel.copy()))
        self.factors = degradation.factors
        self.grid: Grid = degradation.grid
        self.rounds = rounds
        self.ensemble = ensemble

    @property
    def degradation(self) -> Degradation:
        """How a sharp image becomes a coarse one."""
        return Degradation(self.kernel.detach().float().cpu().numpy(), self.factors, self.grid)

    @degradation.setter
    def degradation(self, degradation: Degradation) -> None:
        self.kernel = torch.from_numpy(degradation.kernel.copy()).to(self.kernel.device)

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit: one pixel of the coarse image."""
        return self.factors

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are: two layers."""
        return 3 * self.body.width

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        return tuple(
            self.body.depth + (3 * f if f > 1 else 0) + self.rounds * step
            for f, step in zip(self.factors, self.degradation.reach, strict=True)
        )

    def forward(self, repeated: Tensor) -> Tensor:
        degradation = self.degradation
        coarse = repeated
        for d, factor in enumerate(self.factors):
            coarse = coarse.index_select(d + 2, torch.arange(0, coarse.shape[d + 2], factor, device=coarse.device))
        enlarged = degradation.up(coarse)
        poses = poses_of(degradation) if self.ensemble and self.body.depth else [Pose()]
        sharp = sum((pose.undo(self.sharpen(pose.apply(enlarged))) for pose in poses[1:]), self.sharpen(enlarged))
        return degradation.refine(sharp / len(poses), coarse, self.rounds)

    def sharpen(self, enlarged: Tensor) -> Tensor:
        """Run the network on each channel of enlarged images (B, C, *spatial)."""
        flat = (enlarged * PHOTOGRAPHS[1] + PHOTOGRAPHS[0]).flatten(0, 1).unsqueeze(1)
        if self.body.ndim == flat.ndim - 2:
            out: Tensor = self.body(flat)
        else:
            out = (self._planes(flat, 3) + self._planes(flat, 4)) / 2
        return ((out - PHOTOGRAPHS[0]) / PHOTOGRAPHS[1]).reshape(enlarged.shape)

    def _planes(self, stacks: Tensor, dim: int) -> Tensor:
        """Run a network for planes on all planes across an axis of stacks (B, 1, z, y, x)."""
        across = stacks.movedim(dim, 1)  # (B, planes, 1, z, other)
        made = self.body(across.flatten(0, 1))
        out: Tensor = made.reshape(across.shape).movedim(1, dim)
        return out

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        kernel = state_dict.get(f"{prefix}kernel")
        if kernel is not None and kernel.ndim == self.kernel.ndim:  # of whatever size it was measured
            self.kernel = torch.empty_like(kernel, device=self.kernel.device)
        super()._load_from_state_dict(state_dict, prefix, *others)
