"""K-space in the viewer: a layer that shows it, and the job that reconstructs it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_ssdenoise.io.kspace import KSpace
from napari_ssdenoise.widgets._layers import COMPLEX_KEY, layer_axes, sample_of
from napari_ssdenoise.widgets._stopping import interrupting, load_torch
from napari_ssdenoise.widgets._work import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.recipe_mri import ReconstructionRecipe
    from napari_ssdenoise.reconstruction import Reconstruction

# Layers that show k-space have it under this key.
KSPACE_KEY = "kspace"
# Decades of k-space that are shown.
DECADES = 5.0


class LogMagnitude:
    """What k-space looks like: the logarithm of the coils' magnitude, computed when a slice is shown."""

    def __init__(self, kspace: KSpace) -> None:
        slices, _, rows, columns = kspace.shape
        self.kspace = kspace
        self.shape = (rows, columns) if slices == 1 else (slices, rows, columns)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        keys = key if isinstance(key, tuple) else (key,)
        if self.ndim == 2:
            return self._slice(0)[keys]
        if isinstance(keys[0], (int, np.integer)):
            return self._slice(int(keys[0]))[keys[1:]]
        chosen = range(self.shape[0])[keys[0]] if isinstance(keys[0], slice) else np.arange(self.shape[0])[keys[0]]
        return np.stack([self._slice(int(i)) for i in chosen])[(slice(None), *keys[1:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def _slice(self, index: int) -> NDArray[np.float32]:
        data, mask = np.asarray(self.kspace.data[index]), self.kspace.mask
        if mask is not None:
            data = data * (mask if mask.ndim == 2 else mask[index])
        magnitude = np.sqrt(np.square(np.abs(data)).sum(0))
        strongest = max(float(magnitude.max()), 1e-30)
        return np.log10(np.maximum(magnitude / strongest, 10**-DECADES)).astype(np.float32)


def kspace_layer(kspace: KSpace, axes: str | None = None) -> tuple[Any, dict[str, Any], str]:
    """Describe the layer that shows k-space; its metadata hold the data, and the axes that they were read by."""
    shown = LogMagnitude(kspace)
    # As the images that will be made of it: layers without units would take those of all others away.
    before = (1.0,) * (shown.ndim - 2)
    scale, unit = (kspace.scale, "millimeter") if kspace.scale else ((1.0, 1.0), "pixel")
    options = {
        "name": f"{kspace.name} k-space",
        "axis_labels": ("z", "y", "x")[-shown.ndim :],
        "scale": (*before, *scale),
        "units": (*("pixel" for _ in before), unit, unit),
        "contrast_limits": (-DECADES, 0.0),
        "colormap": "viridis",
        "metadata": {KSPACE_KEY: {"data": kspace, "axes": axes}},
    }
    return shown, options, "image"


def kspace_of(layer: Image) -> KSpace:
    """Return the k-space that a layer shows, or that its complex data are.

    Raises
    ------
    ValueError
        If it shows none.
    """
    stored = layer.metadata.get(KSPACE_KEY)
    if isinstance(stored, dict) and isinstance(stored.get("data"), KSpace):
        return stored["data"]
    whole = layer.metadata.get(COMPLEX_KEY)
    if not isinstance(whole, dict) or "data" not in whole:
        raise ValueError(
            f"“{layer.name}” is an image, not k-space, which cannot be had from images. Open raw data: fastMRI or "
            "ISMRMRD HDF5, .npy or .mat."
        )
    from napari_ssdenoise.io.kspace import open_kspace

    axes = layer_axes(layer)
    return open_kspace(np.asarray(whole["data"]), axes=axes if "C" in axes else None, name=layer.name)


def axes_of(layer: Image) -> str | None:
    """Return the axes that the file of a layer's k-space was read by, if somebody named them."""
    stored = layer.metadata.get(KSPACE_KEY)
    return stored.get("axes") if isinstance(stored, dict) else None


def read_kspace(path: Path, axes: str | None) -> KSpace:
    """Open a file of k-space; what is not installed is an error for people as well."""
    from napari_ssdenoise.io.kspace import open_kspace

    try:
        return open_kspace(path, axes=axes)
    except ImportError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Made:
    """The images, with the contrast limits of their magnitude."""

    result: Reconstruction
    limits: tuple[float, float]


@dataclass
class Reconstructing:
    """Reconstruct k-space with a method.

    Parameters
    ----------
    kspace
        The data.
    method, steps, device, seed
        As for `napari_ssdenoise.reconstruction.Reconstructor`.
    axes
        That the file of k-space was read by.
    """

    kspace: KSpace
    method: str = "auto"
    steps: int | None = None
    device: str = "auto"
    seed: int = 0
    axes: str | None = None

    def recipe(self) -> ReconstructionRecipe:
        """Return how to do it again; this reads some slices of the file."""
        from napari_ssdenoise.recipe_mri import ReconstructionRecipe

        how = {"method": self.method, "steps": self.steps, "device": self.device, "seed": self.seed}
        return ReconstructionRecipe.of(self.kspace, self.axes, **how)

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, `ReconstructionStep` and, at the end, `Made`."""
        yield Stage("Loading PyTorch…")
        load_torch(stop)
        from napari_ssdenoise.reconstruction import Reconstructor

        yield Stage("Reading k-space…")
        with interrupting(stop):
            options = {"device": self.device, "seed": self.seed}
            reconstructor = Reconstructor(self.kspace, self.method, steps=self.steps, **options)
            try:
                yield from reconstructor
            finally:
                reconstructor.close()
        result = reconstructor.result
        magnitude = np.abs(result.image)
        yield Made(result, (0.0, max(float(np.percentile(sample_of(magnitude), 99.8)), 1e-12)))
