"""Decode a chunk once, even if its planes are denoised one after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.volume import Volume


class KeptChunks:
    """An array that reads whole chunks along some axes, and keeps the last ones for the planes that are wanted next.

    Parameters
    ----------
    data
        Array-like.
    depth
        Length of the chunks along each axis; 1 for axes along which nothing further is read.
    limit
        Bytes to keep at most.
    """

    def __init__(self, data: Any, depth: Sequence[int], limit: int) -> None:
        self._data = data
        self._depth = tuple(depth)
        self._limit = limit
        self._kept: OrderedDict[tuple[tuple[int, int], ...], NDArray[Any]] = OrderedDict()
        self._lock = Lock()
        self.shape = tuple(int(n) for n in data.shape)
        self.dtype: np.dtype[Any] = np.dtype(data.dtype)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        spans = [part.indices(n)[:2] for part, n in zip(key, self.shape, strict=True)]
        wide = tuple(
            (low // d * d, min(-(-high // d) * d, n))
            for (low, high), d, n in zip(spans, self._depth, self.shape, strict=True)
        )
        size = prod(high - low for low, high in wide) * self.dtype.itemsize
        if size > self._limit or list(wide) == spans:
            return np.asarray(self._data[key])
        with self._lock:
            if wide not in self._kept:
                while self._kept and size + sum(block.nbytes for block in self._kept.values()) > self._limit:
                    self._kept.popitem(last=False)
                self._kept[wide] = np.asarray(self._data[tuple(slice(low, high) for low, high in wide)])
            self._kept.move_to_end(wide)
            inner = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(spans, wide, strict=True))
            return self._kept[wide][inner]


def keeping_chunks(volume: Volume, layout: Layout, limit: int) -> Volume:
    """Return a volume that decodes each chunk once while its images, along the batch axes, are read in order."""
    depth = [c if axis in layout.batch else 1 for axis, c in zip(volume.axes, volume.chunks, strict=True)]
    if max(depth) == 1 or not getattr(volume.data, "chunks", None):  # any part of a memory map is as quick as another
        return volume
    return replace(volume, data=KeptChunks(volume.data, depth, limit))
