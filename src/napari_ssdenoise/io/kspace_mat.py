"""Read k-space from MATLAB files, of versions 5 to 7.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io.kspace import KSpace, from_array
from napari_ssdenoise.io.kspace_hdf5 import opened

if TYPE_CHECKING:
    from pathlib import Path

# Parts of the names that k-space has in MATLAB files.
_NAMES = ("kspace", "k_space", "ksp", "kdata", "kdat", "rawdata", "data")


def read_mat(path: Path, axes: str | None, variable: str | None) -> KSpace:
    """Read a complex array into memory; ``axes`` are in MATLAB's order, ``"YXC"`` for ``data(y, x, coil)``."""
    with path.open("rb") as file:
        is_hdf5 = b"MATLAB 7.3" in file.read(128)
    array, name = (_from_hdf5 if is_hdf5 else _from_level_5)(path, variable)
    return from_array(array, axes, name=f"{path.stem} {name}", source=path)


def choose(path: Path, arrays: dict[str, tuple[int, ...]], variable: str | None) -> str:
    """Return which of the arrays of a file (name to shape) is k-space."""
    listed = ", ".join(f"{name} {shape}" for name, shape in arrays.items()) or "no array of complex numbers"
    if variable is not None:
        if variable not in arrays:
            raise ValueError(f"{path.name} has no array {variable!r} that can be k-space; it holds {listed}.")
        return variable
    likely = [name for name in arrays if any(part in name.lower() for part in _NAMES)]
    for names in (list(arrays), likely):
        if len(names) == 1:
            return names[0]
    raise ValueError(f"{path.name} holds {listed}. Say which is k-space with variable=.")


def _from_level_5(path: Path, variable: str | None) -> tuple[Any, str]:
    try:
        from scipy.io import loadmat
    except ImportError as exc:
        raise ImportError(
            "MATLAB files are read with SciPy, which is not installed: pip install 'napari-ssdenoise[mri]'"
        ) from exc
    try:
        content = loadmat(path, variable_names=None if variable is None else [variable])
    except (OSError, MemoryError):
        raise
    except Exception as exc:  # damaged files end in errors of all kinds
        raise ValueError(
            f"{path.name} cannot be read as a MATLAB file: {reason(exc)}. It is damaged or incomplete."
        ) from exc
    found = {k: v for k, v in content.items() if isinstance(v, np.ndarray) and v.dtype.kind == "c" and v.ndim > 1}
    name = choose(path, {k: v.shape for k, v in found.items()}, variable)
    return found[name], name


def _from_hdf5(path: Path, variable: str | None) -> tuple[Any, str]:
    import h5py

    with opened(path) as file:
        # Structures and cells are groups and references, and never the array itself.
        found = {k: v for k, v in file.items() if isinstance(v, h5py.Dataset) and v.dtype.names == ("real", "imag")}
        name = choose(path, {k: v.shape[::-1] for k, v in found.items()}, variable)
        stored = found[name][()]
    array = np.empty(stored.shape, np.complex64 if stored.dtype["real"].itemsize == 4 else np.complex128)
    array.real, array.imag = stored["real"], stored["imag"]
    return array.T, name  # MATLAB's first dimension is the fastest
