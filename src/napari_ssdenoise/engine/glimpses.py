"""Show first what somebody looks at: parts of a result that are computed out of turn, and again in their turn.

A stack flows through the network from one end to the other (see `Flow`), which nothing may interrupt. So what is in
view is computed beside it, as if it were a small volume of its own with the network's whole reach around it, and put
into the file at once. It counts for nothing: what the flow computes replaces it later, and the finished file is the
same, to the byte, whatever was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import product
from typing import TYPE_CHECKING, Final

from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.engine.execute import execute
from napari_ssdenoise.engine.job import Block, Place, to_dtype
from napari_ssdenoise.engine.plan import Unit, plan_part, together
from napari_ssdenoise.engine.tiles import single_tile

if TYPE_CHECKING:
    from napari_ssdenoise.engine.job import Job
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.engine.predict import Predictor

# Returns what is looked at, a slice for each axis of the volume; None for nothing. Called from the computing thread.
Gaze = Callable[[], Sequence[slice] | None]
Target = tuple[slice, ...]

SHARE: Final = 0.25  # of the memory allowed, which a part in view takes beside the flow


class Glimpses:
    """The parts of a job that are computed out of turn.

    Parameters
    ----------
    job
        What is being made.
    predictor
        That also computes the rest.
    view
        What is looked at, now.
    """

    def __init__(self, job: Job, predictor: Predictor, view: Gaze) -> None:
        self.task = job.task
        self.layout = job.task.layout
        self.predictor = predictor
        self.view = view
        self._together = together(job.task.volume, self.layout)
        self._ledger = job.ledger
        self._passed: set[str] = set()  # blocks of the plan on their way into the file
        self._shown: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()  # image and chunk
        self._shape = self.layout.spatial_shape(self.task.volume.shape)
        self._grain = self.layout.sizes(self.layout.spatial, self.task.chunks)

    def among(self, blocks: Generator[Block | None]) -> Generator[Block | None]:
        """Pass a job's blocks on, and put what is looked at before each of them."""
        with closing(blocks):
            while True:
                while (part := self._wanted()) is not None:
                    yield from self._compute(*part)
                try:
                    block = next(blocks)
                except StopIteration:
                    return
                if block is not None:
                    self._passed.add(block.place.name)
                yield block

    def _wanted(self) -> tuple[tuple[int, ...], Target, Plan] | None:
        """Return what to compute next: around the chunk that is missing nearest to the middle of the view."""
        seen = self._seen()
        if seen is None:
            return None
        indices, inside = seen
        chunks = product(indices, self._chunks(inside))
        nearest = next(((index, chunk) for index, chunk in chunks if self._is_missing(index, chunk)), None)
        if nearest is None:
            return None
        try:
            plan = self._plan(inside)
        except MemoryError:
            return None  # then all comes in its turn
        return nearest[0], self._around(*nearest, inside, plan), plan

    def _seen(self) -> tuple[list[tuple[int, ...]], Target] | None:
        """Return the images in view, and the part of them."""
        view = self.view()
        if view is None:
            return None
        sizes = self.task.volume.sizes
        # Complex images are looked at in their own axes; of images that belong together, the first stands for all.
        whole = [*view, slice(None)] if is_parts(self.task.volume) else view
        parts = {axis: part.indices(n) for (axis, n), part in zip(sizes.items(), whole, strict=True)}
        indices = [i for i in product(*(range(*parts[axis]) for axis in self.layout.batch)) if self._all_of(i)[0] == i]
        return indices, tuple(slice(*parts[axis][:2]) for axis in self.layout.spatial)

    def _chunks(self, inside: Target) -> list[tuple[int, ...]]:
        """List the chunks of the file that a part of an image touches, from its middle on."""
        touched = [range(s.start // n, -(-s.stop // n)) for s, n in zip(inside, self._grain, strict=True)]
        middle = [(s.start + s.stop) / 2 / n - 0.5 for s, n in zip(inside, self._grain, strict=True)]
        return sorted(product(*touched), key=lambda chunk: sum(abs(c - m) for c, m in zip(chunk, middle, strict=True)))

    def _is_missing(self, index: tuple[int, ...], chunk: tuple[int, ...]) -> bool:
        """Tell whether a chunk was neither shown, nor computed in its turn."""
        plan = self.task.plan
        starts = [c * grain // n * n for c, grain, n in zip(chunk, self._grain, plan.lengths, strict=True)]
        block = tuple(slice(a, min(a + n, end)) for a, n, end in zip(starts, plan.lengths, self._shape, strict=True))
        name = Place(index, block).name
        return not ((index, chunk) in self._shown or name in self._passed or name in self._ledger.done)

    def _plan(self, inside: Target) -> Plan:
        """Plan the chunks in view, with the network's reach around them, as if they were all of the image."""
        reach = [2 * (h + s) for h, s in zip(self.predictor.halo, self.predictor.stride, strict=True)]
        whole = [-(-s.stop // n) * n - s.start // n * n + r for s, n, r in zip(inside, self._grain, reach, strict=True)]
        shape = tuple(min(n, end) for n, end in zip(whole, self._shape, strict=True))
        plan = self.task.plan
        itemsize = sum(output.dtype.itemsize for output in self.task.outputs)
        memory = int(SHARE * max(plan.limit, plan.bytes))
        return plan_part(self.predictor, self.task.volume, self.layout, shape, memory=memory, itemsize=itemsize)

    def _around(self, index: tuple[int, ...], chunk: tuple[int, ...], inside: Target, plan: Plan) -> Target:
        """Return what one tile with a given chunk takes in: as many of the missing chunks in view as it can."""
        tile = []
        for c, seen, grain, length in zip(chunk, inside, self._grain, plan.tiles.tile, strict=True):
            first, last = seen.start // grain, -(-seen.stop // grain)
            count = max(1, length // grain)
            low = first + (c - first) // count * count
            tile.append(range(low, min(low + count, last)))
        missing = zip(*(other for other in product(*tile) if self._is_missing(index, other)), strict=True)
        return tuple(
            slice(min(cs) * grain, min((max(cs) + 1) * grain, end))
            for cs, grain, end in zip(missing, self._grain, self._shape, strict=True)
        )

    def _compute(self, index: tuple[int, ...], target: Target, plan: Plan) -> Generator[Block]:
        """Compute a part of an image, until something else is looked at."""
        task, predictor = self.task, self.predictor
        tile = single_tile(target, self._shape, predictor.halo, predictor.stride, predictor.margin)
        done = target
        members = self._all_of(index)
        with closing(execute(predictor, plan, task.volume, self.layout, [Unit(members, tile)])) as pieces:
            for piece in pieces:
                # What the flow has made, or makes in a moment, stays.
                if all(self._is_missing(index, chunk) for chunk in self._chunks(piece.target)):
                    images = tuple(to_dtype(piece.images[output.name], output.dtype) for output in task.outputs)
                    yield Block(Place(piece.index, piece.target, early=True), images)
                if piece.index != members[-1]:
                    continue
                if not self._is_in_view(index, target):
                    done = piece.target
                    break
        self._note(index, target, done, plan.axis)

    def _all_of(self, index: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the images that are written together with one."""
        if self._together == 1:
            return (index,)
        return tuple((*index[:-1], part) for part in range(self._together))

    def _note(self, index: tuple[int, ...], target: Target, done: Target, axis: int) -> None:
        """Note the chunks of a part that is computed to the end of ``done``, along one axis."""
        grain, n, stop = self._grain[axis], self._shape[axis], done[axis].stop
        self._shown.update((index, c) for c in self._chunks(target) if min((c[axis] + 1) * grain, n) <= stop)

    def _is_in_view(self, index: tuple[int, ...], target: Target) -> bool:
        seen = self._seen()
        if seen is None:
            return False
        indices, inside = seen
        return index in indices and all(
            a.start < b.stop and b.start < a.stop for a, b in zip(target, inside, strict=True)
        )
