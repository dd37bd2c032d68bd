"""Arrays that know their axes, pixel sizes and names, without ever copying what they wrap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from napari_ssdenoise.axes import guess_axes, parse_axes

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray


@runtime_checkable
class ArrayLike(Protocol):
    """Anything sliceable with a shape and a dtype: numpy, memmap, dask, zarr."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Volume:
    """An image of any dimensionality, read lazily.

    Parameters
    ----------
    data
        Array-like; slicing the volume slices this, so only that part is read.
    axes
        One letter of ``TCZYXS`` per dimension.
    scale
        Pixel size per axis, in ``units``; 1 by default, negative along an axis that is flipped.
    units
        Unit per axis, e.g. ``"micrometer"`` or ``"second"``; None where unknown.
    translate
        Position of the first pixel per axis, in ``units``; 0 by default.
    name
        Shown to people.
    channel_names
        One per entry of axis C, or empty.
    metadata
        Whatever the file said besides; carried along, never interpreted here.
    source
        The file the data came from, if any.
    """

    data: ArrayLike
    axes: str
    scale: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    translate: tuple[float, ...] = ()
    name: str = "image"
    channel_names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "axes", parse_axes(self.axes, self.shape))
        set_(self, "scale", tuple(float(s) for s in self.scale) or (1.0,) * self.ndim)
        set_(self, "units", tuple(self.units) or (None,) * self.ndim)
        set_(self, "translate", tuple(float(t) for t in self.translate) or (0.0,) * self.ndim)
        set_(self, "channel_names", tuple(self.channel_names))
        for label in ("scale", "units", "translate"):
            if len(getattr(self, label)) != self.ndim:
                raise ValueError(f"{label} {getattr(self, label)} must have one entry per axis of {self.axes!r}.")
        if 0 in self.scale or not all(map(isfinite, (*self.scale, *self.translate))):
            raise ValueError(
                f"pixel sizes {self.scale} at {self.translate} cannot be: sizes are finite numbers other than 0, "
                "positions are finite."
            )
        if self.channel_names and len(self.channel_names) != self.sizes.get("C", 1):
            raise ValueError(f"{len(self.channel_names)} channel names for {self.sizes.get('C', 1)} channels.")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.data.shape)

    @property
    def ndim(self) -> int:
        return len(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis by its letter."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array if it were loaded."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunk shape of zarr or dask data (the first chunk's where they differ), else the whole shape."""
        chunks = getattr(self.data, "chunks", None)
        if not chunks or isinstance(self.data, np.ndarray):
            return self.shape
        return tuple(int(c[0]) if isinstance(c, tuple) else int(c) for c in chunks)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self.data[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = np.asarray(self.data[...])
        return array if dtype is None else array.astype(dtype, copy=False)

    def like(self, data: ArrayLike, name: str | None = None) -> Volume:
        """Return a volume with this one's geometry around other data of the same axes."""
        return replace(self, data=data, name=name or self.name, source=None)


def require_intensities(volume: Volume) -> None:
    """Refuse arrays that no denoiser can work on, in words that say what to do.

    Raises
    ------
    ValueError
        If the array is empty, boolean, complex or not numeric.
    """
    kind, label = volume.dtype.kind, f"{volume.name!r} {volume.shape}"
    if 0 in volume.shape:
        raise ValueError(f"{label} is empty: one of its axes has length 0. Choose an image with pixels.")
    if kind == "b":
        raise ValueError(f"{label} is a boolean mask, not an image of intensities. Choose the image it was made from.")
    if kind == "c":
        raise ValueError(f"{label} is complex. Give its real and imaginary parts (or its magnitude) as images.")
    if kind not in "uif":
        raise ValueError(f"{label} has dtype {volume.dtype}, which is not numeric. Choose an image of intensities.")


def renamed(volume: Volume, axes: str) -> Volume:
    """Give a volume other axes; sizes and units stay with the dimensions that keep their letter."""
    named = parse_axes(axes, volume.shape)
    if named == volume.axes:
        return volume
    same = [a == b for a, b in zip(named, volume.axes, strict=True)]
    keeps_channels = "C" in named and "C" in volume.axes and named.index("C") == volume.axes.index("C")
    return replace(
        volume,
        axes=named,
        scale=tuple(s if keep else 1.0 for s, keep in zip(volume.scale, same, strict=True)),
        units=tuple(u if keep else None for u, keep in zip(volume.units, same, strict=True)),
        translate=tuple(t if keep else 0.0 for t, keep in zip(volume.translate, same, strict=True)),
        channel_names=volume.channel_names if keeps_channels else (),
    )


def open_volume(
    source: Volume | ArrayLike | str | PathLike[str],
    *,
    axes: str | None = None,
    scale: tuple[float, ...] | None = None,
    name: str | None = None,
) -> Volume:
    """Open a file or wrap an array; nothing is read until it is sliced.

    Parameters
    ----------
    source
        A path (TIFF, OME-Zarr, zarr, .npy, .png, NIfTI, DICOM), an array (numpy, memmap, dask, zarr) or a volume.
    axes
        One letter of ``TCZYXS`` per dimension; overrides what the file says. Guessed where nobody says.
    scale
        Pixel size per axis; overrides what the file says.
    name
        Overrides the file's name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read as an image, or the axes do not fit.
    """
    if isinstance(source, Volume):
        volume = source
    elif isinstance(source, ArrayLike):
        volume = Volume(source, axes or guess_axes(source.shape, source.dtype))
    else:
        from napari_ssdenoise.io import read_volume

        volume = read_volume(Path(source), axes=axes)
    if axes:
        volume = renamed(volume, axes)
    changes: dict[str, Any] = {}
    if scale is not None:
        changes["scale"] = scale
    if name is not None:
        changes["name"] = name
    return replace(volume, **changes) if changes else volume
