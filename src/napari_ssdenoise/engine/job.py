"""Outputs being made: what of them is done, and how blocks are put together and written."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._repeatable import versions
from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.engine.device import choose_device, choose_precision
from napari_ssdenoise.engine.execute import execute
from napari_ssdenoise.engine.outputs import Files, Locks, Output
from napari_ssdenoise.io import UnreadableError, clear_error
from napari_ssdenoise.recipe import fingerprint, spot_checks, weights_digest

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout, Region
    from napari_ssdenoise.engine.device import Precision
    from napari_ssdenoise.engine.execute import Piece
    from napari_ssdenoise.engine.plan import Plan, Unit
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True)
class TileDone:
    """Progress of a streaming prediction.

    Attributes
    ----------
    done, total
        Tiles finished (those of an earlier, stopped run included), and in all.
    seconds, remaining
        Time spent in this run, and an estimate of the time left.
    region
        What was just written, in the volume's axes; None for the finishing step.
    path
        Where the data is at the moment: beside the output until all is done.
    also
        The same of the further outputs.
    early
        Whether the region was computed out of turn, as it is looked at. It will come again, and does not count.
    """

    done: int
    total: int
    seconds: float
    remaining: float
    region: tuple[slice, ...] | None
    path: Path
    also: tuple[Path, ...] = ()
    early: bool = False


class Ledger:
    """What is done of a streaming prediction: a line for the task, then one for each tile."""

    def __init__(self, path: Path, task: str) -> None:
        self.path = path
        self.task = task
        self.done: set[str] = set()

    def load(self) -> bool:
        """Read what an earlier run did; False if it was another task."""
        if not self.path.exists():
            return False
        text, _, torn = self.path.read_text(encoding="utf8").rpartition("\n")
        task, *tiles = text.split("\n")
        if task != self.task:
            return False
        if torn:  # a full disk may cut the last line off
            self.path.write_text(text + "\n", encoding="utf8")
        self.done = set(tiles)
        return True

    def start(self) -> None:
        """Begin anew."""
        self.done = set()
        self.path.write_text(self.task + "\n", encoding="utf8")

    def add(self, tile: str) -> None:
        """Note a tile whose pixels are on disk."""
        with self.path.open("a", encoding="utf8") as file:
            file.write(tile + "\n")
        self.done.add(tile)


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be made, and how: all that one process needs to make a part of it.

    Attributes
    ----------
    model, volume, layout, plan
        The denoiser, the image, and how to go about it.
    outputs
        The files to make, all in one run; the first is the one that progress speaks of.
    chunks
        Of the files, in the volume's axes.
    device, precision, augment
        As for `Predictor`.
    remote
        Workers compute, on devices that this process need not have.
    """

    model: TrainedModel
    volume: Volume
    layout: Layout
    plan: Plan
    outputs: tuple[Output, ...]
    chunks: tuple[int, ...]
    device: str
    precision: Precision
    augment: bool
    remote: bool = False

    @property
    def path(self) -> Path:
        """Of the first output."""
        return self.outputs[0].path

    def blocks(self, units: Iterable[Unit], predictor: Predictor | None = None) -> Generator[Block | None]:
        """Compute units of the plan, and yield the blocks that are to be written; None while one is being made."""
        predictor = predictor or self.predictor()
        pieces = execute(predictor, self.plan, self.volume, self.layout, units)
        return assembled(pieces, self.plan, self.outputs)

    def predictor(self) -> Predictor:
        return self.model.predictor(device=self.device, precision=self.precision, augment=self.augment)

    def writer(self, *, resume: bool, overwrite: bool, attach: bool = False) -> Files:
        """Open the outputs' partial files, or start them; ``attach``: only open those that another process made."""
        return Files.open(
            self.outputs,
            self.volume,
            resume=resume,
            attach=attach,
            overwrite=overwrite,
            chunks=self.chunks,
            grid=self._grid(),
        )

    def _grid(self) -> tuple[int, ...]:
        """Return, in the volume's axes, the lengths of which all written blocks are multiples."""
        lengths = dict(zip(self.layout.spatial, self.plan.lengths, strict=True))
        lengths |= dict.fromkeys(self.layout.batch, 1)
        return tuple(lengths.get(axis, n) for axis, n in self.volume.sizes.items())

    def put(self, writer: Files, block: Block) -> None:
        """Write a block."""
        writer.write(self.region(block.place), [self.layout.from_network(image) for image in block.images])

    def show(self, writer: Files, block: Block) -> None:
        """Put a block into the files for those who look at them, until it is written in its turn."""
        writer.show(self.region(block.place), [self.layout.from_network(image) for image in block.images])

    def region(self, place: Place) -> Region:
        """Return where a block is, in the volume's axes."""
        return self.layout.key(place.index, place.target)

    def provenance(self) -> dict[str, Any]:
        """Say how the files were made."""
        applied = {
            "device": self.device,
            "precision": self.precision,
            "augment": self.augment,
            "dtype": str(self.outputs[0].dtype),
            "memory": self.plan.limit,
        }
        return {
            "model": self.model.describe(),
            "source": str(self.volume.source or self.volume.name),
            "fingerprint": fingerprint(self.volume),
            "applied": applied,
            "versions": dict(versions()),
        }

    def fingerprint(self) -> str:
        """Identify the task: equal only for the same weights on the same image in the same blocks."""
        digest = weights_digest(self.model)
        volume, plan = self.volume, self.plan
        for part in spot_checks(volume):
            digest.update(np.ascontiguousarray(volume[part]).tobytes())
        # Tiles may be cut along the flow, for another number of workers: the blocks stay the same.
        across = [n for d, n in enumerate(plan.tiles.tile) if not plan.slab or d != plan.axis]
        # What a processor takes stands for workers, which choose by themselves.
        precision = choose_precision(choose_device("cpu" if self.remote else self.device), self.precision)
        how = [across, plan.axis, plan.slab, plan.block, plan.batch, str(precision), self.augment]
        how += [str(self.model.magnitude)] if self.model.magnitude else []
        place = [volume.scale, volume.units, volume.translate, volume.channel_names]
        source = None if volume.source is None else str(volume.source.absolute())
        what = [source, volume.axes, volume.shape, str(volume.dtype)]
        what += [part for output in self.outputs for part in (output.name, str(output.dtype))]
        digest.update(json.dumps([what, how, place]).encode())
        return digest.hexdigest()


