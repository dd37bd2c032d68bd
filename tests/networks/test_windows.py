"""Which inputs a layer needs: exact for known layers, and an honest "unknown" for all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from napari_ssdenoise.networks.blocks import MaxBlurPool, MaxPool
from napari_ssdenoise.networks.unet import UNet
from napari_ssdenoise.networks.windows import Window, reach, trace


class MeanPool(nn.Module):
    """Averages instead of the maximum: every input counts, whatever the other pixels are."""

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.functional.avg_pool2d if len(self.factors) == 2 else nn.functional.avg_pool3d
        return pool(x, self.factors)

    def window(self, axis: int) -> Window:
        return Window(down=self.factors[axis])


def all_seeing(network: UNet) -> UNet:
    """Make every output depend on all inputs within reach: no dead units, no maxima, all weights positive."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Identity())
            elif isinstance(child, MaxPool):
                setattr(module, name, MeanPool(child.factors))
    for parameter in network.parameters():
        parameter.data.abs_().clamp_(min=0.1)
    return network.double().eval()


def seen_reach(network: UNet, shape: Sequence[int]) -> tuple[int, ...]:
    """Change one pixel of every phase of the grid, and measure how far away outputs move."""
    zeros = torch.zeros((1, 1, *shape), dtype=torch.float64)
    reached = [0] * len(shape)
    with torch.inference_mode():
        still = network(zeros)
        for axis, stride in enumerate(network.stride):
            for phase in range(stride):
                pixel = [n // 2 // s * s for n, s in zip(shape, network.stride, strict=True)]
                pixel[axis] += phase
                noisy = zeros.clone()
                noisy[(0, 0, *pixel)] = 1e6
                moved = (network(noisy) != still)[0, 0].nonzero()
                reached[axis] = max(reached[axis], int((moved[:, axis] - pixel[axis]).abs().max()))
    return tuple(reached)


@pytest.mark.parametrize(
    ("ndim", "settings"),
    [
        (2, {"depth": 1}),
        (2, {"depth": 2}),
        (2, {"depth": 3}),
        (2, {"depth": 2, "residual": True}),
        (2, {"depth": 2, "pooled": (False, True)}),
        (3, {"depth": 1}),
        (3, {"depth": 2, "pooled": (False, True, True)}),
    ],
    ids=str,
)
def test_reach_is_what_moves(ndim: int, settings: dict[str, Any]) -> None:
    network = all_seeing(UNet(ndim, width=1, **settings))
    shape = [(2 * r + 2) // s * s + 2 * s for r, s in zip(network.reach(), network.stride, strict=True)]
    assert seen_reach(network, shape) == network.reach()


@pytest.mark.parametrize(("ndim", "depth"), [(2, 1), (2, 2), (3, 1)])
def test_reach_with_blurred_pooling_is_never_too_small(ndim: int, depth: int) -> None:
    """A maximum hides some inputs, so that a single pixel shows a little less than the whole reach."""
    network = all_seeing(UNet(ndim, width=1, depth=depth, blurpool=True))
    told = network.reach()
    seen = seen_reach(network, [(2 * r + 2) // s * s + 2 * s for r, s in zip(told, network.stride, strict=True)])
    for s, t in zip(seen, told, strict=True):
        assert t - 2**depth <= s <= t


@given(
    st.integers(0, 3), st.integers(0, 3), st.sampled_from([(1, 1), (2, 1), (1, 2), (3, 1), (1, 4)]), st.integers(1, 40)
)
def test_needs_and_gives_agree(before: int, after: int, factors: tuple[int, int], count: int) -> None:
    window = Window(before, after, *factors)
    outputs = window.gives(count)
    if outputs > 0:
        assert window.needs(0, outputs)[1] <= count
    assert window.needs(max(outputs, 0), max(outputs, 0) + 1)[1] > count
    low, high = window.needs(5, 9)
    assert (low, high) == (
        min(window.needs(i, i + 1)[0] for i in range(5, 9)),
        max(window.needs(i, i + 1)[1] for i in range(5, 9)),
    )


def test_blurred_pooling_tells_its_window() -> None:
    pool = MaxBlurPool((1, 2))
    assert pool.window(0) == Window()
    noisy = torch.zeros(1, 1, 3, 16)
    moved = []
    for x in range(4, 12):
        noisy[..., x] = 1.0
        moved.append((pool(noisy)[0, 0, 1] != 0).nonzero().flatten().tolist())
        noisy[..., x] = 0.0
    for x, outputs in enumerate(moved, 4):
        for i in outputs:
            low, high = pool.window(1).needs(i, i + 1)
            assert low <= x < high


class Own(nn.Module):
    """Shifts the image, and tells so."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), _Shift())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


class _Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, 0, 5, 0))[..., :-5, :]

    def window(self, axis: int) -> Window:
        return Window(5, 0) if axis == 0 else Window()


def test_a_module_may_tell_its_own_window() -> None:
    assert reach(Own(), (1, 1)) == (6, 1)


class Network(nn.Module):
    """A forward pass of one line."""

    def __init__(self, forward: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.line = forward

    def forward(self, x: Tensor) -> Any:
        return self.line(self, x)


class TwoInputs(nn.Module):
    """Takes more than an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(x)
        return out


UNKNOWN = {
    "depends on the values": Network(lambda self, x: self.conv(x) if x.mean() > 0 else x),
    "global statistics": Network(lambda self, x: self.conv(x) - x.mean()),
    "sees the whole image": Network(lambda self, x: self.norm(x), norm=nn.InstanceNorm2d(1)),
    "strided": Network(lambda self, x: self.down(x), down=nn.Conv2d(1, 1, 2, stride=2)),
    "strided along the last axis": Network(lambda self, x: self.d(x), d=nn.Conv3d(1, 1, 3, (1, 1, 2), padding=1)),
    "shrinks": Network(lambda self, x: self.valid(x), valid=nn.Conv2d(1, 1, 3)),
    "wraps around": Network(lambda self, x: self.c(x), c=nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
    "transposed": Network(lambda self, x: self.t(x), t=nn.ConvTranspose2d(1, 1, 2, 2)),
    "smooth upsampling": Network(lambda self, x: self.up(x), up=nn.Upsample(scale_factor=(2.0, 2.0), mode="bilinear")),
    "odd upsampling": Network(lambda self, x: self.up(x), up=nn.Upsample(scale_factor=(1.5, 1.5), mode="nearest")),
    "crops": Network(lambda self, x: self.conv(x)[..., 1:, :]),
    "joins along an image axis": Network(lambda self, x: torch.cat([x, x], 2)),
    "several results": Network(lambda self, x: (self.conv(x), x)),
    "a named result": Network(lambda self, x: {"mean": self.conv(x)}),
    "several inputs": TwoInputs(),
    "a function of torch that is not known": Network(lambda self, x: torch.flip(self.conv(x), (2,))),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_networks_are_run_whole(kind: str) -> None:
    assert trace(UNKNOWN[kind]) is None
    with pytest.raises(ValueError, match=r"not known.*reach"):
        reach(UNKNOWN[kind], (1, 1))


KNOWN = {
    "dilated": (Network(lambda self, x: self.d(x), d=nn.Conv2d(1, 1, 3, padding=2, dilation=2)), 2),
    "skips": (Network(lambda self, x: self.one(torch.cat([self.conv(x), x], dim=1)), one=nn.Conv2d(2, 1, 1)), 1),
    "arithmetic": (Network(lambda self, x: 2 * torch.relu(self.conv(self.conv(x))) + x[:, :1] / 3 - x), 2),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_known_networks(kind: str) -> None:
    network, expected = KNOWN[kind]
    assert reach(network, (1, 1)) == (expected, expected)


def test_writing_down_a_network_disturbs_no_other_thread() -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    network, stop = UNet(2, width=4).eval(), Event()

    def run() -> int:
        count = 0
        with torch.inference_mode():
            while not stop.is_set():
                network(torch.zeros(1, 1, 8, 8))
                count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        for _ in range(30):
            assert trace(UNet(2, width=4)) is not None
        stop.set()
        assert running.result() > 0
