"""What a saved model must say of itself before it is used: the right kinds of values, finite, and of one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from napari_ssdenoise.axes import AXES, Channels, Layout

if TYPE_CHECKING:
    import torch

    from napari_ssdenoise.algorithms import Conditions
    from napari_ssdenoise.geometry import Geometry
    from napari_ssdenoise.normalize import Normalization

# No training comes near, and products of a few such numbers are still finite in float32.
LARGEST_WEIGHT = 1e9
LARGEST_VALUE = 1e30  # of a normalisation, and of what divides by it: results stay finite in float32


def check_geometry(geometry: Geometry) -> None:
    """Check which images a network is for.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    _require(isinstance(geometry.spatial, str), "its spatial axes are no text")
    Layout(geometry.spatial, geometry.spatial)
    _require(_is_count(geometry.n_channels) and geometry.n_channels > 0, "it has no number of channels")
    _require(
        geometry.channels in get_args(Channels), f"it treats channels in an unknown way: {geometry.channels!r:.40}"
    )
    _require(len(geometry.pooled) == len(geometry.spatial), "its axes and what it halves of them differ in number")


def check_normalization(normalization: Normalization) -> None:
    """Check that intensities can be brought to the network's range and back.

    Raises
    ------
    ValueError
        If a value is no finite number, a deviation is zero or next to it, or their numbers differ.
    """
    mean, std = normalization.mean, normalization.std
    _require(len(mean) == len(std) > 0, "its normalisation has not as many means as deviations")
    _require(
        all(_is_number(value) and abs(value) <= LARGEST_VALUE for value in mean),
        "its normalisation has a mean that is none",
    )
    _require(
        all(_is_number(value) and 1 / LARGEST_VALUE <= value <= LARGEST_VALUE for value in std),
        "its normalisation has a deviation that is none",
    )
    _require(_is_number(normalization.low) and _is_number(normalization.high), "its range of values is none")


def check_network(network: Any, conditions: Conditions) -> None:
    """Check a network's weights, and what it is told about the noise.

    Raises
    ------
    ValueError
        If a weight is not finite, or the network is told more or less than it listens to.
    """
    tensors: Mapping[str, torch.Tensor] = network.state_dict()
    for name, value in tensors.items():
        sound = bool((value.abs() <= LARGEST_WEIGHT).all())  # not so for NaN
        _require(sound, f"its weights {name!r} hold values that are not finite, or too large to compute with")
    wanted = getattr(network, "conditions", 0)
    _require(bool(conditions) or not wanted, "it does not say what its network is told about the noise")
    for told in conditions:
        _require(len(told) == wanted, f"its network is told {len(told)} values about the noise, but knows {wanted}")
        sound = all(abs(value) <= LARGEST_WEIGHT for value in told)  # not so for NaN
        _require(sound, "what its network is told about the noise is not finite, or too large to compute with")


def check_record(record: Any) -> None:
    """Check what a model says about its training, as far as programs rely on it.

    Raises
    ------
    ValueError
        If a part is of another kind than this package writes.
    """
    _require(isinstance(record, Mapping), "its record of the training is none")
    for data in _list(record, "data"):
        _require(isinstance(data, Mapping), "its record does not list the images it was trained on")
        axes, shape = data.get("axes"), data.get("shape")
        _require(isinstance(axes, str) and set(axes) <= set(AXES), "its record names an image's axes wrongly")
        _require(
            isinstance(shape, list) and len(shape) == len(axes) and all(map(_is_count, shape)),
            "its record gives an image a shape that does not fit its axes",
        )
        _require(all(map(_is_number, _list(data, "scale"))), "its record gives an image pixels of no size")
        known = all(unit is None or isinstance(unit, str) for unit in _list(data, "units"))
        _require(known, "its record gives an image units that are no words")
        _require({"name", "dtype"} <= set(data), "its record does not say which images it was trained on")
        try:
            np.dtype(data["dtype"])
        except TypeError:
            raise ValueError("its record gives an image a kind of pixels that there is not") from None
    for name in ("loss", "held_out"):
        for point in _list(record, name):
            _require(
                isinstance(point, list) and len(point) == 3 and all(map(_is_number, point)),
                f"its curve {name!r} is none",
            )
    for name in ("chosen", "remarks"):
        _require(all(isinstance(item, str) for item in _list(record, name)), f"its record has a wrong {name!r}")
    _require(_is_number(record.get("seconds", 0.0)), "its record has no duration")


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    found = record.get(name, [])
    _require(isinstance(found, list), f"its record has no list {name!r}")
    return list(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(holds: bool, wrong: str) -> None:
    if not holds:
        raise ValueError(wrong)
