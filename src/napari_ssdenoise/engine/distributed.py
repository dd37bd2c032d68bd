"""Map a prediction over the workers of a cluster, with dask.distributed."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from math import ceil
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

from napari_ssdenoise.engine import worker

if TYPE_CHECKING:
    from types import TracebackType

    from napari_ssdenoise.engine.job import Job, Place, Task
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.model import TrainedModel

logger = logging.getLogger(__name__)

LOCAL = "local"
PORT = 8786  # where `dask scheduler` listens if nothing else is said
GPU = "GPU"
ANSWER_SECONDS = 10
WORKER_SECONDS = 60  # how long to wait for the first worker
PATIENCE_SECONDS = 5
# Units per worker: at most, so that a slow worker holds up little, and those sent ahead of their computation.
UNITS_PER_WORKER = 4
SENT_AHEAD = 2


class Scheduler:
    """A connection to a dask.distributed scheduler, to pass to `TrainedModel.predict_into`.

    Each tile becomes one task that computes its blocks and writes them, so it may be repeated: the tasks of a worker
    that dies are done again by others. Workers that declare a resource ``GPU`` get one task at a time for each. One
    connection serves any number of predictions at once: call ``predict_into`` for each, one after the other (torch
    cannot trace networks in several threads), and go through what it gives in as many threads.

    Parameters
    ----------
    address
        Of a running scheduler, e.g. ``"tcp://node1:8786"``; ``"local"`` starts workers on this machine, one for each
        GPU, or a single one where there is none.
    workers
        How many local workers to start.

    Raises
    ------
    ModuleNotFoundError
        If dask.distributed is not installed.
    OSError
        If no scheduler answers at the address, or none of its workers can be used.
    """

    def __init__(self, address: str, *, workers: int | None = None) -> None:
        try:
            import distributed  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "computing on a cluster needs dask.distributed: pip install 'napari-ssdenoise[cluster]'."
            ) from error
        self._lock = Lock()
        self._runs: dict[str, SimpleQueue[Any]] = {}
        self._models: WeakKeyDictionary[TrainedModel, Any] = WeakKeyDictionary()
        self._stopped = False
        self._topic = f"ssdenoise-{uuid4().hex}"
        self._cluster = _local_cluster(workers) if address == LOCAL else None
        try:
            self.client = _connect(self._cluster or address)
            try:
                self._gpus = self._look()
                self.client.subscribe_topic(self._topic, self._heard)
            except BaseException:
                self.client.close()
                raise
        except BaseException:
            if self._cluster is not None:
                self._cluster.close()
            raise

    @property
    def workers(self) -> int:
        """Workers that are connected at the moment."""
        return len(self.client.nthreads())

    def share(self, task: Task) -> Task:
        """Return a task that workers can take up: in enough parts, and with images that they open themselves.

        Raises
        ------
        ValueError
            If the output is not Zarr, which alone can be written by several processes.
        """
        for output in task.outputs:
            if output.path.suffix.lower() == ".zarr":
                continue
            raise ValueError(
                f"{output.path.name} cannot be written by several workers at once. Give a name that ends in .ome.zarr."
            )
        images = ceil(len(list(task.layout.indices(task.volume.shape))) / task.plan.batch)
        plan = _split(task.plan, images, max(1, self.workers))
        outputs = tuple(replace(output, path=output.path.absolute()) for output in task.outputs)
        return replace(task, outputs=outputs, volume=worker.portable(task.volume), plan=plan)

    def run(self, job: Job) -> Iterator[Place]:
        """Compute what is left of an output, and yield the place of every block when it is on disk.

        Raises
        ------
        InterruptedError
            After `stop`.
        OSError
            If the scheduler cannot be reached any longer, or an image not by a worker.
        MemoryError
            If several workers died of the same tile.
        """
        name = uuid4().hex
        news: SimpleQueue[Any] = SimpleQueue()
        model = self._model(job.task.model)
        # The cast is because workers get the model apart from the task.
        task = self._sent(worker.parts(replace(job.task, model=cast("TrainedModel", None))))
        resources = {GPU: 1} if self._gpus else None
        units, running = job.left(), set[Any]()
        with self._lock:
            self._runs[name] = news
        try:
            self._check_stopped()
            while True:
                for unit in islice(units, max(0, SENT_AHEAD * max(1, self.workers) - len(running))):
                    arguments = (task, model, unit, self._topic, name)
                    future = self.client.submit(worker.compute, *arguments, pure=False, resources=resources)
                    running.add(future)
                    future.add_done_callback(news.put)
                if not running:
                    return
                yield from self._news(job, news, running)
        except ValueError:
            self._settle(name, running)  # the partial output is going to be removed
            raise
        finally:
            with self._lock:
                del self._runs[name]
            with suppress(Exception):  # the connection may be what is broken
                self.client.cancel([*running, task], force=True)

    def stop(self) -> None:
        """End all runs, each with an InterruptedError: what is done is kept, and no others begin."""
        with self._lock:
            self._stopped = True
            for news in self._runs.values():
                news.put(None)

    def close(self) -> None:
        """Disconnect, and stop the workers that were started here."""
        if self._cluster is None:
            self.client.close()
            return
        # Of a client that hangs up while it is sent something, the scheduler of this process would print a traceback.
        with _silent("distributed.scheduler"):
            self.client.close()
            self._cluster.close()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _look(self) -> bool:
        """Look whether the workers are of use; return whether they declare GPUs."""
        from napari_ssdenoise import __version__

        try:
            self.client.wait_for_workers(1, timeout=WORKER_SECONDS)
        except TimeoutError as error:
            raise OSError(
                "no worker is connected to the dask scheduler. Start some with 'dask worker ADDRESS', and wait until "
                "they run."
            ) from error
        try:
            found = self.client.run(worker.describe)
        except ImportError as error:
            raise OSError(
                f"napari-ssdenoise cannot be loaded on the workers: {error}. Start them in an environment that has it."
            ) from error
        others = {about["version"] for about in found.values()} - {__version__}
        if others:
            raise OSError(
                f"workers have napari-ssdenoise {', '.join(sorted(others))}, but this is {__version__}. Install the "
                "same version everywhere."
            )
        return any(about["resources"].get(GPU) for about in found.values())

    def _heard(self, event: tuple[float, Any]) -> None:
        """Pass on what a worker reports."""
        name, block = event[1]
        with self._lock:
            if name in self._runs:
                self._runs[name].put(block)

    def _news(self, job: Job, news: SimpleQueue[Any], running: set[Any]) -> Iterator[Place]:
        """Yield finished blocks until a unit is done."""
        while True:
            try:
                heard = news.get(timeout=PATIENCE_SECONDS)
            except Empty:
                if not self.workers:
                    logger.warning("no worker is connected to the dask scheduler any longer; waiting for one.")
                continue
            if heard is None:
                self._check_stopped()
            done = [heard] if isinstance(heard, str) else _result(heard)
            for name in done:
                if name not in job.ledger.done:  # a unit that is repeated reports again
                    job.ledger.add(name)
                    yield _place(name)
            if not isinstance(heard, str):
                running.discard(heard)
                return

    def _check_stopped(self) -> None:
        if self._stopped:
            raise InterruptedError("the run was stopped.")

    def _settle(self, name: str, running: set[Any]) -> None:
        """Stop a run's units, and wait until no worker writes for it."""
        with suppress(Exception):
            self.client.cancel(list(running), force=True)
            self.client.run(worker.idle, name)

    def _model(self, model: TrainedModel) -> Any:
        """Return a model as the workers have it: it reaches each of them once, for any number of tasks."""
        with self._lock:
            if model not in self._models:
                self._models[model] = self._sent(worker.split(pickle.dumps(model, protocol=5)))
            return self._models[model]

    def _sent(self, parts: list[bytes]) -> Any:
        """Send a value to the workers.

        As the result of a function, it is copied from worker to worker, and made again if those that hold it die.
        """
        futures = [self.client.submit(worker.same, part, pure=False) for part in parts]
        return self.client.submit(worker.joined, *futures, pure=False)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a logger from saying anything."""
    talkative = logging.getLogger(name)
    before, talkative.disabled = talkative.disabled, True
    try:
        yield
    finally:
        talkative.disabled = before


def _connect(address: Any) -> Any:
    """Connect to a scheduler, or to a cluster started here.

    Raises
    ------
    OSError
        If none answers.
    """
    from distributed import Client
    from distributed.comm import parse_address, parse_host_port, unparse_host_port

    if not isinstance(address, str):
        return Client(address, set_as_default=False)
    try:
        scheme, place = parse_address(address)
        if scheme in ("tcp", "tls"):
            host, port = parse_host_port(place, PORT)
            # dask would try for long to reach a machine that refuses.
            socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
            place = unparse_host_port(host, port)
        return Client(f"{scheme}://{place}", timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no dask scheduler answers at {address!r} ({error}). Start one with 'dask scheduler' and workers with "
            "'dask worker ADDRESS', or give 'local'."
        ) from error


def _local_cluster(workers: int | None) -> Any:
    """Start workers on this machine, each a process that sees one GPU, or its share of the cores."""
    from distributed import Nanny, Scheduler, SpecCluster

    # The address keeps other machines out, which could run any code here.
    options = {"host": "127.0.0.1", "dashboard": False}
    quiet = {"silence_logs": logging.WARNING}
    nanny = {**options, **quiet, "preload": worker.__name__}
    spec = {
        number: {"cls": Nanny, "options": {**nanny, **local}} for number, local in enumerate(_local_workers(workers))
    }
    scheduler = {"cls": Scheduler, "options": {**options, "port": 0, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers=spec, scheduler=scheduler, **quiet)


def _local_workers(workers: int | None) -> list[dict[str, Any]]:
    """Choose the options of local workers."""
    gpus = _visible_gpus()
    count = workers or len(gpus) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = []
    for number in range(count):
        env = {"OMP_NUM_THREADS": str(max(1, cores // count))}  # how they wait, the worker chooses
        # No limit of dask's own: it would kill workers that `memory=` has allowed more.
        options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "env": env}
        if gpus:
            options["resources"] = {GPU: 1}
            env["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        found.append(options)
    return found


def _visible_gpus() -> list[str]:
    """Name the GPUs that this process may use, as a child process must be told them."""
    import torch

    count = torch.cuda.device_count()
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (allowed or [str(number) for number in range(count)])[:count]


def _split(plan: Plan, images: int, workers: int) -> Plan:
    """Cut a plan into units for a number of workers: the quickest if all are equally fast, rather more units if not."""

    def time(found: Plan) -> float:
        units = len(found.tiles) * images
        return found.work * ceil(units / workers) / units

    plans = [plan.split(ceil(n * workers / images)) for n in range(1, UNITS_PER_WORKER + 1)]
    best = min(map(time, plans))
    return max((found for found in plans if time(found) <= 1.05 * best), key=lambda found: len(found.tiles))


def _result(future: Any) -> list[str]:
    """Return the blocks of a finished unit, or raise what went wrong.

    Raises
    ------
    OSError
        If the scheduler is gone.
    MemoryError
        If the unit took several workers with it.
    """
    from distributed import KilledWorker

    if future.status not in ("finished", "error"):
        raise OSError("the connection to the dask scheduler was lost. Start it again; the same call goes on.")
    try:
        names: list[str] = future.result()
    except KilledWorker as error:
        raise MemoryError(
            f"several workers died of the same tile, most likely of too little memory ({error}). Give the workers "
            "more memory, or the prediction less (memory=)."
        ) from error
    return names


def _place(name: str) -> Place:
    """Undo `Place.name`."""
    from napari_ssdenoise.engine.job import Place

    index, target = json.loads(name)
    return Place(tuple(index), tuple(slice(start, stop) for start, stop in target))
