"""Tell errors of people's input from mistakes of ours, and say them in one line."""

from __future__ import annotations

import errno
from typing import Final

# Mistakes of an input, in the library's own words. Anything else is a mistake of ours and needs its traceback.
INPUT_ERRORS: Final = (ValueError, OSError, MemoryError, ArithmeticError)


def explain(error: BaseException) -> str:
    """Say in one line what was wrong."""
    if isinstance(error, OSError) and error.strerror:
        text = str(error.strerror)
        if error.errno == errno.ENOSPC and "space" not in text.lower():
            text = "no space left on the disk. Free some space, or choose another folder"
        where = error.filename
        return f"{where}: {text}" if isinstance(where, str) and where not in text else text
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or not text:
        return text or {"MemoryError": "not enough memory"}.get(type(error).__name__, type(error).__name__)
    return f"not enough memory: {text}" if _out_of_memory(error) else text


def is_input_error(error: BaseException) -> bool:
    """Tell whether an exception is about the input or the machine, and needs no traceback."""
    if isinstance(error, BrokenPipeError):
        return False
    return isinstance(error, INPUT_ERRORS) or _out_of_memory(error)


def _out_of_memory(error: BaseException) -> bool:
    """Tell whether torch, which has errors of its own for that, found no memory."""
    no_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return no_memory or type(error).__name__ == "OutOfMemoryError"
