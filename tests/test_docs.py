"""Every block of code in the README and on the site's pages runs, in order, on small images and for a few steps.

Files that a page takes for granted are made beforehand (`FILES`). What truly cannot run here is named in `NOT_RUN`. The
commands of a block may be alternatives, so that what an earlier one wrote under the same name is removed.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from scipy.io import savemat

import napari_ssdenoise as ssd
from napari_ssdenoise.io import write_volume
from napari_ssdenoise.volume import Volume

ROOT = Path(__file__).parents[1]
PHANTOM = runpy.run_path(str(ROOT / "examples" / "tour" / "phantom.py"))
FENCE = re.compile(r"^```[ {.]*(\w*)[ }]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
STEPS = 2  # of trainings; those of the README's Python are as it says, as it promises a result
SETS_UP = "sets up a machine, which tests/run.sh does"
NEEDS_CLUSTER = "needs the machines of a cluster"
# Page: beginning of a command, or of a block of Python: why it is not run.
NOT_RUN = {
    "README.md": {
        "python3 -m venv": SETS_UP,
        "pip install torch": SETS_UP,
        "sudo apt-get install": SETS_UP,
        "bash tests/run.sh": "runs these tests",
    },
    "docs/cluster.md": {
        "pip install": SETS_UP,
        "dask scheduler": NEEDS_CLUSTER,
        "dask worker tcp": NEEDS_CLUSTER,
        "ssdenoise denoise embryo.ome.zarr -m embryo.model -o clean.ome.zarr --scheduler tcp": NEEDS_CLUSTER,
        "from dask_jobqueue": NEEDS_CLUSTER,
        "cluster = SLURMCluster": NEEDS_CLUSTER,
    },
    "docs/comparison.md": {"python benchmarks/quality.py": "needs images that are not part of the repository"},
    "docs/install.md": {
        "python3 -m venv": SETS_UP,
        ".venv/bin/pip install": SETS_UP,
        ".venv/bin/napari": "opens the viewer; tests/widgets do",
        "sudo apt-get install": SETS_UP,
    },
    "docs/models.md": {"pip install": SETS_UP},
    "docs/sample-complexity.md": {"ssdenoise study a*.tif --target": "stands for any number of images"},
}
# Pages whose Python starts other processes, which import it: it must be a script.
SCRIPTS = {"docs/cluster.md"}


@dataclass(frozen=True)
class Block:
    """A block of a page, and where it is."""

    page: str
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """Return what is run of it: all of a Python block, each command of a shell block."""
        if self.language == "python":
            return [self.text]
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks() -> dict[str, list[Block]]:
    """Return the blocks of code by page."""
    found: dict[str, list[Block]] = {}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text, page = path.read_text(encoding="utf8"), path.relative_to(ROOT).as_posix()
        for fence in FENCE.finditer(text):
            included = re.sub(r'--8<-- "(.*?)"', lambda m: (ROOT / m[1]).read_text(encoding="utf8"), fence[2])
            block = Block(page, text[: fence.start()].count("\n") + 1, fence[1], included)
            if block.language != "toml":
                found.setdefault(page, []).append(block)
    return found


BLOCKS = blocks()


def reason(page: str, command: str) -> str:
    """Say why a command is not run, if it is not."""
    listed = NOT_RUN.get(page, {}).items()
    return next((why for beginning, why in listed if command.startswith(beginning)), "")


def test_blocks_have_a_language_that_can_be_run():
    odd = [f"{b.page}:{b.line}" for page in BLOCKS.values() for b in page if b.language not in ("sh", "python")]
    assert not odd


@pytest.mark.parametrize("page", NOT_RUN)
def test_what_is_not_run_is_there(page):
    commands = [command for block in BLOCKS[page] for command in block.commands()]
    stale = [beginning for beginning in NOT_RUN[page] if not any(c.startswith(beginning) for c in commands)]
    assert not stale


def picture(shape: tuple[int, ...], axes: str, path: Path, noise: float = 20.0) -> None:
    """Write waves in noise."""
    rng = np.random.default_rng(len(path.name))
    waves = 200 + 60 * np.sin(np.indices(shape).sum(0) / 4)
    scale = tuple({"T": 1.0, "Z": 0.5}.get(axis, 0.2) for axis in axes)
    units = tuple("second" if axis == "T" else "micrometer" for axis in axes)
    write_volume(path, Volume((waves + rng.normal(0, noise, shape)).astype(np.float32), axes, scale=scale, units=units))


def model(image: str, path: Path) -> None:
    """Write a tiny model of an image."""
    if not (path.parent / image).exists():
        FILES[image](path.parent / image)
    ssd.train(path.parent / image, "n2v", steps=1, depth=1, width=4, patch=16, batch=2).save(path)


def scanner(path: Path) -> None:
    """Write what comes out of a scanner: magnitudes, or k-space of a few slices."""
    if path.suffix == ".gz":
        PHANTOM["write_scan"](path, 6, 48, 48)
    elif path.suffix == ".h5":
        PHANTOM["write_kspace"](path, 1, 32, 32)
    else:
        PHANTOM["write_kspace"](path.with_suffix(".h5"), 1, 32, 32)
        with h5py.File(path.with_suffix(".h5")) as file:
            savemat(path, {"kspace": np.moveaxis(file["kspace"][0], 0, -1)})
        path.with_suffix(".h5").unlink()


def dicom(path: Path) -> None:
    """Copy an image that comes with pydicom."""
    shutil.copy(Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm", path)


def blur(path: Path) -> None:
    """Write a point-spread function."""
    wide = np.exp(-np.square(np.arange(-4, 5)) / 4)
    write_volume(path, Volume(np.outer(wide, wide).astype(np.float32), "YX"))


stack = partial(picture, (8, 32, 32), "ZYX")
plane = partial(picture, (64, 64), "YX")
smooth = partial(picture, (48, 48), "YX", noise=0.5)
film = partial(picture, (12, 64, 64), "TYX")
SERIES = tuple(f"frame{n:02}.tif" for n in range(12))
FILES: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("embryo.ome.zarr", "more.ome.zarr", "stack.ome.zarr"), stack),
    **dict.fromkeys(("noisy.tif", "cell.tif", "plate/a.tif", "plate/b.tif"), plane),
    **dict.fromkeys(("cells.ome.zarr", "clean.tif"), smooth),
    **dict.fromkeys(("film.tif", "movie.tif"), film),
    **dict.fromkeys(SERIES, plane),
    **dict.fromkeys(("scan.h5", "knees/1.h5", "knees/2.h5", "kspace.mat", "head.nii.gz", "magnitudes.nii.gz"), scanner),
    "study/T1/IM0001": dicom,
    "psf.tif": blur,
    "head.ome.zarr": partial(picture, (6, 32, 32), "ZYX", noise=0.5),
    "embryo.model": partial(model, "embryo.ome.zarr"),
    "plate.model": partial(model, "plate/a.tif"),
    "cells.model": partial(model, "noisy.tif"),
}
PLATE, EMBRYO = ("plate/a.tif", "plate/b.tif"), ("embryo.ome.zarr", "embryo.model")
NEEDS = {
    "README.md": ("embryo.ome.zarr", "more.ome.zarr"),
    "docs/cluster.md": (*EMBRYO, *PLATE, "plate.model"),
    "docs/formats.md": ("magnitudes.nii.gz", "study/T1/IM0001"),
    "docs/large-volumes.md": EMBRYO,
    "docs/models.md": ("noisy.tif", "cells.model"),
    "docs/mri-reconstruction.md": ("scan.h5", "kspace.mat", "knees/1.h5", "knees/2.h5"),
    "docs/sample-complexity.md": ("movie.tif", *SERIES),
    "docs/super-resolution.md": ("cells.ome.zarr", "psf.tif", "head.ome.zarr", "noisy.tif"),
    "docs/tutorials/2d.md": ("cell.tif", *PLATE),
    "docs/tutorials/3d.md": ("stack.ome.zarr",),
    "docs/tutorials/big-data.md": EMBRYO,
    "docs/tutorials/mri.md": ("head.nii.gz",),
    "docs/tutorials/super-resolution.md": ("clean.tif", "noisy.tif"),
    "docs/tutorials/time-lapse.md": ("film.tif",),
}


def shorten(monkeypatch: pytest.MonkeyPatch, kind: type, **most: Any) -> None:
    """Have a class take no more than given of some arguments, whatever it is told."""
    original, signature = kind.__init__, inspect.signature(kind.__init__)

    def init(*args: Any, **options: Any) -> None:
        given = signature.bind(*args, **options).arguments
        for name, limit in most.items():
            asked = given.get(name)
            given[name] = limit if asked is None or limit is None else min(asked, limit)
        original(**given)

    monkeypatch.setattr(kind, "__init__", init)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, with one thread: tiny computations gain nothing from more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_num_threads(before)


def run_shell(command: str, page: str) -> None:
    """Run a command of ssdenoise as a shell would, in this process."""
    from napari_ssdenoise.cli import program

    words = shlex.split(command, comments=True)
    assert words[0] == "ssdenoise", f"{page}: “{command}” cannot be run here. Name it in NOT_RUN, or give a command."
    if "-o" in words:
        output = Path(words[words.index("-o") + 1])
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    expanded = [part for word in words[1:] for part in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    result = CliRunner().invoke(program, expanded, prog_name="ssdenoise")
    assert result.exit_code == 0, (page, command, result.output, result.exception)


def run_python(text: str, page: str, names: dict[str, Any]) -> None:
    """Run Python, with the names that earlier blocks of the page have made."""
    if page in SCRIPTS:
        Path("script.py").write_text(text, encoding="utf8")
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (page, done.stderr)
    else:
        exec(compile(text, page, "exec"), names)


def run_page(page: str, language: str, folder: Path) -> dict[str, Any]:
    """Run all blocks of a language, in their order; return the names that Python has made."""
    for name in NEEDS.get(page, ()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            FILES[name](path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        for command in block.commands() if block.language == language else ():
            if reason(page, command):
                continue
            if language == "python":
                run_python(command, page, names)
            else:
                run_shell(command, page)
    return names


CASES = [(page, kind) for page, found in BLOCKS.items() for kind in sorted({block.language for block in found})]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # bioimageio leaves files open
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(("page", "language"), [case for case in CASES if case != ("README.md", "python")])
def test_the_blocks_of_a_page_run(page, language, folder, monkeypatch):
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.reconstruction._training import ReconstructionTrainer
    from napari_ssdenoise.reconstruction._zero_shot import ZeroShot
    from napari_ssdenoise.study.networks import NetworkStudy

    shorten(monkeypatch, Trainer, steps=STEPS, seconds=None)
    for kind in (ReconstructionTrainer, ZeroShot):
        shorten(monkeypatch, kind, steps=STEPS)
    shorten(monkeypatch, NetworkStudy, steps=STEPS, seeds=1)
    run_page(page, language, folder)


@pytest.mark.slow
def test_the_python_of_the_readme_does_what_it_promises(folder, capsys):
    run_page("README.md", "python", folder)
    before, after = re.search(r"([\d.]+) -> ([\d.]+)\s*$", capsys.readouterr().out).groups()  # type: ignore[union-attr]
    assert float(after) > float(before) + 3
    assert {"cell.model", "clean.ome.zarr"} <= {path.name for path in folder.iterdir()}
