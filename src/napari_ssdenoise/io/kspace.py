"""Raw MRI data (k-space) from files and arrays, in one layout whatever the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.io._kspace_mask import fit_mask, sampled
from napari_ssdenoise.io._lazy import reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from numpy.typing import NDArray

    from napari_ssdenoise.volume import ArrayLike

KSPACE_SUFFIXES: Final = (".h5", ".hdf5", ".hdf", ".mrd", ".npy", ".mat")
AXES: Final = "ZCYX"
MAX_COILS: Final = 256
# How files begin that hold images, which are sometimes given for k-space: name, offset, bytes.
_IMAGES: Final = (
    ("DICOM image", 128, b"DICM"),
    ("TIFF image", 0, b"II*\0"),
    ("TIFF image", 0, b"MM\0*"),
    ("TIFF image", 0, b"II+\0"),
    ("PNG picture", 0, b"\x89PNG"),
    ("JPEG picture", 0, b"\xff\xd8\xff"),
    ("NIfTI image", 344, b"n+1\0"),
)
_IMAGE_NAMES: Final = {".dcm": "DICOM image", ".nii": "NIfTI image", ".nii.gz": "NIfTI image", ".ima": "DICOM image"}


@dataclass(frozen=True, eq=False)
class KSpace:
    """Cartesian k-space of slices seen by several coils, read slice by slice.

    Parameters
    ----------
    data : (slices, coils, Y, X) complex
        The zero frequency is at index ``n // 2`` of both Y and X. In fastMRI and ISMRMRD files Y is the readout, X the
        phase encoding. Samples that were not acquired are 0.
    mask : (Y, X) or (slices, Y, X) of bool, optional
        Which samples count as acquired; those that are not 0 in some coil if it is None.
    scale
        Pixel size of the image in millimetres along Y and X, or empty where unknown.
    name
        Shown to people.
    labels
        One per slice, e.g. ``"slice 3, repetition 1"``, or empty.
    source
        The file the data came from, if any.
    """

    data: ArrayLike
    mask: NDArray[np.bool_] | None = None
    scale: tuple[float, ...] = ()
    name: str = "kspace"
    labels: tuple[str, ...] = ()
    source: Path | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.data.shape)
        if len(shape) != 4:
            raise ValueError(
                f"{self.name}: k-space has the axes slices, coils, Y, X, but this array has shape {shape}."
            )
        if np.dtype(self.data.dtype).kind != "c":
            raise ValueError(
                f"{self.name} holds {self.data.dtype} numbers, but k-space is complex. Give the raw data: it cannot be "
                "had from magnitudes or images."
            )
        _check_shape(self.name, shape)
        if self.mask is not None:
            object.__setattr__(self, "mask", fit_mask(self.mask, shape))

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Slices, coils, Y, X."""
        slices, coils, rows, columns = (int(n) for n in self.data.shape)
        return slices, coils, rows, columns

    def read(self, index: int) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Read one slice, and which of its samples were acquired.

        Returns
        -------
        data : (coils, Y, X) complex64
            0 where nothing was acquired.
        mask : (Y, X) bool

        Raises
        ------
        ValueError
            If nothing was acquired, a value is not finite, or the mask claims samples that are not there.
        """
        data = np.asarray(self.data[index])
        if not np.isfinite(data).all():
            raise ValueError(f"{self.name}, slice {index}: k-space holds values that are not finite (NaN or infinite).")
        given = None if self.mask is None else self.mask if self.mask.ndim == 2 else self.mask[index]
        mask = sampled(data, given, f"{self.name}, slice {index}")
        return np.where(mask, data, 0).astype(np.complex64), mask

    def undersampled(self, mask: NDArray[Any]) -> KSpace:
        """Keep only the samples of a mask, which is (X,), (Y,), (Y, X) or (slices, Y, X)."""
        return replace(self, mask=np.asarray(mask))


def open_kspace(
    source: KSpace | ArrayLike | str | PathLike[str],
    *,
    axes: str | None = None,
    variable: str | None = None,
    mask: NDArray[Any] | None = None,
    name: str | None = None,
) -> KSpace:
    """Open raw MRI data: a fastMRI or ISMRMRD file, ``.npy``, ``.mat``, or a complex array.

    Parameters
    ----------
    source
        A path or an array. HDF5 files are read slice by slice, when a slice is asked for.
    axes
        One letter of ``TZCYX`` per dimension of the array, in its order: ``"YXC"`` for rows, columns, coils. T and Z
        both make slices. Told from the number of dimensions where it is not given: ``YX``, ``CYX`` or ``ZCYX``.
    variable
        Name of the array in a ``.mat`` or HDF5 file that holds several.
    mask : (X,), (Y,), (Y, X) or (slices, Y, X), optional
        Which samples count as acquired. Those that are not 0 if it is not given.
    name
        Overrides the file's name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or holds no k-space, or the axes or the mask do not fit.
    ImportError
        If a ``.mat`` file needs SciPy and it is not installed.
    """
    if isinstance(source, KSpace):
        kspace = source
    elif hasattr(source, "shape"):
        kspace = from_array(source, axes, name=name or "kspace")
    else:
        kspace = _read(Path(source), axes, variable)
    changes: dict[str, Any] = {} if name is None else {"name": name}
    if mask is not None:
        changes["mask"] = np.asarray(mask)
    return replace(kspace, **changes) if changes else kspace


def from_array(array: Any, axes: str | None, *, name: str, **options: Any) -> KSpace:
    """Arrange an array of known or guessable axes as k-space; numpy's are not copied."""
    shape = tuple(int(n) for n in array.shape)
    axes = _parse(axes, shape, name) if axes else _guess(shape, name)
    if axes != AXES:
        array = np.asarray(array)
        stack = [a for a in axes if a in "TZ"]
        order = [*stack, *("C" if "C" in axes else ""), "Y", "X"]
        array = array.transpose([axes.index(a) for a in order])
        coils = array.shape[len(stack)] if "C" in axes else 1
        array = array.reshape(prod(array.shape[: len(stack)]), coils, *array.shape[-2:])
    return KSpace(array, name=name, **options)


