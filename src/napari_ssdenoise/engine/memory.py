"""How much memory there is to use, and how to use the same pages again."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from threading import Lock
from typing import Any

# glibc's mallopt parameters, and the values that come closest to how a process starts.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
DOUBLINGS = 5
_LARGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}

_lock = Lock()
_users = 0


def parse_memory(memory: str | int) -> int:
    """Return bytes from a number or a text such as ``"4 GB"``, ``"512MB"`` or ``"1.5 GiB"``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(memory, int):
        return memory
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([kMGT]?)(i?)B?\s*", memory, re.IGNORECASE)
    if not found:
        raise ValueError(f"memory={memory!r} is not an amount of memory. Write it as '4 GB' or '500 MB'.")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " "))


def memory_limits(memory: str | int) -> tuple[int, ...]:
    """Return what to be content with, and what to take if that is too little for the smallest tile, in bytes.

    Only of a text that ends in ``+``, such as ``"4 GB+"``, is there more than one: each is twice as much.

    Raises
    ------
    ValueError
        If it is no amount of memory.
    """
    if isinstance(memory, str) and memory.endswith("+"):
        return tuple(parse_memory(memory[:-1]) << doublings for doublings in range(DOUBLINGS))
    return (parse_memory(memory),)


def format_memory(count: float) -> str:
    """Write a number of bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def resident_bytes() -> int:
    """Return the memory that this process holds at the moment, without the pages of files that are mapped into it."""
    info = _process(os.getpid()).memory_info()
    return int(info.rss) - int(getattr(info, "shared", 0))


@lru_cache(maxsize=1)
def _process(pid: int) -> Any:
    import psutil

    return psutil.Process(pid)


@contextmanager
def reused_memory(expected: int = 0) -> Iterator[None]:
    """Keep freed memory in the process while large tensors come and go.

    glibc gives every block above 32 MB back to the system when it is freed, and the system clears each of its pages
    when it is asked for again: up to a million page faults for one pass of a network, half of the time. Inside this
    context freed blocks stay for the next layer; at its end all go back. Other systems are left as they are.

    Parameters
    ----------
    expected
        Bytes that will be in use: that much of the heap gets pages of 2 MB, if the system has them. They are taken only
        as they are written to.
    """
    global _users
    libc = _libc()
    if libc is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER)
            _ask_for_large_pages(libc, expected)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                for parameter, value in _USUAL.items():
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


def _ask_for_large_pages(libc: Any, size: int) -> None:
    """Grow the heap, and mark what was added; it stays marked when it is freed at once."""
    first = libc.malloc(size) if size > _LARGE_PAGE else None
    if not first:
        return
    start = -(-first // _LARGE_PAGE) * _LARGE_PAGE
    libc.madvise(start, (first + size - start) // _LARGE_PAGE * _LARGE_PAGE, _MADV_HUGEPAGE)
    libc.free(first)


def give_back_memory() -> None:
    """Return memory that is free, but still held by the process, to the system."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _libc() -> Any:
    """Return the C library if it is glibc."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    if not all(hasattr(libc, name) for name in ("mallopt", "malloc_trim", "madvise")):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
