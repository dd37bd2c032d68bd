"""What is looked at comes first, and the finished file is the same as without anybody looking."""

from __future__ import annotations

import hashlib
from math import prod
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_ssdenoise.engine.glimpses import Glimpses
from napari_ssdenoise.engine.stream import prepare
from napari_ssdenoise.engine.tiles import single_tile
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_ssdenoise.engine.job import TileDone
    from napari_ssdenoise.model import TrainedModel

Region = tuple[slice, ...]


def stack(shape: tuple[int, ...] = (96, 64, 64), axes: str = "ZYX") -> Volume:
    return Volume(np.random.default_rng(0).normal(100, 20, shape).astype(np.float32), axes)


def content(path: Path) -> dict[str, str]:
    """Hash every array file of a store."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def covers(steps: list[TileDone], view: Region) -> bool:
    """Tell whether steps, each of them early, cover a view together."""
    seen = np.zeros([s.stop - s.start for s in view], bool)
    for step in steps:
        assert step.early
        assert step.region is not None
        parts = zip(step.region, view, strict=True)
        seen[tuple(slice(max(0, a.start - b.start), max(0, a.stop - b.start)) for a, b in parts)] = True
    return bool(seen.all())


@pytest.fixture
def model(make_model: Callable[..., TrainedModel]) -> TrainedModel:
    return make_model("ZYX")


OPTIONS: dict[str, Any] = {"memory": "80 MB", "precision": "float32"}


def run(model: TrainedModel, volume: Volume, path: Path, view: Any = None) -> list[TileDone]:
    return list(model.predict_into(volume, path, view=view, **OPTIONS))


def test_what_is_in_view_comes_first_and_the_file_is_the_same(model: TrainedModel, tmp_path: Path) -> None:
    volume = stack()
    plane = (slice(70, 71), slice(0, 64), slice(0, 64))
    done = run(model, volume, tmp_path / "seen.ome.zarr", lambda: plane)
    shown = [step for step in done if step.early]
    assert done[: len(shown)] == shown
    assert covers(shown, plane)
    assert sum(step.region[1].stop - step.region[1].start for step in shown if step.region) == 64  # each row once
    run(model, volume, tmp_path / "plain.ome.zarr")
    assert content(tmp_path / "seen.ome.zarr") == content(tmp_path / "plain.ome.zarr")


def test_what_is_shown_early_is_right(model: TrainedModel, tmp_path: Path) -> None:
    volume = stack()
    run_ = model.predict_into(
        volume, tmp_path / "out.ome.zarr", view=lambda: (slice(40, 41), slice(0, 64), slice(0, 64)), **OPTIONS
    )
    first = next(run_)
    assert first.region is not None
    shown = np.asarray(zarr.open_array(str(first.path / "0"), mode="r")[first.region])
    run_.close()
    expected = model.predict(volume, precision="float32")[first.region]
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-3)


def test_another_view_is_taken_up_at_once(model: TrainedModel, tmp_path: Path) -> None:
    volume = stack((160, 64, 64))
    view = [(slice(150, 151), slice(0, 64), slice(0, 64))]
    steps = []
    for step in model.predict_into(volume, tmp_path / "out.ome.zarr", view=lambda: view[0], **OPTIONS):
        steps.append(step)
        if len(steps) == 1:
            view[0] = (slice(100, 101), slice(0, 64), slice(0, 64))
    early = [step for step in steps if step.early]
    assert steps[: len(early)] == early
    assert covers(early, view[0])


def test_nothing_that_is_done_is_shown_again(model: TrainedModel, tmp_path: Path) -> None:
    volume, out = stack((160, 64, 64)), tmp_path / "out.ome.zarr"
    begun = model.predict_into(volume, out, **OPTIONS)
    first = next(begun)
    begun.close()
    assert first.region is not None
    assert not first.early
    seen = (slice(0, 1), *first.region[1:])
    steps = run(model, volume, out, lambda: seen)
    assert len(steps) > 1
    assert not any(step.early for step in steps)


def test_where_memory_is_short_nothing_comes_early(model: TrainedModel, tmp_path: Path) -> None:
    view = (slice(9, 10), slice(0, 64), slice(0, 64))
    steps = list(model.predict_into(stack((160, 64, 64)), tmp_path / "out.ome.zarr", view=lambda: view, memory="20 MB"))
    assert steps
    assert not any(step.early for step in steps)


def test_planes_that_are_independent(make_model: Callable[..., TrainedModel], tmp_path: Path) -> None:
    model, volume = make_model("YX"), stack((12, 64, 64))
    done = run(model, volume, tmp_path / "seen.ome.zarr", lambda: (slice(9, 10), slice(0, 64), slice(0, 64)))
    assert done[0].early
    assert done[0].region == (slice(9, 10), slice(0, 64), slice(0, 64))
    assert not done[1].early
    run(model, volume, tmp_path / "plain.ome.zarr")
    assert content(tmp_path / "seen.ome.zarr") == content(tmp_path / "plain.ome.zarr")


def test_the_plane_in_view_of_a_large_volume_is_a_small_part_of_the_work(
    make_model: Callable[..., TrainedModel], tmp_path: Path
) -> None:
    """Of 256 x 1024 x 1024 voxels, none of which is computed here."""
    model = make_model("ZYX", width=32)
    volume = Volume(np.broadcast_to(np.zeros((), np.uint16), (256, 1024, 1024)), "ZYX")
    plane = (slice(128, 129), slice(0, 1024), slice(0, 1024))
    how: dict[str, Any] = {"device": "cpu", "precision": "float32", "augment": False, "tile": None, "memory": "4 GB"}
    task = prepare(model, volume, model.geometry.layout(volume), {"mean": tmp_path / "out.ome.zarr"}, "auto", **how)
    job: Any = SimpleNamespace(task=task, ledger=SimpleNamespace(done=set()))
    glimpses, work, planes = Glimpses(job, task.predictor(), lambda: plane), 0, set()
    while (part := glimpses._wanted()) is not None:
        index, target, plan = part
        tile = single_tile(target, volume.shape, plan.tiles.halo, plan.tiles.stride, plan.tiles.margin)
        work += prod(s.stop - s.start + sum(pad) for s, pad in zip(tile.source, tile.padding, strict=True))
        planes |= set(range(target[0].start, target[0].stop))
        glimpses._note(index, target, target, plan.axis)
    assert work < 0.35 * prod(volume.shape)
    assert len(planes) < 26  # of 256: less than a tenth of the volume


def test_a_part_in_view_that_is_done_by_half_is_completed(model: TrainedModel, tmp_path: Path) -> None:
    volume, out = stack((160, 64, 64)), tmp_path / "out.ome.zarr"
    begun = model.predict_into(volume, out, **OPTIONS)
    first = next(begun)
    begun.close()
    side = (slice(0, 160), slice(30, 31), slice(0, 64))  # across the planes, as in a view from the front
    steps = run(model, volume, out, lambda: side)
    early = [step.region for step in steps if step.early]
    assert early
    assert first.region is not None
    assert all(region is not None and region[0].start >= first.region[0].stop for region in early)
    assert max(region[0].stop for region in early if region is not None) == 160
    run(model, volume, tmp_path / "plain.ome.zarr")
    assert content(out) == content(tmp_path / "plain.ome.zarr")


def test_what_nobody_looks_at_any_more_is_dropped(model: TrainedModel, tmp_path: Path) -> None:
    volume = stack((96, 512, 64))
    view = [(slice(90, 91), slice(0, 512), slice(0, 64))]
    steps = []
    for step in model.predict_into(volume, tmp_path / "out.ome.zarr", view=lambda: view[0], **OPTIONS):
        steps.append(step)
        if len(steps) == 1:
            view[0] = (slice(10, 11), slice(0, 512), slice(0, 64))
    of_first = [s for s in steps if s.early and s.region is not None and s.region[0].start >= 80]
    of_second = [s for s in steps if s.early and s.region is not None and s.region[0].start < 80]
    assert sum(s.region[1].stop - s.region[1].start for s in of_first if s.region is not None) < 512
    assert sum(s.region[1].stop - s.region[1].start for s in of_second if s.region is not None) == 512
