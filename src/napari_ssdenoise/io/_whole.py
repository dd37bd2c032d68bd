"""Write a small file whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name to write under; the file gets its own name when all is written, and nothing is left of a failure.

    Raises
    ------
    OSError
        If it cannot be written, in words that name it; a file that was there is as it was.
    """
    from napari_ssdenoise.io._writer import clear_error

    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise clear_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)
