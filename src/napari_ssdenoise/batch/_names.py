"""Which output belongs to which input."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ssdenoise.io import READABLE, WRITABLE

if TYPE_CHECKING:
    from napari_ssdenoise.volume import Volume

# Formats that hold any image; others become TIFF when a folder of outputs is asked for.
KEPT_SUFFIXES = (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff", ".npy", ".nii", ".nii.gz")
FORMATS = ("ome.zarr", "zarr", "ome.tif", "tif", "npy", "nii", "nii.gz")
MARK = ".denoised"
STD_MARK = ".uncertainty"


class NamesError(ValueError):
    """Outputs cannot be named as they are asked for."""


@dataclass(frozen=True)
class Job:
    """One image to denoise, and where to.

    Attributes
    ----------
    source
        Its file; for an image that is in none, the path of one that would be called like it: see `path_for`.
    output
        Where the result goes.
    std
        Where the standard deviations go, if they are wanted.
    volume
        An image that is open already, to be taken instead of the file.
    """

    source: Path
    output: Path
    std: Path | None = None
    volume: Volume | None = None

    @property
    def outputs(self) -> list[Path]:
        """All files that are made of it."""
        return [self.output] if self.std is None else [self.output, self.std]

    @property
    def done(self) -> bool:
        """Whether all of them exist."""
        return all(path.exists() for path in self.outputs)

    def check_outputs(self, *, overwrite: bool) -> None:
        """Refuse before any work what could not be written.

        Raises
        ------
        FileExistsError, FileNotFoundError
            If an output exists and is not to be replaced, or its folder does not exist.
        """
        from napari_ssdenoise.io import check_output

        for path in self.outputs:
            check_output(path, overwrite=overwrite, folder=known_suffix(path).endswith(".zarr"))


def plan_jobs(
    inputs: Sequence[Path],
    out: Path,
    suffix: str = "",
    *,
    shared: bool = False,
    mark: str = MARK,
    folder: bool = False,
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
    folder
        Whether ``out`` is a folder even if there is one input, and no such folder yet.

    Raises
    ------
    NamesError
        If several inputs should go into one file, an input is given twice, or names cannot be told apart.
    ValueError
        If an output would replace an input or lie inside one.
    """
    twice = [str(path) for path, count in Counter(absolute(p) for p in inputs).items() if count > 1]
    if twice:
        raise NamesError(f"{', '.join(twice)} is given twice. Give each image once.")
    into_folder = folder or len(inputs) > 1 or is_folder(out)
    if into_folder and known_suffix(out):
        raise NamesError(
            f"{len(inputs)} images cannot all be written to {out}. Give a folder, such as {_stem(out.name)}."
        )
    if not into_folder and not known_suffix(out):
        raise NamesError(
            f"{out}: end the output's name in {', '.join(WRITABLE)}, or in / for a folder that keeps the input's name."
        )
    if suffix and not into_folder:
        raise NamesError(f"A format is for outputs in a folder; {out.name} says its format itself.")
    suffix = suffix or (".ome.zarr" if shared else "")
    names = distinct_names(inputs, suffix, mark) if into_folder else [out.name]
    place = out if into_folder else out.parent
    jobs = [Job(source, place / name) for source, name in zip(inputs, names, strict=True)]
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
    NamesError
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
            raise NamesError(f"{both} would both be written to {names[clashing[0]]}. Denoise them one by one.")
        for i in clashing:
            depths[i] += 1


def _name_parts(path: Path) -> tuple[list[str], str]:
    """Split a path into the names that may become the output's, the last one always used, and the output's suffix."""
    from napari_ssdenoise.io.ome_zarr import store_of

    store, inner = store_of(absolute(path))
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


def absolute(path: Path) -> Path:
    """Return the one path that is meant, without links and dots."""
    return path.expanduser().resolve()


def _spare_inputs(jobs: Sequence[Job]) -> None:
    """Refuse outputs that would replace an input, even where existing ones may be replaced."""
    sources = [absolute(job.source) for job in jobs]
    for job in jobs:
        output = absolute(job.output)
        for source in sources:
            if output == source:
                raise ValueError(
                    f"the output {job.output} is an input, and inputs are never replaced. Choose another name."
                )
            if source in output.parents or output in source.parents:
                raise ValueError(
                    f"the output {job.output} and the input {source} lie in each other. Choose another place."
                )


def path_for(name: str) -> Path:
    """Return a path that names the output of an image that is in no file."""
    safe = re.sub(r"[^-+.,() =@#%&\w]", "_", name).strip(" .")
    return Path("open image", f"{safe or 'image'}.tif")


def images_in(folder: Path) -> list[Path]:
    """List the images that lie in a folder, itself one or not; results of ours are left out.

    Subfolders are taken if they are Zarr stores or hold a DICOM series.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    from napari_ssdenoise.io._writer import is_zarr
    from napari_ssdenoise.io.dicom import holds_dicom

    if is_zarr(folder) or holds_dicom(folder):
        return [folder]
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name.lower()):
        name = path.name.lower()
        if name.startswith(".") or MARK in name or STD_MARK in name:
            continue
        if (is_zarr(path) or holds_dicom(path)) if path.is_dir() else name.endswith((*READABLE, ".img", ".img.gz")):
            found.append(path)
    return found
