"""The super-resolution network: its size, its reach, and its parts put together by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.networks.resnet_sr import (
    PHOTOGRAPHS,
    Pose,
    ResidualNet,
    Still,
    SuperResolver,
    poses_of,
)
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.ops.degrade import Degradation
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.ops.kernels import Grid


def lively(ndim: int, width: int = 6, depth: int = 8) -> ResidualNet:
    """Return a network through which signals pass no weaker than they come."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = ResidualNet(ndim, width=width, depth=depth)
        for weight in (p for p in body.parameters() if p.ndim > 1):
            torch.nn.init.kaiming_normal_(weight)
    return body.eval()


def degradation_for(factors: tuple[int, ...], grid: Grid = "registered") -> Degradation:
    return Degradation.gaussian([(f / 2) ** 2 if f > 1 else 0.0 for f in factors], factors, grid)


def resolver_for(
    factors: tuple[int, ...], rounds: int = 0, grid: Grid = "registered", flat: bool = False
) -> SuperResolver:
    body = lively(2 if flat else len(factors))
    return SuperResolver(body, degradation_for(factors, grid), rounds).eval()


def random_model(factors: tuple[int, ...], rounds: int, grid: Grid = "registered", channels: int = 1) -> TrainedModel:
    """Return a model of random weights for images of mean 100."""
    factor, factor_z = factors[-1], factors[0] if len(factors) == 3 else 1
    algorithm = get_algorithm("zssr", factor=factor, factor_z=factor_z, grid=grid, back_projections=rounds)
    spatial = "ZYX"[3 - len(factors) :]
    network = resolver_for(factors, rounds, grid, flat=factor == 1)
    geometry = Geometry(spatial, channels, "joint" if channels > 1 else "auto", (True,) * len(factors))
    return TrainedModel(algorithm, network, geometry, Normalization((100.0,) * channels, (20.0,) * channels))


def image(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)


def relative(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.abs(first - second).max() / np.ptp(second))


