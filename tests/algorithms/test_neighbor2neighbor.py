"""Neighbor2Neighbor learns from one image, in 2D and 3D, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import Neighbor2Neighbor
from napari_ssdenoise.engine.patches import Batch


@pytest.mark.parametrize(("shape", "spatial"), [((50, 47), "YX"), ((9, 33, 41), "ZYX")])
def test_it_denoises(shape: tuple[int, ...], spatial: str) -> None:
    rng = np.random.default_rng(0)
    grids = np.meshgrid(*(np.linspace(0, 6, n) for n in shape[-2:]), indexing="ij")
    clean = np.broadcast_to(100 + 20 * np.sin(grids[0]) * np.cos(grids[1]), shape)
    noisy = (clean + rng.normal(0, 10, shape)).astype(np.float32)
    algorithm = Neighbor2Neighbor(depth=1, width=8, patch=32, batch=4, learning_rate=5e-3)
    model = ssd.train(noisy, algorithm, steps=60, spatial=spatial)
    assert np.mean((model.predict(noisy) - clean) ** 2) < 0.35 * np.mean((noisy - clean) ** 2)


def test_the_regularisation_grows_and_counts() -> None:
    algorithm = Neighbor2Neighbor(depth=1, width=4, regularisation=2.0)
    torch.manual_seed(0)
    network, image = algorithm.build(1, (True, True)), torch.randn(2, 1, 16, 16)
    losses = [
        algorithm.loss(network.eval(), Batch(image, image, progress=p), torch.Generator().manual_seed(3)).item()
        for p in (0.0, 0.5, 1.0)
    ]
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1], rel=1e-4)
    assert losses[1] > losses[0]


def test_no_gradient_through_the_whole_image() -> None:
    algorithm = Neighbor2Neighbor(depth=1, width=4)
    network, image = algorithm.build(1, (True, True)), torch.randn(1, 1, 16, 16, requires_grad=True)
    algorithm.loss(network, Batch(image, image), torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
