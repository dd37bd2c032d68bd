"""A network that has learnt to reconstruct, in memory and in a file."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from napari_ssdenoise.engine.device import autocast, choose_precision
from napari_ssdenoise.networks.unrolled import Unrolled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from torch import Tensor

    from napari_ssdenoise.reconstruction._problem import Problem

FORMAT: Final = "napari-ssdenoise reconstruction"
VERSION: Final = 1
DESCRIPTION: Final = "reconstruction.json"
WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class ReconstructionModel:
    """What a training leaves behind: the network, and how it was trained."""

    network: Unrolled
    record: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, problem: Problem) -> Tensor:
        """Reconstruct a problem: images (sets, Y, X).

        Raises
        ------
        ValueError
            If the slice needs more sets of coil maps than the network knows.
        """
        from napari_ssdenoise.reconstruction._training import _with_sets

        sets = int(self.network.settings["sets"])
        own = problem.maps.shape[0]
        if own > sets:
            raise ValueError(
                "the object is larger than the field of view, and the model was trained on slices in which it was not. "
                "Choose another method, or train on slices like this one."
            )
        operator, data = _with_sets(problem, sets).sense()
        device = problem.maps.device
        network = self.network.to(device)
        with torch.no_grad(), autocast(device, choose_precision(device)):
            found: Tensor = network(operator.adjoint(data), operator, data)
        return found[:own]

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a folder with settings (JSON) and weights (safetensors); its name appears when it is complete.

        Raises
        ------
        FileExistsError
            If something has that name, unless it is such a model and ``overwrite`` is True.
        """
        from napari_ssdenoise.io._writer import publish
        from napari_ssdenoise.io.bundle import write_tensors

        path = Path(path)
        if path.exists() and not (overwrite and is_reconstruction_model(path)):
            raise FileExistsError(
                f"{path} exists. Choose another name; with overwrite=True, a saved model is replaced."
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} does not exist. Make it first, or choose another place.")
        text = {"format": FORMAT, "version": VERSION, "network": self.network.settings, "record": dict(self.record)}
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
            made = Path(scratch) / "model"
            made.mkdir()
            (made / DESCRIPTION).write_text(json.dumps(text, indent=1), encoding="utf8")
            write_tensors(made / WEIGHTS, {k: v.cpu() for k, v in self.network.state_dict().items()})
            publish(made, path, overwrite=overwrite)
        return path

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ReconstructionModel:
        """Read a model.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged, of another kind, or of a newer version.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"there is no model {path}. Check the name.")
        if not is_reconstruction_model(path):
            raise ValueError(f"{path} is no saved model of a reconstruction. Give one that was saved with save().")
        try:
            text = json.loads((path / DESCRIPTION).read_text(encoding="utf8"))
            if text["format"] != FORMAT or text["version"] != VERSION:
                raise ValueError(f"its format is {text['format']!r}, version {text['version']}")
            network = Unrolled(**text["network"])
            network.load_state_dict(load_file(path / WEIGHTS))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{path} is damaged, or made by another version: {error}. Save the model again."
            ) from error
        return cls(network.eval(), text.get("record", {}))


def is_reconstruction_model(path: Path) -> bool:
    """Tell whether a path is a saved model of a reconstruction."""
    return (path / DESCRIPTION).is_file() and (path / WEIGHTS).is_file()
