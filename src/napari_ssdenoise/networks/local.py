"""Networks that see a neighbourhood of a pixel and no more: SASL's locally aware network (Li et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_ssdenoise.networks.blindspot import BlindSpotUNet
from napari_ssdenoise.networks.blocks import CONV, FLOAT_CONV

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_ssdenoise.networks.unet import UNet


class Attention(nn.Module):
    """Weigh the channels by what they are on average."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.weigh(x.mean(tuple(range(2, x.ndim))))
        return x * weights.reshape(*weights.shape, *(1,) * (x.ndim - 2))


class PointwiseBlock(nn.Module):
    """Two convolutions of width 1 and attention, added to the input."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.body = nn.Sequential(conv(width, width, 1), nn.ReLU(), conv(width, width, 1), Attention(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class LocalNet(nn.Sequential):
    """Predict a pixel from the 3 x 3 (x 3) pixels around it.

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    channels
        Of the image.
    width, blocks
        Filters, and blocks of convolutions of width 1.
    """

    def __init__(self, ndim: int, channels: int, *, width: int = 64, blocks: int = 6) -> None:
        conv = CONV[ndim]
        super().__init__(
            conv(channels, width, 1),
            nn.ReLU(),
            conv(width, width, 3, padding=1),
            *(PointwiseBlock(ndim, width) for _ in range(blocks)),
            FLOAT_CONV[ndim](width, channels, 1),
        )


class AdaptiveNet(nn.Module):
    """The three networks of SASL; only the U-Net is applied in the end.

    Parameters
    ----------
    unet
        What is to be learnt.
    ndim, channels, pooled
        Spatial dimensions, image channels and which axes are halved.
    blind
        Odd width, per axis, of the neighbourhood that shares a pixel's noise.
    """

    def __init__(self, unet: UNet, ndim: int, channels: int, pooled: Sequence[bool], blind: Sequence[int]) -> None:
        super().__init__()
        self.unet = unet
        self.blind = BlindSpotUNet(ndim, channels, channels, pooled=pooled, blind=blind)
        self.local = LocalNet(ndim, channels)

    @property
    def stride(self) -> tuple[int, ...]:
        """The grid, per axis, that input sizes and tile starts must fit: the coarser one, the blind network's."""
        return tuple(max(a, b) for a, b in zip(self.unet.stride, self.blind.stride, strict=True))

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are."""
        return self.unet.activations

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        return self.unet.reach()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.unet(x)
        return out


def local_deviation(image: Tensor, width: int = 7) -> Tensor:
    """Return the standard deviation within windows of an image (B, C, *spatial), of the channels' mean.

    Returns
    -------
    (B, 1, *spatial)
        Of windows that are ``width`` wide along Y and X, mirrored at the borders.
    """
    grey: Any = image.float().mean(1, keepdim=True)
    flat = grey.flatten(0, -3).unsqueeze(1)
    padded = torch.nn.functional.pad(flat, (width // 2,) * 4, mode="reflect")
    mean = torch.nn.functional.avg_pool2d(padded, width, 1)
    square = torch.nn.functional.avg_pool2d(padded.square(), width, 1)
    return (square - mean.square()).clamp_min(0).sqrt().reshape(grey.shape)
