"""Carry out a plan: read ahead, push slabs through the network, hand on what is finished."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ssdenoise.engine.device import free_memory, is_out_of_memory
from napari_ssdenoise.engine.kept_chunks import keeping_chunks
from napari_ssdenoise.engine.memory import give_back_memory, resident_bytes, reused_memory
from napari_ssdenoise.engine.predict import ahead
from napari_ssdenoise.engine.scenes import View
from napari_ssdenoise.engine.tiles import Tile, single_tile
from napari_ssdenoise.engine.transfer import Transfer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.plan import Plan, Unit
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.volume import Volume

RELIEVED = 0.92  # of the allowed memory may be held, for the most part by free blocks, before they are given back
READ_AHEAD = 1  # spans (or whole tiles) decoded while one is computed


@dataclass(frozen=True)
class Piece:
    """A finished part of one image.

    Attributes
    ----------
    index
        Position of the image along the volume's batch axes.
    target
        Where in the image it belongs.
    images
        By output name, (channels, *target), in the input's units.
    """

    index: tuple[int, ...]
    target: tuple[slice, ...]
    images: dict[str, NDArray[np.float32]]


def execute(
    predictor: Predictor, plan: Plan, volume: Volume, layout: Layout, units: Iterable[Unit], result_bytes: int = 0
) -> Generator[Piece]:
    """Compute units one after the other.

    If the device's memory runs out, what is left is computed in tiles of half the size.

    Parameters
    ----------
    result_bytes
        Of the arrays that the caller fills meanwhile: they do not count for the plan's limit.
    """
    left = list(units)
    others = resident_bytes() + result_bytes
    images = _Images(predictor, plan, keeping_chunks(volume, layout, (plan.limit - plan.bytes) // 2), layout, others)
    with reused_memory(plan.bytes if predictor.device.type == "cpu" else 0):
        while left:
            done = _Done()
            try:
                yield from (_whole if not plan.slab else _flowing)(images, left, done)
                return
            except RuntimeError as error:
                if not plan.slab or not is_out_of_memory(error):
                    raise
                # What is written together must be computed by one unit.
                left = _halved(images, left[done.units :], done.planes // plan.block * plan.block, error)
            free_memory(predictor.device)


@dataclass
class _Done:
    """How far a run has come: whole units, and planes of the target of the next one."""

    units: int = 0
    planes: int = 0


@dataclass(frozen=True)
class _Images:
    """The images to compute, with the means to read them."""

    predictor: Predictor
    plan: Plan
    volume: Volume
    layout: Layout
    others: int  # bytes of the process that are none of the plan's

    def read(self, unit: Unit, low: int, high: int) -> tuple[list[NDArray[Any]], list[int]]:
        """Read planes ``low`` to ``high`` of a unit's input, mirrored beyond the image's border."""
        tile, axis = unit.tile, self.plan.axis
        before = tile.padding[axis][0]
        source = tile.source[axis]
        planes = _mirrored(low - before, high - before, source.stop - source.start)
        first, last = int(planes.min()), int(planes.max()) + 1
        region = _with(tile.source, axis, slice(source.start + first, source.start + last))
        padding = [(0, 0), *_with(tile.padding, axis, (0, 0))]
        views = [View(self.volume, self.layout, index) for index in unit.indices]
        blocks = [np.pad(view.read(region), padding, mode="symmetric") for view in views]
        if not np.array_equal(planes, np.arange(first, last)):
            blocks = [np.take(block, planes - first, axis + 1) for block in blocks]
        return blocks, [view.channel for view in views]

    def normalised(self, unit: Unit, low: int, high: int) -> Tensor:
        blocks, channels = self.read(unit, low, high)
        noisy = self.predictor.normalised(blocks, channels)
        if not self.predictor.algorithm.mirrored:
            self._blank(noisy[:, : len(blocks[0])], unit.tile, low)
        return noisy

    def _blank(self, image: Tensor, tile: Tile, low: int) -> None:
        """Put zeros, as convolutions do, where the input sticks out of the image; it begins at plane ``low``."""
        for d, (source, (before, _)) in enumerate(zip(tile.source, tile.padding, strict=True)):
            count = image.shape[d + 2]
            first = before - (low if d == self.plan.axis else 0)
            last = first + source.stop - source.start
            image.narrow(d + 2, 0, min(count, max(0, first))).zero_()
            behind = min(count, max(0, count - last))
            image.narrow(d + 2, count - behind, behind).zero_()

    def pieces(self, unit: Unit, low: int, outputs: dict[str, NDArray[np.float32]]) -> Iterator[Piece]:
        """Cut results that begin at plane ``low`` of a unit's input down to its target, in the input's units."""
        tile, axis = unit.tile, self.plan.axis
        inner, target = tile.inner[axis], tile.target[axis]
        count = next(iter(outputs.values())).shape[axis + 2]
        first, last = max(low, inner.start + unit.start), min(low + count, inner.stop)
        if first >= last:
            return
        crop = _with(tile.inner, axis, slice(first - low, last - low))
        start = target.start + first - inner.start
        place = _with(tile.target, axis, slice(start, start + last - first))
        for number, index in enumerate(unit.indices):
            channel = View(self.volume, self.layout, index).channel
            images = {
                name: self.predictor.restored(name, image[(number, slice(None), *crop)], channel)
                for name, image in outputs.items()
            }
            yield Piece(index, place, images)


def _whole(images: _Images, units: Sequence[Unit], done: _Done) -> Iterator[Piece]:
    """Compute every tile in one pass."""

    def read(unit: Unit) -> tuple[Unit, Tensor]:
        return unit, images.normalised(unit, 0, _length(unit.tile, images.plan.axis))

    for unit, noisy in ahead(read, units, READ_AHEAD + 1):
        outputs = images.predictor.run(noisy)
        yield from images.pieces(unit, 0, {name: image.numpy() for name, image in outputs.items()})
        done.units += 1


def _flowing(images: _Images, units: Sequence[Unit], done: _Done) -> Iterator[Piece]:
    """Let every tile flow through the network in slabs."""
    predictor, plan = images.predictor, images.plan

    def read(request: tuple[int, int, int]) -> tuple[int, Tensor]:
        number, low, high = request
        return number, images.normalised(units[number], low, high)

    requests = (
        (number, low, high) for number, unit in enumerate(units) for low, high in _spans(unit, plan, predictor.halo)
    )
    relieve = _Relief(images.others + RELIEVED * plan.limit) if predictor.device.type == "cpu" else None
    transfer = Transfer(predictor.device)
    for number, spans in groupby(ahead(read, requests, READ_AHEAD), key=lambda made: made[0]):
        unit = units[number]
        length = _length(unit.tile, plan.axis)
        start = _first_slab(unit, plan, predictor.halo)
        stack = predictor.flow(length, plan.axis, plan.slab, start, relieve)
        waiting: tuple[int, Callable[[], dict[str, NDArray[np.float32]]]] | None = None
        slabs = _slabs((planes for _, planes in spans), plan.axis + 2, plan.slab)
        while stack.end < length:
            low = stack.end
            slab = next(slabs, None)
            outputs = transfer.down(stack.push(None if slab is None else transfer.up(slab)))
            # The previous slab's result is fetched while the device computes this one.
            if waiting:
                for piece in images.pieces(unit, waiting[0], waiting[1]()):
                    yield piece
                    done.planes = piece.target[plan.axis].stop - unit.tile.target[plan.axis].start
            waiting = (low, outputs) if stack.end > low else None
        if waiting:
            yield from images.pieces(unit, waiting[0], waiting[1]())
        done.units, done.planes = done.units + 1, 0


class _Relief:
    """Gives free memory back when the process holds more than a limit, and again only when it has grown since."""

    def __init__(self, limit: float) -> None:
        self._limit = self._level = limit

    def __call__(self) -> None:
        if resident_bytes() > self._level:
            give_back_memory()
            self._level = max(self._limit, 1.05 * resident_bytes())


def _slabs(spans: Iterator[Tensor], dim: int, slab: int) -> Iterator[Tensor]:
    """Cut what was read into slabs; the last one may be thinner."""
    kept: Tensor | None = None
    for span in spans:
        joined = span if kept is None else torch.cat((kept, span), dim)
        whole = joined.shape[dim] // slab * slab
        for low in range(0, whole, slab):
            yield joined.narrow(dim, low, slab)
        kept = joined.narrow(dim, whole, joined.shape[dim] - whole) if whole < joined.shape[dim] else None
    if kept is not None:
        yield kept


def _first_slab(unit: Unit, plan: Plan, halo: Sequence[int]) -> int:
    """Return the slab to begin with so that everything from the unit's first plane on is right."""
    first: int = unit.tile.inner[plan.axis].start + unit.start
    return max(0, first - halo[plan.axis]) // plan.slab


