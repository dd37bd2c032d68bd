"""Tile geometry: every pixel once, inputs on the grid and within bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ssdenoise.engine.tiles import MARGIN, TilePlan, choose_tile, single_tile

sizes = st.integers(1, 70)


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    ndim = draw(st.integers(2, 3))
    shape = tuple(draw(sizes) for _ in range(ndim))
    stride = tuple(draw(st.sampled_from([1, 2, 4, 8])) for _ in range(ndim))
    tile = tuple(s * draw(st.integers(1, 8)) for s in stride)
    halo = tuple(draw(st.integers(0, 30)) for _ in range(ndim))
    return TilePlan(shape, tuple(min(t, n) if t >= n else t for t, n in zip(tile, shape, strict=True)), halo, stride)


@given(plans())
@settings(deadline=None)
def test_every_pixel_once_and_with_its_halo(plan: TilePlan) -> None:
    counts = np.zeros(plan.shape, int)
    for tile in plan:
        counts[tile.target] += 1
        for d, (source, target, inner) in enumerate(zip(tile.source, tile.target, tile.inner, strict=True)):
            before, behind = tile.padding[d]
            assert (source.start - before) % plan.stride[d] == 0
            assert (source.stop - source.start + before + behind) % plan.stride[d] == 0
            assert target.start - source.start + before == inner.start
            assert before == 0 or source.start == 0
            assert behind == 0 or source.stop == plan.shape[d]
            assert before in (0, -(-MARGIN // plan.stride[d]) * plan.stride[d]) or before >= plan.halo[d] - target.start
            assert inner.stop - inner.start == target.stop - target.start
            assert source.start == 0 or target.start - source.start >= plan.halo[d]
            assert source.stop == plan.shape[d] or source.stop - target.stop >= plan.halo[d]
            assert 0 <= source.start < source.stop <= plan.shape[d]
    assert (counts == 1).all()
    assert len(list(plan)) == len(plan)


def test_exact_small_plan() -> None:
    plan = TilePlan((20,) * 2, (12, 20), (3, 3), (4, 4))
    first, second = plan
    axis = [(t.source[0], t.padding[0], t.inner[0], t.target[0]) for t in (first, second)]
    assert axis == [
        (slice(0, 16), (4, 0), slice(4, 16), slice(0, 12)),
        (slice(8, 20), (0, 4), slice(4, 12), slice(12, 20)),
    ]


def test_tile_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        TilePlan((100, 100), (30, 32), (4, 4), (4, 4))


def test_single_tile_equals_the_plans() -> None:
    plan = TilePlan((50, 61), (16, 32), (9, 9), (4, 4))
    for tile in plan:
        assert single_tile(tile.target, plan.shape, plan.halo, plan.stride) == tile


@pytest.mark.parametrize("grain", [None, (16, 256, 256), (5, 100, 100)], ids=str)
def test_chosen_tile_fits_and_is_whole_chunks(grain: tuple[int, ...] | None) -> None:
    shape, halo, stride = (100, 1000, 1100), (23, 23, 23), (4, 4, 4)
    limit = 30_000_000
    tile = choose_tile(shape, halo, stride, limit, grain)
    plan = TilePlan(shape, tile, halo, stride)
    assert plan.largest_input <= limit
    for size, n, unit in zip(tile, shape, grain or stride, strict=True):
        assert size == n or size % unit == 0
    assert plan.work < 2.5


def test_more_memory_wastes_less() -> None:
    def work(limit: int) -> float:
        shape, halo, stride = (256, 1024, 1024), (23,) * 3, (4,) * 3
        return TilePlan(shape, choose_tile(shape, halo, stride, limit), halo, stride).work

    assert work(2_000_000) > work(8_000_000) > work(64_000_000) >= 1


def test_too_little_memory_is_refused_with_both_numbers() -> None:
    with pytest.raises(MemoryError, match=r"2,[0-9]{3}.*1,000"):
        choose_tile((500, 500), (23, 23), (4, 4), 1000)
