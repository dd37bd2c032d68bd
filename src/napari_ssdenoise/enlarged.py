"""A volume seen at the pixel size that a super-resolution gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Repeated:
    """An array whose pixels are repeated along some axes; read lazily, nothing is copied.

    Parameters
    ----------
    data
        Array-like.
    factors
        How often, for each axis.
    """

    def __init__(self, data: Any, factors: tuple[int, ...]) -> None:
        self._data = data
        self.factors = factors
        self.shape = tuple(int(n) * f for n, f in zip(data.shape, factors, strict=True))
        self.dtype: np.dtype[Any] = np.dtype(data.dtype)
        self.ndim = len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of the parts that are read at once; None if the array is not stored in chunks."""
        if not getattr(self._data, "chunks", None):
            return None
        source = Volume(self._data, "TCZYXS"[-self.ndim :] if self.ndim > 3 else "ZYX"[-self.ndim :])
        return tuple(c * f for c, f in zip(source.chunks, self.factors, strict=True))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            place = keys.index(Ellipsis)
            keys[place : place + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        source: list[Any] = []
        repeats: list[tuple[int, slice]] = []  # of the axes that remain
        for wanted, factor, n in zip(keys, self.factors, self.shape, strict=True):
            if isinstance(wanted, slice):
                start, stop, step = wanted.indices(n)
                if step != 1:
                    raise IndexError("an enlarged image is read without steps.")
                first, last = start // factor, -(-stop // factor)
                source.append(slice(first, max(first, last)))
                repeats.append((factor, slice(start - first * factor, max(start, stop) - first * factor)))
            else:
                source.append((int(wanted) % n) // factor)
        block = np.asarray(self._data[tuple(source)])
        for axis, (factor, part) in enumerate(repeats):
            if factor > 1:
                block = np.repeat(block, factor, axis)[(*(slice(None),) * axis, part)]
        return block


def enlarged(volume: Volume, factors: Mapping[str, int], registered: bool = True) -> Volume:
    """Return a volume with smaller pixels, each one repeated, in the same place.

    Parameters
    ----------
    factors
        By axis; axes that are not named stay.
    registered
        Whether the new pixels fill the old ones; else the first of them lies where the old one's middle was.
    """
    by_axis = tuple(factors.get(axis, 1) for axis in volume.axes)
    moved = [scale * (f - 1) / (2 * f) if registered else 0.0 for scale, f in zip(volume.scale, by_axis, strict=True)]
    return replace(
        volume,
        data=Repeated(volume.data, by_axis),
        scale=tuple(scale / f for scale, f in zip(volume.scale, by_axis, strict=True)),
        translate=tuple(t - m for t, m in zip(volume.translate, moved, strict=True)),
        source=None,  # that file has other pixels
    )
