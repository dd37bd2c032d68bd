"""Streamed predictions equal those of the whole image, whatever the plan, the array and the memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_ssdenoise import open_volume
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine import execute as engine
from napari_ssdenoise.engine import plan as planning
from napari_ssdenoise.engine import stream
from napari_ssdenoise.engine.flow import Flow
from napari_ssdenoise.engine.tiles import TilePlan
from napari_ssdenoise.io import _pyramid
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.model import TrainedModel

FLOAT: dict[str, Any] = {"precision": "float32", "device": "cpu"}
N2V = type(get_algorithm("n2v"))


def relative(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    return float(np.abs(first.astype(np.float64) - second).max() / np.ptp(second))


def flowing(
    model: TrainedModel,
    volume: Volume,
    *,
    axis: int = 0,
    slab: int = 4,
    span: int = 8,
    block: int = 12,
    tile: dict[int, int] | None = None,
    augment: bool = False,
) -> tuple[Predictor, Plan]:
    """Plan by hand how a volume flows."""
    predictor = model.predictor(**FLOAT, augment=augment)
    layout = model.geometry.layout(volume)
    shape = layout.spatial_shape(volume.shape)
    sizes = tuple((tile or {}).get(d, n) for d, n in enumerate(shape))
    tiles = TilePlan(shape, sizes, predictor.halo, predictor.stride)
    whole = planning.Plan.whole(tiles, layout.spatial, 1 << 40)
    return predictor, planning.replace(whole, axis=axis, slab=slab, block=block, span=span)


def gathered(model: TrainedModel, predictor: Predictor, plan: Plan, volume: Volume, start: int = 0) -> Any:
    """Carry a plan out into an array; NaN where nothing was written."""
    layout = model.geometry.layout(volume)
    out = np.full(volume.shape, np.nan, np.float32)
    units = [engine.replace(unit, start=start) for unit in plan.units(layout, volume.shape)]
    for piece in engine.execute(predictor, plan, volume, layout, units):
        key = layout.key(piece.index, piece.target)
        assert np.isnan(out[key]).all()
        out[key] = layout.from_network(piece.images["mean"])
    return out


@pytest.mark.parametrize("shape", [(33, 21, 26), (64, 16, 9), (5, 40, 20), (1, 3, 2), (50, 1, 7)], ids=str)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"slab": 8, "span": 8, "block": 8},
        {"slab": 16, "span": 20, "block": 7},
        {"axis": 1, "span": 5, "tile": {0: 16, 2: 8}},
        {"tile": {1: 12, 2: 8}, "span": 13},
        {"tile": {0: 20}, "block": 20},
    ],
    ids=str,
)
def test_flowing_equals_the_whole(
    make_model: Any, make_image: Any, shape: tuple[int, ...], how: dict[str, Any]
) -> None:
    model, volume = make_model("ZYX"), Volume(make_image(*shape), "ZYX")
    how = {**how, "tile": {d: min(n, shape[d]) for d, n in how.get("tile", {}).items()}}
    whole = model.predict(volume, tile=shape, **FLOAT)
    result = gathered(model, *flowing(model, volume, **how), volume)
    assert relative(result, whole) < 1e-5


@pytest.mark.parametrize(
    ("spatial", "shape", "settings"),
    [
        ("YX", (131, 45), {}),
        ("YX", (97, 30), {"n2v2": True}),
        ("YX", (97, 30), {"residual": True, "depth": 3}),
        ("ZYX", (43, 20, 23), {"n2v2": True, "depth": 1}),
        ("ZYX", (9, 41, 30), {"pooled": (False, True, True), "residual": True}),
    ],
    ids=str,
)
def test_networks_of_all_kinds(
    make_model: Any, make_image: Any, spatial: str, shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    model, volume = make_model(spatial, **settings), Volume(make_image(*shape), spatial)
    whole = model.predict(volume, tile=shape, **FLOAT)
    assert whole.std() > 1
    slab = 2 * model.network.stride[0]
    result = gathered(model, *flowing(model, volume, slab=slab, span=slab + 3, block=10), volume)
    assert relative(result, whole) < 1e-5


def test_augmented_stacks_flow_along_z(make_model: Any, make_image: Any) -> None:
    model, volume = make_model("ZYX", depth=1), Volume(make_image(37, 24, 20), "ZYX")
    whole = model.predict(volume, tile=volume.shape, augment=True, **FLOAT)
    predictor, plan = flowing(model, volume, slab=2, augment=True, tile={1: 16})
    assert relative(gathered(model, predictor, plan, volume), whole) < 1e-5
    assert relative(model.predict(volume, tile=volume.shape, **FLOAT), whole) > 1e-3


@pytest.mark.parametrize("axes", ["TCZYX", "XCZTY", "CZYX"])
def test_channels_and_times_flow_one_after_the_other(make_model: Any, make_image: Any, axes: str) -> None:
    sizes = {"T": 3, "C": 2, "Z": 30, "Y": 18, "X": 21}
    volume = Volume(make_image(*(sizes[a] for a in axes)), axes)
    for model in (make_model("ZYX"), make_model("ZYX", channels=2)):
        whole = model.predict(volume, tile=(30, 18, 21), **FLOAT)
        assert relative(gathered(model, *flowing(model, volume, tile={1: 8}), volume), whole) < 1e-5


@pytest.mark.parametrize("chunks", [(5, 7, 9), (1, 18, 21), (64, 64, 64), (16, 8, 8)], ids=str)
def test_chunks_that_do_not_fit_the_slab(make_model: Any, make_image: Any, tmp_path: Path, chunks: Any) -> None:
    import zarr

    image = make_image(45, 18, 21)
    stored = zarr.create_array(tmp_path / "a.zarr", shape=image.shape, chunks=chunks, dtype=image.dtype)
    stored[:] = image
    model, volume = make_model("ZYX"), Volume(stored, "ZYX")
    whole = model.predict(image, tile=image.shape, **FLOAT)
    for span in {4, chunks[0]} - {1, 5}:
        result = gathered(model, *flowing(model, volume, slab=4, span=span), volume)
        assert relative(result, whole) < 1e-5


def test_each_plane_is_read_once(make_model: Any, make_image: Any) -> None:
    """Along the flow, whole chunks are read, one after the other, and none of them twice."""

    class Watched:
        shape, dtype, chunks = (96, 16, 16), np.dtype(np.float32), (16, 16, 16)

        def __init__(self) -> None:
            self.image, self.read = make_image(*self.shape), []

        def __getitem__(self, key: Any) -> Any:
            self.read.append((key[0].start, key[0].stop))
            return self.image[key]

    data = Watched()
    model, volume = make_model("ZYX"), Volume(data, "ZYX")
    predictor, plan = flowing(model, volume, slab=8, span=16)
    gathered(model, predictor, plan, volume)
    chunks = [(low // 16, -(-high // 16)) for low, high in data.read]
    assert chunks == [(n, n + 1) for n in range(6)]  # with what is mirrored beyond the ends


def test_a_late_start_computes_the_same_bits(make_model: Any, make_image: Any) -> None:
    model, volume = make_model("ZYX", residual=True), Volume(make_image(90, 12, 16), "ZYX")
    predictor, plan = flowing(model, volume, slab=4, span=16, block=10)
    whole = gathered(model, predictor, plan, volume)
    for start in (10, 30, 50, 80):
        tail = gathered(model, predictor, plan, volume, start)
        assert np.isnan(tail[:start]).all()
        np.testing.assert_array_equal(tail[start:], whole[start:])


class _Mixed(N2V):  # type: ignore[misc,valid-type]
    """Reads the noisy image as well."""

    def read_out(self, raw: Tensor, noisy: Tensor) -> dict[str, Tensor]:
        return {"mean": 0.5 * raw + noisy}


class _Own(N2V):  # type: ignore[misc,valid-type]
    """Predicts in its own way, which is not one pass."""

    def predict(self, network: Any, noisy: Tensor) -> dict[str, Tensor]:
        return {"mean": network(network(noisy).float()).float()}


def test_a_read_out_that_uses_the_noisy_image(make_model: Any, make_image: Any) -> None:
    model = make_model("ZYX", algorithm=_Mixed(width=4))
    volume = Volume(make_image(90, 12, 16), "ZYX")
    whole = model.predict(volume, tile=volume.shape, **FLOAT)
    predictor, plan = flowing(model, volume, slab=8, span=16, block=10)
    result = gathered(model, predictor, plan, volume)
    assert relative(result, whole) < 1e-5
    for start in (20, 60):
        np.testing.assert_array_equal(gathered(model, predictor, plan, volume, start)[start:], result[start:])


def test_a_prediction_of_its_own_is_run_in_whole_tiles(make_model: Any, make_image: Any) -> None:
    model, volume = make_model("ZYX", algorithm=_Own(width=4)), Volume(make_image(40, 12, 16), "ZYX")
    predictor = model.predictor(**FLOAT)
    plan = planning.plan_volume(predictor, volume, model.geometry.layout(volume), memory="200 MB")
    assert plan.slab == 0
    expected = predictor(np.pad(np.asarray(volume)[None], [(0, 0), (4, 4), (4, 4), (4, 4)], mode="symmetric"))["mean"]
    np.testing.assert_allclose(model.predict(volume, memory="200 MB", **FLOAT), expected[0, 4:-4, 4:-4, 4:-4], 1e-5)


def test_small_images_are_computed_in_batches(make_model: Any, make_image: Any) -> None:
    model, volume = make_model("YX"), Volume(make_image(23, 2, 20, 17), "TCYX")
    model = engine.replace(model, normalization=type(model.normalization)((100.0, 80.0), (20.0, 30.0)))
    plan = model.plan(volume, memory="200 MB", **FLOAT)
    assert plan.batch > 1
    one_by_one = model.predict(volume, tile=(20, 17), **FLOAT)
    assert relative(model.predict(volume, memory="200 MB", **FLOAT), one_by_one) < 1e-5
    few = planning.replace(plan, batch=5)  # the last batch is smaller
    assert relative(gathered(model, model.predictor(**FLOAT), few, volume), one_by_one) < 1e-5


def poor(monkeypatch: pytest.MonkeyPatch, limit: int, grace: int = 0) -> list[int]:
    """Let the memory of the device run out for slabs of more than ``limit`` pixels, after ``grace`` of them."""
    push, sizes = Flow.push, []

    def limited(self: Flow, planes: Tensor | None) -> Tensor | None:
        if planes is not None:
            sizes.append(planes[0, 0].numel())
            if sizes[-1] > limit and len(sizes) > grace:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return push(self, planes)

    monkeypatch.setattr(Flow, "push", limited)
    return sizes


@pytest.mark.parametrize(("grace", "start"), [(0, 0), (3, 0), (9, 0), (0, 12), (9, 12)])
def test_out_of_memory_in_a_flow_halves_the_tiles(
    make_model: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch, grace: int, start: int
) -> None:
    model, volume = make_model("ZYX", depth=1), Volume(make_image(50, 44, 50), "ZYX")
    whole = model.predict(volume, tile=volume.shape, **FLOAT)
    predictor, plan = flowing(model, volume, slab=2, block=6)
    sizes = poor(monkeypatch, 2 * 40 * 58, grace)
    layout = model.geometry.layout(volume)
    out = np.empty(volume.shape, np.float32)
    units = [engine.replace(unit, start=start) for unit in plan.units(layout, volume.shape)]
    for piece in engine.execute(predictor, plan, volume, layout, units):
        assert piece.target[0].start >= start  # what is done stays as it is
        out[piece.target] = piece.images["mean"][0]
    assert relative(out[start:], whole[start:]) < 1e-5
    assert max(sizes) > 2 * 40 * 58 >= min(sizes)


def test_hopeless_memory_in_a_flow_is_an_error(
    make_model: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, volume = make_model("ZYX"), Volume(make_image(50, 44, 50), "ZYX")
    sizes = poor(monkeypatch, 10)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        gathered(model, *flowing(model, volume), volume)
    assert len(sizes) < 10


def test_other_errors_in_a_flow_arrive(make_model: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Flow, planes: Tensor | None) -> Tensor | None:
        raise RuntimeError("the cable came out")

    monkeypatch.setattr(Flow, "push", broken)
    model, volume = make_model("ZYX"), Volume(make_image(50, 44, 50), "ZYX")
    with pytest.raises(RuntimeError, match="cable"):
        gathered(model, *flowing(model, volume), volume)


def test_an_image_with_holes_is_refused_in_a_flow(make_model: Any, make_image: Any) -> None:
    image = make_image(50, 12, 12)
    image[30, 5, 5] = np.nan
    model, volume = make_model("ZYX"), Volume(image, "ZYX")
    with pytest.raises(ValueError, match="NaN"):
        gathered(model, *flowing(model, volume), volume)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small images have many chunks and several resolutions."""
    monkeypatch.setattr(stream, "OUTPUT_CHUNK", {"Z": 8, "Y": 16, "X": 16, "T": 1, "C": 1})
    monkeypatch.setattr(_pyramid, "SMALLEST", 8)
    monkeypatch.setattr(_pyramid, "SMALLEST_CHUNK", 8)
    # They are small enough for one pass, but here the flow is of interest.
    monkeypatch.setattr(planning._Planner, "_choices", lambda self: iter([(0, self.predictor.stride[0])]))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif", "out.npy"])
