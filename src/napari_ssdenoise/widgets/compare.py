"""The Compare dock widget: before and after in one view, what was taken away, and values along a line."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from napari.utils import Colormap
from napari.utils.notifications import show_error
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_ssdenoise.widgets._comparing import (
    STRUCTURE,
    along_line,
    difference,
    neighbour_correlation,
    symmetric_limits,
)
from napari_ssdenoise.widgets._docked import DockedWidget
from napari_ssdenoise.widgets._form import add_row, form_layout
from napari_ssdenoise.widgets._layer_box import LayerBox
from napari_ssdenoise.widgets._layers import PREVIEW_KEY, layer_array, place
from napari_ssdenoise.widgets._reports import UNSURE, WrappedText, problem
from napari_ssdenoise.widgets._run_panel import button_row

DIVERGING = Colormap([[0.1, 0.35, 0.7, 1], [0.97, 0.97, 0.97, 1], [0.75, 0.1, 0.15, 1]], name="blue to red")
STEPS = 200  # of the slider
REDRAW_MS = 60


class SplitView:
    """A layer on top that shows the right part of the result's slice in view; left of it, one sees the noisy layer."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.layer: Image | None = None
        self._hidden: Image | None = None

    @property
    def alive(self) -> bool:
        """Whether it is in the viewer."""
        return self.layer is not None and self.layer in self.viewer.layers

    def show(self, before: Image, after: Image, share: float) -> None:
        """Show the result right of a share of the width."""
        region, across = self._slice(after)
        plane = np.asarray(layer_array(after)[region])
        cut = min(round(share * plane.shape[across]), plane.shape[across] - 1)
        part = np.take(plane, range(cut, plane.shape[across]), axis=across)
        origin = [s.start or 0 for s in region[: after.ndim]]
        origin[across] = cut
        where = place(after, origin)["translate"]
        if self.alive and self.layer is not None:
            self.layer.data = part
            self.layer.translate = where
            return
        before.visible = True
        if after.visible:
            after.visible, self._hidden = False, after
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

    def remove(self) -> None:
        """Take it away, and show the result again."""
        if self.alive and self.layer is not None:
            self.viewer.layers.remove(self.layer)
        if self._hidden is not None and self._hidden in self.viewer.layers:
            self._hidden.visible = True
        self.layer = self._hidden = None

    def _slice(self, layer: Image) -> tuple[tuple[slice, ...], int]:
        """Return the slice in view, whole in the dimensions that are displayed, and the one that runs to the right."""
        dims, shape = self.viewer.dims, layer_array(layer).shape
        offset = dims.ndim - layer.ndim
        point = np.rint(layer.world_to_data(dims.point[offset:])).astype(int)
        shown = [d - offset for d in dims.displayed[-2:]]
        region = [
            slice(0, n) if d in shown or d >= layer.ndim else slice(i := int(np.clip(point[d], 0, n - 1)), i + 1)
            for d, n in enumerate(shape)
        ]
        return tuple(region), shown[1]


