"""Denoise volumes, or parts of them, into memory; `stream` does it into files."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise.engine.execute import execute
from napari_ssdenoise.engine.plan import Plan, Unit, plan_volume
from napari_ssdenoise.engine.tiles import TilePlan, single_tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.volume import Volume


def whole(
    predictor: Predictor,
    volume: Volume,
    layout: Layout,
    names: Sequence[str],
    *,
    tile: Sequence[int] | None,
    memory: str | int,
) -> dict[str, NDArray[np.float32]]:
    """Return outputs, by name, in a volume's shape.

    Parameters
    ----------
    tile, memory
        As for `TrainedModel.predict`.

    Raises
    ------
    MemoryError
        If not even the smallest tile fits into ``memory``.
    """
    plan = plan_volume(predictor, volume, layout, tile=tile, memory=memory)
    arrays = {name: np.empty(volume.shape, np.float32) for name in names}
    results = sum(array.nbytes for array in arrays.values())
    for piece in execute(predictor, plan, volume, layout, plan.units(layout, volume.shape), results):
        key = layout.key(piece.index, piece.target)
        for name, array in arrays.items():
            array[key] = layout.from_network(piece.images[name])
    return arrays


def part(
    predictor: Predictor, volume: Volume, layout: Layout, region: Sequence[slice], *, context: int | None
) -> dict[str, NDArray[np.float32]]:
    """Return all outputs, by name, for a region of a volume, in the region's shape.

    Parameters
    ----------
    region, context
        As for `TrainedModel.predict_part`; a slice for each of the volume's axes.
    """
    by_axis = dict(zip(volume.axes, region, strict=True))
    halo = [h if context is None else min(h, context) for h in predictor.halo]
    target = [by_axis[axis] for axis in layout.spatial]
    shape = layout.spatial_shape(volume.shape)
    tile = single_tile(target, shape, halo, predictor.stride, predictor.margin)
    arrays = {name: np.empty([s.stop - s.start for s in region], np.float32) for name in predictor.algorithm.outputs}
    indices = product(*(range(by_axis[axis].start, by_axis[axis].stop) for axis in layout.batch))
    plan = Plan.whole(TilePlan(shape, shape, predictor.halo, predictor.stride, predictor.margin), layout.spatial)
    for piece in execute(predictor, plan, volume, layout, (Unit((index,), tile) for index in indices)):
        key = _within(layout.key(piece.index, target), region)
        for name, array in arrays.items():
            array[key] = layout.from_network(piece.images[name])
    return arrays


def _within(key: Sequence[slice], region: Sequence[slice]) -> tuple[slice, ...]:
    """Count a key's slices from the region's beginning; whole axes stay whole."""
    return tuple(
        s if s == slice(None) else slice(s.start - r.start, s.stop - r.start) for s, r in zip(key, region, strict=True)
    )