def _spans(unit: Unit, plan: Plan, halo: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a unit's input along the flow into what is read at once: whole chunks."""
    length = _length(unit.tile, plan.axis)
    # Chunks begin at multiples of the span in the image, which lie at these places in the input.
    origin = unit.tile.source[plan.axis].start - unit.tile.padding[plan.axis][0]
    low = _first_slab(unit, plan, halo) * plan.slab
    while low < length:
        high = (max(0, origin + low) // plan.span + 1) * plan.span - origin
        if origin + high >= unit.tile.source[plan.axis].stop:
            high = length  # what is mirrored behind the border is in the same chunk
        yield low, high
        low = high


def _halved(images: _Images, left: Sequence[Unit], planes: int, error: RuntimeError) -> list[Unit]:
    """Cut what is left into tiles of half the width; raise the error again if they would hardly be smaller."""
    plan, predictor = images.plan, images.predictor
    shape = images.layout.spatial_shape(images.volume.shape)
    units: list[Unit] = []
    for number, unit in enumerate(left):
        target = unit.tile.target
        done = max(unit.start, planes if number == 0 else 0)
        along = target[plan.axis]
        target = _with(target, plan.axis, slice(along.start + done, along.stop))
        widest = max((d for d in range(len(shape)) if d != plan.axis), key=lambda d: target[d].stop - target[d].start)
        across, grid = target[widest], predictor.stride[widest]
        middle = across.start + -(-(across.stop - across.start) // 2 // grid) * grid
        halves = [slice(across.start, middle), slice(middle, across.stop)]
        tiles = [
            single_tile(_with(target, widest, half), shape, predictor.halo, predictor.stride, predictor.margin)
            for half in halves
        ]
        if max(_length(tile, widest) for tile in tiles) > 0.9 * _length(unit.tile, widest):
            raise error
        units += [replace(unit, tile=tile, start=0) for tile in tiles]
    return units


def _length(tile: Tile, d: int) -> int:
    """Return the length of a tile's input along one axis."""
    length: int = tile.source[d].stop - tile.source[d].start
    return length + sum(tile.padding[d])


def _mirrored(low: int, high: int, n: int) -> NDArray[np.int64]:
    """Return which planes of ``n`` stand at positions ``low`` to ``high``, mirrored at both ends."""
    place = np.arange(low, high) % (2 * n)
    return np.where(place < n, place, 2 * n - 1 - place)


def _with(values: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, ...]:
    return (*values[:axis], value, *values[axis + 1 :])
