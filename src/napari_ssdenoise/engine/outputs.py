"""The files that one run fills: the denoised image, and what else the algorithm tells of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_ssdenoise.complex_parts import complex_dtype, complex_view, is_parts, joined
from napari_ssdenoise.io import create_writer
from napari_ssdenoise.io._writer import check_output, clear_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from filelock import FileLock
    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Region
    from napari_ssdenoise.io import Writer
    from napari_ssdenoise.volume import Volume

UNCERTAINTY = "std"


@dataclass(frozen=True)
class Output:
    """One file to make.

    Attributes
    ----------
    name
        Which of the algorithm's outputs it holds.
    path, dtype
        Of the file.
    """

    name: str
    path: Path
    dtype: np.dtype[Any]

    def stored(self, volume: Volume) -> np.dtype[Any]:
        """Return the dtype of the file: complex where a complex image is seen as its parts, apart from uncertainties.

        Raises
        ------
        ValueError
            If there is no complex dtype with such parts.
        """
        return complex_dtype(self.dtype) if is_parts(volume) and self.name != UNCERTAINTY else self.dtype

    @classmethod
    def of(cls, name: str, path: Path, dtype: np.dtype[Any]) -> Output:
        """Make an output; uncertainties are fractions of a grey value, and always floats."""
        return cls(name, path, np.dtype(np.float32) if name == UNCERTAINTY else dtype)


class Files:
    """The writers of all outputs, filled together block by block, and named together when all are complete."""

    def __init__(self, writers: Sequence[Writer], names: Sequence[str] = ()) -> None:
        self.writers = tuple(writers)
        self._parts = tuple(names)  # of the outputs, where they come as the parts of complex images
        self._first: dict[str, Sequence[NDArray[Any]]] = {}  # parts that wait for the other one

    @classmethod
    def open(cls, outputs: Sequence[Output], like: Volume, **options: Any) -> Self:
        """Open or start all of them; ``options`` are those of `create_writer`."""
        writers: list[Writer] = []
        parts = is_parts(like)
        if parts:
            options |= {name: options[name][:-1] for name in ("chunks", "grid") if options.get(name)}
        try:
            for output in outputs:
                kind = output.stored(like)
                writers += [create_writer(output.path, complex_view(like), dtype=kind, **options)]
        except BaseException:
            for writer in writers:
                if not writer.resumed:
                    writer.discard()
            raise
        return cls(writers, [output.name for output in outputs] if parts else ())

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the blocks that may be written independently of each other."""
        return self.writers[0].chunks

    @property
    def partials(self) -> tuple[Path, ...]:
        """Where the files are until they are finished."""
        return tuple(writer.partial for writer in self.writers)

    @property
    def resumed(self) -> bool:
        """Whether this run goes on with what an earlier one wrote."""
        return all(writer.resumed and writer.resumable for writer in self.writers)

    @property
    def resumable(self) -> bool:
        """Whether a second run can go on with this one."""
        return all(writer.resumable for writer in self.writers)

    def write(self, region: Region, images: Sequence[NDArray[Any]]) -> None:
        """Put a block of each output into its place."""
        whole = self._whole(region, images, "write")
        if whole is None:
            return
        region, images = whole
        for writer, image in zip(self.writers, images, strict=True):
            writer.write(region, image)

    def show(self, region: Region, images: Sequence[NDArray[Any]]) -> None:
        """Let a block of each output be seen until it is written; lower resolutions wait for that."""
        whole = self._whole(region, images, "show")
        if whole is None:
            return
        region, images = whole
        for writer, image in zip(self.writers, images, strict=True):
            writer.array[region] = image

    def _whole(
        self, region: Region, images: Sequence[NDArray[Any]], why: str
    ) -> tuple[Region, Sequence[NDArray[Any]]] | None:
        """Join the parts of complex images; None for a real part, which waits for its imaginary one."""
        if not self._parts:
            return region, images
        if images[0].shape[-1] == 1:
            place = f"{why} {region[:-1]}"
            if region[-1].start == 0:
                self._first[place] = images
                return None
            pairs = zip(self._first.pop(place), images, strict=True)
            images = [np.concatenate(pair, -1) for pair in pairs]
        return region[:-1], [joined(name, image) for name, image in zip(self._parts, images, strict=True)]

    def finish(self, outputs: Sequence[Output], provenance: Mapping[str, Any]) -> None:
        """Complete all files, then give all their names: nobody finds one without the others."""
        for writer, output in zip(self.writers, outputs, strict=True):
            writer.complete({**provenance, "output": output.name})
        for writer in reversed(self.writers):
            writer.publish()

    def discard(self) -> None:
        """Remove what was written so far."""
        for writer in self.writers:
            writer.discard()


class Locks:
    """Makes sure that no other run writes to the same files; the system frees the locks if this process dies.

    Raises
    ------
    FileExistsError
        If there is one, or a file exists and ``overwrite`` is False.
    """

    def __init__(self, paths: Sequence[Path], *, overwrite: bool) -> None:
        self._held: list[FileLock] = []
        for path in paths:
            check_output(path, overwrite=overwrite, folder=path.suffix.lower() == ".zarr")
        try:
            for path in paths:
                self._held.append(lock_output(path))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others write."""
        for lock in self._held:
            with suppress(PermissionError):  # Windows lets nobody remove an open file, and does so on release
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def lock_output(path: Path) -> FileLock:
    """Make sure that no other run writes to the same output.

    Raises
    ------
    FileExistsError
        If there is one.
    OSError
        If nothing can be written into the folder.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileExistsError(
            f"another run is writing {path} at the moment. Wait for it, stop it, or choose another name."
        ) from error
    except OSError as error:
        raise clear_error(error, path) from error
    return lock
