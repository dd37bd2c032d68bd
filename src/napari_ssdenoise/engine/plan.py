"""Plan a prediction: which tiles, how each is computed, and how much memory that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, lcm, log2, prod
from typing import TYPE_CHECKING, Self, TypeVar

from napari_ssdenoise._words import counted
from napari_ssdenoise.complex_parts import AXIS, is_parts
from napari_ssdenoise.engine.memory import format_memory, memory_limits
from napari_ssdenoise.engine.predict import BYTES_AROUND
from napari_ssdenoise.engine.tiles import SmallestTileError, Tile, TilePlan, choose_tile

if TYPE_CHECKING:
    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.volume import Volume

T = TypeVar("T")

# What the allocator needs beyond the tensors alive at the same time (measured: 1.27 to 1.32).
SLACK = 1.4
# Compressed and decoded chunks on their way, whatever the tile.
IN_TRANSIT = 64 << 20
SLABS = (1, 2, 4, 8, 16)  # thicknesses to consider, in units of the network's stride
SHORTEST_BLOCK = 64  # planes, or rows, of the output that one chunk holds at least where tiles flow along them
SHORTEST_READ = 16  # planes read at once where the volume has no chunks
BATCH_PIXELS = 1 << 18  # small images are computed together up to this size


@dataclass(frozen=True)
class Plan:
    """How to compute a volume.

    Attributes
    ----------
    tiles
        Of one image.
    axis
        Spatial axis along which each tile flows through the network.
    slab
        Planes at a time; 0: whole tiles.
    block
        Planes of the result that are finished, and written, together.
    span
        Planes read at a time.
    batch
        Images of which the same tile is computed together; a multiple of `together`.
    bytes
        Projected memory, without that of the process itself.
    limit
        What was allowed.
    spatial
        Letters of the axes.
    cost
        Estimated time, in units of the bare network's on the whole image.
    """

    tiles: TilePlan
    axis: int
    slab: int
    block: int
    span: int
    batch: int
    bytes: int
    limit: int
    spatial: str
    cost: float = 1.0

    @classmethod
    def whole(cls, tiles: TilePlan, spatial: str, needed: int = 0, batch: int = 1) -> Plan:
        """Return the plan that computes given tiles each in one pass."""
        return cls(tiles, 0, 0, tiles.tile[0], tiles.largest(0), batch, needed, needed, spatial)

    @property
    def work(self) -> float:
        """Pixels computed per pixel of the result: 1 without halos."""
        return self.tiles.work

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths, per spatial axis, of which all blocks are multiples, apart from those at the end of an axis."""
        return (*self.tiles.tile[: self.axis], self.block, *self.tiles.tile[self.axis + 1 :])

    def units(self, layout: Layout, shape: Sequence[int]) -> Iterator[Unit]:
        """List the work: every tile of every image."""
        indices = list(layout.indices(shape))
        for start in range(0, len(indices), self.batch):
            for tile in self.tiles:
                yield Unit(tuple(indices[start : start + self.batch]), tile)

    def blocks(self, unit: Unit) -> Iterator[tuple[slice, ...]]:
        """Cut a unit's part of an image into the blocks that are written."""
        target, axis = unit.tile.target, self.axis
        for start in range(target[axis].start, target[axis].stop, self.block):
            stop = min(start + self.block, target[axis].stop)
            yield (*target[:axis], slice(start, stop), *target[axis + 1 :])

    def describe(self) -> str:
        """Say it in one line."""
        sizes = " x ".join(str(n) for n in self.tiles.tile)
        how = f", {self.slab} planes of {self.spatial[self.axis]} at a time" if self.slab else ""
        halo = f"{1 - 1 / self.work:.0%} of the work in halos"
        tiles = counted(len(self.tiles), "tile")
        return f"{tiles} of {sizes} ({self.spatial}){how}; {halo}; {format_memory(self.bytes)}"

    def split(self, jobs: int) -> Plan:
        """Cut the tiles along the flow until there are ``jobs`` of them, as long as halos stay affordable."""
        tiles, axis = self.tiles, self.axis
        unit = lcm(self.block, tiles.stride[axis])
        parts = ceil(jobs / len(tiles))
        least = max(4 * tiles.halo[axis], ceil(tiles.shape[axis] / parts))
        length = min(tiles.shape[axis], ceil(least / unit) * unit)
        if not self.slab or parts == 1:
            return self
        return replace(self, tiles=replace(tiles, tile=(*tiles.tile[:axis], length, *tiles.tile[axis + 1 :])))


