"""Read k-space from HDF5: fastMRI's layout, and ISMRMRD raw data."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import numpy as np

from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io.kspace import KSpace, from_array

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Names of the k-space array, in order of preference.
_NAMES: Final = ("kspace", "kspace_full", "ksp", "data")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; what goes wrong while it is open is told with its name."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (MemoryError, ImportError):
        raise
    except Exception as exc:  # damaged files end in errors of all kinds
        lost = isinstance(exc, OSError) and exc.errno is not None and not path.is_file()
        if lost or (isinstance(exc, ValueError) and str(exc).startswith(path.stem)):  # in words of ours
            raise
        raise ValueError(
            f"{path.name} cannot be read as HDF5: {reason(exc)}. It is damaged, incomplete or not HDF5."
        ) from exc


class _Slices:
    """A (slices, coils, Y, X) dataset; the file is open only while a part is read, so that it can be passed around."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._name = path, name
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: Any) -> Any:
        with opened(self._path) as file:
            return file[self._name][key]


def read_hdf5(path: Path, axes: str | None, variable: str | None) -> KSpace:
    """Open a fastMRI-style or ISMRMRD file.

    fastMRI: an array ``kspace``, (slices, coils, Y, X) or, from a single coil, (slices, Y, X); a ``mask`` (X,) beside
    it is kept. ISMRMRD: a group of acquisitions, see `napari_ssdenoise.io.kspace_ismrmrd`.
    """
    import h5py

    with opened(path) as file:
        groups = [g for g in file if isinstance(file[g], h5py.Group) and _is_raw(file[g].get("data"))]
        if groups and variable is None:
            from napari_ssdenoise.io.kspace_ismrmrd import read_ismrmrd

            return read_ismrmrd(path, file, groups)
        name = _find(path, file, variable)
        dataset = file[name]
        single = axes is None and dataset.ndim == 3 and name.rpartition("/")[2] == "kspace"
        mask = np.asarray(file["mask"]) if "mask" in file and variable is None else None
        options: dict[str, Any] = {"source": path, "scale": pixel_size(_text(file.get("ismrmrd_header")))}
        if dataset.ndim == 4 and axes in (None, "ZCYX"):
            array: Any = _Slices(path, name, dataset.shape, dataset.dtype)
        else:
            array = dataset[()]
    kspace = from_array(array, "ZYX" if single else axes, name=path.stem, **options)
    if mask is None:
        return kspace
    try:
        return kspace.undersampled(mask)
    except ValueError as exc:
        raise ValueError(f"{path.name}: {exc}") from exc


def holds_kspace(path: Path) -> bool:
    """Tell whether a file is HDF5 with k-space under a name that says so, or with ISMRMRD acquisitions."""
    import h5py

    try:
        with opened(path) as file:
            raw = any(isinstance(group, h5py.Group) and _is_raw(group.get("data")) for group in file.values())
            return raw or (isinstance(file.get("kspace"), h5py.Dataset) and file["kspace"].dtype.kind == "c")
    except (ValueError, OSError):
        return False


def _is_raw(dataset: Any) -> bool:
    """Tell whether a dataset is one of ISMRMRD acquisitions."""
    names = getattr(getattr(dataset, "dtype", None), "names", None) or ()
    return {"head", "data"} <= set(names)


def _find(path: Path, file: Any, variable: str | None) -> str:
    """Return the name of the k-space array."""
    import h5py

    arrays: dict[str, Any] = {}
    file.visititems(lambda n, o: arrays.update({n: o}) if isinstance(o, h5py.Dataset) else None)
    names = [variable] if variable else [n for n in _NAMES if n in arrays] or _complex(arrays)[:1]
    listed = ", ".join(f"{n} {o.shape} {o.dtype}" for n, o in list(arrays.items())[:8]) or "no array"
    if not names or names[0] not in arrays:
        raise ValueError(f"{path.name} has no array {variable or 'kspace'!r}; it holds {listed}.")
    if arrays[names[0]].dtype.kind != "c":
        raise ValueError(
            f"{path.name}: {names[0]!r} holds {arrays[names[0]].dtype} numbers, but k-space is complex. "
            f"The file holds {listed}."
        )
    return names[0]


def _complex(arrays: dict[str, Any]) -> list[str]:
    return [n for n, o in arrays.items() if o.dtype.kind == "c" and o.ndim >= 2]


def _text(dataset: Any) -> str:
    if dataset is None:
        return ""
    value = dataset[()]
    value = value.flat[0] if isinstance(value, np.ndarray) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def parse(xml: str) -> dict[str, Any]:
    """Return an ISMRMRD header as nested dictionaries; of repeated elements, the first."""
    # Files are data and not programs: expat limits how entities expand, and loads nothing from outside.
    root = ElementTree.fromstring(xml)  # noqa: S314

    def content(element: ElementTree.Element) -> Any:
        if not len(element):
            return (element.text or "").strip()
        found: dict[str, Any] = {}
        for child in element:
            found.setdefault(child.tag.rpartition("}")[2], content(child))
        return found

    tree = content(root)
    return tree if isinstance(tree, dict) else {}


def pixel_size(xml: str) -> tuple[float, ...]:
    """Return the millimetres of a pixel along Y (readout) and X (phase encoding) by an ISMRMRD header, or ()."""
    try:
        space = parse(xml)["encoding"]["encodedSpace"]
        size, view = space["matrixSize"], space["fieldOfView_mm"]
        found = tuple(float(view[a]) / float(size[a]) for a in "xy")
    except (ElementTree.ParseError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return ()
    return found if all(0 < s < 1000 for s in found) else ()
