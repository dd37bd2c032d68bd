"""The algorithms, one file each, and how to find them by key.

Other packages add theirs through the entry-point group ``napari_ssdenoise.algorithms``: the name is the key, the
value the class.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

from napari_ssdenoise.algorithms._base import Algorithm, Conditions, Network, Setting, UNetAlgorithm, settings
from napari_ssdenoise.algorithms.blindspot import BlindSpot
from napari_ssdenoise.algorithms.interpolation import Interpolation
from napari_ssdenoise.algorithms.mzsr import MetaSuperResolution
from napari_ssdenoise.algorithms.neighbor2neighbor import Neighbor2Neighbor
from napari_ssdenoise.algorithms.noise2noise import Noise2Noise
from napari_ssdenoise.algorithms.noise2void import Noise2Void
from napari_ssdenoise.algorithms.sasl import SpatiallyAdaptive
from napari_ssdenoise.algorithms.supervised import Supervised
from napari_ssdenoise.algorithms.zs_n2n import ZeroShotNoise2Noise
from napari_ssdenoise.algorithms.zssr import ZeroShotSuperResolution

__all__ = [
    "Algorithm",
    "BlindSpot",
    "Conditions",
    "Interpolation",
    "MetaSuperResolution",
    "Neighbor2Neighbor",
    "Network",
    "Noise2Noise",
    "Noise2Void",
    "Setting",
    "SpatiallyAdaptive",
    "Supervised",
    "UNetAlgorithm",
    "ZeroShotNoise2Noise",
    "ZeroShotSuperResolution",
    "algorithms_for",
    "get_algorithm",
    "list_algorithms",
    "settings",
]

logger = logging.getLogger(__name__)

BUILT_IN: tuple[type[Algorithm], ...] = (
    *(Noise2Void, Noise2Noise, BlindSpot, Neighbor2Neighbor, ZeroShotNoise2Noise, SpatiallyAdaptive, Supervised),
    *(MetaSuperResolution, ZeroShotSuperResolution, Interpolation),
)


# Learns from k-space and not from images, so that it is no `Algorithm`: see `napari_ssdenoise.reconstruction`.
RECONSTRUCTION: Final = "ssdu-mri"


@cache
def list_algorithms() -> dict[str, type[Algorithm]]:
    """Return every algorithm for images by its key: our own, then those of other installed packages.

    The one for raw MRI data, ``"ssdu-mri"``, is not among them: it is trained by `train_reconstruction`.
    """
    found = {algorithm.key: algorithm for algorithm in BUILT_IN}
    for entry in entry_points(group="napari_ssdenoise.algorithms"):
        try:
            found.setdefault(entry.name, entry.load())
        except Exception:  # another package's mistake must not take ours along
            logger.warning("the algorithm %s of another package cannot be loaded", entry.name, exc_info=True)
    return found


def algorithms_for(purpose: str) -> dict[str, type[Algorithm]]:
    """Return the algorithms that ``"denoise"``, or those that ``"upscale"``, by their keys."""
    return {key: kind for key, kind in list_algorithms().items() if kind.purpose == purpose}


def get_algorithm(algorithm: str | Algorithm, **values: Any) -> Algorithm:
    """Return an algorithm by its key with the given settings; an algorithm is returned as it is.

    Raises
    ------
    ValueError
        If the key or a setting is unknown, or a value does not fit.
    """
    if isinstance(algorithm, Algorithm):
        if values:
            raise ValueError(f"give settings to {type(algorithm).__name__}(...) itself: {', '.join(values)}.")
        return algorithm
    known = list_algorithms()
    if algorithm == RECONSTRUCTION:
        raise ValueError(
            f"{RECONSTRUCTION} learns from raw MRI data, not from images: use train_reconstruction, or ssdenoise train "
            f"--algorithm {RECONSTRUCTION}."
        )
    if algorithm not in known:
        raise ValueError(f"unknown algorithm {algorithm!r}; available: {', '.join(sorted(known))}")
    names = [setting.name for setting in settings(known[algorithm])]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(f"{algorithm} has no setting {', '.join(unknown)}; it has {', '.join(names)}.")
    return known[algorithm](**values)
