"""Denoise volumes of any size into files: tiles are written as they are done, and a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.engine.predict import plan_tiles, predict_tiles
from napari_ssdenoise.engine.tiles import TilePlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.predict import Predictor, TileResult
    from napari_ssdenoise.io import Writer
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume

PENDING_WRITES = 2
# Integers are kept where a rounding error (0.29) is small against the structure: see `choose_dtype`.
MIN_STD_FOR_INTEGERS = 16.0
OUTPUT_CHUNK = {"Y": 256, "X": 256, "Z": 16, "T": 1, "C": 1}


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
    """

    done: int
    total: int
    seconds: float
    remaining: float
    region: tuple[slice, ...] | None
    path: Path


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
        lines = self.path.read_text(encoding="utf8").splitlines()
        if not lines or lines[0] != self.task:
            return False
        self.done = set(lines[1:])
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


def stream(
    model: TrainedModel,
    predictor: Predictor,
    volume: Volume,
    layout: Layout,
    path: Path,
    output: str,
    dtype: str,
    *,
    memory: str | int,
    tile: Sequence[int] | None,
    overwrite: bool,
    resume: bool,
) -> Generator[TileDone]:
    """Do the work of `TrainedModel.predict_into`."""
    from napari_ssdenoise.io import create_writer

    kind = choose_dtype(model, volume, dtype)
    plan, chunks = _plan_output(predictor, volume, layout, tile, memory)
    task = _fingerprint(model, volume, plan, output, kind, predictor)
    ledger = Ledger(path.with_name(f".{path.name}.ledger"), task)
    known = resume and ledger.load()
    if not known:
        # Before the new partial file: a ledger must never speak of another one.
        ledger.path.unlink(missing_ok=True)
    writer = create_writer(path, volume, dtype=kind, resume=known, overwrite=overwrite, chunks=chunks)
    if not (known and writer.resumed and writer.resumable):
        ledger.start()
    work = [(index, part) for index in layout.indices(volume.shape) for part in plan]
    left = [item for item in work if _name(item[0], item[1].target) not in ledger.done]
    started = time.perf_counter()
    try:
        tiles = predict_tiles(predictor, volume, layout, left)
        for count, region in enumerate(_write_behind(tiles, writer, layout, output, ledger), 1):
            seconds = time.perf_counter() - started
            yield TileDone(
                len(work) - len(left) + count,
                len(work),
                seconds,
                seconds / count * (len(left) - count),
                region,
                writer.partial,
            )
    except BaseException as error:
        # A stop, a full disk or too little memory: the same call can go on. A wrong image would stay wrong.
        if not writer.resumable or isinstance(error, ValueError):
            writer.discard()
            ledger.path.unlink(missing_ok=True)
        raise
    finished = writer.finish({"model": model.describe(), "output": output, "source": str(volume.source or volume.name)})
    ledger.path.unlink(missing_ok=True)
    yield TileDone(len(work), len(work), time.perf_counter() - started, 0.0, None, finished)


