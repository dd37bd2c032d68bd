"""Read NIfTI files lazily, with all that their headers say."""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.axes import parse_axes
from napari_ssdenoise.io._affine import factor_to
from napari_ssdenoise.io._lazy import LazyArray, present, reason
from napari_ssdenoise.io._units import unit_name
from napari_ssdenoise.io._writer import require_space
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY: Final = "nifti"
SUFFIXES: Final = (".nii", ".nii.gz")
# Of images in two files, one for the header and one for the voxels.
PAIRS: Final = (".hdr", ".img", ".hdr.gz", ".img.gz")
# What the dimensions of a NIfTI mean, the fastest first; two more have no fixed meaning.
DIMENSIONS: Final = "XYZTC"
LARGEST_HEAD = 256 << 20  # bytes before the voxels: extensions may be long
SIDECARS: Final = ("bval", "bvec")
_COMMON: Final = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}


def is_nifti(path: Path) -> bool:
    """Tell whether a name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def is_pair(path: Path) -> bool:
    """Tell whether a file is one of the two of a NIfTI image; other formats use the same names."""
    if not path.name.lower().endswith(PAIRS):
        return False
    head = path.with_name(re.sub(r"\.img(?=$|\.gz$)", ".hdr", path.name))
    try:
        start = _head(head, 348)
    except (OSError, EOFError, ValueError):
        return False
    return start[344:347] == b"ni1" or start[4:7] == b"ni2"


def base_name(path: Path) -> str:
    """Return a file's name without its ending."""
    return path.name[: -len(next(s for s in (*SUFFIXES, *PAIRS) if path.name.lower().endswith(s)))]


class _Unpacked:
    """A compressed image, unpacked into a nameless temporary file when its first voxel is asked for."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._path, self._offset = path, offset
        self.dtype, self.shape = dtype, shape
        self._lock = Lock()
        self._map: Any = None

    def __getitem__(self, key: Any) -> Any:
        with self._lock:
            if self._map is None:
                self._map = self._unpack()
        return self._map[key]

    def __reduce__(self) -> tuple[type[_Unpacked], tuple[Any, ...]]:
        return _Unpacked, (self._path, self._offset, self.dtype, self.shape)

    def _unpack(self) -> Any:
        needed = prod(self.shape) * self.dtype.itemsize
        require_space(Path(tempfile.gettempdir()) / self._path.name, needed)
        with tempfile.TemporaryFile() as file:
            try:
                with gzip.open(self._path) as packed:
                    packed.seek(self._offset)
                    shutil.copyfileobj(packed, file, 2**20)
            except (EOFError, gzip.BadGzipFile) as exc:
                raise ValueError(f"it cannot be unpacked ({reason(exc)})") from exc
            if file.tell() < needed:
                raise ValueError(f"it unpacks to {file.tell()} bytes of voxels where {needed} are needed")
            return np.memmap(file, self.dtype, "r", 0, self.shape)


class _Times:
    """Stored numbers times a slope plus an intercept."""

    def __init__(self, base: Any, slope: float, inter: float) -> None:
        self._base, self._slope, self._inter = base, slope, inter
        self.shape: tuple[int, ...] = base.shape
        small = base.dtype.itemsize <= (8 if base.dtype.kind == "c" else 4 if base.dtype.kind == "f" else 2)
        kind = "c" if base.dtype.kind == "c" else "f"
        self.dtype = np.dtype({"f": (np.float64, np.float32), "c": (np.complex128, np.complex64)}[kind][small])

    def __getitem__(self, key: Any) -> NDArray[Any]:
        wide = np.asarray(self._base[key], np.complex128 if self.dtype.kind == "c" else np.float64)
        return np.asarray(wide * self._slope + self._inter, self.dtype)


class ScaledArray(LazyArray):
    """An image whose stored numbers are scaled when they are read; ``stored`` has them as they are in the file."""

    def __init__(self, base: Any, scaling: tuple[float, float], base_axes: str, axes: str, source: Path) -> None:
        super().__init__(_Times(base, *scaling), base_axes, axes, source)
        self.stored = present(base, base_axes, axes, source)


def read_nifti(path: Path, axes: str | None = None) -> Volume:
    """Open a NIfTI-1 or NIfTI-2 file: ``.nii``, ``.nii.gz``, or either of a pair of ``.hdr`` and ``.img``.

    The first dimension of a NIfTI is the fastest, so that ``X, Y, Z, T`` becomes ``TZYX``; a fifth is C. The file is
    memory-mapped; a compressed one is unpacked into a temporary file when the first voxel is read. The slope and
    intercept of the header are applied: 8- and 16-bit integers become float32, larger ones float64.

    ``metadata["nifti"]`` keeps the file's bytes before the voxels (``head``: header and extensions), the ``affine``
    (four rows, from voxel X, Y, Z to millimetres in RAS+) with its ``code`` and the ``sizes`` of the voxels, and the
    text of ``bval`` and ``bvec`` files beside it.

    Raises
    ------
    ValueError
        If the file is damaged, is not a NIfTI, or holds no image.
    """
    image = _load(path)
    proxy: Any = image.dataobj
    with _clear_errors(path):
        head, voxels = _parts(image, path)
        shape, dtype = tuple(int(n) for n in proxy.shape), np.dtype(proxy.dtype)
        data, letters = _voxels(voxels, int(proxy.offset), dtype, shape)
    shown = letters[0] + letters[2:] if letters[:2] == "CT" and data.shape[1] == 1 else letters
    slope, inter = float(proxy.slope), float(proxy.inter)
    lazy = (
        present(data, letters, shown, path)
        if (slope, inter) == (1, 0) or "S" in letters
        else ScaledArray(data, (slope, inter), letters, shown, path)
    )
    if axes:
        parse_axes(axes, lazy.shape)
    sizes = dict(zip(DIMENSIONS, pixel_sizes(image.header), strict=False))
    header = image.header
    kept: dict[str, Any] = {
        "head": head,
        "affine": np.asarray(image.affine, float).tolist(),
        "sizes": [sizes[a][0] * factor_to(sizes[a][1], "millimeter") for a in "XYZ"],
        "code": int(header["sform_code"]) or int(header["qform_code"]),
        **_sidecars(path),
    }
    volume = Volume(lazy, shown, name=base_name(path), source=path, metadata={KEY: kept})
    return replace(
        volume,
        scale=tuple(sizes[a][0] if a in sizes else 1.0 for a in shown),
        units=tuple(sizes[a][1] if a in sizes else None for a in shown),
    )


def _load(path: Path) -> Any:
    """Read the header of an image."""
    import nibabel

    with _clear_errors(path):
        image: Any = nibabel.load(path, mmap=False)
    if isinstance(image, nibabel.AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(
            f"{path} is an image of the older Analyze format, which does not say which side is left. Convert it to "
            "NIfTI with a program that knows where it came from."
        )
    with _clear_errors(path):
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"its content is that of {type(image).__name__}")
    return image


def _parts(image: Any, path: Path) -> tuple[bytes, Path]:
    """Return the bytes before the voxels, as they would stand in one file, and the file with the voxels."""
    import nibabel

    offset = int(image.dataobj.offset)
    if isinstance(image, nibabel.Nifti1Image):
        return _head(path, offset), path
    header, voxels = (Path(image.file_map[kind].filename) for kind in ("header", "image"))
    head = bytearray(_head(header))
    head += bytes(max(0, len(image.header.binaryblock) + 4 - len(head)))
    at = 4 if bytes(head[4:7]) == b"ni2" else 344
    head[at : at + 2] = b"n+"
    return bytes(head), voxels


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Name the file, and say what to do, in errors that come from its content."""
    try:
        yield
    except Exception as exc:  # nibabel has its own types
        if isinstance(exc, MemoryError) or getattr(exc, "errno", None) is not None:
            raise
        raise ValueError(
            f"{path} cannot be read as a NIfTI image: {reason(exc)}. The file is damaged, incomplete or not a NIfTI. "
            "Copy it again from where it came from, or convert it again."
        ) from exc


