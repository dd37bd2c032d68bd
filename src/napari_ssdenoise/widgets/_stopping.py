"""End long work within a moment: between two layers of a network, two operations, two reads, or while torch loads."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ssdenoise.io._lazy import UnreadableError, reason
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._job import Stopped

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

# The third is what torch's optimisers import when the first of them is made, for a second.
HEAVY = ("torch", "napari_ssdenoise.engine.trainer", "torch._dynamo", "napari_ssdenoise.engine.stream")
_GLANCE = 0.05  # seconds between two looks at whether to stop
_lock = Lock()
_loading: list[Future[None]] = []  # one, once it has begun


def load_torch(stop: Event) -> None:
    """Import torch; seconds, in a thread of its own, so that a stop need not wait for it.

    Raises
    ------
    Stopped
        If somebody wants to stop; the import goes on.
    """
    with _lock:
        if not _loading or (_loading[0].done() and _loading[0].exception()):
            pool = ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-torch")
            _loading[:] = [pool.submit(_import_torch)]
            pool.shutdown(wait=False)
        loaded = _loading[0]
    while not wait((loaded,), _GLANCE).done:
        if stop.is_set():
            raise Stopped
    loaded.result()


def _import_torch() -> None:
    """Import torch without keeping the event loop from the interpreter for long."""
    if "torch" not in sys.modules:
        _load_library()
    collecting = gc.isenabled()
    gc.disable()  # what an import makes stays: looking through all of it again and again takes a tenth of a second each
    try:
        for name in HEAVY:
            import_module(name)
    finally:
        if collecting:
            # Makes everything old at once: as young objects, all of torch would be looked through right now.
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def _load_library() -> None:
    """Load torch's largest library while others may run: an import would hold the interpreter until it is read."""
    found = find_spec("torch")
    if os.name != "posix" or found is None or found.origin is None:
        return  # on Windows, torch does so by itself
    folder = Path(found.origin).parent / "lib"
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    # In the order and in the modes of torch's own; `ctypes.CDLL` would hold the interpreter, a function call does not.
    for name, mode in (("libtorch_global_deps", ctypes.RTLD_GLOBAL), ("libtorch_cpu", ctypes.RTLD_LOCAL)):
        path = folder / f"{name}{suffix}"
        if path.exists():  # if it cannot be loaded, the import will say why
            ctypes.CDLL(None).dlopen(os.fsencode(path), mode | os.RTLD_NOW)


def interrupt_between_layers(network: Any, stop: Event) -> None:
    """Let a network raise `Stopped` before its next layer, forwards or backwards, once the event is set.

    Steps and tiles can take seconds.
    """

    def check(*_: Any) -> None:
        if stop.is_set():
            raise Stopped

    def check_backwards(_: Any, __: Any, output: Any) -> None:
        if getattr(output, "requires_grad", False):
            output.register_hook(check)

    for module in network.modules():
        # Layers only: blocks are also called while the network is written down, which must not be cut short.
        if next(module.children(), None) is None:
            module.register_forward_pre_hook(check)
            module.register_forward_hook(check_backwards)


def interrupting(stop: Event) -> AbstractContextManager[Any]:
    """Return a context in which torch, in this thread, raises `Stopped` instead of computing once the event is set.

    What takes no tensor goes on: it may be the end of a ``no_grad``, which must not stay behind in the thread.
    """
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Interrupting(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if stop.is_set() and any(isinstance(arg, Tensor) for arg in args):
                raise Stopped
            return function(*args, **(kwargs or {}))

    return Interrupting()


def interruptible(model: TrainedModel, stop: Event) -> TrainedModel:
    """Return the same model with a network that can be interrupted."""
    from copy import deepcopy

    network = deepcopy(model.network)
    interrupt_between_layers(network, stop)
    return replace(model, network=network)


class Guarded:
    """The data of an image, which raises `Stopped` when it is read after a stop, and says when it cannot be read."""

    def __init__(self, data: Any, stop: Event) -> None:
        self._data = data
        self._stop: Event | None = stop
        self.shape: tuple[int, ...] = data.shape
        self.dtype = np.dtype(data.dtype)
        self.chunks = None if isinstance(data, np.ndarray) else getattr(data, "chunks", None)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if self._stop is not None and self._stop.is_set():
            raise Stopped
        try:
            return np.asarray(self._data[key])
        except (Stopped, MemoryError, UnreadableError):
            raise
        except Exception as error:  # layers hold arrays of any library, which all fail in their own ways
            raise OSError(
                f"a part of the image could not be read: {reason(error)}. Its file is damaged, incomplete or gone; "
                "open it again, or copy it again from where it came from."
            ) from error

    def release(self) -> None:
        """Let everything be read again: what was made until the stop is to be completed."""
        self._stop = None


def guarded(volume: Volume, stop: Event) -> Volume:
    """Return the same image, which can be read only until the stop."""
    return replace(volume, data=Guarded(volume.data, stop))


def release(*images: Volume | None) -> None:
    """Let images that were `guarded` be read again."""
    for image in images:
        if image is not None and isinstance(image.data, Guarded):
            image.data.release()
