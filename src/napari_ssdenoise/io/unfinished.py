"""Trainings that were cut short: a folder with a checkpoint of each, found again by what was trained on, and how.

Nothing stays for ever: see `tidy`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_ssdenoise.io.checkpoint import DESCRIPTION, remove_checkpoint
from napari_ssdenoise.recipe import fingerprint

if TYPE_CHECKING:
    from napari_ssdenoise.volume import Volume

MOST: Final = 10
LONGEST: Final = timedelta(days=30)


@dataclass(frozen=True)
class Unfinished:
    """A training that can be gone on with.

    Attributes
    ----------
    folder
        Its checkpoint.
    step, seconds
        That it had come to.
    saved
        When that was.
    """

    folder: Path
    step: int
    seconds: float
    saved: datetime

    @classmethod
    def read(cls, folder: Path) -> Unfinished | None:
        """Look at a checkpoint without its weights; None if there is none, or it is damaged."""
        path = folder / DESCRIPTION
        try:
            described = json.loads(path.read_text(encoding="utf8"))
            saved = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
            return cls(folder, int(described["step"]), float(described["seconds"]), saved)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def place_of(shelf: Path, task: Mapping[str, Any], images: Sequence[Volume]) -> Path:
    """Return where the checkpoint of a training lies; parts of its images are read.

    Parameters
    ----------
    shelf
        The folder of all unfinished trainings.
    task
        What tells it from other trainings on the same images; not the budget, which may change.
    """
    facts = json.dumps([task, [fingerprint(image) for image in images]], sort_keys=True, default=str)
    return shelf / hashlib.sha256(facts.encode()).hexdigest()[:32]


def tidy(shelf: Path) -> None:
    """Remove what was last written longer than `LONGEST` ago, and all but the newest `MOST`."""
    oldest = datetime.now().timestamp() - LONGEST.total_seconds()
    with suppress(OSError):  # there is no such folder, or another program tidies it as well
        written = {folder: folder.stat().st_mtime for folder in shelf.iterdir()}
        newest = sorted(written, key=lambda folder: written[folder], reverse=True)
        for number, folder in enumerate(newest):
            if number >= MOST or written[folder] < oldest:
                remove_checkpoint(folder)
