"""Two layers of one scene, before and after: their difference, their values along a line, and how alike they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_ssdenoise.widgets._layers import layer_array, sample_of

STRUCTURE = 0.1  # correlation of neighbouring pixels of a residual, from which on it is worth a warning
_SHOWN = 99.5  # percent of the residual within the contrast limits


class Difference:
    """One array minus another of the same shape, computed where it is looked at; float32."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self.shape: tuple[int, ...] = tuple(first.shape)
        self.dtype = np.dtype(np.float32)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        first, second = (np.asarray(array[key], dtype=np.float32) for array in (self._first, self._second))
        return first - second

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def difference(before: Image, after: Image) -> Difference:
    """Return what was taken away from a layer.

    Raises
    ------
    ValueError
        If the two are not of one shape, or coloured.
    """
    first, second = layer_array(before), layer_array(after)
    if before is after:
        raise ValueError("Both are the same layer. Choose the noisy one before, and its result after.")
    if before.rgb or after.rgb:
        raise ValueError("Colour images have no residual that could be shown. Choose layers with one value per pixel.")
    if tuple(first.shape) != tuple(second.shape):
        raise ValueError(
            f"“{before.name}” {tuple(first.shape)} and “{after.name}” {tuple(second.shape)} differ in shape. Choose a "
            "layer and what was made of it, pixel by pixel."
        )
    return Difference(first, second)


def symmetric_limits(residual: Any) -> tuple[float, float]:
    """Choose contrast limits around 0 that show almost all of a residual."""
    values = np.abs(sample_of(residual))
    finite = values[np.isfinite(values)]
    most = float(np.percentile(finite, _SHOWN)) if finite.size else 0.0
    return (-most, most) if most > 0 else (-1.0, 1.0)


def neighbour_correlation(residual: NDArray[Any]) -> float:
    """Return the correlation of pixels with their neighbours below and beside, in planes (…, Y, X); the larger one.

    What a good result took away of independent noise has about 0.
    """
    planes = np.asarray(residual, dtype=np.float64)
    planes = planes - planes.mean((-2, -1), keepdims=True)
    spread = planes.std()
    if not np.isfinite(spread) or spread == 0:
        return 0.0
    found = []
    for axis in (-2, -1):
        moved = np.moveaxis(planes, axis, -1)
        first, second = moved[..., 1:], moved[..., :-1]
        found.append(float((first * second).mean() / planes.var()))
    return max(found)


def along_line(plane: NDArray[Any], start: NDArray[Any], stop: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return distances in pixels, and values of a plane (Y, X) between pixels, along a line between two points."""
    from scipy.ndimage import map_coordinates

    length = float(np.hypot(*(np.asarray(stop) - start)))
    count = max(2, round(length) + 1)
    points = np.linspace(start, stop, count).T
    values = map_coordinates(np.asarray(plane, dtype=np.float64), points, order=1, mode="nearest")
    return np.linspace(0, length, count), values


def residual_in_words(found: float) -> str:
    """Say what the correlation of a residual's neighbouring pixels means."""
    if found > STRUCTURE:
        return (
            f"Neighbouring pixels of the residual correlate by {found:.2f}: structure was taken away with the noise, "
            "or the noise itself is correlated."
        )
    return (
        f"Neighbouring pixels of the residual of this slice correlate by {found:.2f}, as in noise alone. Edges or "
        "shapes that you see in it all the same were taken away with the noise."
    )


def rings_in_words(period: float | None, unit: str, *, related: bool) -> str:
    """Say what a Fourier ring correlation means, and when it does not.

    Parameters
    ----------
    period
        Where it falls below 1/7; None if it does so from the start.
    related
        Whether one image was made of the other.
    """
    size = "nothing" if period is None else f"detail down to {period:.3g} {unit}"
    if related:
        return (
            f"The result keeps {size} of this image (1/7 of the correlation). This is no resolution: it was made of "
            "the same pixels, so that both share their noise. For one, compare two images of the scene that were "
            "taken independently, or see “Quality” in Denoise after a training."
        )
    return (
        f"The two agree on {size} (1/7 of the correlation). This is a resolution only if they were taken "
        "independently: not if one was made of the other, nor if both were made by one network, which may have made "
        "up the same detail in both."
    )
