"""The network of the quick preview: its size, its exact reach, and that stacks flow through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine.predict import Predictor
from napari_ssdenoise.networks.shallow import ShallowNet
from napari_ssdenoise.normalize import Normalization

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.mark.parametrize(("ndim", "parameters"), [(2, 21_313), (3, 63_649)])
def test_size_is_that_of_the_paper(ndim: int, parameters: int) -> None:
    assert sum(p.numel() for p in ShallowNet(ndim).parameters()) == parameters


@pytest.mark.parametrize("ndim", [2, 3])
def test_reach_is_exact(ndim: int) -> None:
    network = ShallowNet(ndim, width=4).double()
    assert network.reach() == (2,) * ndim
    noisy = torch.randn((1, 1, *(9,) * ndim), dtype=torch.float64, requires_grad=True)
    network(noisy)[(0, 0, *(4,) * ndim)].backward()
    touched = (noisy.grad[0, 0] != 0).nonzero()  # type: ignore[index]
    assert int((touched - 4).abs().max()) == 2


def test_sizes_and_channels() -> None:
    assert ShallowNet(2, 3, width=4)(torch.zeros(2, 3, 7, 9)).shape == (2, 3, 7, 9)
    assert ShallowNet(3, width=4)(torch.zeros(1, 1, 1, 7, 9)).shape == (1, 1, 1, 7, 9)


def test_the_head_stays_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert ShallowNet(2, width=4)(torch.zeros(1, 1, 8, 8)).dtype is torch.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("spatial", ["YX", "ZYX"])
def test_a_stack_flows_through(spatial: str, precision: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ShallowNet(len(spatial), width=4)
    shape = (1, 23, *(8,) * (len(spatial) - 1))
    image: NDArray[np.float32] = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    algorithm = get_algorithm("zs-n2n", width=4)
    predictor = Predictor(algorithm, network, Normalization((100.0,), (20.0,)), spatial, precision=precision)  # type: ignore[arg-type]
    assert 0 in predictor.flow_axes
    noisy = predictor.normalised([image], [0])
    stack = predictor.flow(23, 0, 5)
    parts = []
    slabs = iter(noisy.split(5, 2))
    while stack.end < 23:
        parts += [p["mean"].clone() for p in [stack.push(next(slabs, None))] if p]
    whole = predictor.run(noisy)["mean"]
    tolerance = 1e-5 if precision == "float32" else 2e-2
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=tolerance)