def _write_behind(
    tiles: Iterator[TileResult], writer: Writer, layout: Layout, output: str, ledger: Ledger
) -> Iterator[tuple[slice, ...]]:
    """Write tiles in another thread while the next ones are computed; yield each region when it is on disk."""
    dtype = np.dtype(writer.array.dtype)

    def write(result: TileResult) -> tuple[slice, ...]:
        region = layout.key(result.index, result.tile.target)
        writer.array[region] = to_dtype(layout.from_network(result.images[output]), dtype)
        ledger.add(_name(result.index, result.tile.target))
        return region

    with ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-write") as pool:
        pending: list[Future[tuple[slice, ...]]] = []
        for result in tiles:
            pending.append(pool.submit(write, result))
            while pending and (pending[0].done() or len(pending) > PENDING_WRITES):
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def _plan_output(
    predictor: Predictor, volume: Volume, layout: Layout, tile: Sequence[int] | None, memory: str | int
) -> tuple[TilePlan, tuple[int, ...]]:
    """Choose tiles of whole output chunks; where memory is too small for the usual chunks, smaller ones."""
    refused = MemoryError()
    for shrink in (1, 2, 4, 8):
        wanted = {axis: size // shrink if axis in "YX" else size for axis, size in OUTPUT_CHUNK.items()}
        wanted.pop(layout.channel, None)  # a tile holds all channels of a joint network
        chunks = tuple(min(n, wanted.get(axis, n)) for axis, n in volume.sizes.items())
        grain = layout.sizes(layout.spatial, chunks)
        try:
            return plan_volume(predictor, volume, layout, tile=tile, memory=memory, chunks=grain), chunks
        except MemoryError as error:
            refused = error
    raise refused


def plan_volume(
    predictor: Predictor,
    volume: Volume,
    layout: Layout,
    *,
    tile: Sequence[int] | None,
    memory: str | int,
    chunks: Sequence[int] | None = None,
) -> TilePlan:
    """Plan the tiles of one image of a volume; a given tile is used as it is."""
    shape = layout.spatial_shape(volume.shape)
    if tile is None:
        return plan_tiles(predictor, shape, parse_memory(memory), chunks)
    if len(tile) != len(shape):
        raise ValueError(f"tile {tuple(tile)} must have one length for each of the axes {layout.spatial!r}.")
    return TilePlan(shape, tuple(min(t, n) for t, n in zip(tile, shape, strict=True)), predictor.halo, predictor.stride)


def parse_memory(memory: str | int) -> int:
    """Return bytes from a number or a text such as ``"4 GB"``, ``"512MB"`` or ``"1.5 GiB"``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(memory, int):
        return memory
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGT]?)(i?)B?\s*", memory, re.IGNORECASE)
    if not found:
        raise ValueError(f"memory={memory!r} is not an amount of memory. Write it as '4 GB' or '500 MB'.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " "))


def choose_dtype(model: TrainedModel, volume: Volume, dtype: str = "auto") -> np.dtype[Any]:
    """Return the dtype to write.

    An integer input keeps its dtype if rounding would not hurt: if the image varies by 16 counts or more. Photon
    counts of a few would lose more to rounding than the denoising gains in places; they become float32.

    Raises
    ------
    ValueError
        If it is no numeric dtype.
    """
    if dtype == "auto":
        if volume.dtype.kind == "f":
            return volume.dtype.newbyteorder("=")
        fine = min(model.normalization.std) >= MIN_STD_FOR_INTEGERS
        return volume.dtype.newbyteorder("=") if fine else np.dtype(np.float32)
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "uif":
        raise ValueError(f"dtype={dtype!r} is not a kind of number. Use 'auto', 'float32', 'uint16' or another one.")
    return kind


def to_dtype(block: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert, rounding and clipping for integers instead of wrapping around."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return block.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(block.astype(np.float64)), limits.min, limits.max).astype(dtype)


def _name(index: Sequence[int], target: Sequence[slice]) -> str:
    return json.dumps([list(index), [[s.start, s.stop] for s in target]])


def _fingerprint(
    model: TrainedModel, volume: Volume, plan: TilePlan, output: str, dtype: np.dtype[Any], predictor: Predictor
) -> str:
    """Identify the task: equal only for the same weights on the same image in the same tiles."""
    digest = hashlib.sha256()
    for name, value in sorted(model.weights().items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    for part in _spot_checks(volume):
        digest.update(np.ascontiguousarray(volume[part]).tobytes())
    place = [volume.scale, volume.units, volume.translate, volume.channel_names]
    facts = [
        str(volume.source),
        volume.axes,
        volume.shape,
        str(volume.dtype),
        plan.tile,
        output,
        str(dtype),
        str(predictor.dtype),
    ]
    digest.update(json.dumps([*facts, *place, predictor.augmented]).encode())
    return digest.hexdigest()


def _spot_checks(volume: Volume, side: int = 32) -> Iterator[tuple[slice, ...]]:
    """Choose small parts all over a volume, by which to recognise it without reading it whole."""
    spots = []
    for axis, n in volume.sizes.items():
        size = min(n, side) if axis in "YX" else 1
        spots.append([slice(start, start + size) for start in sorted({0, (n - size) // 2, n - size})])
    return product(*spots)
