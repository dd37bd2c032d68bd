"""Small images with all there is to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from napari_ssdenoise.volume import Volume

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 20, "X": 30, "S": 3}
UNITS = {"T": "second", "Z": "micrometer", "Y": "micrometer", "X": "micrometer"}
SCALE = {"T": 2.5, "Z": 0.9, "Y": 0.108, "X": 0.108}
NAMES = ("DAPI <&'µ", "GFP", "red", "4", "five")


@pytest.fixture
def make_volume() -> Callable[..., Volume]:
    """Return a function that makes a volume of given axes and dtype with scale, units, position and channels."""

    def make(axes: str = "ZYX", dtype: Any = "uint16", sizes: dict[str, int] | None = None, **options: Any) -> Volume:
        lengths = SIZES | (sizes or {})
        rng = np.random.default_rng(3)
        image = (rng.random([lengths[a] for a in axes]) * 200).astype(dtype)
        fields: dict[str, Any] = {
            "scale": tuple(SCALE.get(a, 1.0) for a in axes),
            "units": tuple(UNITS.get(a) for a in axes),
            "translate": tuple(3.0 if a in "YX" else 0.0 for a in axes),
            "name": "cells",
            "channel_names": NAMES[: lengths["C"]] if "C" in axes else (),
        }
        return Volume(image, axes, **(fields | options))

    return make
