"""Write an image under a temporary name, block by block, and give it its name when it is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._lazy import FULL, LazyArray

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Region
    from napari_ssdenoise.volume import Volume

MARKERS = ("zarr.json", ".zgroup", ".zarray")
NOTE = "napari_ssdenoise"
# One chunk is a few megabytes, flat enough that scrolling through Z reads little more than it shows.
CHUNK = {"Z": 16, "Y": 256, "X": 256}
PLANE_CHUNK = {"Y": 512, "X": 512}


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / marker).is_file() for marker in MARKERS)


def partial_path(path: Path) -> Path:
    """Return where an output is written until it is complete: a hidden neighbour, always the same."""
    return path.with_name(f".{path.name}.partial")


def default_chunks(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Choose a chunk shape for an image: flat blocks, one time point and channel each, all samples of a pixel."""
    depth = dict(zip(axes, shape, strict=True)).get("Z", 1)
    sizes = CHUNK if depth > 1 else PLANE_CHUNK
    return tuple(max(1, min(n, n if a == "S" else sizes.get(a, 1))) for a, n in zip(axes, shape, strict=True))


def plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that JSON can hold; what it cannot becomes text."""
    result: dict[str, Any] = json.loads(json.dumps(dict(value), default=str))
    return result


class Writer(ABC):
    """A file being written.

    Blocks go to `write`, in the axes order of the volume given to `create_writer`, from one or several threads as long
    as they write whole ``chunks``. `finish` makes the file; until then there is only
    ``partial``, which a later run with ``resume=True`` takes up again.

    Attributes
    ----------
    path
        Where the file will be.
    partial
        Where it is until it is finished.
    array
        Array-like of the image's shape and dtype, readable and writable by slices.
    chunks
        Shape of the blocks that may be written independently of each other.
    grid
        Lengths of which all blocks are multiples (but for the last ones), if that is known before.
    resumable
        Whether a second run can go on with ``partial``.
    resumed
        Whether this one does.
    """

    resumable = True

    def __init__(
        self,
        path: Path,
        like: Volume,
        *,
        chunks: tuple[int, ...] | None,
        grid: tuple[int, ...] | None,
        resume: bool,
        attach: bool,
        overwrite: bool,
    ) -> None:
        self.path = path
        self.partial = partial_path(path)
        self.like = like
        self.overwrite = overwrite
        self.chunks = self._fit_chunks(chunks)
        self.grid = grid
        self.resumed = False
        self.check()
        try:
            store = self._reopen() if resume and self.resumable and self.partial.exists() else None
            self.resumed = store is not None
            if store is None and attach:
                raise OSError(f"{self.partial}, which another process has started, cannot be opened.")
            if store is None:
                remove(self.partial)
                store = self._create()
        except BaseException as exc:
            if not self.resumed and not attach:
                with contextlib.suppress(OSError):
                    remove(self.partial)
            if isinstance(exc, OSError):
                raise clear_error(exc, path) from exc
            raise
        self.array: Any = LazyArray(store, self.stored_axes, like.axes, path)

    @property
    @abstractmethod
    def stored_axes(self) -> str:
        """Axes in the order the format wants."""

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError if the format cannot hold this image."""

    @abstractmethod
    def _create(self) -> Any:
        """Start ``partial`` and return its array."""

    def _reopen(self) -> Any | None:
        """Return the array of an existing ``partial``, or None if it is of another image."""
        return None

    @abstractmethod
    def _complete(self, provenance: dict[str, Any]) -> None:
        """Add all that belongs to the file besides the pixels."""

    def _fit_chunks(self, chunks: tuple[int, ...] | None) -> tuple[int, ...]:
        like = self.like
        if chunks is None:
            return default_chunks(like.axes, like.shape)
        if len(chunks) != like.ndim or min(chunks) < 1:
            raise ValueError(f"chunks {chunks} must be {like.ndim} positive numbers, one per axis of {like.axes!r}.")
        return tuple(min(int(c), n) for c, n in zip(chunks, like.shape, strict=True))

    def write(self, region: Region, block: NDArray[Any]) -> None:
        """Put a block into its place.

        Parameters
        ----------
        region
            A slice for each axis of the volume.
        block
            Of the region's shape.
        """
        self.array[region] = block

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape in the order the format wants."""
        return tuple(self.like.sizes.get(a, 1) for a in self.stored_axes)

    def finish(self, provenance: Mapping[str, Any] | None = None) -> Path:
        """Complete the file and give it its name; see `complete` and `publish`."""
        self.complete(provenance)
        return self.publish()

    def complete(self, provenance: Mapping[str, Any] | None = None) -> None:
        """Add all that belongs to the file besides the pixels.

        Parameters
        ----------
        provenance
            How the image was made; stored where the format has a place for it.
        """
        try:
            self._complete(plain_json(provenance or {}))
        except OSError as exc:
            raise clear_error(exc, self.path) from exc
        self.array = None  # lets go of memory maps, which some systems need before a rename

    def publish(self) -> Path:
        """Give a complete file its name.

        Raises
        ------
        FileExistsError
            If a file of that name appeared meanwhile and ``overwrite`` was not given; ``partial`` is kept.
        """
        try:
            publish(self.partial, self.path, overwrite=self.overwrite)
        except OSError as exc:
            raise clear_error(exc, self.path) from exc
        return self.path

    def discard(self) -> None:
        """Remove what was written so far."""
        self.array = None
        remove(self.partial)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Let go of the array; the partial file stays, for a run that resumes."""
        self.array = None


