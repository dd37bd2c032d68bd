"""Which images of a stopped batch are done already."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_ssdenoise._errors import explain
from napari_ssdenoise.batch._names import Job, absolute
from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.recipe import fingerprint

logger = logging.getLogger(__name__)


class Finished:
    """Which outputs of a stopped or partly failed run are complete, so that the same task need not make them again.

    Parameters
    ----------
    folder
        Of the outputs; the list lies in it as a hidden file until all are done.
    task
        What is done to the images; another task starts another list.
    """

    def __init__(self, folder: Path, task: Mapping[str, Any]) -> None:
        self.path = folder / ".ssdenoise-finished.json"
        self.task = hashlib.sha256(json.dumps(task, sort_keys=True, default=str).encode()).hexdigest()
        self.results: dict[str, dict[str, Any]] = {}

    def load(self) -> None:
        """Read what the same command did before."""
        try:
            found = json.loads(self.path.read_text(encoding="utf8"))
            if found["task"] == self.task:
                self.results = dict(found["results"])
        except (OSError, ValueError, KeyError, TypeError):
            self.results = {}

    def get(self, job: Job) -> dict[str, Any] | None:
        """Return the result of a job that is done: its output is there, and its input is as it was."""
        found = self.results.get(str(absolute(job.source)))
        done = found and found.get("stamp") == _stamp(job) and job.done
        return dict(found["result"]) if found and done else None

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """Note a job that is done."""
        self.results[str(absolute(job.source))] = {"stamp": _stamp(job), "result": dict(result)}
        try:
            with written_whole(self.path) as partial:
                listed = json.dumps({"task": self.task, "results": self.results}, default=str)
                partial.write_text(listed, encoding="utf8")
        except OSError as error:  # only costs time, should the run be stopped
            logger.warning("%s", explain(error))

    def remove(self) -> None:
        """Forget the list, when all is done."""
        self.path.unlink(missing_ok=True)


def _stamp(job: Job) -> int | str:
    """Return when a file, or the metadata of a store, changed last; of an open image, what it holds."""
    if job.volume is not None:
        return fingerprint(job.volume)
    path = job.source
    files = [path, *(path / name for name in ("zarr.json", ".zattrs", ".zarray"))]
    return max((p.stat().st_mtime_ns for p in files if p.exists()), default=0)