def test_size_is_that_of_the_paper() -> None:
    assert sum(p.numel() for p in ResidualNet(2).parameters()) == 222_785


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_new_network_begins_close_to_the_enlarged_image(ndim: int) -> None:
    enlarged = torch.randn((2, 1, *(12,) * ndim), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        change = ResidualNet(ndim)(enlarged) - enlarged
    assert 0 < float(change.std()) < 0.1


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize(
    ("factors", "grid", "shape", "tile"),
    [
        ((2, 2), "registered", (71, 63), (32, 48)),
        ((2, 2), "topleft", (71, 63), (32, 48)),
        ((3, 3), "registered", (47, 53), (30, 45)),
        ((3, 1, 1), "registered", (33, 30, 26), (21, 14, 16)),
        ((2, 2, 2), "registered", (12, 28, 40), (24, 16, 22)),
    ],
    ids=str,
)
def test_tiled_equals_whole(
    factors: tuple[int, ...], grid: Grid, shape: tuple[int, ...], tile: tuple[int, ...], rounds: int
) -> None:
    model = random_model(factors, rounds, grid)
    coarse = Volume(image(*shape), "ZYX"[3 - len(shape) :])
    fine_shape = tuple(n * f for n, f in zip(shape, factors, strict=True))
    whole = model.predict(coarse, precision="float32", tile=fine_shape)
    tiled = model.predict(coarse, precision="float32", tile=tile)
    assert whole.shape == fine_shape
    assert whole.std() > 1
    assert relative(tiled, whole) < 1e-5


@pytest.mark.parametrize(("factors", "rounds"), [((2, 2), 0), ((2, 2), 2), ((3, 1, 1), 1)], ids=str)
def test_too_small_a_halo_would_show(factors: tuple[int, ...], rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with a third of the reach, tiles differ."""
    model = random_model(factors, rounds)
    shape = (71, 63) if len(factors) == 2 else (33, 30, 26)
    coarse = Volume(image(*shape), "ZYX"[3 - len(shape) :])
    whole = model.predict(coarse, precision="float32", tile=[9**9] * len(shape))
    reach = model.network.reach()
    monkeypatch.setattr(type(model.network), "reach", lambda self: tuple(r // 3 for r in reach))
    tiled = model.predict(coarse, precision="float32", tile=(24,) * len(shape))
    assert relative(tiled, whole) > 1e-5


def test_a_planned_prediction_is_the_same_whatever_the_memory() -> None:
    model, coarse = random_model((2, 2), 1), image(120, 110)
    whole = model.predict(coarse, precision="float32", tile=(240, 220))
    assert relative(model.predict(coarse, precision="float32", memory="3 MB"), whole) < 1e-5


@pytest.mark.parametrize("grid", ["registered", "topleft"])
@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (2, 2, 2)], ids=str)
def test_it_is_interpolation_then_the_network_then_back_projection(factors: tuple[int, ...], grid: Grid) -> None:
    network = resolver_for(factors, 3, grid)
    coarse = torch.randn((2, 2, *(9,) * len(factors)), generator=torch.Generator().manual_seed(0))
    repeated = coarse
    for d, factor in enumerate(factors):
        repeated = repeated.repeat_interleave(factor, d + 2)
    degradation = network.degradation
    enlarged = degradation.up(coarse)
    with torch.no_grad():
        found = network(repeated)
        sharp = torch.stack([network.sharpen(enlarged[:, c : c + 1])[:, 0] for c in range(2)], 1)
        body = network.body(enlarged[:, :1] * PHOTOGRAPHS[1] + PHOTOGRAPHS[0])
    expected = degradation.refine(sharp, coarse, 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sharp[:, :1], (body - PHOTOGRAPHS[0]) / PHOTOGRAPHS[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_network_for_planes_sees_a_stack_from_both_sides(channels: int) -> None:
    network = resolver_for((3, 1, 1), flat=True)
    stack = torch.randn((2, channels, 12, 7, 5), generator=torch.Generator().manual_seed(0))
    grey = stack * PHOTOGRAPHS[1] + PHOTOGRAPHS[0]
    expected = torch.zeros_like(stack)
    with torch.no_grad():
        found = network.sharpen(stack)
        for b in range(2):
            for c in range(channels):
                for y in range(7):
                    expected[b, c, :, y] += network.body(grey[b, c, :, y][None, None])[0, 0] / 2
                for x in range(5):
                    expected[b, c, :, :, x] += network.body(grey[b, c, :, :, x][None, None])[0, 0] / 2
    torch.testing.assert_close(found, (expected - PHOTOGRAPHS[0]) / PHOTOGRAPHS[1], rtol=1e-5, atol=1e-5)


def test_reach_is_exact_without_back_projection() -> None:
    """Of an interpolated image's pixels, the network sees as many on either side as it has layers."""
    network = resolver_for((2, 2)).double()
    for layer in network.body:
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data.abs_()  # no ReLU hides a dependence
    repeated = torch.rand((1, 1, 60, 60), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    repeated.requires_grad_()
    network(repeated)[0, 0, 30, 30].backward()
    assert repeated.grad is not None
    away = (repeated.grad[0, 0].nonzero() - 30).abs().amax(0).tolist()
    reach = network.reach()
    # The pixels of a cell are one and the same, of which the first is read.
    assert all(r - 3 <= a <= r for a, r in zip(away, reach, strict=True))


@pytest.mark.parametrize(("factors", "flat"), [((2, 2), False), ((4, 1, 1), True)], ids=str)
def test_weights_with_another_blur_are_loaded(factors: tuple[int, ...], flat: bool) -> None:
    saved = resolver_for(factors, 2, flat=flat)
    wide = Degradation.gaussian([9.0 if f > 1 else 0.0 for f in factors], factors)
    assert wide.kernel.shape != degradation_for(factors).kernel.shape
    saved.degradation = wide
    network = SuperResolver(ResidualNet(saved.body.ndim, width=6), degradation_for(factors), 2).eval()
    network.load_state_dict(saved.state_dict())
    np.testing.assert_array_equal(network.degradation.kernel, wide.kernel)
    assert network.reach() == saved.reach() > resolver_for(factors, 2, flat=flat).reach()
    repeated = torch.rand((1, 1, *(8 * f for f in factors)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(repeated), saved(repeated))


def test_weights_of_another_dimension_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        resolver_for((2, 2)).load_state_dict(resolver_for((2, 2, 2)).state_dict())


def test_without_a_network_only_interpolation_remains() -> None:
    network = SuperResolver(Still(2), degradation_for((3, 3)), 0)
    coarse = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    repeated = coarse.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(network(repeated), network.degradation.up(coarse), rtol=1e-5, atol=1e-5)
    assert not list(network.parameters())
    assert network.reach() == (9, 9)


def test_prediction_is_what_the_network_gives() -> None:
    """Folded layers, normalisation and mirrored borders included."""
    model, coarse = random_model((2, 2), 2), image(40, 36)
    found = model.predict(coarse, precision="float32")
    margin = 2  # coarse pixels that are mirrored at the border
    padded = np.pad((coarse - 100) / 20, margin, mode="symmetric").repeat(2, 0).repeat(2, 1)
    with torch.no_grad():
        expected = model.network(torch.from_numpy(padded)[None, None])[0, 0].numpy() * 20 + 100
    inner = (slice(2 * margin, -2 * margin),) * 2
    assert relative(found, expected[inner]) < 1e-5


def test_joint_channels_are_sharpened_one_by_one() -> None:
    joint, coarse = random_model((2, 2), 1, channels=3), image(3, 24, 20)
    found = joint.predict(Volume(coarse, "CYX"), precision="float32")
    alone = [random_model((2, 2), 1).predict(plane, precision="float32") for plane in coarse]
    assert relative(found, np.stack(alone)) < 1e-5


def lopsided(y: float, x: float, angle: float = 0.0) -> Degradation:
    from napari_ssdenoise.ops.kernels import rotated

    return Degradation.gaussian(rotated((y, x), angle), (2, 2))


@pytest.mark.parametrize(
    ("degradation", "count"),
    [(lopsided(2, 2), 8), (lopsided(4, 1), 4), (lopsided(4, 1, 0.5), 2), (lopsided(4, 1, np.pi / 4), 4)],
    ids=["round", "along an axis", "turned", "along the diagonal"],
)
def test_poses_are_those_that_the_blur_allows(degradation: Degradation, count: int) -> None:
    poses = poses_of(degradation)
    assert len(poses) == count
    assert poses[0] == Pose()
    square = torch.arange(12.0).reshape(3, 4)
    assert all(torch.equal(pose.undo(pose.apply(square)), square) for pose in poses)
    assert len({tuple(pose.apply(square).flatten().tolist()) for pose in poses}) == count


def test_an_ensemble_does_not_know_up_from_down_and_tiles_fit() -> None:
    model, coarse = random_model((2, 2), 1), image(40, 40)
    single = model.predict(coarse, precision="float32")
    model.network.ensemble = True
    whole = model.predict(coarse, precision="float32")
    assert relative(model.predict(coarse, precision="float32", tile=(32, 48)), whole) < 1e-5
    flipped = model.predict(np.ascontiguousarray(coarse[::-1].T), precision="float32").T[::-1]
    assert relative(flipped, whole) < 1e-5
    assert relative(single, whole) > 1e-3
