"""Show complex images, which napari refuses, as layers of their parts; put the parts together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The last one becomes the active layer. Noise is best removed from the real and the imaginary part.
PARTS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "imaginary": np.imag,
    "real": np.real,
    "phase": np.angle,
    "magnitude": np.abs,
}


class Part:
    """A part of a complex array, computed when it is sliced.

    Parameters
    ----------
    base
        The complex array.
    part
        One of `PARTS`.
    """

    def __init__(self, base: Any, part: str) -> None:
        self.base = base
        self.part = part
        self.shape: tuple[int, ...] = tuple(int(n) for n in base.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(f"f{np.dtype(base.dtype).itemsize // 2}")

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return PARTS[self.part](np.asarray(self.base[key])).astype(self.dtype, copy=False)


class Joined:
    """A complex array of two real ones, put together when it is sliced.

    Parameters
    ----------
    first, second
        Real and imaginary part, or magnitude and phase.
    polar
        Whether they are the latter.
    """

    def __init__(self, first: Any, second: Any, *, polar: bool) -> None:
        self._parts, self._polar = (first, second), polar
        self.shape: tuple[int, ...] = tuple(int(n) for n in first.shape)
        self.ndim = len(self.shape)
        real = np.result_type(np.float32, first.dtype, second.dtype)
        self.dtype = np.dtype(np.complex64 if real == np.float32 else np.complex128)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, second = (np.asarray(part[key]) for part in self._parts)
        block = np.empty(first.shape, self.dtype)
        # Not by a sum: infinity times 1j has no finite real part.
        block.real = first * np.cos(second) if self._polar else first
        block.imag = first * np.sin(second) if self._polar else second
        return block


def join(arrays: Mapping[str, Any]) -> Any:
    """Put parts together: the array that they came from if none was changed, else a new one.

    Parameters
    ----------
    arrays
        By the names of `PARTS`; real and imaginary part are preferred.

    Raises
    ------
    ValueError
        If they make no complex image.
    """
    bases = [part.base if isinstance(part, Part) and part.part == name else None for name, part in arrays.items()]
    pairs = (("real", "imaginary"), ("magnitude", "phase"))
    pair = next((pair for pair in pairs if set(pair) <= set(arrays)), None)
    if pair is None:
        raise ValueError("a complex image needs its real and its imaginary part, or its magnitude and its phase.")
    if bases[0] is not None and all(base is bases[0] for base in bases):
        return bases[0]
    first, second = (arrays[name] for name in pair)
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(f"the {pair[0]} part has shape {first.shape}, but the {pair[1]} part {second.shape}.")
    return Joined(first, second, polar=pair[0] == "magnitude")
