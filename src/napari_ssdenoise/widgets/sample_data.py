"""What *File > Open Sample* offers: noisy images, each with its clean truth in a hidden layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_ssdenoise.samples import load_sample
from napari_ssdenoise.volume import Volume

LayerData = tuple[Any, dict[str, Any], str]


def cell_2d() -> list[LayerData]:
    """Open a cultured cell in 2D."""
    return _layers("cell-2d")


def tissue_3d() -> list[LayerData]:
    """Open the surface of an embryo in 3D."""
    return _layers("tissue-3d")


def timelapse() -> list[LayerData]:
    """Open a film of traffic in a living cell."""
    return _layers("timelapse")


def _layers(key: str) -> list[LayerData]:
    sample = load_sample(key)
    # The same limits for both, so that switching the truth on compares like with like.
    clean = np.asarray(sample.clean)
    low, high = np.percentile(clean[..., ::2, ::2], (0.1, 99.8))
    limits = (float(low), float(high))
    about = {"title": sample.title, "description": sample.description}
    # The last layer becomes the active one: the noisy image, which people came for.
    return [
        (clean, _options(sample.clean, limits, about) | {"visible": False}, "image"),
        (np.asarray(sample.noisy), _options(sample.noisy, limits, about), "image"),
    ]


def _options(volume: Volume, limits: tuple[float, float], about: dict[str, str]) -> dict[str, Any]:
    return {
        "name": volume.name,
        "scale": volume.scale,
        "units": volume.units,
        "axis_labels": tuple(volume.axes.lower()),
        "contrast_limits": limits,
        "colormap": "gray",
        "metadata": dict(about),
    }
