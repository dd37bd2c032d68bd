"""Translate between napari's image layers and volumes, and give results the look and place of their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_ssdenoise.axes import Region, guess_axes, parse_axes
from napari_ssdenoise.volume import ArrayLike, Volume

_WORDS = {
    "T": ("t", "time", "frame", "frames", "timepoint"),
    "C": ("c", "channel", "channels", "ch", "wavelength"),
    "Z": ("z", "depth", "plane", "planes", "slice", "slices", "pln"),
    "Y": ("y", "row", "rows"),
    "X": ("x", "column", "columns", "col"),
}
LETTER = {word: letter for letter, words in _WORDS.items() for word in words}
# Layers that only show work in progress carry this key in their metadata, and are offered nowhere as input.
PREVIEW_KEY = "ssdenoise-preview"
# Layers that show a part of a complex image have the part's name and the whole array under this key.
COMPLEX_KEY = "complex"
# Everything that places a layer in the world; a result without one of them would sit elsewhere, or lose its units.
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_LOOK = ("colormap", "gamma", "interpolation2d", "interpolation3d", "rendering")
# What a layer's metadata hold of the file that it was read from: for the writers, and for results made of it.
_FILE_KEYS = ("nifti", "dicom", COMPLEX_KEY)
_LIMITS = (0.1, 99.8)
_SAMPLED_SIDE = 256


class Opaque:
    """An RGBA array without its alpha, which holds no image to denoise; read lazily."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self.shape: tuple[int, ...] = (*base.shape[:-1], 3)
        self.dtype = np.dtype(base.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) < self.ndim:
            return np.asarray(self._base[key])[..., :3]
        block = np.asarray(self._base[keys[:-1]])[..., :3]
        return np.asarray(block[..., keys[-1]])


def layer_axes(layer: Image) -> str:
    """Name the axes of a layer, without the samples of RGB: from its labels, else guessed from shape and units."""
    shape = layer_array(layer).shape[: layer.ndim]
    named = "".join(LETTER.get(str(label).strip().lower(), "?") for label in layer.axis_labels)
    try:
        return parse_axes(named, shape)
    except ValueError:
        guessed = guess_axes(shape)
    is_film = len(guessed) == 3 and layer.units[0].is_compatible_with("second")
    return "TYX" if is_film else guessed


def layer_array(layer: Image) -> ArrayLike:
    """Return a layer's full-resolution array as it is: numpy, dask, zarr or anything sliceable."""
    data: ArrayLike = layer.data[0] if layer.multiscale else layer.data
    return data


def layer_volume(layer: Image, axes: str | None = None) -> Volume:
    """Wrap a layer's data as a volume, without reading or copying it.

    Parameters
    ----------
    layer
        Of any kind; of a multiscale one, the full resolution is taken.
    axes
        One letter per dimension that the viewer counts (the samples of RGB are added); found by `layer_axes` if None.

    Raises
    ------
    ValueError
        If the axes do not fit.
    """
    data = layer_array(layer)
    axes = parse_axes(layer_axes(layer) if axes is None else axes, data.shape[: layer.ndim])
    scale, translate = [float(s) for s in layer.scale], [float(t) for t in layer.translate]
    units: list[str | None] = [None if str(unit) == "pixel" else str(unit) for unit in layer.units]
    if layer.rgb:
        axes, scale, translate, units = axes + "S", [*scale, 1.0], [*translate, 0.0], [*units, None]
        if data.shape[-1] == 4:
            data = data[..., :3] if hasattr(data, "__array_function__") else Opaque(data)
    return Volume(
        data, axes, tuple(scale), tuple(units), tuple(translate), name=layer.name, metadata=file_metadata(layer)
    )


def file_metadata(layer: Image) -> dict[str, Any]:
    """Return what is known of the file that a layer came from, without its pixels: it holds for results as well."""
    kept = {key: layer.metadata[key] for key in _FILE_KEYS if isinstance(layer.metadata.get(key), dict)}
    if COMPLEX_KEY in kept:
        kept[COMPLEX_KEY] = {"part": kept[COMPLEX_KEY].get("part")}
    return kept


@dataclass(frozen=True)
class Pixels:
    """Pixels of a new layer on those of another: so many for one, and where the first lies in the other's pixels."""

    factors: tuple[int, ...]
    first: tuple[float, ...]


def place(layer: Image, origin: Sequence[int] | None = None, pixels: Pixels | None = None) -> dict[str, Any]:
    """Return the options that put a new layer exactly onto a layer, or onto its part that starts at a pixel.

    Parameters
    ----------
    layer
        Where to be.
    origin
        First pixel of the part, along the layer's dimensions.
    pixels
        Of the new layer, if they are smaller; ``origin`` is then one of those.
    """
    options = {name: getattr(layer, name) for name in _PLACE}
    if pixels is not None:
        options["scale"] = np.asarray(layer.scale) / pixels.factors
        start = np.zeros(layer.ndim) if origin is None else np.asarray(origin, float)
        origin = np.add(pixels.first, start / pixels.factors)
    if origin is not None:
        grid = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, translate=layer.translate)
        options["translate"] = grid(np.asarray(origin, float))
    return options


def look(layer: Image) -> dict[str, Any]:
    """Return the options that make a new layer look like a layer; contrast limits are for the caller to choose."""
    if layer.rgb:
        return {"rgb": True, "gamma": layer.gamma}
    return {name: getattr(layer, name) for name in _LOOK}


def sample_of(data: Any, center: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Read a few planes around a pixel (the middle by default), enough to choose contrast limits from."""
    shape = data.shape
    middle = [n // 2 for n in shape] if center is None else list(center)
    key = []
    for d, n in enumerate(shape):
        side = _SAMPLED_SIDE if d >= len(shape) - 2 else 1
        start = min(max(0, middle[d] - side // 2), max(0, n - side))
        key.append(slice(start, start + side))
    return np.asarray(data[tuple(key)], dtype=np.float64)


def contrast_limits(values: NDArray[Any]) -> tuple[float, float]:
    """Choose limits that show almost all of the values; never equal."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, _LIMITS))
    return (low, high) if high > low else (low, low + 1.0)


def clip_region(region: Region, shape: Sequence[int]) -> Region:
    """Cut a region down to a shape."""
    return tuple(slice(max(0, s.start), min(s.stop, n)) for s, n in zip(region, shape, strict=True))
