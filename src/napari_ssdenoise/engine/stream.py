"""Denoise volumes of any size into files: tiles are written as they are done, and a stopped run goes on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.engine.glimpses import Glimpses
from napari_ssdenoise.engine.job import Block, Job, Place, Task, TileDone
from napari_ssdenoise.engine.outputs import Output
from napari_ssdenoise.engine.plan import plan_volume, within

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.device import Precision
    from napari_ssdenoise.engine.distributed import Scheduler
    from napari_ssdenoise.engine.glimpses import Gaze
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume

PENDING_WRITES = 2
# Integers are kept where a rounding error (0.29) is small against the structure: see `choose_dtype`.
MIN_STD_FOR_INTEGERS = 16.0
WORTH_SMALLER = 0.85  # a plan with smaller chunks must be this much faster
OUTPUT_CHUNK = {"Y": 256, "X": 256, "Z": 16, "T": 1, "C": 1}
SMALLEST_SHARE = 8  # Y and X are divided by this at most, where memory is small


def stream(
    task: Task,
    *,
    overwrite: bool,
    resume: bool,
    scheduler: str | Scheduler | None = None,
    view: Gaze | None = None,
) -> Generator[TileDone]:
    """Make an output, here or on the workers of a cluster; yield after each block and at the end."""
    with ExitStack() as stack:
        if isinstance(scheduler, str):
            from napari_ssdenoise.engine.distributed import Scheduler

            scheduler = stack.enter_context(Scheduler(scheduler))
        if scheduler is not None:
            task = scheduler.share(task)
        with Job(task, overwrite=overwrite, resume=resume) as job:
            for place in scheduler.run(job) if scheduler else _write_behind(_blocks(job, view), job):
                yield job.report(place)
        yield job.report(None)


def _blocks(job: Job, view: Gaze | None) -> Generator[Block | None]:
    """Compute what is left of a job, and before it what is looked at."""
    if view is None:
        return job.task.blocks(job.left())
    predictor = job.task.predictor()
    return Glimpses(job, predictor, view).among(job.task.blocks(job.left(), predictor))


def _write_behind(blocks: Generator[Block | None], job: Job) -> Iterator[Place]:
    """Write blocks in another thread while the next ones are computed; yield each when it is on disk."""
    # Closed at once: an error that somebody keeps would keep the computation alive, with its memory.
    with closing(blocks), ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-write") as pool:
        pending: list[Future[Place]] = []
        for block in blocks:
            if block is not None:
                pending.append(pool.submit(job.write, block))
            while pending and (pending[0].done() or len(pending) > PENDING_WRITES):
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def prepare(
    model: TrainedModel,
    volume: Volume,
    layout: Layout,
    paths: Mapping[str, Path],
    dtype: str,
    *,
    memory: str | int,
    tile: Sequence[int] | None,
    device: str,
    precision: Precision,
    augment: bool,
    remote: bool = False,
) -> Task:
    """Plan outputs, of which ``paths`` tells where each goes; if workers compute them, their devices need not be here.

    Raises
    ------
    ValueError
        If two of them would go to the same place.
    """
    kind = choose_dtype(model, volume, dtype)
    outputs = tuple(Output.of(name, path, kind) for name, path in paths.items())
    if len({output.path.absolute() for output in outputs}) < len(outputs):
        raise ValueError(f"{' and '.join(paths)} would both be written to {outputs[0].path}. Give each a name.")
    itemsize = sum(output.dtype.itemsize for output in outputs)
    predictor = model.predictor(device="cpu" if remote else device, precision=precision, augment=augment)
    plan, chunks = plan_output(predictor, volume, layout, itemsize, tile=tile, memory=memory)
    return Task(model, volume, layout, plan, outputs, chunks, device, precision, augment, remote)


def plan_output(
    predictor: Predictor,
    volume: Volume,
    layout: Layout,
    itemsize: int,
    *,
    tile: Sequence[int] | None = None,
    memory: str | int,
) -> tuple[Plan, tuple[int, ...]]:
    """Choose tiles of whole output chunks; where memory is small, smaller chunks.

    Parameters
    ----------
    itemsize
        Bytes per value of all outputs together.

    Returns
    -------
    plan
    chunks
        Of the output, in the volume's axes.

    Raises
    ------
    MemoryError
        If nothing fits, with both numbers.
    """
    return within(memory, lambda limit: _best_chunks(predictor, volume, layout, itemsize, tile, limit))


def _best_chunks(
    predictor: Predictor, volume: Volume, layout: Layout, itemsize: int, tile: Sequence[int] | None, memory: int
) -> tuple[Plan, tuple[int, ...]]:
    """Choose tiles and chunks within an amount of memory; see `plan_output`."""
    refused: MemoryError | None = None
    best: tuple[Plan, tuple[int, ...]] | None = None
    for wanted in _chunks(layout):
        wanted.pop(layout.channel, None)  # a tile holds all channels of a joint network
        wanted |= dict.fromkeys(layout.batch, 1)  # images are independent: no two may share a chunk
        chunks = tuple(min(n, wanted.get(axis, n)) for axis, n in volume.sizes.items())
        grain = layout.sizes(layout.spatial, chunks)
        try:
            plan = plan_volume(predictor, volume, layout, tile=tile, memory=memory, chunks=grain, itemsize=itemsize)
        except MemoryError as error:
            refused = error
        else:
            sizes = dict(zip(volume.axes, chunks, strict=True))
            for axis, length in zip(layout.spatial, plan.lengths, strict=True):
                if length < volume.sizes[axis]:
                    sizes[axis] = _divisor(length, sizes[axis])
            if best is None or plan.cost < WORTH_SMALLER * best[0].cost:
                best = plan, tuple(sizes.values())
    if best is None:
        raise refused or MemoryError()
    return best


def _divisor(length: int, most: int) -> int:
    """Return the longest chunk, of at most so many pixels, of which a tile's length is a multiple."""
    return next(n for n in range(min(length, most), 0, -1) if length % n == 0)


def _chunks(layout: Layout) -> Iterator[dict[str, int]]:
    """List sizes of chunks to try, by axis, the usual ones first.

    Planes that are computed one by one get chunks as large as those of stacks: every chunk has its fixed cost.
    """
    wider = 1 if "Z" in layout.spatial else isqrt(OUTPUT_CHUNK["Z"])
    shrink = 1
    while shrink <= wider * SMALLEST_SHARE:
        yield {axis: size * wider // shrink if axis in "YX" else size for axis, size in OUTPUT_CHUNK.items()}
        shrink *= 2


def choose_dtype(model: TrainedModel, volume: Volume, dtype: str = "auto") -> np.dtype[Any]:
    """Return the dtype to write.

    An integer input keeps its dtype if rounding would not hurt: if the image varies by 16 counts or more. Photon
    counts of a few would lose more to rounding than the denoising gains in places; they become float32. So do half
    floats, which have no steps fine enough, and integers of 64 bits: few files hold them, and networks do not compute
    that many digits.

    Raises
    ------
    ValueError
        If it is no numeric dtype.
    """
    if dtype == "auto":
        own = volume.dtype.newbyteorder("=")
        if own.kind == "f":
            return own if own.itemsize > 2 else np.dtype(np.float32)
        fine = min(model.normalization.std) >= MIN_STD_FOR_INTEGERS
        return own if fine and own.itemsize < 8 else np.dtype(np.float32)
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "uif":
        raise ValueError(f"dtype={dtype!r} is not a kind of number. Use 'auto', 'float32', 'uint16' or another one.")
    return kind
