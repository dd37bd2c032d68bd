"""Show a stored array under other axes, reading and writing only what a slice asks for."""

from __future__ import annotations

import errno
import mmap
import operator
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Disk full, quota reached, file larger than the file system allows.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Bytes written to a memory map before its pages are let go.
MAPPED = 2**27
# Characters of another library's message that are shown.
LONGEST = 400


def reason(error: BaseException) -> str:
    """Return why something failed, short enough for a message: libraries quote the damaged content at any length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


class UnreadableError(ValueError):
    """A part of a file cannot be read: it is damaged, and the rest may be sound."""


class LazyArray:
    """An array whose axes are a permutation of another's, with axes of length 1 added or left out.

    Parameters
    ----------
    base
        The stored array; sliced with one slice per dimension.
    base_axes
        One letter per dimension of ``base``.
    axes
        One letter per dimension of this array. Letters that ``base`` lacks have length 1; letters of ``base`` that
        are missing here must have length 1 there.
    source
        The file, named in errors.
    """

    def __init__(self, base: Any, base_axes: str, axes: str, source: Path | None = None) -> None:
        self._base: Any = base
        self._base_axes = base_axes
        self._axes = axes
        self._source = source
        sizes = dict(zip(base_axes, base.shape, strict=True))
        dropped = [a for a in base_axes if a not in axes and sizes[a] != 1]
        if dropped:
            raise ValueError(f"axes {axes!r} leave out {dropped}, but an array {base_axes} {base.shape} needs them.")
        self.shape: tuple[int, ...] = tuple(int(sizes.get(a, 1)) for a in axes)
        self.dtype: np.dtype[Any] = np.dtype(base.dtype)
        self._mapped = 0

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array if it were loaded."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """The stored chunks in this array's order; the whole shape where the base has none."""
        chunks = getattr(self._base, "chunks", None)
        sizes = dict(zip(self._base_axes, chunks or self._base.shape, strict=True))
        return tuple(int(sizes.get(a, 1)) for a in self._axes)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<LazyArray {self._axes} {self.shape} {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self[...]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        slices, view = self._resolve(key)
        try:
            block = np.asarray(self._base[self._inner(slices)])
        except OSError:
            raise
        except MemoryError as exc:
            raise MemoryError(
                f"there is not enough memory to read {self._source or 'the image'}, or it is damaged and claims to be "
                f"larger than it is ({reason(exc)})."
            ) from exc
        except Exception as exc:  # codecs raise all sorts of types, RuntimeError and their own among them
            where = ", ".join(
                f"{a} {s.start}:{s.stop}" for a, s in zip(self._axes, self._first_unreadable(slices), strict=True)
            )
            raise UnreadableError(
                f"{self._source or 'the image'} could not be read at {where}: {reason(exc)}. The file is damaged or "
                "incomplete. Copy it again from where it came from."
            ) from exc
        kept = [a for a in self._base_axes if a in self._axes]
        block = block.reshape([n for a, n in zip(self._base_axes, block.shape, strict=True) if a in self._axes])
        block = np.transpose(block, [kept.index(a) for a in self._axes if a in kept])
        added = [i for i, a in enumerate(self._axes) if a not in kept]
        block = np.expand_dims(block, added)
        return block[tuple(s if i in added else slice(None) for i, s in enumerate(slices))][view]

    def __setitem__(self, key: Any, value: Any) -> None:
        slices, view = self._resolve(key)
        if any(isinstance(v, slice) and v.step == -1 for v in view):
            raise IndexError("write with slices that go forwards.")
        shape = tuple(len(range(*s.indices(n))) for s, n in zip(slices, self.shape, strict=True))
        if 0 in shape:
            return
        outer = tuple(n for n, v in zip(shape, view, strict=True) if isinstance(v, slice))
        block = np.broadcast_to(np.asarray(value), outer).reshape(shape)
        present = [a for a in self._axes if a in self._base_axes]
        block = block.reshape([n for a, n in zip(self._axes, shape, strict=True) if a in self._base_axes])
        block = np.transpose(block, [present.index(a) for a in self._base_axes if a in present])
        block = np.expand_dims(block, [i for i, a in enumerate(self._base_axes) if a not in present])
        try:
            self._base[self._inner(slices)] = block
        except OSError as exc:
            if exc.errno in FULL:
                raise OSError(
                    exc.errno,
                    f"no space left to write {self._source or 'the output'}. "
                    "Free some space, or choose another folder.",
                ) from exc
            raise
        self._let_go(block.nbytes)

    def _first_unreadable(self, slices: tuple[slice, ...]) -> tuple[slice, ...]:
        """Find the first chunk of a part that cannot be read."""
        grid = [
            [slice(low, min(low + chunk, n)) for low in range(s.start // chunk * chunk, s.stop, chunk)]
            for s, chunk, n in zip(slices, self.chunks, self.shape, strict=True)
        ]
        for part in product(*grid):
            try:
                self._base[self._inner(part)]
            except Exception:  # of any type, as above
                return part
        return slices

    def _let_go(self, nbytes: int) -> None:
        """Hand written pages of a memory map back to the system, which would count them as this process's memory."""
        pages: Any = getattr(self._base, "_mmap", None)
        if not hasattr(pages, "madvise"):
            return
        self._mapped += nbytes
        if self._mapped > MAPPED:
            self._mapped = 0
            pages.madvise(mmap.MADV_DONTNEED)  # of a shared map: the file's pages stay as they were written

    def _resolve(self, key: Any) -> tuple[tuple[slice, ...], tuple[int | slice, ...]]:
        """Split a key into forward slices to read and what to take from the block they give."""
        keys = list(key) if isinstance(key, tuple) else [key]
        ellipses = [i for i, k in enumerate(keys) if k is Ellipsis]
        if len(ellipses) > 1 or len(keys) - len(ellipses) > self.ndim:
            raise IndexError(f"{len(keys)} indices for an image of {self.ndim} dimensions {self._axes!r}.")
        at = ellipses[0] if ellipses else len(keys)
        fill = [slice(None)] * (self.ndim - len(keys) + len(ellipses))
        keys = keys[:at] + fill + keys[at + 1 :]
        pairs = [_one(k, n, a) for k, n, a in zip(keys, self.shape, self._axes, strict=True)]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    def _inner(self, slices: tuple[slice, ...]) -> tuple[slice, ...]:
        by_axis = dict(zip(self._axes, slices, strict=True))
        return tuple(by_axis.get(a, slice(0, 1)) for a in self._base_axes)


def _one(key: Any, size: int, axis: str) -> tuple[slice, int | slice]:
    """Resolve the key of one axis."""
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        steps = range(start, stop, step)
        if step > 0:
            return slice(start, max(start, stop), step), slice(None)
        if not steps:
            return slice(0, 0, 1), slice(None)
        return slice(steps[-1], steps[0] + 1, -step), slice(None, None, -1)
    if isinstance(key, (bool, np.bool_)):
        raise IndexError("index with integers and slices; masks are not supported on images in files.")
    try:
        index = operator.index(key)
    except TypeError:
        raise IndexError(
            f"index axis {axis} with an integer or a slice, not {type(key).__name__}; load the part with slices first."
        ) from None
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of range for axis {axis} with {size} entries.")
    return slice(index % size, index % size + 1), 0


def present(base: Any, base_axes: str, axes: str, source: Path | None = None) -> Any:
    """Return ``base`` itself if it already has the axes and needs no guard, else a `LazyArray` around it."""
    if base_axes == axes and isinstance(base, np.ndarray):
        return base
    return LazyArray(base, base_axes, axes, source)
