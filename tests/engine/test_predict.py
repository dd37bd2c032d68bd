"""Prediction: tiled equals whole, whatever the array, the tile and the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine import predict as engine
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def random_model(
    spatial: str = "YX", channels: int = 1, *, pooled: tuple[bool, ...] = (), **settings: Any
) -> TrainedModel:
    """Return a model with random weights and lively batch statistics."""
    algorithm = get_algorithm("n2v", **{"width": 4, **settings})
    geometry = Geometry(spatial, channels, "joint" if channels > 1 else "auto", pooled or (True,) * len(spatial))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = geometry.build(algorithm).eval()
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                module.weight.data *= 6**0.5  # He's gain: torch's default lets the signal die away
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.data.normal_(0.2, 0.3)
    return TrainedModel(algorithm, network, geometry, Normalization((100.0,) * channels, (20.0,) * channels))


def image(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(100, 20, shape).astype(np.float32)


def relative(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    return float(np.abs(first - second).max() / np.ptp(second))


FLAT, ODD, DEEP = ((64, 64), "YX", (16, 16)), ((131, 117), "YX", (32, 48)), ((21, 45, 53), "ZYX", (16, 24, 32))


@pytest.mark.parametrize(
    ("shape", "spatial", "tile", "settings", "augment"),
    [
        (*FLAT, {}, True),
        (*ODD, {}, False),
        (*ODD, {"n2v2": True}, True),
        (*ODD, {"residual": True}, False),
        (*ODD, {"depth": 3}, False),
        (*DEEP, {}, False),
        (*DEEP, {"n2v2": True}, False),
        (*DEEP, {"depth": 1}, True),
    ],
    ids=str,
)
def test_tiled_equals_whole(
    shape: tuple[int, ...], spatial: str, tile: tuple[int, ...], settings: dict[str, Any], augment: bool
) -> None:
    model, noisy = random_model(spatial, **settings), image(*shape)
    whole = model.predict(noisy, precision="float32", tile=shape, augment=augment)
    tiled = model.predict(noisy, precision="float32", tile=tile, augment=augment)
    assert whole.std() > 0.1
    assert relative(tiled, whole) < 1e-5


def test_too_small_a_halo_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with half the reach, tiles differ."""
    model, noisy = random_model(), image(131, 117)
    whole = model.predict(noisy, precision="float32", tile=noisy.shape)
    reach = model.network.reach()
    monkeypatch.setattr(type(model.network), "reach", lambda self: tuple(r // 2 for r in reach))
    assert relative(model.predict(noisy, precision="float32", tile=(32, 32)), whole) > 1e-5


def as_zarr(array: np.ndarray[Any, Any], folder: Path) -> Any:
    import zarr

    stored = zarr.create_array(folder / "a.zarr", shape=array.shape, chunks=(16, 20), dtype=array.dtype)
    stored[:] = array
    return stored


def as_dask(array: np.ndarray[Any, Any], folder: Path) -> Any:
    return pytest.importorskip("dask.array").from_array(array, chunks=(30, 17))


def as_memmap(array: np.ndarray[Any, Any], folder: Path) -> Any:
    np.save(folder / "a.npy", array)
    return np.load(folder / "a.npy", mmap_mode="r")


@pytest.mark.parametrize("wrap", [as_zarr, as_dask, as_memmap], ids=["zarr", "dask", "memmap"])
def test_every_kind_of_array_gives_the_same(wrap: Callable[..., Any], tmp_path: Path) -> None:
    model, noisy = random_model(), image(70, 61).astype(np.uint16)
    expected = model.predict(noisy, tile=(32, 32))
    np.testing.assert_array_equal(model.predict(wrap(noisy, tmp_path), tile=(32, 32)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", ">u2", "float16", "float64", ">f4"])
def test_dtypes_and_byte_orders(dtype: str) -> None:
    model, noisy = random_model(), np.round(image(40, 44))
    expected = model.predict(noisy, precision="float32")
    assert relative(model.predict(noisy.astype(dtype), precision="float32"), expected) < 1e-5


@pytest.mark.parametrize("axes", ["TCZYX", "ZYXCT", "XYZTC"], ids=str)
def test_axes_in_any_order(axes: str) -> None:
    """Whatever the order, each image gives what it gives alone."""
    model = random_model("ZYX", pooled=(False, True, True))
    full = image(2, 2, 6, 33, 20)  # TCZYX
    order = ["TCZYX".index(a) for a in axes]
    result = model.predict(Volume(full.transpose(order), axes), precision="float32")
    back = result.transpose([axes.index(a) for a in "TCZYX"])
    alone = model.predict(Volume(full[1, 0], "ZYX"), precision="float32")
    assert relative(back[1, 0], alone) < 1e-5
    assert result.shape == full.transpose(order).shape


def test_joint_channels_and_rgb() -> None:
    model = random_model(channels=3)
    rgb = image(40, 36, 3)
    joint = model.predict(Volume(rgb, "YXS"), precision="float32")
    as_channels = model.predict(Volume(rgb.transpose(2, 0, 1), "CYX"), precision="float32")
    np.testing.assert_allclose(joint.transpose(2, 0, 1), as_channels, rtol=1e-5)


def test_bfloat16_stays_close_to_float32() -> None:
    model, noisy = random_model(), image(64, 64)
    exact = model.predict(noisy, precision="float32")
    rough = model.predict(noisy, precision="bfloat16")
    assert np.sqrt(np.mean((rough - exact) ** 2)) < 0.03 * exact.std()


@pytest.mark.parametrize("limit", [10_000, 5_000])
def test_out_of_memory_halves_the_tile_and_goes_on(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    model, noisy = random_model(), image(160, 132)
    expected = model.predict(noisy, precision="float32", tile=noisy.shape)
    forward, sizes = engine.Predictor._forward, []

    def poor(self: engine.Predictor, block: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(block[0, 0].numel())
        if sizes[-1] > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, block)

    monkeypatch.setattr(engine.Predictor, "_forward", poor)
    result = model.predict(noisy, precision="float32", tile=noisy.shape)
    assert relative(result, expected) < 1e-5
    assert max(sizes) > limit >= min(sizes)


def test_hopeless_memory_is_an_error_not_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def broke(self: engine.Predictor, block: torch.Tensor) -> dict[str, torch.Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.Predictor, "_forward", broke)
    with pytest.raises(RuntimeError, match="out of memory"):
        random_model().predict(image(64, 64))


def test_part_equals_the_same_part_of_the_whole() -> None:
    model, noisy = random_model(), image(3, 70, 65)
    whole = model.predict(noisy, precision="float32")
    region = (slice(1, 3), slice(10, 40), slice(33, 65))
    part = model.predict_part(noisy, region, predictor=model.predictor(precision="float32"))
    assert relative(part, whole[region]) < 1e-5


def test_model_refuses_other_channels_and_outputs() -> None:
    model = random_model(channels=2)
    with pytest.raises(ValueError, match="2 channels"):
        model.predict(Volume(image(3, 32, 32), "CYX"))
    with pytest.raises(ValueError, match="no output std"):
        model.predict(Volume(image(2, 32, 32), "CYX"), outputs=("std",))
    with pytest.raises(ValueError, match="Z"):
        random_model("ZYX").predict(image(32, 32))


def test_named_outputs_come_as_a_tuple() -> None:
    model, noisy = random_model(), image(32, 32)
    (mean,) = model.predict(noisy, outputs=("mean",))
    np.testing.assert_array_equal(mean, model.predict(noisy))


def test_reading_ahead_stops_with_its_consumer() -> None:
    made: list[int] = []
    for value in engine.ahead(lambda i: made.append(i) or i, range(1000), 2):
        if value == 3:
            break
    assert len(made) < 10


def test_an_error_while_reading_ahead_arrives() -> None:
    def fail(_: int) -> int:
        raise OSError("chunk 3 is unreadable")

    with pytest.raises(OSError, match="chunk 3"):
        list(engine.ahead(fail, range(5), 2))
