"""MZSR begins with the weights that come with the program, and moves them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.superres import Upscaler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAST: dict[str, Any] = {"kernel": "1.0", "patch": 32, "batch": 1, "precision": "float32", "device": "cpu"}
SHIPPED = files("napari_ssdenoise").joinpath("weights")


def body(image: NDArray[Any], adapt: int, **settings: Any) -> dict[str, torch.Tensor]:
    """Return the weights after some updates."""
    upscaler = Upscaler(image, "mzsr", adapt=adapt, **{**FAST, **settings})
    assert len(list(upscaler)) == adapt
    weights: dict[str, torch.Tensor] = upscaler.model.network.body.state_dict()
    return weights


@pytest.mark.parametrize(("factor", "kind"), [(2, "x2"), (3, "x2"), (4, "x4")])
def test_without_updates_the_weights_are_those_that_were_shipped(
    factor: int, kind: str, clean_image: NDArray[np.float32]
) -> None:
    found = body(clean_image, 0, factor=factor)
    shipped = load(SHIPPED.joinpath(f"super-resolution-{kind}.safetensors").read_bytes())
    assert found.keys() == shipped.keys()
    for name, value in shipped.items():
        torch.testing.assert_close(found[name], value.float(), rtol=0, atol=0)


@pytest.mark.parametrize(("descent", "rate"), [("adam", 1e-4), ("sgd", 1e-2)])
def test_an_update_is_a_full_step(descent: str, rate: float, clean_image: NDArray[np.float32]) -> None:
    """No warm-up, no averaging: Adam's first step moves what has a gradient by the rate."""
    before, after = (body(clean_image, n, descent=descent, learning_rate=rate) for n in (0, 1))
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert float(moved.max()) > 1e-6
    if descent == "adam":
        assert float(moved.median()) == pytest.approx(rate, rel=0.1)
        assert float(moved.max()) < 1.1 * rate


def test_larger_factors_take_smaller_steps(clean_image: NDArray[np.float32]) -> None:
    before, after = (body(clean_image, n, factor=4, learning_rate=4e-4) for n in (0, 1))
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert float(moved.median()) == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"factor": 2}, "x2"),
        ({"factor": 3}, "x2"),
        ({"factor": 4}, "x4"),
        ({"factor": 8}, "x4"),
        ({"factor": 1, "factor_z": 2}, "z"),
        ({"factor": 1, "factor_z": 5}, "z"),
    ],
    ids=str,
)
def test_each_factor_has_its_weights(settings: dict[str, int], kind: str) -> None:
    algorithm: Any = get_algorithm("mzsr", **settings)
    assert algorithm._weights == f"super-resolution-{kind}.safetensors"
