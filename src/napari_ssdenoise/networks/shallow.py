"""A network of three layers that learns in seconds what the noise is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_ssdenoise.networks.blocks import CONV, FLOAT_CONV
from napari_ssdenoise.networks.windows import reach

if TYPE_CHECKING:
    from torch import Tensor


class ShallowNet(nn.Module):
    """Two convolutions (3 wide) and a head that predicts the noise, which is taken off; images of any size.

    With the 48 filters of Mansour and Heckel (CVPR 2023) it has 21,313 parameters in 2D, 63,649 in 3D.

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    channels
        Image channels.
    width
        Filters.
    """

    def __init__(self, ndim: int, channels: int = 1, *, width: int = 48) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.body = nn.Sequential(
            conv(channels, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            conv(width, width, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.head = FLOAT_CONV[ndim](width, channels, 1)
        self.stride = (1,) * ndim

    @property
    def activations(self) -> int:
        """Values alive per input pixel where most are: around the second convolution, and the head's float32 input."""
        return 3 * int(self.head.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        noise: Tensor = self.head(self.body(x))
        return x - noise

    def reach(self) -> tuple[int, ...]:
        """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo."""
        return reach(self, self.stride)
