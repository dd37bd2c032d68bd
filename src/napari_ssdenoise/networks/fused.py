"""Convolution and activation in one pass over memory.

For wide images an activation of its own costs nearly as much as the convolution before it: it reads and writes every
value once more. oneDNN applies it while a convolution's output is still in the processor's cache.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    slope: float | None = None,
) -> Tensor:
    """Convolve with stride 1, then apply a leaky ReLU.

    Parameters
    ----------
    x : (batch, channels, *spatial)
        Two or three spatial axes.
    slope
        Of the leaky ReLU for negative values; 0 is the plain ReLU, None no activation.
    """
    ones = [1] * (x.ndim - 2)
    dilation = dilation or ones
    if slope is not None and not torch.is_grad_enabled() and x.device.type == "cpu" and _is_fused(weight.dtype):
        kind, scalars = ("leaky_relu", [slope]) if slope else ("relu", [])
        operator: Any = torch.ops.mkldnn._convolution_pointwise
        fused: Tensor = operator(x.to(weight.dtype), weight, bias, padding, ones, dilation, groups, kind, scalars, "")
        return fused
    function = F.conv2d if x.ndim == 4 else F.conv3d
    made = function(x, weight, bias, 1, padding, dilation, groups)
    return made if slope is None else F.leaky_relu(made, slope, inplace=True)


@cache
def _is_fused(dtype: torch.dtype) -> bool:
    """Tell whether this build of torch, on this processor, has the operator: it is not part of torch's public API."""
    if dtype not in (torch.bfloat16, torch.float32):
        return False
    x, weight = torch.ones(1, 1, 4, 4, dtype=dtype), -torch.ones(1, 1, 1, 1, dtype=dtype)
    operator: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    try:
        made = operator(x, weight, None, [0, 0], [1, 1], [1, 1], 1, "leaky_relu", [0.5], "")
    except (RuntimeError, TypeError):  # no such operator, no oneDNN, another signature
        return False
    return bool(torch.all(made == -0.5))


class _Rectified(nn.Module):
    """A convolution with its activation."""

    slope: float

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self
        return convolve(x, own.weight, own.bias, own.padding, own.dilation, own.groups, self.slope)


class RectifiedConv2d(_Rectified, nn.Conv2d):
    """Convolution and leaky ReLU, for inference."""


class RectifiedConv3d(_Rectified, nn.Conv3d):
    """Convolution and leaky ReLU, for inference."""


def rectified(convolution: Any, slope: float = 0.0) -> None:
    """Let a convolution (of stride 1, padded by zeros) apply the activation that follows it."""
    convolution.__class__ = RectifiedConv2d if isinstance(convolution, nn.Conv2d) else RectifiedConv3d
    convolution.slope = slope
