"""Where and how precisely to compute."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from napari_ssdenoise._words import counted

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``"auto"`` prefers CUDA, then Apple's MPS, then the processor.

    Raises
    ------
    ValueError
        If there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not present.get(device.type, False) or (
            device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
        ):
            raise RuntimeError(f"{name} is not available")
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not available on this machine. Use 'auto' or 'cpu'.") from error
    return device


def describe_device(device: torch.device, dtype: torch.dtype | None = None) -> str:
    """Name a device, and the precision used there, for people, e.g. ``"CPU, 2 threads, bfloat16"``."""
    precision = str(dtype or choose_precision(device)).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    if device.type == "mps":
        return f"Apple GPU, {precision}"
    threads = torch.get_num_threads()
    return f"CPU, {counted(threads, 'thread')}, {precision}"


def choose_precision(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """Return the precision of the network's body: bfloat16 where the hardware multiplies it natively.

    Raises
    ------
    ValueError
        If the precision is unknown.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision={precision!r} is unknown; choose one of auto, float32, bfloat16.")
    if precision == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and platform.system() == "Linux":
        # torch has no public question for this; emulated bfloat16 would be slower than float32.
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run the network's body in ``dtype``; nothing to do for float32."""
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that the device's memory is full."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_memory(device: torch.device) -> None:
    """Give cached device memory back, before trying again with less."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