def check_output(path: Path, *, overwrite: bool, folder: bool) -> None:
    """Refuse an output that cannot or must not be written, before any work is done.

    Raises
    ------
    FileExistsError
        If it exists and ``overwrite`` is not given, or it is a folder that is not a Zarr group.
    FileNotFoundError
        If the folder it should go to does not exist, nor that folder's parent.
    NotADirectoryError
        If a file stands where a folder is needed.
    """
    if path.is_dir() and (not folder or not is_zarr(path)) and (not folder or any(path.iterdir())):
        raise FileExistsError(
            f"{path} is a folder that is not a Zarr image and is never removed. Choose another name for the output."
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists. Pass overwrite=True (--overwrite) to replace it, or choose another name."
        )
    parent = path.parent
    if parent.exists() and not parent.is_dir():
        raise NotADirectoryError(f"{parent} is a file, so {path.name} cannot be written into it. Choose a folder.")
    if not parent.exists():
        if not parent.parent.is_dir():
            raise FileNotFoundError(f"the folder {parent} does not exist. Create it, or check the output's path.")
        try:
            parent.mkdir(exist_ok=True)
        except OSError as exc:
            raise clear_error(exc, path) from exc


def publish(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Rename a complete file or folder to its final name, replacing another only if told to."""
    # A folder cannot be replaced in one step: set the old one aside, so that one of both is always there.
    aside = path.with_name(f".{path.name}.replaced")
    if path.exists():
        if not overwrite:
            raise FileExistsError(f"{path} appeared while it was being written. The result is in {partial}.")
        if partial.is_dir() or path.is_dir():
            remove(aside)
            path.rename(aside)
    partial.replace(path)
    remove(aside)  # also that of a run that was killed at this point


def remove(path: Path) -> None:
    """Remove a temporary file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_space(path: Path, nbytes: int) -> None:
    """Refuse to start a file that the disk cannot hold.

    Raises
    ------
    OSError
        With errno ENOSPC and both numbers.
    """
    free = shutil.disk_usage(path.parent).free
    if nbytes > free:
        raise OSError(
            errno.ENOSPC,
            f"{path.name} needs {nbytes / 1e6:,.1f} MB, but {path.parent} has {free / 1e6:,.1f} MB free. "
            "Free some space, or choose another folder.",
        )


def reserve(path: Path) -> None:
    """Give a sparse file its blocks now, because a full disk under a memory map would end the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = path.stat().st_size
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as exc:
            if exc.errno in FULL:  # others mean that the file system cannot do this
                raise


def native(dtype: Any) -> np.dtype[Any]:
    """Return a dtype in the machine's byte order."""
    result: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    return result


def clear_error(exc: OSError, path: Path) -> OSError:
    """Put the system's own short messages into words that name the output and say what to do."""
    if exc.errno is None or exc.strerror != os.strerror(exc.errno):
        return exc  # has its words already
    if exc.errno in FULL:
        text = f"no space left to write {path}. Free some space, or choose another folder."
    elif exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = f"{path} cannot be written: no permission to write into {path.parent}. Choose another folder."
    else:
        text = f"{path} cannot be written: {exc.strerror}. Choose another folder or another name."
    return type(exc)(exc.errno, text)
