"""Read and write NumPy's ``.npy`` files, memory-mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.axes import guess_axes
from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io._writer import Writer, require_space, reserve
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


def read_npy(path: Path, axes: str | None = None) -> Volume:
    """Open a ``.npy`` file as a memory map; it names no axes, so they are given or guessed."""
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as exc:  # a header is parsed as Python, with all the errors of that
        raise ValueError(
            f"{path} cannot be read as an array: {reason(exc)}. It is damaged, incomplete, or no .npy file of numbers."
        ) from exc
    return Volume(data, axes or guess_axes(data.shape, data.dtype), name=path.stem, source=path)


class NpyWriter(Writer):
    """Write a ``.npy`` file; pixel sizes and provenance have no place in one and are left out."""

    @property
    def stored_axes(self) -> str:
        return self.like.axes

    def check(self) -> None:
        """Accept every numeric array."""

    def _create(self) -> Any:
        require_space(self.path, self.like.nbytes)
        array = np.lib.format.open_memmap(self.partial, "w+", dtype=self.like.dtype, shape=self.like.shape)
        reserve(self.partial)
        self._map = array
        return array

    def _reopen(self) -> Any | None:
        try:
            array = np.lib.format.open_memmap(self.partial, "r+")
        except (OSError, MemoryError):
            raise
        except Exception:  # damaged: begin again
            return None
        if (array.shape, array.dtype) != (self.like.shape, self.like.dtype) or not array.flags.c_contiguous:
            return None
        self._map = array
        return array

    def _complete(self, provenance: dict[str, Any]) -> None:
        self._map.flush()
        del self._map