def _parse(axes: str, shape: tuple[int, ...], name: str) -> str:
    """Check axes that somebody gave."""
    axes = axes.upper()
    if len(set(axes)) != len(axes) or not set("YX") <= set(axes) <= set("TZCYX"):
        raise ValueError(f"axes {axes!r} must name Y, X and any of T, Z, C once each, e.g. 'CYX' or 'YXC'.")
    if len(axes) != len(shape):
        raise ValueError(f"{name}: axes {axes!r} name {len(axes)} dimensions, but the array has {len(shape)}: {shape}.")
    return axes


def _guess(shape: tuple[int, ...], name: str) -> str:
    """Tell axes by the number of dimensions."""
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"{name}: an array {shape} is not k-space. Give 2 to 4 dimensions, or axes= such as 'TZCYX'.")
    axes = AXES[-len(shape) :]
    if "C" in axes:
        _check_shape(name, (1,) * (4 - len(shape)) + shape, guessed=True)
    return axes


def _check_shape(name: str, shape: tuple[int, ...], *, guessed: bool = False) -> None:
    """Refuse empty k-space, and coils that lie along another axis: there are fewer of them than of lines."""
    if 0 in shape:
        raise ValueError(f"{name}: k-space {shape} is empty.")
    slices, coils, rows, columns = shape
    if coils > MAX_COILS or coils > (min if guessed else max)(rows, columns):
        order = "CYX" if slices == 1 else "ZCYX"
        likely = "".join(sorted(order, key=lambda a: order.index(a) if a != "C" else 9)) if columns < coils else order
        raise ValueError(
            f"{name}: as (slices, coils, Y, X), the shape {shape} means {coils} coils: its axes seem to be transposed. "
            f"Say what they are with axes=, one letter per dimension" + (f": {likely!r}?" if likely != order else ".")
        )


def _read(path: Path, axes: str | None, variable: str | None) -> KSpace:
    """Open a file with the reader for its kind."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}. Check the name and the folder.")
    _refuse_images(path)
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path, str | None, str | None], KSpace]] = {".npy": _read_npy}
    if suffix in (".h5", ".hdf5", ".hdf", ".mrd"):
        from napari_ssdenoise.io.kspace_hdf5 import read_hdf5

        readers[suffix] = read_hdf5
    elif suffix == ".mat":
        from napari_ssdenoise.io.kspace_mat import read_mat

        readers[suffix] = read_mat
    if suffix not in readers:
        raise ValueError(f"{path.name}: k-space of this kind is not known. Give one of {', '.join(KSPACE_SUFFIXES)}.")
    return readers[suffix](path, axes, variable)


def _refuse_images(path: Path) -> None:
    """Say that an image is not k-space, before a reader says something less clear."""
    kind = (
        "folder" if path.is_dir() else next((k for s, k in _IMAGE_NAMES.items() if path.name.lower().endswith(s)), "")
    )
    if path.is_file() and not kind:
        with path.open("rb") as file:
            head = file.read(512)
        kind = next((k for k, start, magic in _IMAGES if head[start : start + len(magic)] == magic), "")
    if kind:
        raise ValueError(
            f"{path.name} is a {kind}, not k-space. K-space cannot be had from reconstructed images (coils, phase and "
            "skipped lines are gone): export the raw data from the scanner, as fastMRI or ISMRMRD HDF5, .npy or .mat."
        )


def _read_npy(path: Path, axes: str | None, variable: str | None) -> KSpace:
    """Map an array of complex numbers."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as exc:  # a header is parsed as Python, with all the errors of that
        raise ValueError(
            f"{path} cannot be read as an array: {reason(exc)}. It is damaged, or no .npy file of numbers."
        ) from exc
    return from_array(array, axes, name=path.stem, source=path)