@dataclass(frozen=True)
class Unit:
    """One tile of one image, or of several that are computed together.

    Attributes
    ----------
    indices
        Positions along the volume's batch axes.
    tile
        Of each of them.
    start
        First plane, along the flow, of the target that is still to be done.
    """

    indices: tuple[tuple[int, ...], ...]
    tile: Tile
    start: int = 0


def together(volume: Volume, layout: Layout) -> int:
    """Return how many images in a row are written as one: the parts of a complex image, if they are images."""
    return 2 if is_parts(volume) and AXIS in layout.batch else 1


def plan_volume(
    predictor: Predictor,
    volume: Volume,
    layout: Layout,
    *,
    tile: Sequence[int] | None = None,
    memory: str | int,
    chunks: Sequence[int] | None = None,
    itemsize: int = 4,
) -> Plan:
    """Plan the prediction of a volume.

    Parameters
    ----------
    tile
        Output tile per spatial axis, taken as it is and computed whole; by default the fastest that fits.
    memory
        Upper bound, e.g. ``"4 GB"``; ``"4 GB+"``: more only if the smallest tile takes more.
    chunks
        Of the output, per spatial axis: tiles are made of whole ones. Along the flow, the plan's blocks may be shorter.
    itemsize
        Bytes per pixel of the output.

    Raises
    ------
    MemoryError
        If not even the smallest tile fits, with both numbers.
    ValueError
        If a given tile does not fit the image or the network.
    """
    shape = layout.spatial_shape(volume.shape)
    n_images = prod(layout.sizes(layout.batch, volume.shape))
    if tile is not None:
        if len(tile) != len(shape):
            raise ValueError(f"tile {tuple(tile)} must have one length for each of the axes {layout.spatial!r}.")
        sizes = tuple(min(t, n) for t, n in zip(tile, shape, strict=True))
        tiles = TilePlan(shape, sizes, predictor.halo, predictor.stride, predictor.margin)
        batch = together(volume, layout)
        needed = batch * tiles.largest_input * predictor.bytes_per_pixel
        return Plan.whole(tiles, layout.spatial, needed, batch)
    grain = tuple(chunks or predictor.stride)
    return within(
        memory,
        lambda limit: _Planner.of(predictor, volume, layout, shape, limit, grain, itemsize, n_images).best(),
    )


def within(memory: str | int, plan: Callable[[int], T]) -> T:
    """Plan with as much memory as is wanted, or with as little more as it takes if that is allowed (`memory_limits`).

    Raises
    ------
    MemoryError
        If all is too little.
    """
    *limits, last = memory_limits(memory)
    for limit in limits:
        with suppress(MemoryError):
            return plan(limit)
    return plan(last)


def plan_part(
    predictor: Predictor, volume: Volume, layout: Layout, shape: tuple[int, ...], *, memory: int, itemsize: int = 4
) -> Plan:
    """Plan the prediction of a part of one image, as if it were all of it.

    Parameters
    ----------
    shape
        Of the part with the input that it needs, per spatial axis.
    memory
        Upper bound in bytes.
    itemsize
        Bytes per pixel of the output.

    Raises
    ------
    MemoryError
        If not even the smallest tile fits.
    """
    return _Planner.of(predictor, volume, layout, shape, memory, predictor.stride, itemsize).best()