class Job:
    """Outputs being made: their partial files, what of them is done, and the locks against a second run.

    As a context, it finishes the files at the end; if it is left by an error, what is done stays for a later run (but
    not if the error says that the image is wrong).

    Raises
    ------
    FileExistsError
        If another run is writing the same output, or it exists and ``overwrite`` is False.
    """

    def __init__(self, task: Task, *, overwrite: bool, resume: bool) -> None:
        path = task.path
        self.task = task
        self._locks = Locks([output.path for output in task.outputs], overwrite=overwrite)
        try:
            self.ledger = Ledger(path.with_name(f".{path.name}.ledger"), task.fingerprint())
            known = resume and self.ledger.load()
            if not known:
                # Before the new partial file: a ledger must never speak of another one.
                self.ledger.path.unlink(missing_ok=True)
            self.writer = task.writer(resume=known, overwrite=overwrite)
            if not (known and self.writer.resumed):
                self.ledger.start()
        except BaseException:
            self._locks.release()
            raise
        self._units = list(task.plan.units(task.layout, task.volume.shape))
        self._total = sum(len(unit.indices) * len(list(task.plan.blocks(unit))) for unit in self._units)
        self._before = self._count = len(self.ledger.done)
        self._written, self._reported = Coverage(task.plan), Coverage(task.plan)
        self._started = time.perf_counter()

    def left(self) -> Iterator[Unit]:
        """List what is still to be done; within a unit, blocks are done in order."""
        axis = self.task.plan.axis
        for unit in self._units:
            for block in self.task.plan.blocks(unit):
                if not all(Place(index, block).name in self.ledger.done for index in unit.indices):
                    yield replace(unit, start=block[axis].start - unit.tile.target[axis].start)
                    break

    def write(self, block: Block) -> Place:
        """Put a block on disk, and note it."""
        try:
            if block.place.early:
                self.task.show(self.writer, block)
                return block.place
            self.task.put(self.writer, block)
            whole = self._written.add(block.place)
            if whole is not None:
                self.ledger.add(whole.name)
        except OSError as error:
            raise clear_error(error, self.task.path) from error
        return block.place

    def report(self, place: Place | None) -> TileDone:
        """Count a block that is on disk; None for the finished file."""
        seconds = time.perf_counter() - self._started
        if place is None:
            path, *also = (output.path for output in self.task.outputs)
            return TileDone(self._total, self._total, seconds, 0.0, None, path, tuple(also))
        self._count += not place.early and self._reported.add(place) is not None
        remaining = seconds / max(1, self._count - self._before) * (self._total - self._count)
        path, *also = self.writer.partials
        region = self.task.region(place)
        if is_parts(self.task.volume):
            region = region[:-1]
        return TileDone(self._count, self._total, seconds, remaining, region, path, tuple(also), place.early)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                task = self.task
                self._require_all()
                self.writer.finish(task.outputs, task.provenance())
                self.ledger.path.unlink(missing_ok=True)
            elif not self.writer.resumable or (
                isinstance(error, ValueError) and not isinstance(error, UnreadableError)
            ):
                # After a stop, a full disk, too little memory, or a damaged file that is copied again, the same call
                # can go on. A wrong image would stay wrong.
                self.writer.discard()
                self.ledger.path.unlink(missing_ok=True)
        finally:
            self._locks.release()

    def _require_all(self) -> None:
        missing = next(self.left(), None)
        if missing is not None:
            raise OSError(
                f"{self.task.path} is not complete: tile {missing.tile.target} was not written. What is done is kept; "
                "run the same again to go on."
            )


