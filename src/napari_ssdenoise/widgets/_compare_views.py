"""What the Compare widget shows: a view that is split between two layers, and curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtWidgets import QWidget

from napari_ssdenoise.volume import ArrayLike
from napari_ssdenoise.widgets._layers import PREVIEW_KEY, layer_array, place
from napari_ssdenoise.widgets._plots import Plot


@dataclass(frozen=True)
class Slice:
    """What is in view of a layer, all of it along the dimensions that are displayed.

    Attributes
    ----------
    array, region
        The layer's data, and the part of them.
    across
        The dimension that runs to the right.
    """

    array: ArrayLike
    region: tuple[slice, ...]
    across: int

    @classmethod
    def in_view(cls, viewer: Viewer, layer: Image) -> Slice:
        """Find it; nothing is read."""
        array, dims = layer_array(layer), viewer.dims
        offset = dims.ndim - layer.ndim
        point = np.rint(layer.world_to_data(dims.point[offset:])).astype(int)
        shown = [d - offset for d in dims.displayed[-2:]]
        region = [
            slice(0, n) if d in shown or d >= layer.ndim else slice(i := int(np.clip(point[d], 0, n - 1)), i + 1)
            for d, n in enumerate(array.shape)
        ]
        return cls(array, tuple(region), shown[1])

    def read(self) -> NDArray[Any]:
        """Return the pixels, with all dimensions of the layer."""
        return np.asarray(self.array[self.region])


class SplitView:
    """A layer on top that shows the right part of the result's slice in view; left of it, one sees the noisy layer."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.layer: Image | None = None
        self._shown: tuple[Image, Slice, NDArray[Any]] | None = None
        self._hidden: Image | None = None

    @property
    def alive(self) -> bool:
        """Whether it is in the viewer."""
        return self.layer is not None and self.layer in self.viewer.layers

    def show(self, before: Image, after: Image, seen: Slice, plane: NDArray[Any], share: float) -> None:
        """Show what was read of the result, right of a share of the width; nothing if one of the layers is gone."""
        if before not in self.viewer.layers or after not in self.viewer.layers:
            return
        self._shown = (after, seen, plane)
        if self.layer is not None:  # perhaps deleted by hand
            self.cut(share)
            return
        before.visible = True
        if after.visible:
            after.visible, self._hidden = False, after
        part, where = _right_of(*self._shown, share)
        options = {**place(after), "translate": where, "metadata": {PREVIEW_KEY: True}}
        if after.rgb:
            options["rgb"] = True
        else:
            # One contrast for both sides: else brightness would pass for a difference.
            options |= {"colormap": before.colormap, "contrast_limits": before.contrast_limits, "gamma": before.gamma}
        active = self.viewer.layers.selection.active
        self.layer = Image(part, name=f"{after.name} (right part)", blending="translucent_no_depth", **options)
        self.viewer.layers.append(self.layer)
        if active is not None:
            self.viewer.layers.selection.active = active

    def cut(self, share: float) -> None:
        """Show the same slice right of another share of the width, if there is one to show."""
        if self.alive and self.layer is not None and self._shown is not None:
            self.layer.data, self.layer.translate = _right_of(*self._shown, share)

    def remove(self) -> None:
        """Take it away, and show the result again."""
        if self.alive and self.layer is not None:
            self.viewer.layers.remove(self.layer)
        if self._hidden is not None and self._hidden in self.viewer.layers:
            self._hidden.visible = True
        self.layer = self._shown = self._hidden = None


def _right_of(layer: Image, seen: Slice, plane: NDArray[Any], share: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the right part of a layer's slice, and where it lies in the world."""
    width = plane.shape[seen.across]
    cut = min(round(share * width), width - 1)
    origin = [s.start for s in seen.region[: layer.ndim]]
    origin[seen.across] = cut
    return np.take(plane, range(cut, width), axis=seen.across), place(layer, origin)["translate"]


class ProfilePlot(Plot):
    """Values along a line, before and after, or another curve."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(170, parent)

    def set_up(self, plot: Any) -> None:
        plot.addLegend(offset=(-4, 4))

    def show_lines(
        self,
        lines: dict[str, tuple[NDArray[Any], NDArray[Any]]],
        axes: tuple[str, str] = ("pixels along the line", "value"),
    ) -> None:
        """Show values over something, by name; the first one faint. ``axes``: what the two are called."""
        self._lines, self._axes = lines, axes
        self.recolor()
        self.setVisible(True)

    def recolor(self) -> None:
        plot, axes = self.painted(), self._axes
        import pyqtgraph

        plot.clear()
        plot.setLabel("bottom", axes[0])
        plot.setLabel("left", axes[1])
        faint = pyqtgraph.mkColor(self.colors.text)
        faint.setAlpha(120)
        for i, (name, (distances, values)) in enumerate(self._lines.items()):
            pen = pyqtgraph.mkPen(faint, width=1) if i == 0 else pyqtgraph.mkPen(self.colors.curve, width=2)
            plot.plot(distances, values, pen=pen, name=name)
