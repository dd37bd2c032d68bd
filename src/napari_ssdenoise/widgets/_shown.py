"""The layers that we add to the viewer: the live preview and the results that fill in."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from numpy.typing import NDArray

from napari_ssdenoise.axes import Region
from napari_ssdenoise.widgets._layers import PREVIEW_KEY, Pixels, clip_region, file_metadata, layer_array, look, place

UNFINISHED = "(unfinished)"
DRAWING_SHARE = 0.25  # of the event loop's time, at most, for a layer that fills


def visible_region(viewer: Viewer, layer: Image, half: bool = False, pixels: int = 512 * 512) -> Region | None:
    """Return the part of a layer that is in view, along its data's dimensions; all of the samples of RGB.

    Parameters
    ----------
    viewer, layer
        Where the layer is shown; None is returned if it is not.
    half
        Take the right half only.
    pixels
        At most so many, around the middle.
    """
    if layer not in viewer.layers:
        return None
    shape = layer_array(layer).shape
    point = np.rint(layer.world_to_data(viewer.dims.point)).astype(int)
    region = [slice(i, i + 1) for i in (int(np.clip(p, 0, n - 1)) for p, n in zip(point, shape, strict=False))]
    offset = viewer.dims.ndim - layer.ndim
    shown = [d - offset for d in viewer.dims.displayed[-2:]]
    if min(shown) < 0:
        return None
    corners = np.asarray(layer.corner_pixels, float)
    if layer.multiscale:
        corners = corners * layer.downsample_factors[layer.data_level][: layer.ndim]
    for d in shown:
        start, stop = int(corners[0, d]), int(np.ceil(corners[1, d])) + 1
        whole = stop - start < 2 or viewer.dims.ndisplay == 3  # not drawn yet, or seen from anywhere
        region[d] = slice(0, shape[d]) if whole else slice(max(0, start), min(stop, shape[d]))
    if half:
        last = region[shown[1]]
        region[shown[1]] = slice((last.start + last.stop) // 2, last.stop)
    _limit(region, shown, pixels)
    if any(s.stop - s.start < 1 for s in region):
        return None
    return clip_region((*region, slice(0, 3)) if layer.rgb else tuple(region), shape)


def _limit(region: list[slice], shown: list[int], pixels: int) -> None:
    """Cut a region around its middle, its longer side first, until it has few enough pixels."""
    short, long = sorted(shown, key=lambda d: region[d].stop - region[d].start)
    for d, other in ((long, short), (short, long)):
        most = max(32, pixels // max(1, region[other].stop - region[other].start))
        side = int(pixels**0.5)
        most = max(most, side) if d == long else most
        size = region[d].stop - region[d].start
        if size > most:
            start = region[d].start + (size - most) // 2
            region[d] = slice(start, start + most)


def _set_limits(layer: Image, limits: tuple[float, float]) -> None:
    """Show contrast limits, with a range around them that leaves the sliders room."""
    room = limits[1] - limits[0]
    # The range may not exclude the limits at any moment.
    low, high = layer.contrast_limits_range
    layer.contrast_limits_range = (min(low, limits[0]), max(high, limits[1]))
    layer.contrast_limits = limits
    layer.contrast_limits_range = (limits[0] - 0.25 * room, limits[1] + room)


class AddedLayer:
    """A layer of ours: exactly on its source, and looking like it. People may delete it at any time.

    Parameters
    ----------
    viewer, source
        Where it is shown, and on what.
    pixels
        If they are smaller than the source's.
    """

    def __init__(self, viewer: Viewer, source: Image, pixels: Pixels | None = None) -> None:
        self.viewer = viewer
        self.source = source
        self.pixels = pixels
        self.layer: Image | None = None
        self._limits: tuple[float, float] | None = None
        self._stale = False
        self._rest = 0.0  # no redrawing before

    @property
    def alive(self) -> bool:
        """Whether the layer is in the viewer."""
        return self.layer is not None and self.layer in self.viewer.layers

    def add(self, data: Any, name: str, limits: tuple[float, float], *, select: bool, **options: Any) -> None:
        """Put it into the viewer, on top: earlier results must not hide it."""
        layers, active = self.viewer.layers, self.viewer.layers.selection.active
        everything = {
            **place(self.source, pixels=self.pixels),
            **look(self.source),
            "blending": self.source.blending,
            **options,
            "metadata": file_metadata(self.source) | options.get("metadata", {}),
        }
        if not self.source.rgb:
            everything["contrast_limits"] = limits
        self.layer = Image(data, name=name, **everything)
        if not self.source.rgb:
            _set_limits(self.layer, limits)
        self._limits = limits
        layers.append(self.layer)
        if not select and active is not None and active in layers:
            layers.selection.active = active

    def set_limits(self, limits: tuple[float, float] | None) -> None:
        """Show other contrast limits, unless people chose some themselves."""
        if limits is None or self.layer is None or self.layer.rgb:
            return
        if self._limits is not None and not np.allclose(self.layer.contrast_limits, self._limits):
            return
        self._limits = limits
        _set_limits(self.layer, limits)

    def touch(self) -> None:
        """Note that data has changed; `refresh` shows it."""
        self._stale = True

    def refresh(self, *, now: bool = False) -> None:
        """Redraw if data has changed: costly, so called by a slow timer, and in a bounded share of the time.

        Parameters
        ----------
        now
            However much time it took before.
        """
        started = time.perf_counter()
        if self._stale and (now or started >= self._rest) and self.alive and self.layer is not None:
            self._stale = False
            self.layer.refresh(extent=False, thumbnail=False)
            ended = time.perf_counter()
            self._rest = ended + (ended - started) * (1 / DRAWING_SHARE - 1)

    def remove(self) -> None:
        """Take it out of the viewer."""
        if self.alive and self.layer is not None:
            self.viewer.layers.remove(self.layer)
        self.layer = None


class PreviewLayer(AddedLayer):
    """The part in view, as it would become."""

    _steady = 0.03  # contrast limits that move by less than this share of their range stay, against flicker

    def show(self, image: NDArray[Any], region: Region, limits: tuple[float, float]) -> None:
        """Show another image, exactly on its place."""
        if self.source not in self.viewer.layers:
            return
        origin = [s.start for s in region[: self.source.ndim]]
        translate = place(self.source, origin, self.pixels)["translate"]
        if self.layer is None:
            # Additive blending would add the preview to the noise below it.
            options = {"blending": "translucent_no_depth", "metadata": {PREVIEW_KEY: True}, "translate": translate}
            self.add(image, f"{self.source.name} preview", limits, select=False, **options)
            return
        if not self.alive:
            return
        self.layer.data = image
        if not np.array_equal(self.layer.translate, translate):
            self.layer.translate = translate
        low, high = self.layer.contrast_limits
        if max(abs(low - limits[0]), abs(high - limits[1])) > self._steady * (high - low):
            self.set_limits(limits)


class ResultLayer(AddedLayer):
    """A denoised image that fills in while it is computed."""

    def mark(self) -> None:
        """Say in its name that it is a part."""
        if self.alive and self.layer is not None and UNFINISHED not in self.layer.name:
            self.layer.name = f"{self.layer.name} {UNFINISHED}"

    def finish(self, levels: tuple[Any, ...], limits: tuple[float, float] | None) -> None:
        """Show a finished file in place of the filling one, as people have set it meanwhile."""
        if not self.alive or self.layer is None:
            return
        self.set_limits(limits)
        before, layers = self.layer, self.viewer.layers
        options = {
            **place(before),
            **look(before),
            "blending": before.blending,
            "opacity": before.opacity,
            "visible": before.visible,
            "metadata": before.metadata,
        }
        if not before.rgb:
            options["contrast_limits"] = before.contrast_limits
        several = len(levels) > 1
        after = Image(list(levels) if several else levels[0], name=before.name, multiscale=several, **options)
        if not before.rgb:
            after.contrast_limits_range = before.contrast_limits_range
        index, active = layers.index(before), layers.selection.active
        layers.remove(before)
        after.name = before.name
        layers.insert(index, after)
        if active != before and active in layers:
            layers.selection.active = active
        self.layer = after
