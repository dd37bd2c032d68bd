"""Models with random weights: their predictions are lively, and made in no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.normalize import Normalization

if TYPE_CHECKING:
    from napari_ssdenoise.algorithms import Algorithm

MakeModel = Callable[..., TrainedModel]


def enliven(network: Any) -> Any:
    """Give a network weights and batch statistics that let a signal through all of its layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.data.normal_(0.2, 0.3)
    return network.eval()


@pytest.fixture
def make_model() -> MakeModel:
    """Return a function that makes a model, of Noise2Void or of a given algorithm."""

    def make(
        spatial: str = "ZYX",
        channels: int = 1,
        *,
        pooled: tuple[bool, ...] = (),
        algorithm: Algorithm | None = None,
        **settings: Any,
    ) -> TrainedModel:
        algorithm = algorithm or get_algorithm("n2v", **{"width": 4, **settings})
        kind = "joint" if channels > 1 else "independent"
        geometry = Geometry(spatial, channels, kind, pooled or (True,) * len(spatial))
        means, stds = (100.0, 90.0, 120.0, 80.0), (20.0, 15.0, 25.0, 18.0)
        return TrainedModel(
            algorithm,
            enliven(geometry.build(algorithm)),
            geometry,
            Normalization(means[:channels], stds[:channels]),
            {"data": []},
        )

    return make


@pytest.fixture
def make_image() -> Callable[..., np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a function that makes an image of noise of a given shape."""

    def make(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)

    return make
