"""The U-Net's geometry: its size, its exact reach, its grid."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, folded
from napari_ssdenoise.networks.unet import UNet


def random_network(ndim: int, **settings: object) -> UNet:
    """Return a network with random weights and batch statistics, and no dead units."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(ndim, width=4, **settings).double().eval()  # type: ignore[arg-type]
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_()
    return network


@pytest.mark.parametrize(("ndim", "parameters"), [(2, 333_729), (3, 997_857)])
def test_size_is_that_of_the_field(ndim: int, parameters: int) -> None:
    assert sum(p.numel() for p in UNet(ndim).parameters()) == parameters


@pytest.mark.parametrize(
    "settings",
    [{}, {"blurpool": True}, {"depth": 3, "pooled": (True, False)}, {"pooled": (False, True)}, {"residual": True}],
    ids=str,
)
def test_reach_is_exact(settings: dict[str, object]) -> None:
    network = random_network(2, **settings)
    # Leaky units: a dead ReLU would hide a dependence.
    for block in (*network.encoder, network.bottom, *network.decoder):
        block[2], block[5] = nn.LeakyReLU(0.5), nn.LeakyReLU(0.5)
    size = (2 * max(network.reach()) + 2) // 16 * 16 + 16
    widest = [0, 0]
    for phase in product(*(range(s) for s in network.stride)):
        noisy = torch.randn((1, 1, size, size), dtype=torch.float64, requires_grad=True)
        at = [size // 2 // s * s + p for s, p in zip(network.stride, phase, strict=True)]
        network(noisy)[0, 0, at[0], at[1]].backward()
        touched = noisy.grad[0, 0].nonzero()
        widest = [max(w, int((touched[:, d] - at[d]).abs().max())) for d, w in enumerate(widest)]
    reach = network.reach()
    assert all(w <= r for w, r in zip(widest, reach, strict=True))
    # Max-pooling takes one of several pixels, so a single gradient may miss the very last one.
    assert all(w >= r - 4 for w, r in zip(widest, reach, strict=True))


@pytest.mark.parametrize("blurpool", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_folding_batch_norm_changes_nothing(ndim: int, blurpool: bool) -> None:
    network = random_network(ndim, blurpool=blurpool)
    noisy = torch.randn((1, 1, *(16,) * ndim), dtype=torch.float64)
    torch.testing.assert_close(folded(network)(noisy), network(noisy))


def test_unpooled_axis_needs_no_grid() -> None:
    network = UNet(3, width=4, pooled=(False, True, True))
    assert network.stride == (1, 4, 4)
    assert network(torch.zeros(1, 1, 5, 16, 16)).shape == (1, 1, 5, 16, 16)


def test_channels() -> None:
    assert UNet(2, 3, 3, width=4, residual=True)(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_a_few_pixels_are_those_of_the_whole(ndim: int, residual: bool) -> None:
    network = random_network(ndim, residual=residual, channels_in=2, channels_out=2)
    image = torch.randn((3, 2, *(8,) * ndim), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = image.to(memory_format=MEMORY_FORMAT[ndim])
    batch, pixel = torch.tensor([0, 2, 2, 1]), torch.tensor([5, 5, 8**ndim - 1, 0])
    found = network.at(image, batch, pixel)
    torch.testing.assert_close(found, network(image).flatten(2)[batch, :, pixel])