@dataclass(frozen=True)
class Place:
    """Where a block is: the image's position along the batch axes, and the part of its spatial axes."""

    index: tuple[int, ...]
    target: tuple[slice, ...]
    # Whether it is out of turn: see `glimpses`.
    early: bool = False

    @property
    def name(self) -> str:
        """How the ledger calls it."""
        return json.dumps([list(self.index), [[s.start, s.stop] for s in self.target]])


class Coverage:
    """Which of a plan's blocks are whole: where memory ran out, they come in parts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pixels: dict[str, int] = {}

    def add(self, place: Place) -> Place | None:
        """Count a part; return the block that it completes, if it does."""
        lengths, shape = self._plan.lengths, self._plan.tiles.shape
        starts = [t.start // n * n for t, n in zip(place.target, lengths, strict=True)]
        whole = tuple(slice(a, min(a + n, end)) for a, n, end in zip(starts, lengths, shape, strict=True))
        block = Place(place.index, whole)
        if block == place:
            return block
        found = self._pixels.get(block.name, 0) + prod(t.stop - t.start for t in place.target)
        self._pixels[block.name] = found
        return block if found >= prod(t.stop - t.start for t in whole) else None


@dataclass(frozen=True)
class Block:
    """A finished part of each output, ready to be written: (channels, *target), in the output's dtype."""

    place: Place
    images: tuple[NDArray[Any], ...]


def assembled(pieces: Iterator[Piece], plan: Plan, outputs: Sequence[Output]) -> Generator[Block | None]:
    """Put pieces together to the blocks of the plan; yield None for a piece that completes none."""
    filling: dict[tuple[int, ...], tuple[Block, int]] = {}
    axis = plan.axis
    before = (slice(None),) * (axis + 1)
    for piece in pieces:
        images = [to_dtype(piece.images[output.name], output.dtype) for output in outputs]
        along = piece.target[axis]
        for start in range(along.start // plan.block * plan.block, along.stop, plan.block):
            stop = min(start + plan.block, plan.tiles.shape[axis])
            low, high = max(start, along.start), min(stop, along.stop)
            place = Place(piece.index, (*piece.target[:axis], slice(start, stop), *piece.target[axis + 1 :]))
            block, count = filling.get(piece.index, (None, 0))
            if block is None or block.place != place:
                shape = (len(images[0]), *(t.stop - t.start for t in place.target))
                block, count = Block(place, tuple(np.empty(shape, output.dtype) for output in outputs)), 0
            for image, whole in zip(images, block.images, strict=True):
                part = image[(*before, slice(low - along.start, high - along.start))]
                whole[(*before, slice(low - start, high - start))] = part
            count += high - low
            filling[piece.index] = block, count
            if count == stop - start:
                yield filling.pop(piece.index)[0]
            else:
                yield None


def to_dtype(block: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert, rounding and clipping for integers instead of wrapping around."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return block.astype(dtype)
    limits = np.iinfo(dtype)
    # float32 holds the limits of small integers exactly, and is twice as fast
    rounded = np.rint(block) if dtype.itemsize <= 2 else np.rint(block.astype(np.float64))
    return np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype)