def _head(path: Path, offset: int = -1) -> bytes:
    """Read what stands before the voxels, or all."""
    if offset > LARGEST_HEAD:
        raise ValueError(f"it says that its voxels begin after {offset} bytes")
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        head = file.read(offset)
    if len(head) < offset:
        raise ValueError(f"it ends after {len(head)} bytes, before its voxels begin")
    return head


def _voxels(path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Any, str]:
    """Return the stored array in reversed order, with a letter for each of its axes."""
    while len(shape) > len(DIMENSIONS) and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= len(DIMENSIONS) or 0 in shape:
        raise ValueError(f"its shape {shape} is not that of an image of two to {len(DIMENSIONS)} dimensions")
    letters, shape = DIMENSIONS[: len(shape)][::-1], shape[::-1]
    if dtype.names:  # the samples of a colour
        letters, shape, dtype = letters + "S", (*shape, len(dtype.names)), np.dtype(np.uint8)
    if path.name.lower().endswith(".gz"):
        return _Unpacked(path, offset, dtype, shape), letters
    needed = offset + prod(shape) * dtype.itemsize
    size = path.stat().st_size
    if size < needed:
        raise ValueError(f"it has {size} bytes, but an image {shape} of {dtype} needs {needed}")
    return np.memmap(path, dtype, "r", offset, shape), letters


def pixel_sizes(header: Any) -> list[tuple[float, str | None]]:
    """Return size and unit of a header's dimensions X, Y, Z, T; 1 where it says nothing that can be one."""
    try:
        said = header.get_xyzt_units()
    except KeyError:  # no unit of the standard's
        said = ("unknown", "unknown")
    space, time = (_COMMON.get(u) or unit_name(None if u == "unknown" else u) for u in said)
    sizes = [abs(float(size)) for size in header["pixdim"][1:5]]
    plain = [size if isfinite(size) and size > 0 else 1.0 for size in sizes]
    return list(zip(plain, (space, space, space, time), strict=True))


def _sidecars(path: Path) -> dict[str, str]:
    """Read the diffusion weightings that stand beside an image."""
    files = {kind: path.with_name(f"{base_name(path)}.{kind}") for kind in SIDECARS}
    return {kind: file.read_bytes().decode("utf-8", "replace") for kind, file in files.items() if file.is_file()}


def as_stored(volume: Volume) -> Volume:
    """Return an unchanged volume with the numbers of its file, for a copy that keeps the slope and every bit."""
    if not isinstance(volume.data, ScaledArray) or KEY not in volume.metadata:
        return volume
    kept = {**volume.metadata[KEY], "stored": True}
    return replace(volume, data=volume.data.stored, metadata={**volume.metadata, KEY: kept})
