"""Which output belongs to which input, and which of several are done already."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from napari_ssdenoise.io import WRITABLE

logger = logging.getLogger(__name__)

# Formats that hold any image; others become TIFF when a folder of outputs is asked for.
KEPT_SUFFIXES = (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff", ".npy", ".nii", ".nii.gz")
FORMATS = ("ome.zarr", "zarr", "ome.tif", "tif", "npy", "nii", "nii.gz")
MARK = ".denoised"
STD_MARK = ".uncertainty"


@dataclass(frozen=True)
class Job:
    """One image to denoise, and where to."""

    source: Path
    output: Path
    std: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """All files that are made of it."""
        return [self.output] if self.std is None else [self.output, self.std]

    @property
    def done(self) -> bool:
        """Whether all of them exist."""
        return all(path.exists() for path in self.outputs)


def with_std(jobs: Sequence[Job], out: Path, suffix: str = "", *, shared: bool = False) -> list[Job]:
    """Add where the standard deviations go, by the rules of `plan_jobs`.

    Raises
    ------
    click.UsageError
        Also if it is where the denoised image goes.
    """
    stds = plan_jobs([job.source for job in jobs], out, suffix, shared=shared, mark=STD_MARK)
    for job, std in zip(jobs, stds, strict=True):
        if _absolute(job.output) == _absolute(std.output):
            raise click.UsageError(f"-o and --std both name {job.output}. Give each a name of its own.")
    return [replace(job, std=std.output) for job, std in zip(jobs, stds, strict=True)]


def plan_jobs(
    inputs: Sequence[Path], out: Path, suffix: str = "", *, shared: bool = False, mark: str = MARK
) -> list[Job]:
    """Choose an output for every input.

    One input goes to ``out`` itself, unless that is a folder; several go into the folder ``out`` under their names
    with ``mark`` added, which images inside a Zarr store share with their store, and files of equal names with
    the folders above them.

    Parameters
    ----------
    suffix
        Of outputs in a folder; by default those of the inputs, or OME-Zarr if ``shared``.
    shared
        Whether several processes will write each output.

    Raises
    ------
    click.UsageError
        If several inputs should go into one file, an input is given twice, or names cannot be told apart.
    ValueError
        If an output would replace an input or lie inside one.
    """
    twice = [str(path) for path, count in Counter(_absolute(p) for p in inputs).items() if count > 1]
    if twice:
        raise click.UsageError(f"{', '.join(twice)} is given twice. Give each image once.")
    into_folder = len(inputs) > 1 or is_folder(out)
    if into_folder and known_suffix(out):
        raise click.UsageError(
            f"{len(inputs)} images cannot all be written to {out}. Give a folder, such as -o {_stem(out.name)}."
        )
    if not into_folder and not known_suffix(out):
        raise click.UsageError(
            f"{out}: end the output's name in {', '.join(WRITABLE)}, or in / for a folder that keeps the input's name."
        )
    if suffix and not into_folder:
        raise click.UsageError(f"--format is for outputs in a folder; {out.name} says its format itself.")
    suffix = suffix or (".ome.zarr" if shared else "")
    names = distinct_names(inputs, suffix, mark) if into_folder else [out.name]
    folder = out if into_folder else out.parent
    jobs = [Job(source, folder / name) for source, name in zip(inputs, names, strict=True)]
    _spare_inputs(jobs)
    return jobs


def is_folder(out: Path) -> bool:
    """Tell whether an output is a folder that exists and is not named like an image."""
    return out.is_dir() and not known_suffix(out)


def known_suffix(path: Path) -> str:
    """Return the ending that decides the format, ``""`` if it is none."""
    return next((suffix for suffix in WRITABLE if path.name.lower().endswith(suffix)), "")


def distinct_names(inputs: Sequence[Path], suffix: str = "", mark: str = MARK) -> list[str]:
    """Name outputs after their inputs, with as many of the folders above them as are needed to tell them apart.

    Raises
    ------
    click.UsageError
        If no number of folders does.
    """
    parts = [(above, mark + (suffix or own)) for above, own in map(_name_parts, inputs)]
    depths = [1] * len(inputs)
    while True:
        names = ["_".join(above[-depth:]) + ending for (above, ending), depth in zip(parts, depths, strict=True)]
        count = Counter(name.lower() for name in names)  # some file systems do not tell a.tif from A.tif
        clashing = [i for i, name in enumerate(names) if count[name.lower()] > 1]
        if not clashing:
            return names
        if all(depths[i] >= len(parts[i][0]) for i in clashing):
            both = " and ".join(str(inputs[i]) for i in clashing if names[i] == names[clashing[0]])
            raise click.UsageError(f"{both} would both be written to {names[clashing[0]]}. Denoise them one by one.")
        for i in clashing:
            depths[i] += 1


def _name_parts(path: Path) -> tuple[list[str], str]:
    """Split a path into the names that may become the output's, the last one always used, and the output's suffix."""
    from napari_ssdenoise.io.ome_zarr import store_of

    store, inner = store_of(_absolute(path))
    folders = [part for part in store.parent.parts if part not in (store.anchor, "")]
    if inner:
        return [*folders, f"{_stem(store.name)}_{inner.replace('/', '_')}"], ".ome.zarr"
    suffix = next((s for s in KEPT_SUFFIXES if store.name.lower().endswith(s)), "")
    scan = "" if suffix else _scan_name(store)
    if scan:
        return [*folders, scan], ".nii.gz"
    name = store.name[: -len(suffix)] if suffix else store.stem
    return [*folders, name], store.name[-len(suffix) :] if suffix else ".tif"


def _scan_name(path: Path) -> str:
    """Return the name of a DICOM series or a pair of NIfTI files, whose results become NIfTI; of others none."""
    from napari_ssdenoise.io._writer import is_zarr
    from napari_ssdenoise.io.dicom import SUFFIXES, is_dicom
    from napari_ssdenoise.io.nifti import PAIRS, base_name

    if path.suffix.lower() in SUFFIXES:
        return path.stem
    if path.name.lower().endswith(PAIRS):
        return base_name(path)
    return path.name if (path.is_dir() and not is_zarr(path)) or is_dicom(path) else ""


def _stem(name: str) -> str:
    suffix = known_suffix(Path(name))
    return name[: -len(suffix)] if suffix else name


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _spare_inputs(jobs: Sequence[Job]) -> None:
    """Refuse outputs that would replace an input, even with ``--overwrite``."""
    sources = [_absolute(job.source) for job in jobs]
    for job in jobs:
        output = _absolute(job.output)
        for source in sources:
            if output == source:
                raise ValueError(
                    f"the output {job.output} is an input, and inputs are never replaced. Choose another name."
                )
            if source in output.parents or output in source.parents:
                raise ValueError(
                    f"the output {job.output} and the input {source} lie in each other. Choose another place."
                )


class Finished:
    """Which outputs of a stopped or partly failed run are complete, so that the same command need not make them again.

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
        found = self.results.get(str(_absolute(job.source)))
        done = found and found.get("stamp") == _stamp(job.source) and job.done
        return dict(found["result"]) if found and done else None

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """Note a job that is done."""
        self.results[str(_absolute(job.source))] = {"stamp": _stamp(job.source), "result": dict(result)}
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps({"task": self.task, "results": self.results}, default=str), encoding="utf8")
            partial.replace(self.path)
        except OSError as error:  # only costs time, should the run be stopped
            logger.warning("%s cannot be written: %s", self.path, error)

    def remove(self) -> None:
        """Forget the list, when all is done."""
        self.path.unlink(missing_ok=True)


def _stamp(path: Path) -> int:
    """Return when a file, or the metadata of a store, changed last."""
    files = [path, *(path / name for name in ("zarr.json", ".zattrs", ".zarray"))]
    return max((p.stat().st_mtime_ns for p in files if p.exists()), default=0)
