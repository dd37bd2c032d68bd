"""Show a complex image as real numbers, and turn results back: real and imaginary part are two images of one kind.

Noise that is normal and white in the raw data of a scanner is so in both parts, with zero mean and without the bias
that magnitudes have. So every algorithm for real images works on the parts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from napari_ssdenoise.volume import ArrayLike, Volume

# The letter of RGB samples, which a complex image cannot have: pixels that are made up of several numbers.
AXIS: Final = "S"


class Parts:
    """A complex array as one of real numbers with a last axis of two: real part, imaginary part. Read lazily.

    Parameters
    ----------
    base
        The complex array.
    """

    def __init__(self, base: ArrayLike) -> None:
        self.base = base
        self.shape: tuple[int, ...] = (*(int(n) for n in base.shape), 2)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(f"f{np.dtype(base.dtype).itemsize // 2}")

    @property
    def chunks(self) -> tuple[Any, ...] | None:
        """Stored chunks, if the array has any."""
        chunks = None if isinstance(self.base, np.ndarray) else getattr(self.base, "chunks", None)
        return (*chunks, 2) if chunks else None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        outer, part = tuple(keys[: self.ndim - 1]), keys[self.ndim - 1 :]
        block = np.asarray(self.base[outer or slice(None)])
        real = np.stack([block.real, block.imag], -1).astype(self.dtype, copy=False)
        return np.asarray(real[(..., part[0])] if part else real)


def is_parts(volume: Volume) -> bool:
    """Tell whether a volume shows the parts of a complex one."""
    return isinstance(volume.data, Parts)


def real_view(volume: Volume) -> Volume:
    """Return a complex volume with its two parts along a last axis S; any other volume as it is.

    Raises
    ------
    ValueError
        If the volume has samples of colours that are complex.
    """
    if volume.dtype.kind != "c" or 0 in volume.shape:
        return volume
    if AXIS in volume.axes:
        raise ValueError(
            f"{volume.name!r} {volume.axes} {volume.shape} is complex, and cannot have an axis {AXIS} of colour "
            "samples as well. Name that axis C."
        )
    return replace(
        volume,
        data=Parts(volume.data),
        axes=volume.axes + AXIS,
        scale=(*volume.scale, 1.0),
        units=(*volume.units, None),
        translate=(*volume.translate, 0.0),
    )


def complex_view(volume: Volume) -> Volume:
    """Return the complex volume that `real_view` shows; any other volume as it is."""
    data = volume.data
    if not isinstance(data, Parts):
        return volume
    return replace(
        volume,
        data=data.base,
        axes=volume.axes.replace(AXIS, ""),
        scale=volume.scale[:-1],
        units=volume.units[:-1],
        translate=volume.translate[:-1],
    )


def joined(name: str, parts: NDArray[Any]) -> NDArray[Any]:
    """Turn one output for both parts, (..., 2), into that of the complex image.

    Parameters
    ----------
    name
        Of the output. Standard deviations become their root mean square: one real number, which holds for either part.
    """
    if name == "std":
        return np.asarray(np.sqrt(np.square(parts).mean(-1)), parts.dtype)
    made = np.empty(parts.shape[:-1], complex_dtype(parts.dtype))
    made.real, made.imag = parts[..., 0], parts[..., 1]
    return made


def complex_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the complex dtype whose parts are of a dtype.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = {"float32": np.complex64, "float64": np.complex128}.get(np.dtype(dtype).name)
    if found is None:
        name = np.dtype(dtype).name
        raise ValueError(f"the parts of a complex image cannot be {name}. Use 'auto', 'float32' or 'float64'.")
    return np.dtype(found)
