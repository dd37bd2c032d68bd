"""Building blocks of the networks, for any number of spatial dimensions."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_ssdenoise.networks.fused import rectified
from napari_ssdenoise.networks.windows import NORMS, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MEMORY_FORMAT = {2: torch.channels_last, 3: torch.channels_last_3d}


class ConvBlock(nn.Sequential):
    """Two times convolution (3 wide), batch norm, ReLU.

    Parameters
    ----------
    ndim
        Spatial dimensions, 2 or 3.
    channels_in, middle, channels_out
        Filters before, between and after the two convolutions.
    """

    def __init__(self, ndim: int, channels_in: int, middle: int, channels_out: int) -> None:
        conv, norm = CONV[ndim], BATCH_NORM[ndim]
        super().__init__(
            conv(channels_in, middle, 3, padding=1),
            norm(middle),
            nn.ReLU(inplace=True),
            conv(middle, channels_out, 3, padding=1),
            norm(channels_out),
            nn.ReLU(inplace=True),
        )


class _Float(nn.Module):
    """Keeps a layer in float32 under autocast: eight bits of mantissa would show as bands on a smooth background."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            out: Tensor = super().forward(x.to(self.weight.dtype))
        return out


class FloatConv2d(_Float, nn.Conv2d):
    """Convolution in float32."""


class FloatConv3d(_Float, nn.Conv3d):
    """Convolution in float32."""


FLOAT_CONV: dict[int, type[FloatConv2d | FloatConv3d]] = {2: FloatConv2d, 3: FloatConv3d}


class MaxPool(nn.Module):
    """Max-pooling by ``factors``, one per spatial axis."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d if len(self.factors) == 2 else F.max_pool3d
        return pool(x, self.factors)

    def window(self, axis: int) -> Window:
        return Window(down=self.factors[axis])


class MaxBlurPool(nn.Module):
    """Max-pooling with stride 1, then a binomial blur with stride ``factors``: pooling without aliasing.

    N2V2 (Höck et al. 2022) uses it against the checkerboard patterns of plain Noise2Void. The blur is
    [1 2 1]/4 along every pooled axis.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        kernel = torch.ones(1)
        for factor in self.factors:
            line = torch.tensor([1.0, 2.0, 1.0]) / 4 if factor > 1 else torch.ones(1)
            kernel = kernel[..., None] * line
        self.register_buffer("kernel", kernel[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = len(self.factors) == 2
        # A window of two with one replicated pixel behind keeps the size, as "same" pooling does.
        behind = [n for f in reversed(self.factors) for n in (0, f - 1)]
        x = (F.max_pool2d if flat else F.max_pool3d)(F.pad(x, behind, mode="replicate"), self.factors, stride=1)
        kernel = self.get_buffer("kernel").to(x.dtype)
        padding = [n // 2 for n in kernel.shape[2:]]
        conv = F.conv2d if flat else F.conv3d
        return conv(x, kernel.expand(x.shape[1], *kernel.shape[1:]), None, self.factors, padding, 1, x.shape[1])

    def window(self, axis: int) -> Window:
        return Window(1, 1, self.factors[axis]) if self.factors[axis] > 1 else Window()


def folded(network: nn.Module) -> Any:
    """Return a copy for inference: each convolution with the batch norm and the activation after it as one layer."""
    network = deepcopy(network).eval()
    for block in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        layers: list[Any] = []
        for layer in block:
            last: Any = layers[-1] if layers else None
            plain = type(last) in CONV.values() and max(last.stride) == 1 and last.padding_mode == "zeros"
            if plain and isinstance(layer, NORMS):
                layers[-1] = fuse_conv_bn_eval(last, layer)
            elif plain and isinstance(layer, (nn.ReLU, nn.LeakyReLU)):
                rectified(last, getattr(layer, "negative_slope", 0.0))
            else:
                layers.append(layer)
        del block[:]
        block.extend(layers)
    return network


def learning_format(network: Any, device: torch.device, dtype: torch.dtype) -> Mapping[int, torch.memory_format]:
    """Return the memory order in which a network learns fastest, by spatial dimensions.

    Processors without AVX-512 take twice as long for the gradients of a plain chain of convolutions with channels last;
    where sizes and widths change from layer to layer, there is hardly a difference.
    """
    plain = device.type == "cpu" and dtype is torch.float32 and getattr(network, "is_chain", False)
    if plain and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return dict.fromkeys(MEMORY_FORMAT, torch.contiguous_format)
    return MEMORY_FORMAT


def placed(network: Any, device: torch.device, layout: Mapping[int, torch.memory_format] = MEMORY_FORMAT) -> Any:
    """Move a network to a device, its kernels in a memory order; by default that which predicts fastest."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.ndim - 2 in layout:
            parameter.data = parameter.data.contiguous(memory_format=layout[parameter.ndim - 2])
    return network


def in_precision(network: Any, dtype: torch.dtype) -> Any:
    """Convert a network's weights in place, but not those of layers that stay in float32."""
    for module in network.modules():
        if not isinstance(module, _Float):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return network
