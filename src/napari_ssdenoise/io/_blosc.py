"""Damaged chunks of Zarr arrays are refused; they would take the whole program along."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

_HEADER = 16  # bytes; the last four are the length of the whole, little-endian


@cache
def refuse_cut_chunks() -> None:
    """Let numcodecs, in this process, refuse a Blosc chunk that says it is longer than it is.

    It passes such chunks to the Blosc library (as of version 0.16), which reads on beyond their end.
    """
    from numcodecs.blosc import Blosc
    from numcodecs.compat import ensure_contiguous_ndarray

    decode = Blosc.decode

    @wraps(decode)
    def checked(self: Blosc, buf: Any, out: Any = None) -> Any:
        chunk = ensure_contiguous_ndarray(buf).view("u1")
        told = int.from_bytes(chunk[_HEADER - 4 : _HEADER].tobytes(), "little")
        if not _HEADER <= told <= chunk.size:
            raise ValueError(f"a chunk of {chunk.size} bytes says that it has {told}")
        return decode(self, buf, out)

    Blosc.decode = checked
