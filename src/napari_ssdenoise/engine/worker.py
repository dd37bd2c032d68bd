"""What the workers of a cluster do for a prediction: open image and output by their paths, compute, write.

Loads no torch before the first tile: the scheduler's process imports this module too.
"""

from __future__ import annotations

import asyncio
import pickle
import platform
import signal
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.volume import Volume, open_volume

if TYPE_CHECKING:
    from napari_ssdenoise.engine.device import Precision
    from napari_ssdenoise.engine.job import Task
    from napari_ssdenoise.engine.outputs import Files
    from napari_ssdenoise.engine.plan import Unit
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.model import TrainedModel

# Larger images are not sent to workers; they should read them from a file.
SENT_BYTES = 256 << 20
# dask warns of parts above 10 MB.
PART_BYTES = 8 << 20

# A network takes all of a worker's cores, or its GPU: one unit at a time, however many threads the worker has.
_computing = Lock()


# Runs that are being computed for at the moment.
_active: set[str] = set()


def dask_setup(_: Any) -> None:
    """Prepare a local worker: Ctrl-C is for the program that started it, which then stops it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def describe(dask_worker: Any) -> dict[str, Any]:
    """Tell what a worker has: the version of this package, and the resources it declares."""
    from napari_ssdenoise import __version__

    return {"version": __version__, "resources": dict(dask_worker.state.total_resources)}


async def idle(run: str) -> None:
    """Wait until a worker computes no longer for a run."""
    while run in _active:
        await asyncio.sleep(0.05)


def compute(task: Task, model: TrainedModel, unit: Unit, topic: str, run: str) -> list[str]:
    """Compute and write one unit; report each block that is on disk, and return the names of all.

    Parameters
    ----------
    task
        Without its model, which comes apart so that several tasks share it.
    topic, run
        Under which to report.
    """
    from distributed import get_worker

    from napari_ssdenoise._threads import share_processor, use_large_pages

    share_processor()
    use_large_pages()
    from napari_ssdenoise.engine.job import Coverage  # loads torch

    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        """Tell whether the run goes on: it was not stopped, and its program is alive."""
        state = worker.state.tasks.get(key)
        return state is not None and state.state != "cancelled"

    names: list[str] = []
    coverage = Coverage(task.plan)
    with _computing:
        if not wanted():
            raise InterruptedError("the run was stopped.")
        _active.add(run)
        try:
            writer = _writer(task)
            predictor = _predictor(model, task.device, task.precision, task.augment)
            for block in filter(None, task.blocks([unit], predictor)):
                if not wanted():
                    raise InterruptedError("the run was stopped.")
                task.put(writer, block)
                whole = coverage.add(block.place)
                if whole is not None:
                    names.append(whole.name)
                    worker.log_event(topic, [run, whole.name])
        finally:
            _active.discard(run)
    return names


@lru_cache(maxsize=1)
def _predictor(model: TrainedModel, device: str, precision: Precision, augment: bool) -> Predictor:
    """Make the network ready: once, as models are compared by identity and stay with the worker."""
    import torch
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads > 1:  # else what OMP_NUM_THREADS says
        torch.set_num_threads(threads)
    return model.predictor(device=device, precision=precision, augment=augment)


@lru_cache(maxsize=4)
def _writer(task: Task) -> Files:
    """Open the outputs that the run's own process has made."""
    try:
        return task.writer(resume=True, overwrite=True, attach=True)
    except OSError as error:
        raise OSError(
            f"a worker (on {_host()}) does not see the output in {task.path.parent}. Write it where all workers can, "
            "under the same path."
        ) from error


def portable(volume: Volume) -> Volume:
    """Return a volume that other processes open by its path, if it has one."""
    source = volume.source or _zarr_path(volume.data)
    if source is None:
        return volume
    return replace(volume, data=ByPath(volume, source.absolute()), source=source.absolute())


def _zarr_path(data: Any) -> Path | None:
    """Return where a zarr array lies, if it does on a disk."""
    store = getattr(data, "store", None)
    root = getattr(store, "root", None)
    return Path(root) / str(data.path) if isinstance(root, Path) and hasattr(data, "path") else None


class ByPath:
    """The data of a file; what travels to another process is its path."""

    def __init__(self, volume: Volume, path: Path) -> None:
        self.path, self.axes = path, volume.axes
        self.shape, self.dtype, self.chunks = volume.shape, volume.dtype, volume.chunks
        self._data: Any = volume.data

    def __getitem__(self, key: Any) -> Any:
        if self._data is None:
            self._data = self._open()
        return self._data[key]

    def _open(self) -> Any:
        if not self.path.exists():
            raise FileNotFoundError(
                f"a worker (on {_host()}) does not see {self.path}. Put the image where all workers can read it, "
                "under the same path."
            )
        volume = open_volume(self.path, axes=self.axes)
        if (volume.shape, volume.dtype) != (self.shape, self.dtype):
            raise OSError(
                f"{self.path} is another image on a worker (on {_host()}): {volume.shape} {volume.dtype} instead of "
                f"{self.shape} {self.dtype}. Put the image where all workers can read it, under the same path."
            )
        return volume.data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}


def parts(task: Task) -> list[bytes]:
    """Return a task as bytes, in parts.

    Raises
    ------
    ValueError
        If it holds an image that cannot be sent, or is too large for it.
    """
    import cloudpickle

    volume = task.volume
    advice = "Save it (OME-Zarr or TIFF) where all workers can read it, and give the path."
    sent = _Limited(SENT_BYTES)
    try:
        cloudpickle.dump(task, sent, protocol=5)
    except _TooLargeError:
        raise ValueError(
            f"{volume.name!r} ({volume.nbytes / 1e9:.2g} GB) lies in this process's memory, and is too large to send "
            f"to workers. {advice}"
        ) from None
    except Exception as error:
        raise ValueError(f"{volume.name!r} cannot be sent to workers: {error}. {advice}") from error
    return split(bytes(sent.content))


def split(content: bytes) -> list[bytes]:
    """Cut into parts that are sent without a warning."""
    return [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]


def joined(*parts: bytes) -> Any:
    """Undo `parts`, on a worker."""
    return pickle.loads(b"".join(parts))  # noqa: S301 - from the program that may run any function on this worker


def same(part: bytes) -> bytes:
    """Keep a part as the result of a function, from which the scheduler can have it made again."""
    return part


class _TooLargeError(Exception):
    """More bytes than allowed."""


class _Limited:
    """Something to write into, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.content = bytearray()

    def write(self, piece: Any) -> int:
        size = memoryview(piece).nbytes
        if len(self.content) + size > self.limit:
            raise _TooLargeError
        self.content += piece
        return size


def _host() -> str:
    return platform.node() or "an unnamed machine"
