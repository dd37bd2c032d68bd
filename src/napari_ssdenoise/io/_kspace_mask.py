"""Which samples of k-space were acquired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._words import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A mask is refused if more than this part of the samples it claims are 0 in every coil.
_MISSING = 0.01


def fit_mask(mask: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Bring a mask to (Y, X) or (slices, Y, X).

    Parameters
    ----------
    mask : (X,), (Y,), (Y, X) or (slices, Y, X)
        One of one dimension selects lines: columns if it is as long as X, else rows.
    shape
        Slices, coils, Y, X.

    Raises
    ------
    ValueError
        If it fits none of these, or selects nothing.
    """
    mask = np.asarray(mask)
    if mask.dtype.kind not in "buif" or not np.isfinite(mask).all():
        raise ValueError("the sampling mask must be an array of 0 and 1.")
    mask = mask != 0
    slices, _, rows, columns = shape
    if mask.ndim > 1:
        mask = mask.reshape([n for i, n in enumerate(mask.shape) if n != 1 or i >= mask.ndim - 2])
    if mask.shape == (columns,):
        mask = np.broadcast_to(mask, (rows, columns))
    elif mask.shape == (rows,):
        mask = np.broadcast_to(mask[:, None], (rows, columns))
    elif mask.shape in ((1, columns), (rows, 1)):
        mask = np.broadcast_to(mask, (rows, columns))
    if mask.shape not in ((rows, columns), (slices, rows, columns)):
        raise ValueError(
            f"the sampling mask {mask.shape} does not fit k-space of {counted(slices, 'slice')} of {rows} x {columns}. "
            f"Give ({columns},) for columns, ({rows},) for rows, ({rows}, {columns}), or one such mask per slice."
        )
    if not mask.any():
        raise ValueError("the sampling mask selects no sample at all. It has 1 where k-space was acquired.")
    return mask


def sampled(data: NDArray[Any], mask: NDArray[np.bool_] | None, name: str) -> NDArray[np.bool_]:
    """Return where (coils, Y, X) was acquired; a given mask must not claim samples that are 0 in all coils."""
    there = np.asarray(np.any(data != 0, axis=0), np.bool_)
    if not there.any():
        raise ValueError(f"{name}: k-space is 0 everywhere. Nothing was acquired, or the wrong array was read.")
    if mask is None:
        return _whole_lines(there)
    # What lies outside the acquired rectangle is padding, which masks of fastMRI files may cover.
    mask = mask & _box(there)
    missing = mask & ~_whole_lines(there)
    if missing.sum() > _MISSING * mask.sum():
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"{name}: the sampling mask does not fit: it marks {int(mask.sum())} samples as acquired, but "
            f"{int(missing.sum())} of them are 0 in every coil, the first at row {row}, column {column}."
        )
    return np.asarray(mask & ~missing)


def _box(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the smallest rectangle that holds all that is there."""
    out = np.zeros_like(there)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return out


def _whole_lines(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill single zeros of lines that were acquired: a sample may be exactly 0 by chance, a line not."""
    rows, columns = np.asarray(there.any(axis=1)), np.asarray(there.any(axis=0))
    outer = np.asarray(rows[:, None] & columns)
    # Lines, and rectangles of them, are what scanners acquire; in other patterns every zero counts.
    return outer if there.sum() >= (1 - _MISSING) * outer.sum() else there
