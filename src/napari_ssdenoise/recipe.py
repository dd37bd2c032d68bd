"""Tell how a result was made so that it can be made again: as a command, as Python, or as a notebook.

What a recipe says, a program can do without napari and without the person who made the result, with the same pixels.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise._repeatable import Repeatable, arguments, flag, literal, telling
from napari_ssdenoise.complex_parts import complex_view
from napari_ssdenoise.volume import Volume, open_volume

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

SAVE_MODEL = "Save the model, then copy again: the command will apply it."


def spot_checks(volume: Volume, side: int = 32) -> Iterator[tuple[slice, ...]]:
    """Choose small parts all over a volume, by which to recognise it without reading it whole."""
    spots = []
    for axis, n in volume.sizes.items():
        size = min(n, side) if axis in "YX" else 1
        spots.append([slice(start, start + size) for start in sorted({0, (n - size) // 2, n - size})])
    return product(*spots)


def fingerprint(volume: Volume) -> str:
    """Return a text that is equal for volumes of one shape that hold the same values in many places."""
    volume = complex_view(volume)
    digest = hashlib.sha256(f"{volume.axes} {volume.shape} {volume.dtype.newbyteorder('=')}".encode())
    for part in spot_checks(volume):
        block = volume[part]
        digest.update(np.ascontiguousarray(block, block.dtype.newbyteorder("=")).tobytes())
    return digest.hexdigest()[:32]


def weights_digest(model: TrainedModel) -> hashlib._Hash:
    """Return a SHA-256 that has taken in a model's weights, and may take in more."""
    digest = hashlib.sha256()
    for name, value in sorted(model.weights().items()):
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest


@dataclass(frozen=True)
class Recipe(Repeatable):
    """How to make one result again.

    Attributes
    ----------
    source
        The image's file.
    axes
        One letter per dimension, where the file does not say them.
    model
        A saved model to apply; None: one is trained.
    training
        The algorithm, its settings and what else decides the training, by the names that `Trainer` (or `Upscaler`, if
        there is a ``"method"``) gives them.
    applying
        ``device``, ``precision``, ``augment``, ``dtype`` and ``memory``, as for `TrainedModel.predict_into`.
    std
        Whether the standard deviation of every pixel is wanted as well.
    """

    source: Path
    axes: str | None = None
    model: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    applying: Mapping[str, Any] = field(default_factory=dict)
    std: bool = False

    @classmethod
    def of(
        cls, model: TrainedModel, volume: Volume, source: Path | None, *, std: bool = False, **applying: Any
    ) -> Recipe:
        """Find out how a model's result for a volume can be made again.

        Parameters
        ----------
        source
            The file that the volume was read from.
        std, applying
            See above.

        Raises
        ------
        ValueError
            If it cannot be, in words that say what to do.
        """
        axes = named_axes(volume, source)
        recipe = cls(Path(source or ""), axes, applying=applying, std=std)
        if model.path is not None:
            return replace(recipe, model=model.path.absolute())
        return replace(recipe, training=_training(model, volume))

    def command(self, output: Path | None = None) -> str:
        """Return the command line that makes the result, for a shell."""
        output = output or self.output
        words = ["ssdenoise", "upscale" if self.is_upscaling else "denoise", str(self.source), "-o", str(output)]
        if self.model is not None:
            words += ["-m", str(self.model)]
        words += [word for name, value in self._flags().items() for word in flag(name, value)]
        if self.std:
            words += ["--std", str(self._std(output))]
        return shlex.join(words)

    def python(self, output: Path | None = None) -> str:
        """Return the Python code that makes the result."""
        output = output or self.output
        applying = {**telling(self.applying), **({"also": {"std": str(self._std(output))}} if self.std else {})}
        image = f"ssd.open_volume({arguments(str(self.source), **telling({'axes': self.axes}))})"
        lines = ["import napari_ssdenoise as ssd", "", f"noisy = {image}"]
        if self.model is not None:
            lines += [f"model = ssd.TrainedModel.load({literal(str(self.model))})"]
        elif self.is_upscaling:
            how = {k: v for k, v in self.training.items() if k not in ("method", "settings")}
            asked = arguments(self.training["method"], **how, **self.training["settings"])
            lines += [f"upscaler = ssd.Upscaler(noisy, {asked})", "for update in upscaler:", "    pass"]
            lines += ["model, noisy = upscaler.model, upscaler.volume"]
        else:
            how = {k: v for k, v in self.training.items() if k not in ("algorithm", "settings")}
            asked = arguments(self.training["algorithm"], **telling(how), **self.training["settings"])
            lines += [f"model = ssd.train(noisy, {asked})"]
        lines += [f"for tile in model.predict_into(noisy, {arguments(str(output), **applying)}):", "    pass"]
        return "\n".join(lines) + "\n"

    @property
    def is_upscaling(self) -> bool:
        """Whether the result has smaller pixels than the image."""
        return "method" in self.training

    @property
    def output(self) -> Path:
        """Where the result goes: beside the image."""
        mark = "upscaled" if self.is_upscaling else "denoised"
        return self.source.with_name(f"{self.source.name.split('.')[0]}.{mark}.ome.zarr")

    @staticmethod
    def _std(output: Path) -> Path:
        stem, dot, suffix = output.name.partition(".")
        return output.with_name(f"{stem}.std{dot}{suffix}")

    def _flags(self) -> dict[str, Any]:
        """Return all flags of the command that are needed."""
        training = {k: v for k, v in self.training.items() if k not in ("settings", "adapt", "until_best")}
        if self.is_upscaling:
            training["adapt"] = "best" if self.training.get("until_best") else self.training["adapt"]
        computing = {"axes": self.axes, **training, **self.training.get("settings", {}), **self.applying}
        flags = telling(computing)
        return flags if self.is_upscaling or self.model is not None else {**flags, "quality": False}


