"""Images from raw MRI data: coil maps, CG-SENSE, compressed sensing, each judged by acquired lines it was not shown."""

from __future__ import annotations

from napari_ssdenoise.reconstruction._model import ReconstructionModel
from napari_ssdenoise.reconstruction._result import Reconstruction, SliceResult
from napari_ssdenoise.reconstruction._run import METHODS, WRAPPED, ReconstructionStep, Reconstructor, reconstruct
from napari_ssdenoise.reconstruction._training import ReconstructionTrainer, TrainingStep, train_reconstruction

__all__ = [
    "METHODS",
    "WRAPPED",
    "Reconstruction",
    "ReconstructionModel",
    "ReconstructionStep",
    "ReconstructionTrainer",
    "Reconstructor",
    "SliceResult",
    "TrainingStep",
    "reconstruct",
    "train_reconstruction",
]
