"""Tell how a reconstruction, or a study of whether images are enough, was made, so that it can be made again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._repeatable import Repeatable, arguments, flag, telling
from napari_ssdenoise.io.kspace import open_kspace
from napari_ssdenoise.recipe import named_axes

if TYPE_CHECKING:
    from napari_ssdenoise.io.kspace import KSpace
    from napari_ssdenoise.study.data import DataStudySettings
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True)
class ReconstructionRecipe(Repeatable):
    """How to reconstruct k-space again.

    Attributes
    ----------
    source
        The file of k-space.
    axes
        One letter per dimension, where the file was opened with them.
    method, steps, device, seed
        As for `Reconstructor`.
    """

    source: Path
    axes: str | None = None
    method: str = "auto"
    steps: int | None = None
    device: str = "auto"
    seed: int = 0

    @classmethod
    def of(cls, kspace: KSpace, axes: str | None = None, **how: Any) -> ReconstructionRecipe:
        """Find out how k-space can be reconstructed again.

        Parameters
        ----------
        axes, how
            See above.

        Raises
        ------
        ValueError
            If it cannot be, in words that say what to do.
        """
        again = "Save it as .npy, open that, and run it again: then a command can repeat it."
        if kspace.source is None:
            raise ValueError(f"“{kspace.name}” is not in a file. {again}")
        try:
            opened = open_kspace(kspace.source, axes=axes)
            same = _same(kspace, opened)
        except (OSError, ValueError) as error:
            raise ValueError(f"{kspace.source} cannot be opened as “{kspace.name}” was ({error}). {again}") from error
        if not same:
            raise ValueError(f"“{kspace.name}” is not what {kspace.source} holds, or it was changed. {again}")
        return cls(kspace.source.absolute(), axes, **how)

    @property
    def output(self) -> Path:
        """Where the result goes: beside the file."""
        return self.source.with_name(f"{self.source.name.split('.')[0]}.reconstructed.nii.gz")

    def command(self, output: Path | None = None) -> str:
        """Return the command line that makes the result, for a shell."""
        words = ["ssdenoise", "reconstruct", str(self.source), "-o", str(output or self.output)]
        words += [word for name, value in self._how().items() for word in flag(name, value)]
        return shlex.join(words)

    def python(self, output: Path | None = None) -> str:
        """Return the Python code that makes the result."""
        asked = arguments(str(self.source), **self._how())
        lines = ["from pathlib import Path", "", "import napari_ssdenoise as ssd"]
        lines += ["from napari_ssdenoise.io import write_volume", ""]
        lines += [f"result = ssd.reconstruct({asked})"]
        lines += [f"write_volume(Path({arguments(str(output or self.output))}), result.volume())"]
        return "\n".join(lines) + "\n"

    def _how(self) -> dict[str, Any]:
        steps = {} if self.steps is None else {"steps": self.steps}
        others = {"axes": self.axes, "device": self.device, "seed": self.seed}
        return {"method": self.method, **steps, **telling(others)}


def _same(kspace: KSpace, other: KSpace) -> bool:
    """Tell whether the first, the middle and the last slice are the same; any other are too, or somebody meddled."""
    if kspace.shape != other.shape or kspace.scale != other.scale:
        return False
    return all(
        np.array_equal(a, b)
        for index in {0, len(kspace) // 2, len(kspace) - 1}
        for a, b in zip(kspace.read(index), other.read(index), strict=True)
    )


@dataclass(frozen=True)
class StudyRecipe(Repeatable):
    """How to study again whether images are enough.

    Attributes
    ----------
    source, target
        The images' file, and that of their second views.
    axes
        One letter per dimension, where the file does not say them.
    seeds, steps
        Trainings of each size, and their length.
    device
        Where to compute.
    """

    source: Path
    target: Path | None = None
    axes: str | None = None
    seeds: int = 3
    steps: int = 300
    device: str = "auto"

    @classmethod
    def of(
        cls,
        volume: Volume,
        source: Path | None,
        target: tuple[Volume, Path | None] | None,
        settings: DataStudySettings,
        device: str = "auto",
    ) -> StudyRecipe:
        """Find out how a volume can be studied again; ``target`` is one with its file.

        Raises
        ------
        ValueError
            If it cannot be, in words that say what to do.
        """
        axes = named_axes(volume, source)
        if target is not None and named_axes(*target) != axes:
            raise ValueError(f"“{volume.name}” and “{target[0].name}” do not say their axes in the same way.")
        file = target[1] if target else None
        return cls(Path(source or ""), file, axes, settings.seeds, settings.steps, device)

    @property
    def output(self) -> Path:
        """Where the result goes: a folder beside the file."""
        return self.source.with_name(f"{self.source.name.split('.')[0]}.enough")

    def command(self, output: Path | None = None) -> str:
        """Return the command line that makes the result, for a shell."""
        words = ["ssdenoise", "study", str(self.source), "-o", str(output or self.output)]
        how = {**self._target(), "seeds": self.seeds, "steps": self.steps, **self._where()}
        return shlex.join([*words, *(word for name, value in how.items() for word in flag(name, value))])

    def python(self, output: Path | None = None) -> str:
        """Return the Python code that says the result, and draws it."""
        asked = arguments(str(self.source), **self._target(), **self._where())
        settings = arguments(seeds=self.seeds, steps=self.steps)
        folder = output or self.output
        lines = ["from pathlib import Path", "", "import napari_ssdenoise as ssd"]
        lines += ["from napari_ssdenoise.study.plot import plot_data", ""]
        lines += [f"study = ssd.study_data({asked}, settings=ssd.DataStudySettings({settings}))"]
        lines += ["print(study.describe())", f"folder = Path({arguments(str(folder))})"]
        lines += ["folder.mkdir(exist_ok=True)", 'plot_data(study, folder / "data.png")']
        return "\n".join(lines) + "\n"

    def _target(self) -> dict[str, Any]:
        return {} if self.target is None else {"target": str(self.target)}

    def _where(self) -> dict[str, Any]:
        return telling({"axes": self.axes, "device": self.device})
