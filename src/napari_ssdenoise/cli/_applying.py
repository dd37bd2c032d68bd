"""Apply a model with a progress bar and Ctrl-C: what ``denoise`` and ``demo`` share."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.cli._program import Stopped

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.volume import Volume


# A prediction is planned when it is called for, by tracing the network, which several threads must not do at once.
_planning = Lock()


def apply(
    model: TrainedModel, volume: Volume, output: Path, reporter: Reporter, *, verb: str = "denoising", **options: Any
) -> None:
    """Stream an image through a model into a file.

    Parameters
    ----------
    verb
        What is being done, for people.
    options
        Of `TrainedModel.predict_into`.

    Raises
    ------
    Stopped
        After Ctrl-C; says what was kept.
    """
    with _planning:
        tiles = model.predict_into(volume, output, **options)
    kept = 0
    try:
        with reporter.progress(verb) as update:
            for done in tiles:
                kept = done.done
                update(done.done / done.total, done.remaining, f"tile {done.done}/{done.total}")
    except KeyboardInterrupt as error:
        tiles.close()
        left = f"{kept} tiles of {output} are kept beside it. The same command goes on from there."
        if output.suffix == ".png":
            left = f"before {output} was written, which is done at once. The same command starts it again."
        raise Stopped(left) from error


def try_writing(path: Path, like: Volume, dtype: Any, *, overwrite: bool) -> None:
    """Begin a file and discard it, to learn before long work whether it can be written; not one of a stopped run."""
    from napari_ssdenoise.io import create_writer
    from napari_ssdenoise.io._writer import partial_path

    if not partial_path(path).exists():
        create_writer(path, like, dtype=dtype, overwrite=overwrite).discard()
