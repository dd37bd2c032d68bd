"""Names, colours and contrast of channels: one form inside (that of ``omero`` in OME-Zarr), several outside.

``Volume.metadata["omero"]["channels"]`` holds one dict per channel with ``label``, ``color`` (six hexadecimal digits)
and ``window`` (``start``, ``end``, ``min``, ``max``), each of them optional.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_ssdenoise.volume import Volume

Channel = dict[str, Any]
_RGB = ("FF0000", "00FF00", "0000FF", "FFFFFF")
_HEX = re.compile(r"[0-9A-Fa-f]{6}")


def channels_of(volume: Volume) -> list[Channel]:
    """Return what is known about each channel: one dict per entry of axis C (else of S, else one)."""
    axis = "S" if "S" in volume.axes and "C" not in volume.axes else "C"
    count = volume.sizes.get(axis, 1)
    stored = volume.metadata.get("omero")
    listed = stored.get("channels") if isinstance(stored, dict) else None
    fits = isinstance(listed, list) and len(listed) == count and all(isinstance(c, dict) for c in listed)
    channels: list[Channel] = [dict(c) for c in listed] if fits and listed else [{} for _ in range(count)]
    if axis == "S" and not fits:
        labels = ("Red", "Green", "Blue", "Alpha")
        channels = [{"label": labels[i % 4], "color": _RGB[i % 4]} for i in range(count)]
    if axis == "C":
        for channel, name in zip(channels, volume.channel_names, strict=False):
            channel["label"] = name
    return channels


def names_in(channels: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the channels' labels if all have one, else nothing."""
    labels = [c.get("label") for c in channels]
    return tuple(str(label) for label in labels) if labels and all(labels) else ()


def color_of(channel: Mapping[str, Any]) -> str | None:
    """Return a channel's colour as six hexadecimal digits, if it has a valid one."""
    text = str(channel.get("color") or "").lstrip("#")
    return text.upper() if _HEX.fullmatch(text) else None


def window_of(channel: Mapping[str, Any]) -> dict[str, float] | None:
    """Return a channel's contrast window, complete and finite, if it has one."""
    window = channel.get("window")
    if not isinstance(window, dict):
        return None
    try:
        start, end = float(window["start"]), float(window["end"])
        low, high = float(window.get("min", start)), float(window.get("max", end))
    except (KeyError, TypeError, ValueError):
        return None
    if not np.isfinite([start, end, low, high]).all() or end <= start:
        return None
    return {"start": start, "end": end, "min": min(low, start), "max": max(high, end)}


def from_imagej(info: Mapping[str, Any], axes: str, shape: Sequence[int]) -> list[Channel]:
    """Collect channels from ImageJ's slice labels, lookup tables and display ranges.

    Slice labels are channel names if every plane of a channel carries the same one, and no two channels share it.
    """
    sizes = dict(zip(axes, shape, strict=True))
    count = sizes.get("C", 1)
    channels: list[Channel] = [{} for _ in range(count)]
    planes = int(np.prod([n for a, n in sizes.items() if a in "TZC"], dtype=np.int64))
    # A single one of something is not in a list.
    labels, luts, ranges = info.get("Labels"), info.get("LUTs"), info.get("Ranges")
    labels = [labels] if isinstance(labels, str) else labels
    luts = [luts] if isinstance(luts, np.ndarray) else luts
    if "C" in axes and isinstance(labels, list) and len(labels) == planes:
        order = [a for a in "TZC" if a in sizes]  # the order of ImageJ's planes, whatever the array's
        grid = np.array(labels, dtype=object).reshape([sizes[a] for a in order])
        by_channel = np.moveaxis(grid, order.index("C"), 0).reshape(count, -1)
        names = [set(row) for row in by_channel]
        if all(len(n) == 1 for n in names) and len(set.union(*names)) == count:
            for channel, name in zip(channels, names, strict=True):
                channel["label"] = str(next(iter(name)))
    if isinstance(luts, list) and len(luts) == count:
        for channel, lut in zip(channels, luts, strict=True):
            channel["color"] = "".join(f"{int(v):02X}" for v in np.asarray(lut)[:, -1])
    if ranges is not None and len(ranges) == 2 * count:
        for i, channel in enumerate(channels):
            channel["window"] = {"start": float(ranges[2 * i]), "end": float(ranges[2 * i + 1])}
    return channels if any(channels) else []


def to_imagej(volume: Volume) -> dict[str, Any]:
    """Return the metadata that gives ImageJ the channels' names, colours and contrast."""
    channels = channels_of(volume)
    found: dict[str, Any] = {}
    names = names_in(channels)
    planes = [n for a, n in volume.sizes.items() if a in "TZC"]
    if "C" in volume.axes and names:
        # One label a plane, in ImageJ's order T Z C.
        found["Labels"] = list(names) * (int(np.prod(planes, dtype=np.int64)) // len(names))
    colors = [color_of(c) for c in channels]
    if "C" in volume.axes and all(colors):
        ramp = np.arange(256)[None, :]
        rgb = [np.array([int(c[i : i + 2], 16) for i in (0, 2, 4)])[:, None] for c in colors if c]
        found["LUTs"] = [(ramp * c // 255).astype(np.uint8) for c in rgb]
        found["mode"] = "composite" if len(channels) <= 7 else "color"
    windows = [window_of(c) for c in channels]
    if all(windows) and "S" not in volume.axes:
        found["Ranges"] = tuple(v for w in windows if w for v in (w["start"], w["end"]))
        found |= {"min": found["Ranges"][0], "max": found["Ranges"][1]}
    return found


def ome_color(color: str) -> int:
    """Return a colour as OME-XML stores it: red, green, blue, alpha in one signed 32-bit number."""
    value = int(color + "FF", 16)
    return value - 2**32 if value >= 2**31 else value


def hex_color(ome: str | int) -> str:
    """Undo `ome_color`."""
    return f"{int(ome) % 2**32:08X}"[:6]
