"""The blind-spot U-Net of HQ-SSL (Laine et al. 2019): sees all of an image but the pixel that it predicts.

One U-Net looks at the half-plane (half-space in 3D) before a pixel along one direction. It is run in every direction,
with its kernels turned instead of the image, so that no image is rotated and any size is possible; a few convolutions
of width 1 join what the directions see.
"""

from __future__ import annotations

from copy import copy
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from napari_ssdenoise.networks.blocks import CONV, FLOAT_CONV
from napari_ssdenoise.networks.fused import convolve
from napari_ssdenoise.networks.windows import Window, reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

SLOPE = 0.1  # of the leaky ReLU


class Direction(NamedTuple):
    """Where a half-plane lies: on the side of small indices (``sign`` 1) or large ones (-1) of a spatial axis."""

    axis: int
    sign: int

    def keep(self, x: Tensor, length: int, extra: int) -> Tensor:
        """Cut ``length`` planes out of ``length + extra``: those that the half-plane reaches."""
        return x.narrow(self.axis + 2, 0 if self.sign > 0 else extra, length)

    def window(self, axis: int, across: Window, back: int, ahead: int, down: int = 1) -> Window:
        """Return a layer's window: ``back`` planes into the half-plane and ``ahead`` out of it along the direction."""
        if axis != self.axis:
            return across
        return Window(back, ahead, down) if self.sign > 0 else Window(ahead, back, down)