class ProfilePlot(QWidget):
    """Values along a line, before and after; made when it is first needed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._plot: Any = None
        self.setFixedHeight(170)
        self.setVisible(False)

    def show_lines(self, lines: dict[str, tuple[NDArray[Any], NDArray[Any]]], text: str, accent: str) -> None:
        """Show distances and values by name; the first one faint."""
        if self._plot is None:
            self._make_plot()
        import pyqtgraph

        self._plot.clear()
        for side in ("bottom", "left"):
            axis = self._plot.getAxis(side)
            axis.setPen(text)
            axis.setTextPen(text)
            axis.enableAutoSIPrefix(False)
        self._plot.getPlotItem().legend.setLabelTextColor(text)
        faint = pyqtgraph.mkColor(text)
        faint.setAlpha(120)
        for i, (name, (distances, values)) in enumerate(lines.items()):
            pen = pyqtgraph.mkPen(faint, width=1) if i == 0 else pyqtgraph.mkPen(accent, width=2)
            self._plot.plot(distances, values, pen=pen, name=name)
        self.setVisible(True)

    def _make_plot(self) -> None:
        # Importing pyqtgraph replaces the hooks that bring napari's users their error messages.
        hooks = sys.excepthook, threading.excepthook
        import pyqtgraph

        sys.excepthook, threading.excepthook = hooks
        self._plot = plot = pyqtgraph.PlotWidget(parent=self, background=None)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setLabel("bottom", "pixels along the line")
        plot.setLabel("left", "value")
        plot.addLegend(offset=(-4, 4))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(plot)


class CompareWidget(DockedWidget):
    """Compare a layer with what was made of it.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = napari_viewer
        self.before, self.after = LayerBox(napari_viewer), LayerBox(napari_viewer)
        self.split, self.slider = QCheckBox("Before left, after right of:"), QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setValue(STEPS // 2)
        self.residual, self.profile = QPushButton("Residual"), QPushButton("Line profile")
        self.residual.setToolTip("A layer of what was taken away: blue below, red above 0. It should be noise alone.")
        self.profile.setToolTip("Values along the first line of a Shapes layer, before and after.")
        self.text, self.plot = WrappedText(), ProfilePlot()
        self.view = SplitView(napari_viewer)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self._draw)
        top = QWidget()
        form = form_layout(top)
        add_row(form, "Before", self.before)
        add_row(form, "After", self.after)
        panel = QWidget()
        column = QVBoxLayout(panel)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.split, self.slider):
            column.addWidget(part)
        column.addLayout(button_row(self.residual, self.profile))
        column.addWidget(self.text)
        column.addWidget(self.plot)
        self.arrange((top,), panel)
        self.split.toggled.connect(self._toggle)
        self.slider.valueChanged.connect(self._later)
        for box in (self.before, self.after):
            box.layer_changed.connect(self._restart)
        self.residual.clicked.connect(lambda: self._try(self.add_residual))
        self.profile.clicked.connect(lambda: self._try(self.show_profile))
        self._events = (napari_viewer.dims.events.current_step, napari_viewer.dims.events.order)
        for event in self._events:
            event.connect(self._later)
        self._guess()

    @property
    def working(self) -> bool:
        """Nothing runs in another thread."""
        return False

    def let_go(self) -> None:
        """Take the split view away, and listen to the viewer no longer."""
        self._timer.stop()
        for event in self._events:
            event.disconnect(self._later)
        for box in (self.before, self.after):
            box.disconnect_viewer()
        self.view.remove()

    def add_residual(self) -> Image:
        """Add a layer of what was taken away, and say whether there is structure in it."""
        before, after = self._pair()
        taken = difference(before, after)
        layer = Image(
            taken,
            name=f"{after.name} residual",
            colormap=DIVERGING,
            contrast_limits=symmetric_limits(taken),
            multiscale=False,
            rgb=False,
            **place(before),
        )
        self.viewer.layers.append(layer)
        region, _ = self.view._slice(before)
        found = neighbour_correlation(np.squeeze(taken[region]))
        self.say(
            f"Neighbouring pixels of the residual correlate by {found:.2f}: structure was taken away with the noise, "
            "or the noise itself is correlated."
            if found > STRUCTURE
            else f"Neighbouring pixels of the residual of this slice correlate by {found:.2f}, as in noise alone. "
            "Edges or shapes that you see in it all the same were taken away with the noise.",
            warning=found > STRUCTURE,
        )
        return layer

    def show_profile(self) -> None:
        """Plot the values along the first line of the topmost Shapes layer."""
        shapes = [layer for layer in self.viewer.layers if isinstance(layer, Shapes)]
        lines = [
            (layer, data)
            for layer in reversed(shapes)
            for kind, data in zip(layer.shape_type, layer.data, strict=True)
            if kind == "line"
        ]
        if not lines:
            raise ValueError("Draw a line first: add a Shapes layer, choose its line tool, and draw across the image.")
        shape, ends = lines[0]
        found = {}
        for layer in self._pair():
            if layer.rgb:
                raise ValueError("Colour images have no single value along a line. Choose other layers.")
            region, _ = self.view._slice(layer)
            shown = [d for d, s in enumerate(region) if s.stop - s.start > 1]
            start, stop = (
                np.asarray(layer.world_to_data(self._world(shape, end)[-layer.ndim :]))[shown] for end in ends
            )
            found[layer.name] = along_line(np.squeeze(np.asarray(layer_array(layer)[region])), start, stop)
        theme = get_theme(self.viewer.theme)
        self.plot.show_lines(found, theme.text.as_hex(), "#4fb3ff")

    def say(self, text: str, *, warning: bool = False) -> None:
        """Show a sentence."""
        self.text.setStyleSheet(f"color: {UNSURE};" if warning else "")
        self.text.setText(text)

    def _world(self, shape: Shapes, point: NDArray[Any]) -> NDArray[Any]:
        world = np.array(self.viewer.dims.point, float)
        world[-shape.ndim :] = shape.data_to_world(point)
        return world

    def _pair(self) -> tuple[Image, Image]:
        before, after = self.before.layer, self.after.layer
        if before is None or after is None:
            raise ValueError("Choose two layers: the image before and its result after.")
        if before == after:
            raise ValueError("Both are the same layer. Choose the noisy one before, and its result after.")
        return before, after

    def _guess(self) -> None:
        """Choose the newest result, and what it was made of; else the two topmost images."""
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        for layer in reversed(images):
            source = layer.metadata.get("ssdenoise", {}).get("source")
            made_of = next((other for other in images if other.name == source), None)
            if made_of is not None:
                self.before.set_layer(made_of)
                self.after.set_layer(layer)
                return
        if len(images) > 1:
            self.before.set_layer(images[-2])
            self.after.set_layer(images[-1])

    def _try(self, action: Any) -> None:
        try:
            action()
        except ValueError as error:
            self.say(problem(error), warning=True)
            show_error(problem(error))

    def _toggle(self, on: bool) -> None:
        if on:
            self._try(self._draw_now)
        else:
            self.view.remove()

    def _restart(self) -> None:
        if self.split.isChecked():
            self.view.remove()
            self._later()

    def _later(self, _: Any = None) -> None:
        if self.split.isChecked() and not self._timer.isActive():
            self._timer.start()

    def _draw(self) -> None:
        if self.view.layer is not None and not self.view.alive:  # deleted by hand
            self.split.setChecked(False)
        elif self.split.isChecked():
            self._try(self._draw_now)

    def _draw_now(self) -> None:
        self.view.show(*self._pair(), self.slider.value() / STEPS)
