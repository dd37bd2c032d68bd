"""A fused activation gives what two layers give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_ssdenoise.networks import fused
from napari_ssdenoise.networks.fused import convolve


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
@pytest.mark.parametrize("slope", [None, 0.0, 0.1])
@torch.inference_mode()
def test_it_equals_convolution_and_activation(shape: tuple[int, ...], slope: float | None, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ndim = len(shape)
    x, weight = torch.randn(2, 3, *shape, dtype=dtype), torch.randn(4, 3, *(3,) * ndim, dtype=dtype)
    bias, padding = torch.randn(4, dtype=dtype), [1, 0, 1][:ndim]
    plain = (F.conv2d if ndim == 2 else F.conv3d)(x, weight, bias, 1, padding)
    expected = plain if slope is None else F.leaky_relu(plain, slope)
    made = convolve(x, weight, bias, padding, slope=slope)
    assert made.dtype == dtype
    torch.testing.assert_close(made, expected)
    assert (made < 0).any() == (slope != 0.0)


def test_gradients_flow() -> None:
    x, weight = torch.randn(1, 1, 6, 6, requires_grad=True), torch.randn(2, 1, 3, 3, requires_grad=True)
    convolve(x, weight, None, [1, 1], slope=0.1).sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in (x, weight))


@torch.inference_mode()
def test_builds_of_torch_without_it_do_the_same_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3)
    expected = convolve(x, weight, None, [1, 1], slope=0.0)
    monkeypatch.setattr(fused, "_is_fused", lambda dtype: False)
    torch.testing.assert_close(convolve(x, weight, None, [1, 1], slope=0.0), expected)