class Turning(nn.Module):
    """A convolution (3 wide along it) along one direction: its output sees no plane beyond its own.

    Parameters
    ----------
    shared
        Holds the kernel, for growing indices along axis ``home``; not registered again here.
    home
        See above.
    direction
        Which the kernel is turned to.
    """

    def __init__(self, shared: nn.Conv2d | nn.Conv3d, home: int, direction: Direction) -> None:
        super().__init__()
        self.__dict__["shared"] = shared
        self.home = home
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        axis, sign = self.direction
        shared: Any = self.shared
        weight = shared.weight
        weight = weight.transpose(self.home + 2, axis + 2) if axis != self.home else weight
        weight = weight if sign > 0 else weight.flip(axis + 2)
        x = x.to(weight.dtype) if weight.dtype is torch.bfloat16 else x
        # Padding by the convolution itself would be the same on both sides, and four times as slow backwards.
        sides = [n // 2 for n in weight.shape[2:]]
        padded = F.pad(x, _behind(self.direction, 2, sides))
        return convolve(padded, weight, shared.bias, [0] * (x.ndim - 2), slope=SLOPE)

    def window(self, axis: int) -> Window:
        """Return the input that an output plane needs."""
        shared: Any = self.shared
        side = shared.kernel_size[axis] // 2
        return self.direction.window(axis, Window(side, side), 2, 0)


class ShiftedPool(nn.Module):
    """Max-pooling, shifted by one plane against the direction: a pooled plane must not reveal what comes after it."""

    def __init__(self, factors: Sequence[int], direction: Direction) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        axis = self.direction.axis
        pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
        if self.factors[axis] == 1:
            return pool(x, self.factors)
        padding = [1 if d == axis else 0 for d in range(x.ndim - 2)]
        return self.direction.keep(pool(x, self.factors, padding=padding), x.shape[axis + 2] // 2, 1)

    def window(self, axis: int) -> Window:
        """Return the input that an output plane needs."""
        factor = self.factors[axis]
        if factor == 1:
            return Window()
        return self.direction.window(axis, Window(down=factor), 1, -1, factor)


class Shift(nn.Module):
    """Move an image by some planes along the direction: by one, the pixel itself is invisible; by more, neighbours."""

    def __init__(self, direction: Direction, count: int = 1) -> None:
        super().__init__()
        self.direction = direction
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        planes = x.shape[self.direction.axis + 2]
        count = min(self.count, planes)  # of a thin part of an image, all planes may move out of it
        kept = self.direction.keep(x, planes - count, count)
        return F.pad(kept, _behind(self.direction, count, [0] * (x.ndim - 2)))

    def window(self, axis: int) -> Window:
        """Return the input that an output plane needs."""
        return self.direction.window(axis, Window(), self.count, -self.count)


def _behind(direction: Direction, count: int, sides: Sequence[int]) -> list[int]:
    """Return the padding for `F.pad`: ``count`` planes far in the half-plane, and at the ``sides`` of each axis."""
    padding = [n for side in reversed(sides) for n in (side, side)]
    place = 2 * (len(sides) - 1 - direction.axis)  # F.pad counts from the last axis
    padding[place : place + 2] = (count, 0) if direction.sign > 0 else (0, count)
    return padding


class _Kernels(nn.Module):
    """The convolutions of one branch, which all its directions share."""

    def __init__(self, ndim: int, channels: int, depth: int, width: int, *, flat: bool = False) -> None:
        super().__init__()
        conv = CONV[ndim]
        size: Any = (1, 3, 3) if flat else 3
        self.encoder = nn.ModuleList(
            nn.ModuleList([conv(width if level else channels, width, size), conv(width, width, size)])
            for level in range(depth)
        )
        self.bottom = conv(width, width, size)
        self.decoder = nn.ModuleList(
            nn.ModuleList([conv(2 * width, width, size), conv(width, width, size)]) for _ in range(depth)
        )


class _Branch(nn.Module):
    """The U-Net that looks in one direction."""

    def __init__(
        self, kernels: _Kernels, home: int, direction: Direction, factors: Sequence[int], shift: int = 1
    ) -> None:
        super().__init__()

        def pair(convs: Any) -> nn.Sequential:
            return nn.Sequential(*(Turning(conv, home, direction) for conv in convs))

        self.encoder = nn.ModuleList(pair(convs) for convs in kernels.encoder)
        self.pool = ShiftedPool(factors, direction)
        self.bottom = Turning(kernels.bottom, home, direction)
        self.up = nn.Upsample(scale_factor=tuple(float(f) for f in factors), mode="nearest")
        self.decoder = nn.ModuleList(pair(convs) for convs in kernels.decoder)
        self.shift = Shift(direction, shift)

    def forward(self, x: Tensor) -> Tensor:
        blind: Tensor = self.shift(self.look(x))
        return blind

    def look(self, x: Tensor) -> Tensor:
        """Return what is seen up to a pixel, with the pixel itself."""
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for block in self.decoder:
            x = block(torch.cat([self.up(x), skips.pop()], 1))
        return x


class Scale(nn.Module):
    """Multiply every channel by a factor that may be learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.logarithm.exp().reshape(-1, *(1,) * (x.ndim - 2))

    def window(self, axis: int) -> Window:
        """Return the input that an output plane needs: itself."""
        return Window()


def sub_lattices(x: Tensor, spacing: Sequence[int]) -> Tensor:
    """Cut images (B, C, *spatial) into images of every so many pixels, (prod(spacing) * B, C, *smaller)."""
    for axis, n in enumerate(spacing, 2):
        x = torch.cat([x[(slice(None),) * axis + (slice(first, None, n),)] for first in range(n)]) if n > 1 else x
    return x


def joined(x: Tensor, spacing: Sequence[int]) -> Tensor:
    """Undo `sub_lattices`."""
    for axis, n in reversed([*enumerate(spacing, 2)]):
        x = torch.stack(x.chunk(n), axis + 1).flatten(axis, axis + 1) if n > 1 else x
    return x


def _mixing(ndim: int, *widths: int) -> nn.Sequential:
    """Make layers that mix the filters of each pixel, from as many to as many."""
    layers = [(CONV[ndim](seen, made, 1), nn.LeakyReLU(SLOPE)) for seen, made in pairwise(widths)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))


class BlindSpotUNet(nn.Module):
    """Predict every pixel from all others; see the module.

    No batch norm: batch statistics would let a pixel see itself.

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    channels_in
        Image channels.
    channels_out
        Values to predict for each pixel.
    conditions
        Further input channels, which the network does not look at. It scales them, and hands them on behind its
        outputs.
    depth
        How many times the image is halved.
    width
        Filters of every layer of a branch.
    pooled
        Which spatial axes are halved; all by default.
    blind
        Odd width, per spatial axis, of the neighbourhood that is not looked at; 1, the pixel itself, by default.
    lattice
        Spacing, per spatial axis, of the sub-lattices that the image is cut into; each is looked at as an image of its
        own, so that a pixel does not see the neighbours that share its noise. 1, no cut, by default.
    slices
        In 3D: convolve within slices only, and let a pixel see so many slices on either side; None convolves in all
        directions.

    Notes
    -----
    With ``slices``, a pixel is predicted from its own slice without itself, and from all of the slices beside it: their
    noise is not its own. What the directions see there is at hand, so this costs little more than one slice by itself,
    and the network can begin as one for single slices (`from_flat`).

    Without, in 3D, the two half-spaces along the first axis have kernels of their own, since neither resolution nor
    sampling are the same as in the plane.
    """

    def __init__(
        self,
        ndim: int,
        channels_in: int = 1,
        channels_out: int = 2,
        conditions: int = 0,
        *,
        depth: int = 3,
        width: int = 32,
        pooled: Sequence[bool] | None = None,
        blind: Sequence[int] | None = None,
        lattice: Sequence[int] | None = None,
        slices: int | None = None,
    ) -> None:
        super().__init__()
        self.blind = tuple(blind or (1,) * ndim)
        self.lattice = tuple(lattice or (1,) * ndim)
        self.channels_in = channels_in
        self.conditions = conditions
        halved = [*(pooled or (True,) * ndim)]
        if slices is not None:
            halved[0] = False
        self.factors = tuple(2 if p else 1 for p in halved)
        self.depth = depth
        plane = range(ndim - 2, ndim)
        flat = slices is not None
        groups = [plane] if ndim == 2 or flat else [plane, range(ndim - 2)]
        kernels = [_Kernels(ndim, channels_in, depth, width, flat=flat) for _ in groups]
        self.kernels = nn.ModuleList(kernels)
        self.branches = nn.ModuleList(
            _Branch(own, axes[0], Direction(axis, sign), self.factors, (self.blind[axis] + 1) // 2)
            for own, axes in zip(kernels, groups, strict=True)
            for axis in axes
            for sign in (1, -1)
        )
        seen = len(self.branches) * width
        self.slices = slices or 0
        if self.slices:
            self.whole = _mixing(ndim, seen, width)
            self.beside = nn.ModuleList(
                Shift(Direction(0, sign), count) for count in range(1, self.slices + 1) for sign in (1, -1)
            )
        self.join = _mixing(ndim, seen + 2 * self.slices * width, seen, 2 * width)
        self.head = FLOAT_CONV[ndim](2 * width, channels_out, 1)
        self.scale = Scale(conditions)
        self._initialise()

    def _initialise(self) -> None:
        """Start as He et al. (2015) do, for leaky ReLU; the last layer with gain 1 (Laine et al., appendix)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        fan_in = prod(self.head.weight.shape[1:])
        nn.init.normal_(self.head.weight, std=fan_in**-0.5)

    def from_flat(self, weights: Mapping[str, Tensor]) -> None:
        """Begin as a network for single slices, with its weights; what the slices beside tell is still to be learnt."""
        own = self.state_dict()
        for name, value in weights.items():
            # Kernels and layers of width 1 get an axis of length 1; the first layer that joins has more inputs.
            given = value[:, :, None] if own[name].ndim == value.ndim + 1 else value
            fitted = torch.zeros_like(own[name])
            fitted[tuple(slice(0, n) for n in given.shape)] = given
            own[name] = fitted
        self.load_state_dict(own)

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit."""
        return tuple(spacing * int(f) ** self.depth for spacing, f in zip(self.lattice, self.factors, strict=True))

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are: the joined directions, before and after a layer."""
        first: Any = self.join[0]
        return 3 * int(first.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        if max(self.lattice) == 1:
            return self._whole(x)
        return joined(self._whole(sub_lattices(x, self.lattice)), self.lattice)

    def _whole(self, x: Tensor) -> Tensor:
        image = x[:, : self.channels_in]
        together = self.training and image.shape[-1] == image.shape[-2] and self.blind[-1] == self.blind[-2]
        whole = self._together(image) if together else [branch.look(image) for branch in self._looking()]
        seen = [branch.shift(part) for branch, part in zip(self._looking(), whole, strict=True)]
        if self.slices:
            around = self.whole(torch.cat(whole, 1))
            seen += [beside(around) for beside in self.beside]
        out: Tensor = self.head(self.join(torch.cat(seen, 1)))
        return torch.cat([out, self.scale(x[:, self.channels_in :])], 1) if self.conditions else out

    def _looking(self) -> list[Any]:
        return list(self.branches)

    def _together(self, image: Tensor) -> list[Tensor]:
        """Turn copies of the image instead of the kernels: the same, and faster in training, one batch for all."""
        y, x = image.ndim - 2, image.ndim - 1
        turned = image.transpose(y, x)
        sides = torch.cat([image, image.flip(y), turned, turned.flip(y)])
        up, down, left, right = self._looking()[0].look(sides).chunk(4)
        seen = [up, down.flip(y), left.transpose(y, x), right.flip(y).transpose(y, x)]
        if len(self.branches) > 4:  # along the first of three axes
            before, after = self._looking()[4].look(torch.cat([image, image.flip(2)])).chunk(2)
            seen += [before, after.flip(2)]
        return seen

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        single = copy(self)  # the same layers, without the cut
        single.lattice = (1,) * len(self.lattice)
        return tuple(spacing * n for spacing, n in zip(self.lattice, reach(single, single.stride), strict=True))
