"""The unrolled network fits the data, and its data consistency has the right gradient."""

from __future__ import annotations

import pytest
import torch

from napari_ssdenoise.networks.unrolled import Unrolled, _Consistent
from napari_ssdenoise.ops.kspace import Sense


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def operator() -> Sense:
    maps = noise(1, 3, 12, 10)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[[0, 3, 5, 6, 7, 9]] = True
    return Sense(maps, mask)


def test_data_consistency_and_its_gradients_are_those_of_the_solved_equations(operator: Sense) -> None:
    basis = torch.eye(120, dtype=torch.complex64).reshape(120, 1, 12, 10)
    matrix = operator.normal(basis).reshape(120, 120).T
    right, towards = operator.adjoint(operator.forward(noise(1, 12, 10, seed=1))), noise(1, 12, 10, seed=2)
    results = []
    for solve in ("network", "matrix"):
        image = noise(1, 12, 10, seed=3).requires_grad_()
        weight = torch.tensor(0.3, requires_grad=True)
        if solve == "network":
            found = _Consistent.apply(image, weight, operator, right, 60)
        else:
            system = matrix + weight * torch.eye(120)
            found = torch.linalg.solve(system, (right + weight * image).flatten()).reshape(1, 12, 10)
        (found * towards.conj()).real.sum().backward()
        results.append((found.detach(), image.grad, weight.grad))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact, atol=2e-4, rtol=2e-3)


def test_the_untrained_network_returns_an_image_that_fits_the_data(operator: Sense) -> None:
    image = noise(1, 12, 10, seed=1)
    data = operator.forward(image)
    network = Unrolled(1, width=4, depth=1)
    torch.testing.assert_close(network(image, operator, data, 40), image, atol=1e-3, rtol=1e-3)
    start = operator.adjoint(data)
    found = network(start, operator, data, 40)
    before, after = ((operator.forward(i) - data).norm() for i in (start, found))
    assert after < 0.2 * before


@pytest.mark.parametrize("sets", [1, 2])
def test_sizes_that_the_network_does_not_divide_are_kept(sets: int) -> None:
    operator = Sense(noise(sets, 3, 13, 9), torch.ones(13, 9, dtype=torch.bool))
    network = Unrolled(sets, width=4, depth=2)
    out = network(noise(sets, 13, 9), operator, noise(3, 13, 9))
    assert out.shape == (sets, 13, 9)
    out.abs().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
