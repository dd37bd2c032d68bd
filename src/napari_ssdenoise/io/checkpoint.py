"""Keep an unfinished training on disk, so that it can go on where it was stopped.

A checkpoint is a folder with ``checkpoint.json``, which says what it is of and names the one safetensors file that
belongs to it. That JSON is replaced in one step when the tensors are on disk, so a run that is killed at any moment
leaves the checkpoint before or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_ssdenoise.engine.trainer import Trainer

VERSION = 1
DESCRIPTION = "checkpoint.json"
GROUPS = ("network", "averaged", "optimizer", "best")
CURVES = ("history", "held_out")


def checkpoint_path(output: Path) -> Path:
    """Return where the checkpoint of a training lies: a hidden neighbour of its output."""
    return output.with_name(f".{output.name}.checkpoint")


def fingerprint(trainer: Trainer) -> str:
    """Identify a training by its algorithm, settings, images and seed; the budget may change.

    The images count by their shapes and by the normalisation fitted to them, not by their names: a moved file is
    still the same image.
    """
    facts = {
        "version": VERSION,
        "algorithm": trainer.algorithm.key,
        "settings": asdict(trainer.algorithm),
        "geometry": asdict(trainer.geometry),
        "normalization": asdict(trainer.normalization),
        "patch": trainer.sampler.patch,
        "batch": trainer.sampler.batch,
        "seed": trainer.seed,
        "data": [(v.axes, v.shape, str(v.dtype)) for v in trainer.volumes],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write the present state of a training, replacing an earlier one of its own.

    Raises
    ------
    OSError
        If the folder cannot be written into, or the disk is full; the earlier checkpoint is still there.
    """
    import torch

    from napari_ssdenoise.io.bundle import write_tensors

    state = trainer.checkpoint()
    tensors = {f"{group}/{name}": value for group in GROUPS for name, value in state.get(group, {}).items()}
    for curve in CURVES:
        tensors[curve] = torch.tensor(state[curve], dtype=torch.float64).reshape(-1, 3)
    name = f"step-{state['step']}.safetensors"
    folder.mkdir(exist_ok=True)
    write_tensors(folder / name, tensors)
    description = {
        "version": VERSION,
        "fingerprint": fingerprint(trainer),
        "step": state["step"],
        "seconds": state["seconds"],
        "tensors": name,
    }
    partial = folder / f"{DESCRIPTION}.partial"
    partial.write_text(json.dumps(description, indent=1), encoding="utf8")
    partial.replace(folder / DESCRIPTION)
    for old in folder.glob("step-*"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, trainer: Trainer) -> dict[str, Any] | None:
    """Return what ``trainer.resume`` takes; None if there is no checkpoint, or it is of another training or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf8"))
        if description["version"] != VERSION or description["fingerprint"] != fingerprint(trainer):
            return None
        # Only a plain name is followed: whatever the JSON says, nothing outside the folder is read.
        tensors = load((folder / str(description["tensors"]).replace("\\", "/").rsplit("/", 1)[-1]).read_bytes())
        return _state(description, tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _state(description: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {group: {} for group in GROUPS}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        if rest:
            state[group][rest] = value
    for curve in CURVES:
        points = np.asarray(tensors[curve]).tolist()
        state[curve] = [(int(step), seconds, loss) for step, seconds, loss in points]
    return {**state, "step": int(description["step"]), "seconds": float(description["seconds"])}


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, complete or not; a folder with anything else in it stays."""
    if folder.is_dir() and all(file.name.startswith((DESCRIPTION, "step-")) for file in folder.iterdir()):
        shutil.rmtree(folder)
