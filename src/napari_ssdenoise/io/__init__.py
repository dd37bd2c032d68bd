"""Read images from files as lazy volumes, and write them block by block."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise.io._lazy import UnreadableError
from napari_ssdenoise.io._writer import Writer, check_output, clear_error, default_chunks, is_zarr, native
from napari_ssdenoise.volume import renamed

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from napari_ssdenoise.volume import Volume

__all__ = [
    "READABLE",
    "WRITABLE",
    "UnreadableError",
    "Writer",
    "check_output",
    "clear_error",
    "create_writer",
    "read_volume",
    "write_volume",
]

WRITABLE: Final = (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff", ".npy", ".png", ".nii", ".nii.gz")
READABLE: Final = (*WRITABLE, ".jpg", ".jpeg", ".dcm")

# Voxels copied at a time by write_volume.
_BLOCK = 2**24


def read_volume(path: Path, axes: str | None = None) -> Volume:
    """Open an image file; pixels are read when they are sliced (PNG and JPEG at once).

    Parameters
    ----------
    path
        A file, a Zarr store, an image inside a store (``store.zarr/name``), or a folder with a DICOM series.
    axes
        One letter of ``TCZYXS`` per dimension; overrides what the file says. Pixel sizes of renamed axes are dropped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of a kind that is not known, or the axes do not fit.
    """
    path = Path(path)
    volume = _read(path, axes)
    return volume if axes is None else renamed(volume, axes)


def _read(path: Path, axes: str | None) -> Volume:
    """Open a file with the reader for its kind."""
    if not path.exists():
        raise FileNotFoundError(_not_found(path))
    if path.is_dir():
        return _read_folder(path, axes)
    suffix = path.suffix.lower()
    if path.name.lower().endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        from napari_ssdenoise.io.nifti import read_nifti

        return read_nifti(path, axes)
    if suffix in (".tif", ".tiff"):
        from napari_ssdenoise.io.tiff import read_tiff

        return read_tiff(path, axes)
    if suffix == ".npy":
        from napari_ssdenoise.io.npy import read_npy

        return read_npy(path, axes)
    if suffix in (".png", ".jpg", ".jpeg"):
        from napari_ssdenoise.io.png import read_png

        return read_png(path, axes)
    if suffix == ".zarr":
        raise ValueError(f"{path} is a file, but a Zarr image is a folder. It is damaged, or has a wrong name.")
    from napari_ssdenoise.io.dicom import SUFFIXES, is_dicom, read_dicom

    if suffix in SUFFIXES or is_dicom(path):
        return read_dicom(path, axes)
    raise ValueError(f"{path.name}: images of this kind are not known. Give one of {', '.join(READABLE)}.")


def _read_folder(path: Path, axes: str | None) -> Volume:
    """Open a Zarr store, or a DICOM series."""
    if is_zarr(path) or any(is_zarr(p) for p in path.parents):
        from napari_ssdenoise.io.ome_zarr import read_ome_zarr

        return read_ome_zarr(path, axes)
    from napari_ssdenoise.io.dicom import holds_dicom, read_dicom

    if holds_dicom(path):
        return read_dicom(path, axes)
    raise ValueError(
        f"{path} is a folder, but not a Zarr image (it has no zarr.json, .zgroup or .zarray), and holds no DICOM "
        "files. Give an image file, a complete Zarr store or the folder of a DICOM series."
    )


def _not_found(path: Path) -> str:
    """Say that there is no such file, and what there is in the store it should be in."""
    for parent in path.parents:
        if is_zarr(parent):
            from napari_ssdenoise.io.ome_zarr import find_images

            inside = ", ".join(find_images(parent)) or "no image"
            return f"there is no {path.relative_to(parent).as_posix()!r} in {parent}, which holds: {inside}."
    return f"there is no file {path}. Check the name and the folder."


def create_writer(
    path: Path,
    like: Volume,
    *,
    dtype: DTypeLike,
    resume: bool = False,
    attach: bool = False,
    overwrite: bool = False,
    shape: tuple[int, ...] | None = None,
    scale: tuple[float, ...] | None = None,
    chunks: tuple[int, ...] | None = None,
    grid: tuple[int, ...] | None = None,
) -> Writer:
    """Start an output file that is filled block by block.

    Parameters
    ----------
    path
        Its ending decides the format: ``.ome.zarr`` or ``.zarr``, ``.tif`` or ``.ome.tif``, ``.npy``, ``.png``,
        ``.nii`` or ``.nii.gz``.
    like
        Axes, pixel sizes, units, position, channels and metadata of the output; its pixels are not read.
    dtype
        Of the output, and of the blocks that will be written.
    resume
        Take up a partial file of an earlier run if its shape, dtype and chunks fit.
    attach
        With ``resume``: never begin anew, as another process is writing the same file.
    overwrite
        Replace an existing file, at the moment the new one is complete. A folder that is not a Zarr group is never
        removed.
    shape, scale
        Where they differ from those of ``like``.
    chunks
        Chunk shape for Zarr, in the axes order of ``like``.
    grid
        Lengths of which all blocks that will be written are multiples, apart from those at the end of an axis: Zarr
        then gets its lower resolutions from the blocks as they come, and not in a second pass.

    Raises
    ------
    FileExistsError
        If the output exists and ``overwrite`` was not given.
    ValueError
        If the ending is not known, or the format cannot hold such an image.
    OSError
        If the folder cannot be written into, or the disk is full.
    """
    path = Path(path)
    kind = _writer_class(path)
    check_output(path, overwrite=overwrite, folder=path.suffix.lower() == ".zarr")
    size = tuple(int(n) for n in (shape or like.shape))
    target = replace(
        like,
        data=np.broadcast_to(np.zeros((), native(dtype)), size),
        scale=scale or like.scale,
        channel_names=like.channel_names if size == like.shape else (),
        source=None,
    )
    return kind(path, target, chunks=chunks, grid=grid, resume=resume, attach=attach, overwrite=overwrite)


def _writer_class(path: Path) -> type[Writer]:
    suffix = path.suffix.lower()
    if suffix == ".zarr":
        from napari_ssdenoise.io.ome_zarr_writer import OmeZarrWriter

        return OmeZarrWriter
    if suffix in (".tif", ".tiff"):
        from napari_ssdenoise.io.tiff_writer import TiffWriter

        return TiffWriter
    if suffix == ".npy":
        from napari_ssdenoise.io.npy import NpyWriter

        return NpyWriter
    if path.name.lower().endswith((".nii", ".nii.gz")):
        from napari_ssdenoise.io.nifti_writer import NiftiWriter

        return NiftiWriter
    if suffix == ".png":
        from napari_ssdenoise.io.png import PngWriter

        return PngWriter
    raise ValueError(f"{path.name}: output of this kind is not known. Use a name that ends in {', '.join(WRITABLE)}.")


def write_volume(path: Path, volume: Volume, *, overwrite: bool = False) -> Path:
    """Write a whole volume, a block at a time, whatever its size.

    Returns
    -------
    Path
        The file, once it is complete.
    """
    from napari_ssdenoise.io._pyramid import blocks

    if path.name.lower().endswith((".nii", ".nii.gz")):
        from napari_ssdenoise.io.nifti import as_stored

        volume = as_stored(volume)
    grid = _grid(volume)
    writer = create_writer(path, volume, dtype=volume.dtype, overwrite=overwrite, grid=grid)
    try:
        for region in blocks(volume.shape, grid):
            writer.write(region, volume[region])
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


def _grid(volume: Volume) -> tuple[int, ...]:
    """Choose blocks of whole output chunks, as large as a moderate amount of memory allows."""
    step = list(default_chunks(volume.axes, volume.shape))
    # Grow from the last axis on, so that blocks are long runs in the files that have no chunks.
    for axis in reversed(range(volume.ndim)):
        while step[axis] < volume.shape[axis] and 2 * int(np.prod(step, dtype=np.int64)) <= _BLOCK:
            step[axis] *= 2
    return tuple(min(s, n) for s, n in zip(step, volume.shape, strict=True))
