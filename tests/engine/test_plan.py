"""Plans: within memory, whole blocks, every pixel once, and sensible choices."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from napari_ssdenoise.engine.memory import memory_limits, parse_memory
from napari_ssdenoise.engine.plan import Plan, plan_volume, within
from napari_ssdenoise.engine.stream import plan_output
from napari_ssdenoise.volume import Volume


def shaped(axes: str, *shape: int, dtype: str = "uint16", chunks: tuple[int, ...] = ()) -> Volume:
    """Return a volume of any size that takes no memory."""

    class Chunked:
        def __init__(self) -> None:
            self.shape, self.dtype, self.chunks = shape, np.dtype(dtype), chunks

        def __getitem__(self, key: Any) -> Any:
            return np.zeros([len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)], dtype)

    return Volume(Chunked() if chunks else np.broadcast_to(np.zeros((), dtype), shape), axes)


def plan_of(model: Any, volume: Volume, memory: str | int, **options: Any) -> Plan:
    predictor = model.predictor(device="cpu", precision="float32", augment=options.pop("augment", False))
    return plan_output(predictor, volume, model.geometry.layout(volume), 2, memory=memory, **options)[0]


def counted(plan: Plan, model: Any, volume: Volume) -> np.ndarray[Any, Any]:
    """Count how often every pixel of every image is written."""
    layout = model.geometry.layout(volume)
    shape = layout.spatial_shape(volume.shape)
    counts = np.zeros((*layout.sizes(layout.batch, volume.shape), *shape), int)
    for unit in plan.units(layout, volume.shape):
        for block in plan.blocks(unit):
            for index in unit.indices:
                counts[(*index, *block)] += 1
    return counts


STACKS = [
    ("ZYX", (40, 300, 280), "20 MB"),
    ("ZYX", (40, 300, 280), "60 MB"),
    ("ZYX", (40, 300, 280), "300 MB"),
    ("ZYX", (7, 33, 20), "100 MB"),
    ("ZYX", (1, 5, 3), "100 MB"),
    ("ZYX", (300, 40, 50), "20 MB"),
    ("TZYX", (3, 40, 130, 120), "30 MB"),
    ("CZYX", (2, 20, 130, 300), "30 MB"),
]
PLANES = [
    ("YX", (1, 1), "10 MB"),
    ("YX", (700, 900), "5 MB"),
    ("YX", (700, 900), "200 MB"),
    ("TYX", (50, 40, 30), "50 MB"),
    ("TCYX", (5, 3, 700, 30), "10 MB"),
]


@pytest.mark.parametrize(("axes", "shape", "memory"), [*STACKS, *PLANES], ids=str)
@pytest.mark.parametrize("augment", [False, True], ids=["plain", "augmented"])
def test_plans_stay_within_memory_and_cover_everything_once(
    make_model: Any, axes: str, shape: tuple[int, ...], memory: str, augment: bool
) -> None:
    model, volume = make_model("ZYX" if "Z" in axes else "YX"), shaped(axes, *shape)
    try:
        plan = plan_of(model, volume, memory, augment=augment)
    except MemoryError:
        assert augment  # eight flows may be too many where one fits
        plan = plan_of(model, volume, parse_memory(memory) * 8, augment=augment)
        memory = f"{8 * parse_memory(memory)}"
    assert 0 < plan.bytes <= parse_memory(memory)
    assert (counted(plan, model, volume) == 1).all()
    assert plan.work >= 1
    if plan.slab:
        assert plan.axis in model.predictor(device="cpu", augment=augment).flow_axes
        assert plan.tiles.tile[plan.axis] == plan.tiles.shape[plan.axis]
        assert plan.slab % model.network.stride[plan.axis] == 0
        assert plan.span >= plan.slab


def test_blocks_are_whole_output_chunks(make_model: Any) -> None:
    model, volume = make_model("ZYX"), shaped("ZYX", 70, 600, 800)
    predictor = model.predictor(device="cpu", precision="float32")
    layout = model.geometry.layout(volume)
    for memory in ("150 MB", "50 MB", "30 MB"):
        plan, chunks = plan_output(predictor, volume, layout, 2, memory=memory)
        for unit in plan.units(layout, volume.shape):
            for block in plan.blocks(unit):
                for part, chunk, n in zip(block, chunks, volume.shape, strict=True):
                    assert part.start % chunk == 0
                    assert part.stop % chunk == 0 or part.stop == n


def test_single_planes_get_chunks_as_large_as_those_of_stacks(make_model: Any) -> None:
    volume = shaped("ZYX", 20, 2048, 3000)
    sizes = []
    for axes in ("ZYX", "YX"):
        model = make_model(axes)
        predictor = model.predictor(device="cpu", precision="float32")
        _, chunks = plan_output(predictor, volume, model.geometry.layout(volume), 2, memory="40 GB")
        sizes.append(chunks)
    assert sizes == [(16, 256, 256), (1, 1024, 1024)]


def test_less_memory_gives_smaller_tiles_until_it_is_refused_with_both_numbers(make_model: Any) -> None:
    model, volume = make_model("ZYX"), shaped("ZYX", 64, 2000, 2000)
    plans = [plan_of(model, volume, memory) for memory in ("1 GB", "200 MB", "50 MB", "25 MB")]
    assert [p.work for p in plans] == sorted(p.work for p in plans)
    assert [len(p.tiles) for p in plans] == sorted(len(p.tiles) for p in plans)
    with pytest.raises(MemoryError, match=r"at least .* limited to 0\.10 MB\. Allow more memory") as refused:
        plan_of(model, volume, "100 kB")
    found = re.search(r"at least ([\d.]+ [GM]B)", str(refused.value))
    assert found
    enough = int(1.01 * parse_memory(found[1]))
    assert plan_of(model, volume, enough).bytes <= enough
    with pytest.raises(MemoryError):
        plan_of(model, volume, int(0.98 * parse_memory(found[1])))


def test_long_stacks_flow_along_their_length_without_halos(make_model: Any) -> None:
    plan = plan_of(make_model("ZYX", width=8), shaped("ZYX", 2048, 256, 256), "500 MB")
    assert plan.slab
    assert plan.axis == 0
    assert plan.tiles.halo[0] > 0
    assert plan.work < 1.3


def test_what_can_only_run_whole_is_planned_whole(make_model: Any) -> None:
    class Own(type(make_model("ZYX").algorithm)):  # type: ignore[misc]
        def predict(self, network: Any, noisy: Any) -> Any:
            return {"mean": network(noisy)}

    plan = plan_of(make_model("ZYX", algorithm=Own(width=4)), shaped("ZYX", 64, 300, 300), "200 MB")
    assert plan.slab == 0
    assert plan.bytes <= 200e6


def test_many_small_images_are_computed_together(make_model: Any) -> None:
    model = make_model("YX")
    volume = shaped("TYX", 1000, 40, 50)
    plan = plan_of(model, volume, "500 MB")
    assert plan.batch > 10
    units = list(plan.units(model.geometry.layout(volume), volume.shape))
    assert len(units) == -(-1000 // plan.batch)
    assert sum(len(unit.indices) for unit in units) == 1000
    assert plan_of(model, shaped("TYX", 3, 40, 50), "500 MB").batch == 3
    few = plan_of(model, volume, "20 MB")
    assert few.batch < plan.batch
    assert few.bytes <= 20e6


def test_a_given_tile_is_taken_as_it_is(make_model: Any) -> None:
    model, volume = make_model("ZYX"), shaped("ZYX", 40, 200, 210)
    plan = plan_of(model, volume, "1 kB", tile=(8, 64, 400))
    assert plan.tiles.tile == (8, 64, 210)
    assert (plan.slab, plan.batch) == (0, 1)
    assert (counted(plan, model, volume) == 1).all()
    with pytest.raises(ValueError, match="one length for each of the axes 'ZYX'"):
        plan_of(model, volume, "1 GB", tile=(64, 64))
    with pytest.raises(ValueError, match="multiple of the network's stride"):
        plan_of(model, volume, "1 GB", tile=(6, 64, 64))


@pytest.mark.parametrize("jobs", [1, 2, 3, 7, 1000])
def test_plans_split_for_workers_cover_everything_once(make_model: Any, jobs: int) -> None:
    model, volume = make_model("ZYX", depth=1), shaped("ZYX", 400, 300, 310)
    whole = plan_of(model, volume, "30 MB")
    assert whole.slab
    plan = whole.split(jobs)
    assert (counted(plan, model, volume) == 1).all()
    assert len(plan.tiles) >= min(jobs, len(whole.tiles))
    layout = model.geometry.layout(volume)
    blocks = [
        {(unit.indices, block) for unit in p.units(layout, volume.shape) for block in map(str, p.blocks(unit))}
        for p in (whole, plan)
    ]
    assert blocks[0] == blocks[1]
    # Parts that are hardly more than their halos would be slower for all.
    assert plan.tiles.tile[plan.axis] >= min(4 * plan.tiles.halo[plan.axis], 400)
    assert plan.work <= 1.6 * whole.work
    whole_tiles = plan_of(model, volume, "30 MB", tile=(40, 64, 64))
    assert whole_tiles.split(jobs) == whole_tiles


def test_a_plan_says_itself(make_model: Any) -> None:
    text = plan_of(make_model("ZYX"), shaped("ZYX", 300, 600, 800), "100 MB").describe()
    assert re.fullmatch(
        r"\d+ tiles of \d+ x \d+ x \d+ \(ZYX\), \d+ planes of [ZY] at a time; \d+% of the work in halos; [\d.]+ MB",
        text,
    )
    assert "at a time" not in plan_of(make_model("YX"), shaped("YX", 60, 80), "100 MB").describe()


def test_chunks_of_the_input_are_read_whole(make_model: Any) -> None:
    model = make_model("ZYX")
    chunked = shaped("ZYX", 256, 256, 256, chunks=(32, 64, 64))
    plan = plan_volume(
        model.predictor(device="cpu"), chunked, model.geometry.layout(chunked), memory="800 MB", chunks=(16, 128, 128)
    )
    assert plan.slab
    assert plan.axis == 0
    assert plan.span % 32 == 0


def test_more_memory_is_taken_only_where_it_is_allowed_and_needed() -> None:
    assert memory_limits("1 GB") == (10**9,)
    assert memory_limits("1 GB+")[:3] == (10**9, 2 * 10**9, 4 * 10**9)
    asked: list[int] = []

    def plan(limit: int) -> int:
        asked.append(limit)
        if limit < 3e9:
            raise MemoryError(limit)
        return limit

    assert within("1 GB+", plan) == 4 * 10**9
    assert asked == [10**9, 2 * 10**9, 4 * 10**9]
    with pytest.raises(MemoryError, match="2000000000"):
        within("2 GB", plan)
    with pytest.raises(MemoryError, match="1600"):
        within("100 B+", plan)
