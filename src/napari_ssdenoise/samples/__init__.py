"""Built-in noisy images with their clean truth, made by a physical model of specimen, microscope and camera.

A specimen is a cloud of fluorescent emitters and smooth densities in micrometres. The microscope blurs it with a
Gaussian point spread function whose widths follow from the numerical aperture (`Optics`); the camera counts photons
and adds its own noise (`Camera`). The truth is what that camera would read on average over endless exposures, so noisy
and clean share their units. Every sample is a function of its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable

from napari_ssdenoise.samples.cell import cell_2d
from napari_ssdenoise.samples.imaging import Camera, Optics, Sample
from napari_ssdenoise.samples.tissue import tissue_3d
from napari_ssdenoise.samples.traffic import timelapse

__all__ = ["SAMPLES", "Camera", "Optics", "Sample", "cell_2d", "load_sample", "timelapse", "tissue_3d"]

SAMPLES: dict[str, Callable[[int], Sample]] = {"cell-2d": cell_2d, "tissue-3d": tissue_3d, "timelapse": timelapse}


def load_sample(key: str, seed: int = 0) -> Sample:
    """Make a built-in sample.

    Parameters
    ----------
    key
        One of `SAMPLES`: ``"cell-2d"``, ``"tissue-3d"``, ``"timelapse"``.
    seed
        Another seed gives another specimen and other noise.

    Raises
    ------
    ValueError
        If there is no such sample.
    """
    if key not in SAMPLES:
        raise ValueError(f"unknown sample {key!r}; available: {', '.join(sorted(SAMPLES))}")
    return SAMPLES[key](seed)