def named_axes(volume: Volume, source: Path | None) -> str | None:
    """Return the axes to open a file with so that it is this volume; None where it is that without."""
    again = "Save the layer as a file, open that, and run it again: then a command can repeat it."
    if source is None:
        raise ValueError(f"“{volume.name}” is not in a file. {again}")
    try:
        plain = open_volume(source)
        opened = plain if plain.axes == volume.axes else open_volume(source, axes=volume.axes)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} cannot be opened as “{volume.name}” was ({error}). {again}") from error
    if opened.shape != volume.shape or fingerprint(opened) != fingerprint(volume):
        raise ValueError(
            f"“{volume.name}” is not all of {source}, or it was changed: {volume.axes} {volume.shape}, but the file "
            f"has {opened.axes} {opened.shape}. {again}"
        )
    return None if plain.axes == volume.axes else volume.axes


def _training(model: TrainedModel, volume: Volume) -> dict[str, Any]:
    """Return what repeats a model's training."""
    record = model.record
    asked = dict(record.get("asked") or {})
    if not asked:
        raise ValueError(f"this model does not tell how it was trained. {SAVE_MODEL}")
    upscales = "method" in asked
    if [data.get("fingerprint") for data in record["data"]] != [fingerprint(volume)]:
        raise ValueError(f"the model was trained on other images. {SAVE_MODEL}")
    if asked.pop("target") or record.get("continues"):
        raise ValueError(f"the model was trained with more than this image. {SAVE_MODEL}")
    if asked.pop("seconds") is not None:
        raise ValueError(f"the training was limited by time, which never ends at the same step twice. {SAVE_MODEL}")
    wanted = asked["adapt"] if upscales else asked["steps"]
    if record["steps"] != wanted and not asked.get("until_best"):
        raise ValueError(f"the training was stopped at step {record['steps']} of {wanted}. {SAVE_MODEL}")
    if upscales:
        del asked["steps"], asked["spatial"], asked["channels"], asked["algorithm"]
    return asked