def test_out_of_memory_into_a_file(
    make_model: Any, make_image: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """The file is right at all resolutions, although tiles of half the width end within its blocks."""
    model, volume = make_model("ZYX", depth=1), Volume(make_image(50, 44, 50), "ZYX")
    plan = model.plan(volume, memory="300 MB", **FLOAT)
    assert plan.slab
    assert plan.block < 50
    whole = model.predict(volume, tile=volume.shape, **FLOAT)
    sizes = poor(monkeypatch, plan.slab * 2400, 4)
    progress = list(model.predict_into(volume, tmp_path / name, memory="300 MB", dtype="float32", **FLOAT))
    assert max(sizes) > plan.slab * 2400 >= min(sizes)
    assert relative(np.asarray(open_volume(tmp_path / name)), whole) < 1e-5
    assert progress[-1].done == progress[-1].total
    assert all(p.done <= p.total for p in progress)
    if name.endswith("zarr"):
        check_pyramid(tmp_path / name, volume)


def check_pyramid(path: Path, volume: Volume) -> None:
    """Compare all resolutions with those of a second pass over the image."""
    import zarr

    group = zarr.open_group(path, mode="r")
    levels = _pyramid.plan(volume.axes, volume.shape, volume.scale, volume.translate)
    assert len(levels) > 2
    above = np.asarray(group["0"])
    for level, factors in levels[1:]:
        above = _pyramid.halve(above, factors)
        np.testing.assert_array_equal(np.asarray(group[level.path]), above)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_stopped_flow_is_resumed_in_the_middle(
    make_model: Any, make_image: Any, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, and without computing what is done."""
    model = make_model("ZYX", algorithm=_Mixed(width=4, depth=1))
    volume = Volume(make_image(90, 20, 21), "ZYX")
    whole = list(model.predict_into(volume, tmp_path / "whole.ome.zarr", memory="300 MB", device="cpu"))
    run = model.predict_into(volume, tmp_path / "out.ome.zarr", memory="300 MB", device="cpu")
    for _ in range(stop):
        next(run)
    run.close()
    read: list[int] = []
    original = engine._Images.read

    def watched(self: Any, unit: Any, low: int, high: int) -> Any:
        read.append(low)
        return original(self, unit, low, high)

    monkeypatch.setattr(engine._Images, "read", watched)
    progress = list(model.predict_into(volume, tmp_path / "out.ome.zarr", memory="300 MB", device="cpu"))
    assert progress[0].done > stop
    assert len(progress) <= len(whole) - stop
    assert min(read) >= 8 * stop - 16  # the reach of a network of depth 1, and a slab
    for file in (p for p in (tmp_path / "whole.ome.zarr").rglob("*") if p.is_file()):
        assert (
            file.read_bytes()
            == (tmp_path / "out.ome.zarr" / file.relative_to(tmp_path / "whole.ome.zarr")).read_bytes()
        )


def test_mirrored_positions() -> None:
    assert engine._mirrored(-4, 3, 5).tolist() == [3, 2, 1, 0, 0, 1, 2]
    assert engine._mirrored(3, 9, 5).tolist() == [3, 4, 4, 3, 2, 1]
    assert engine._mirrored(-3, 4, 1).tolist() == [0] * 7