@dataclass(frozen=True)
class _Planner:
    """Weighs the ways to compute an image against each other."""

    predictor: Predictor
    shape: tuple[int, ...]
    spatial: str
    memory: int
    grain: tuple[int, ...]
    chunks: tuple[int, ...]  # of the input
    channels: int
    input_bytes: int  # per value
    output_bytes: int
    n_images: int
    together: int  # images that no two units may share

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        volume: Volume,
        layout: Layout,
        shape: tuple[int, ...],
        memory: int,
        grain: tuple[int, ...],
        output_bytes: int,
        n_images: int = 1,
    ) -> Self:
        """Make one for images of a volume, or for parts of them."""
        chunks = layout.sizes(layout.spatial, volume.chunks)
        channels = layout.n_channels(volume.shape)
        n = together(volume, layout)
        return cls(
            predictor,
            shape,
            layout.spatial,
            memory,
            grain,
            chunks,
            channels,
            volume.dtype.itemsize,
            output_bytes,
            max(n, n_images),
            n,
        )

    def best(self) -> Plan:
        """Return the plan that is done first."""
        plans: list[Plan] = []
        needed: list[float] = []
        for axis, slab in self._choices():
            per_pixel, span, block = self._costs(axis, slab)
            per_pixel *= self.together
            available = max(self.memory - IN_TRANSIT, self.memory / 2)
            try:
                plans.append(self._plan(axis, slab, span, block, int(available / per_pixel), per_pixel))
            except SmallestTileError as error:
                network = error.pixels * per_pixel
                needed.append(min(network + IN_TRANSIT, 2 * network))
        if plans:
            return min((replace(plan, cost=self._time(plan)) for plan in plans), key=lambda plan: plan.cost)
        raise MemoryError(
            f"denoising this image takes at least {format_memory(min(needed))}, but memory is limited to "
            f"{format_memory(self.memory)}. Allow more memory."
        )

    def _choices(self) -> Iterator[tuple[int, int]]:
        """List axes and thicknesses of flow; thickness 0 stands for whole tiles."""
        yield 0, 0
        if prod(self.shape) <= BATCH_PIXELS and self.memory >= 1 << 30:
            return  # small enough for one pass, and not worth the thought
        for axis in self.predictor.flow_axes:
            stride = self.predictor.stride[axis]
            yield from ((axis, stride * n) for n in SLABS if stride * n < self.shape[axis])

    def _costs(self, axis: int, slab: int) -> tuple[float, int, int]:
        """Return the bytes per pixel (of a tile's cross-section, if it flows), and the lengths to read and write."""
        output = 3 * self.output_bytes + 6  # blocks being filled and written, and their lower resolutions
        if not slab:
            return self.predictor.bytes_per_pixel + self.channels * (2 * self.input_bytes + output), 0, 0
        network = SLACK * self.predictor.flow_bytes(axis, slab)
        n, span = self.shape[axis], self.chunks[axis]
        span = max(slab, SHORTEST_READ) if span >= n else max(slab, span)
        while span >= 2 * slab and 2 * span * self.input_bytes * self.channels > network / 2:
            span //= 2
        block = self.grain[axis]
        while block % 2 == 0 and block > SHORTEST_BLOCK and block * output * self.channels > network / 8:
            block //= 2
        block = min(block, n)
        around = 2 * span * self.input_bytes + slab * BYTES_AROUND + block * output
        return network + self.channels * around, span, block

    def _plan(self, axis: int, slab: int, span: int, block: int, pixels: int, per_pixel: float) -> Plan:
        halo, stride, shape = self.predictor.halo, self.predictor.stride, self.shape
        cross = [d for d in range(len(shape)) if not slab or d != axis]
        sizes, reach, steps, grain = ([values[d] for d in cross] for values in (shape, halo, stride, self.grain))
        margin = self.predictor.margin
        lengths = dict(zip(cross, choose_tile(sizes, reach, steps, pixels, grain, margin), strict=True))
        tiles = TilePlan(shape, tuple(lengths.get(d, shape[d]) for d in range(len(shape))), halo, stride, margin)
        used = prod(tiles.largest(d) for d in cross)
        batch = 1 if slab else max(1, min(BATCH_PIXELS // self.together, pixels) // used)
        batch = min(batch, self.n_images // self.together)
        needed = int(min(used * batch * per_pixel + IN_TRANSIT, 2 * used * batch * per_pixel))
        batch *= self.together
        return Plan(tiles, axis, slab, block or tiles.tile[0], span, batch, needed, self.memory, self.spatial)

    def _time(self, plan: Plan) -> float:
        """Estimate the time, in units of the bare network's; each pass through the layers has its fixed cost."""
        largest = [plan.tiles.largest(d) for d in range(len(self.shape))]
        if plan.slab:
            largest[plan.axis] = plan.slab
        pixels = prod(largest) * plan.batch
        passes = 1 + 5e4 / pixels
        caches = 1 if plan.slab else max(1.0, 1 + 0.05 * log2(pixels / 2**20))
        return plan.work * passes * caches + 0.04 * self._reads(plan)

    def _reads(self, plan: Plan) -> float:
        """Return how often each chunk of the input is decoded."""
        times = 1.0
        for d, (n, chunk) in enumerate(zip(self.shape, self.chunks, strict=True)):
            if chunk < n:
                times *= sum(ceil(s.stop / chunk) - s.start // chunk for s in plan.tiles.sources(d)) / ceil(n / chunk)
            if d == plan.axis and plan.slab and plan.span < chunk < n:
                times *= chunk / plan.span
        return times
