"""The blind-spot network sees every pixel but its own, in any direction, size and way of computing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_ssdenoise.engine.flow import Flow
from napari_ssdenoise.networks.blindspot import BlindSpotUNet
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
from napari_ssdenoise.networks.windows import trace


def random_network(ndim: int, **settings: object) -> BlindSpotUNet:
    """Return a network in double precision, with biases that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BlindSpotUNet(ndim, **{"depth": 2, "width": 4, **settings}).double().eval()  # type: ignore[arg-type]
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.normal_(module.bias, std=0.2)  # type: ignore[arg-type]
    return network


def random_image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(network: BlindSpotUNet, image: Tensor, pixel: tuple[int, ...]) -> Tensor:
    """Return how a pixel's prediction depends on every pixel of the image."""
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(image)[(0, slice(None), *pixel)].sum(), image)
    return gradient[0].abs().sum(0)


CASES = [
    (2, (12, 16), {}),
    (2, (24, 8), {"depth": 3}),
    (2, (7, 16), {"pooled": (False, True)}),
    (2, (12, 16), {"channels_in": 3, "channels_out": 9}),
    (3, (4, 8, 8), {}),
    (3, (5, 8, 8), {"pooled": (False, True, True)}),
]
REACHES = [*CASES, (2, (16, 16), {"blind": (5, 3)}), (2, (24, 16), {"lattice": (2, 1)})]


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("ndim", "shape", "settings"), CASES, ids=str)
def test_a_pixel_sees_all_others_and_never_itself(
    ndim: int, shape: tuple[int, ...], settings: dict[str, object], training: bool
) -> None:
    network = random_network(ndim, **settings).train(training)
    image = random_image(1, network.channels_in, *shape)
    middle = tuple(n // 2 for n in shape)
    for pixel in [*np.ndindex(*shape)][:: 7 if ndim == 2 else 23]:
        gradient = gradients(network, image, pixel)
        assert gradient[pixel] == 0
        assert gradient.sum() > 0
        if pixel == middle:
            assert torch.count_nonzero(gradient) == gradient.numel() - 1
    seen = gradients(network, image, middle)
    neighbours = [tuple(np.add(middle, offset) - 1) for offset in np.ndindex(*(3,) * ndim)]
    assert all(seen[n] > 0 for n in neighbours if n != middle)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    ("shape", "lattice"), [((16, 16), (2, 2)), ((24, 8), (3, 1)), ((4, 16, 16), (1, 2, 2))], ids=str
)
def test_a_sub_lattice_is_an_image_of_its_own(shape: tuple[int, ...], lattice: tuple[int, ...], training: bool) -> None:
    network, image = random_network(len(shape), lattice=lattice).train(training), random_image(2, 1, *shape)
    single = random_network(len(shape)).train(training)  # the same parameters
    found = network(image)
    for first in np.ndindex(*lattice):
        own = (slice(None), slice(None), *(slice(f, None, n) for f, n in zip(first, lattice, strict=True)))
        torch.testing.assert_close(found[own], single(image[own]))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    ("shape", "blind"),
    [((16, 16), (3, 3)), ((24, 16), (1, 7)), ((8, 8, 8), (1, 3, 3)), ((4, 8, 16), (3, 1, 5))],
    ids=str,
)
def test_a_neighbourhood_can_be_blind(shape: tuple[int, ...], blind: tuple[int, ...], training: bool) -> None:
    """Nothing of the rectangle is seen, and all beside it is."""
    network = random_network(len(shape), blind=blind).train(training)
    middle = tuple(n // 2 for n in shape)
    gradient = gradients(network, random_image(1, 1, *shape), middle)
    hidden = tuple(slice(m - n // 2, m + n // 2 + 1) for m, n in zip(middle, blind, strict=True))
    assert torch.count_nonzero(gradient[hidden]) == 0
    assert torch.count_nonzero(gradient) == gradient.numel() - gradient[hidden].numel()


def test_squares_are_turned_in_training_with_the_same_result() -> None:
    for ndim, shape in ((2, (16, 16)), (3, (8, 16, 16))):
        network, image = random_network(ndim), random_image(2, 1, *shape)
        torch.testing.assert_close(network.train()(image), network.eval()(image))


@pytest.mark.parametrize(("ndim", "shape", "settings"), REACHES, ids=str)
def test_reach_is_exact(ndim: int, shape: tuple[int, ...], settings: dict[str, object]) -> None:
    network = random_network(ndim, **settings)
    for axis, far in enumerate(network.reach()):
        grid = network.stride[axis]
        length = -(-(2 * far + 3) // grid) * grid + grid
        sizes = [4 * s if d != axis else length for d, s in enumerate(network.stride)]
        image = random_image(1, network.channels_in, *sizes)
        found = 0
        for phase in range(grid):
            pixel = tuple(
                n // 2 // s * s + (phase if d == axis else 0)
                for d, (n, s) in enumerate(zip(sizes, network.stride, strict=True))
            )
            seen = gradients(network, image, pixel).amax([d for d in range(ndim) if d != axis]).nonzero()[:, 0]
            found = max(found, int((seen - pixel[axis]).abs().max()))
        assert found == far


@pytest.mark.parametrize(("ndim", "shape", "axis"), [(2, (48, 16), 0), (3, (16, 16, 8), 0), (3, (8, 32, 8), 1)])
def test_stacks_flow_through_it(ndim: int, shape: tuple[int, ...], axis: int) -> None:
    network = random_network(ndim, conditions=2, depth=1 if ndim == 3 else 2)
    network.to(memory_format=MEMORY_FORMAT[ndim])
    graph = trace(network)
    assert graph is not None
    image = random_image(1, 3, *shape).contiguous(memory_format=MEMORY_FORMAT[ndim])
    parts = []
    with torch.inference_mode():
        flow = Flow(graph, axis, shape[axis], 4)
        slabs = iter(image.split(4, axis + 2))
        while flow.end < shape[axis]:
            part = flow.push(next(slabs, None))
            if part is not None:
                parts.append(part.clone())
        torch.testing.assert_close(torch.cat(parts, axis + 2), network(image))


def test_conditions_are_handed_on_scaled() -> None:
    network = random_network(2, conditions=2)
    network.scale.logarithm.data = torch.tensor([0.0, 2.0], dtype=torch.float64).log1p()
    image = random_image(1, 3, 8, 8)
    out = network(image)
    torch.testing.assert_close(out[:, 2], image[:, 1])
    torch.testing.assert_close(out[:, 3], 3 * image[:, 2])
    blind = network(torch.cat([image[:, :1], 0 * image[:, 1:]], 1))
    torch.testing.assert_close(out[:, :2], blind[:, :2])


def test_slices_beside_are_seen_whole_and_the_own_one_without_the_pixel() -> None:
    torch.manual_seed(0)
    network = BlindSpotUNet(3, 1, 1, depth=1, width=4, slices=2).double().eval()
    image = torch.randn(1, 1, 7, 12, 12, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, 0, 3, 6, 6], image)
    at_pixel = gradient[0, 0, :, 6, 6].abs()
    assert at_pixel[3] == 0
    assert (at_pixel[[1, 2, 4, 5]] > 0).all()
    assert (gradient[0, 0, [0, 6]] == 0).all()
    assert network.reach()[0] == 2
    assert network.stride[0] == 1


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_slices_beside_are_cut_into_sub_lattices_like_the_own_one(training: bool) -> None:
    network = random_network(3, depth=1, slices=1, lattice=(1, 2, 2)).train(training)
    gradient = gradients(network, random_image(1, 1, 5, 16, 16), (2, 6, 7))
    assert gradient[2, 6, 7] == 0
    assert (gradient[[1, 3], 6, 7] > 0).all()
    own = torch.zeros_like(gradient, dtype=torch.bool)
    own[1:4, ::2, 1::2] = True
    assert torch.count_nonzero(gradient[~own]) == 0  # no neighbour, which shares its noise, in any slice
    assert (network.reach()[0], network.stride) == (1, (1, 4, 4))


def test_a_network_for_stacks_begins_as_that_for_slices() -> None:
    torch.manual_seed(0)
    flat = BlindSpotUNet(2, 1, 2, 4, depth=2, width=8).eval()
    network = BlindSpotUNet(3, 1, 2, 4, depth=2, width=8, slices=1)
    network.from_flat(flat.state_dict())
    image = torch.randn(1, 5, 3, 16, 16)
    alone = torch.stack([flat(image[:, :, z]) for z in range(3)], 2)
    torch.testing.assert_close(network.eval()(image), alone)
    torch.testing.assert_close(network.train()(image), alone)  # copies of the image turned, not the kernels


@pytest.mark.parametrize("slab", [1, 2, 4])
def test_slices_beside_come_slab_by_slab_as_well(slab: int) -> None:
    torch.manual_seed(0)
    network = BlindSpotUNet(3, 1, 1, depth=1, width=4, slices=2).eval()
    image = torch.randn(1, 1, 6, 16, 16)
    whole = network(image)
    graph = trace(network)
    assert graph is not None
    flow, slabs, parts = Flow(graph, 0, 6, slab), iter(image.split(slab, 2)), []
    with torch.inference_mode():
        while flow.end < 6:
            part = flow.push(next(slabs, None))
            if part is not None:
                parts.append(part.clone())
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-4, atol=1e-5)
