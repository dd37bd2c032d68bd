"""Denoise many images: name the outputs, go on after a failure or a stop, and say what became of each image."""

from __future__ import annotations

from napari_ssdenoise.batch._finished import Finished
from napari_ssdenoise.batch._names import (
    FORMATS,
    MARK,
    STD_MARK,
    Job,
    NamesError,
    absolute,
    distinct_names,
    images_in,
    is_folder,
    known_suffix,
    path_for,
    plan_jobs,
)
from napari_ssdenoise.batch._outcomes import Batch, Begun, Outcome, Result, Status
from napari_ssdenoise.batch._training import resume_training, train_with_checkpoints

__all__ = [
    "FORMATS",
    "MARK",
    "STD_MARK",
    "Batch",
    "Begun",
    "Finished",
    "Job",
    "NamesError",
    "Outcome",
    "Result",
    "Status",
    "absolute",
    "distinct_names",
    "images_in",
    "is_folder",
    "known_suffix",
    "path_for",
    "plan_jobs",
    "resume_training",
    "train_with_checkpoints",
]
