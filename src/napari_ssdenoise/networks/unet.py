"""The U-Net that Noise2Void, Noise2Noise and their kin share, in 2D and 3D."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_ssdenoise.networks.blocks import FLOAT_CONV, ConvBlock, MaxBlurPool, MaxPool
from napari_ssdenoise.networks.windows import reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class UNet(nn.Module):
    """Encoder and decoder with skip connections; any output size that the strides divide.

    With ``depth=2, width=32, ndim=2`` it has 333,729 parameters, in 3D 997,857: the network that the field's tools
    use by default, so that comparisons are fair.

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    channels_in, channels_out
        Image channels.
    depth
        How many times the image is halved.
    width
        Filters of the first level; doubled at every level below.
    pooled
        Which spatial axes are halved; all by default. Thin stacks keep their planes.
    blurpool
        N2V2's pooling without aliasing, and no skip connection at full resolution.
    residual
        Add the input to the output, so that the network predicts the (negative) noise.
    """

    def __init__(
        self,
        ndim: int,
        channels_in: int = 1,
        channels_out: int = 1,
        *,
        depth: int = 2,
        width: int = 32,
        pooled: Sequence[bool] | None = None,
        blurpool: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.blurpool = blurpool
        self.factors = tuple(2 if p else 1 for p in (pooled or (True,) * ndim))
        widths = [width * 2**level for level in range(depth)]
        below = [channels_in, *widths]
        self.encoder = nn.ModuleList(
            ConvBlock(ndim, inner, outer, outer) for inner, outer in zip(below[:-1], widths, strict=True)
        )
        self.pool = MaxBlurPool(self.factors) if blurpool else MaxPool(self.factors)
        deepest = widths[-1]
        self.bottom = ConvBlock(ndim, deepest, 2 * deepest, deepest)
        self.up = nn.Upsample(scale_factor=tuple(float(f) for f in self.factors), mode="nearest")
        self.decoder = nn.ModuleList()
        for level in reversed(range(depth)):
            skip = 0 if blurpool and level == 0 else widths[level]
            out = widths[level] // 2 if level else widths[0]
            self.decoder.append(ConvBlock(ndim, widths[level] + skip, widths[level], out))
        self.head = FLOAT_CONV[ndim](widths[0], channels_out, 1)

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit."""
        return tuple(int(f) ** len(self.encoder) for f in self.factors)

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are: in the last block, concatenated skips included (measured)."""
        return 6 * int(self.head.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self._features(x))
        return x[:, : self.head.out_channels] + out if self.residual else out

    def at(self, x: Tensor, batch: Tensor, pixel: Tensor) -> Tensor:
        """Return the output, (M, C), at a few pixels only, without the cost of the last layer at all others.

        Parameters
        ----------
        x : (B, C, *spatial)
        batch, pixel : (M,)
            For every pixel, its image and its flat spatial index.
        """
        row = batch * prod(x.shape[2:]) + pixel

        def chosen(image: Tensor) -> Tensor:
            return image.movedim(1, -1).reshape(-1, image.shape[1])[row]  # index_select takes five times as long

        features = chosen(self._features(x)).T.reshape(1, -1, len(row), *(1,) * (x.ndim - 3))
        out: Tensor = self.head(features)[0].flatten(1).T
        return chosen(x)[:, : self.head.out_channels] + out if self.residual else out

    def _features(self, x: Tensor) -> Tensor:
        """Return what the last layer sees."""
        skips: list[Tensor] = []
        y: Tensor = x
        for block in self.encoder:
            y = block(y)
            skips.append(y)
            y = self.pool(y)
        y = self.bottom(y)
        for block in self.decoder:
            y = self.up(y)
            skip = skips.pop()
            if not (self.blurpool and not skips):
                y = torch.cat([y, skip], 1)
            y = block(y)
        return y

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        return reach(self, self.stride)
