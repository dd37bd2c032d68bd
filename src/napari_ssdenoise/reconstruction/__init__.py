"""Images from raw MRI data: coil maps, CG-SENSE, compressed sensing, each judged by acquired lines it was not shown."""

from __future__ import annotations

from napari_ssdenoise.reconstruction._result import Reconstruction, SliceResult
from napari_ssdenoise.reconstruction._run import METHODS, WRAPPED, ReconstructionStep, Reconstructor, reconstruct

__all__ = ["METHODS", "WRAPPED", "Reconstruction", "ReconstructionStep", "Reconstructor", "SliceResult", "reconstruct"]
