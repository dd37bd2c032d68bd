"""What *File > Open* and *File > Save* do with NIfTI, DICOM and k-space."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.utils.notifications import show_error, show_warning

from napari_ssdenoise.io import write_volume
from napari_ssdenoise.io.dicom import holds_dicom, is_dicom, read_dicom
from napari_ssdenoise.io.kspace import open_kspace
from napari_ssdenoise.io.kspace_hdf5 import holds_kspace
from napari_ssdenoise.io.nifti import is_nifti, is_pair, read_nifti
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._complex import PARTS, Part, join
from napari_ssdenoise.widgets._kspace import kspace_layer
from napari_ssdenoise.widgets._layers import COMPLEX_KEY, contrast_limits, layer_volume, sample_of

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | list[str]], list[LayerData]]

logger = logging.getLogger(__name__)

MATLAB = ".mat"
NOTHING: list[Any] = [(None,)]  # how a reader says that there is no layer to add, and that this is no fault of its own


class NotSavedError(RuntimeError):
    """Layers cannot be saved as they are; not a ValueError, which napari takes for a sign that there is no writer."""


def nifti_reader(path: str | list[str]) -> Reader | None:
    """Return the reader of a NIfTI file or pair of files, None if it is something else."""
    if not isinstance(path, str):
        return None
    return _read_nifti if is_nifti(Path(path)) or is_pair(Path(path)) else None


def dicom_reader(path: str | list[str]) -> Reader | None:
    """Return the reader of a folder or of files of DICOM, None if it is something else."""
    paths = [Path(p) for p in ([path] if isinstance(path, str) else path)]
    if len(paths) == 1 and paths[0].is_dir():
        return _read_dicom if holds_dicom(paths[0]) else None
    return _read_dicom if paths and all(map(is_dicom, paths)) else None


def kspace_reader(path: str | list[str]) -> Reader | None:
    """Return the reader of a fastMRI, ISMRMRD or MATLAB file, None if it is something else."""
    if not isinstance(path, str):
        return None
    return _read_kspace if Path(path).suffix.lower() == MATLAB or holds_kspace(Path(path)) else None


def write_nifti(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a layer as NIfTI, with the header of the file that it came from."""
    return _write(path, _volume((data, meta, "image")))


def write_complex_nifti(path: str, layers: Sequence[LayerData]) -> list[str]:
    """Save the parts of a complex image as one NIfTI."""
    volumes = [_volume(layer) for layer in layers]
    parts = {str(volume.metadata.get(COMPLEX_KEY, {}).get("part")): volume for volume in volumes}
    if len(parts) < len(volumes) or not set(parts) <= set(PARTS):
        names = ", ".join(f"“{volume.name}”" for volume in volumes)
        raise NotSavedError(
            f"A NIfTI file holds one image, but {names} are {len(volumes)} that are not the parts of a complex one. "
            "Select one of them and save it."
        )
    try:
        data = join({part: volume.data for part, volume in parts.items()})
    except ValueError as exc:
        raise NotSavedError(f"These layers cannot be saved as one NIfTI: {exc}") from exc
    return _write(path, replace(volumes[-1], data=data))


def _telling(read: Callable[[str | list[str]], list[LayerData]]) -> Reader:
    """Let a reader say itself why a file cannot be read: of an exception, napari shows only that there was one."""

    @wraps(read)
    def reader(path: str | list[str]) -> list[Any]:
        try:
            return read(path)
        except (ValueError, OSError, ImportError) as error:
            logger.debug("%s could not be read", path, exc_info=True)
            show_error(str(error))
            return NOTHING

    return reader


@_telling
def _read_nifti(path: str | list[str]) -> list[LayerData]:
    return _layers(read_nifti(Path(str(path))))


@_telling
def _read_kspace(path: str | list[str]) -> list[LayerData]:
    source = Path(str(path))
    try:
        return [kspace_layer(open_kspace(source))]
    except ValueError as error:
        if source.suffix.lower() != MATLAB:
            raise
        # Arrays of MATLAB name no axes, and a menu has no place to say them.
        raise ValueError(f"{error} In napari, Reconstruct MRI opens it with the “Axes of the file”.") from error


@_telling
def _read_dicom(path: str | list[str]) -> list[LayerData]:
    volume = read_dicom(Path(path) if isinstance(path, str) else [Path(p) for p in path])
    for text in volume.metadata["dicom"].get("warnings", ()):
        show_warning(f"{volume.name}: {text}.")
    inverted = volume.metadata["dicom"].get("PhotometricInterpretation") == "MONOCHROME1"
    return _layers(volume, {"colormap": "gray_r"} if inverted else {})


def _layers(volume: Volume, look: dict[str, Any] | None = None) -> list[LayerData]:
    """Describe a volume as napari's layers: one, or those of the parts of a complex image."""
    if volume.dtype.kind != "c":
        return [(volume.data, _options(volume) | (look or {}), "image")]
    layers = []
    for part in PARTS:
        shown = replace(volume, data=Part(volume.data, part), name=f"{volume.name} {part}")
        options = _options(shown) | {"visible": part == "magnitude"}
        if part == "phase":
            options |= {"colormap": "hsv", "contrast_limits": (-np.pi, np.pi)}
        options["metadata"][COMPLEX_KEY] = {"part": part, "data": volume.data}
        layers.append((shown.data, options, "image"))
    return layers


def _options(volume: Volume) -> dict[str, Any]:
    n = volume.ndim - ("S" in volume.axes)
    options: dict[str, Any] = {
        "name": volume.name,
        "scale": volume.scale[:n],
        "translate": volume.translate[:n],
        "units": tuple(unit or "pixel" for unit in volume.units[:n]),
        "axis_labels": tuple(volume.axes[:n].lower()),
        "metadata": dict(volume.metadata),
        "rgb": n < volume.ndim,
    }
    if n == volume.ndim:
        options["contrast_limits"] = contrast_limits(sample_of(volume.data))
    return options


def _volume(layer: LayerData) -> Volume:
    made = Layer.create(*layer)
    if not isinstance(made, Image):
        raise NotSavedError(f"“{made.name}” is not an image. Select an image layer to save it as NIfTI.")
    turned = (made.rotate, np.eye(made.ndim)), (made.affine.affine_matrix, np.eye(made.ndim + 1)), (made.shear, 0)
    if not all(np.allclose(found, plain) for found, plain in turned):
        show_warning(f"“{made.name}” is turned or moved in the viewer by its affine; the NIfTI is saved without that.")
    return layer_volume(made)


def _write(path: str, volume: Volume) -> list[str]:
    target = Path(path)
    if not is_nifti(target):
        target = target.with_name(f"{target.name}.nii.gz")
    try:
        return [str(write_volume(target, volume, overwrite=True))]
    except ValueError as exc:
        raise NotSavedError(str(exc)) from exc
