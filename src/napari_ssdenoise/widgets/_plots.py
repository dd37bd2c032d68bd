"""Plots in the colours of the viewer's theme; pyqtgraph is imported with the first of them."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_ssdenoise.widgets._colors import Colors, Painted

_CURVE_POINTS = 300


class Plot(Painted):
    """A plot that is made when it is first needed, and hidden until then.

    Parameters
    ----------
    height
        In pixels.
    """

    def __init__(self, height: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._plot: Any = None
        self.setFixedHeight(height)
        self.setVisible(False)

    def set_up(self, plot: Any) -> None:
        """Name the axes of a new ``PlotWidget``, and the like."""
        raise NotImplementedError

    def recolor(self) -> None:
        """Show what is known in the colours as they are now; what is hidden stays so."""
        raise NotImplementedError

    def paint(self, colors: Colors) -> None:
        super().paint(colors)
        if self._plot is not None:
            self.recolor()

    def painted(self) -> Any:
        """Return the ``PlotWidget``, in the text colour as it is now."""
        if self._plot is None:
            self._plot = self._make_plot()
            self.set_up(self._plot)
        self._plot.resetCachedContent()  # what is behind it, in the colour of another theme
        for side in ("bottom", "left"):
            axis = self._plot.getAxis(side)
            axis.setPen(self.colors.text)
            axis.setTextPen(self.colors.text)
        legend = self._plot.getPlotItem().legend
        if legend is not None:
            legend.setLabelTextColor(self.colors.text)
        return self._plot

    def _make_plot(self) -> Any:
        # Importing pyqtgraph replaces the hooks that bring napari's users their error messages.
        hooks = sys.excepthook, threading.excepthook
        import pyqtgraph

        sys.excepthook, threading.excepthook = hooks
        plot = pyqtgraph.PlotWidget(parent=self, background=None)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.getPlotItem().setContentsMargins(0, 0, 0, 5)  # else what hangs below the line of the label is cut off
        for side in ("bottom", "left"):
            plot.getAxis(side).enableAutoSIPrefix(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(plot)
        return plot


class LossCurve(Plot):
    """The training loss over the steps, smoothed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(138, parent)
        self._steps: list[int] = []
        self._losses: list[float] = []

    def set_up(self, plot: Any) -> None:
        plot.setMouseEnabled(False, False)
        plot.setLabel("bottom", "step")
        plot.setLabel("left", "loss")
        plot.getPlotItem().showGrid(y=True, alpha=0.15)
        for side in ("bottom", "left"):
            plot.getAxis(side).setStyle(maxTickLevel=0)
        self._dots = plot.plot([], [], pen=None, symbol="o", symbolSize=3, symbolPen=None)
        self._curve = plot.plot([], [])

    def clear(self) -> None:
        """Begin a new curve."""
        self._steps, self._losses = [], []
        self.recolor()
        self._curve.setData([], [])
        self._dots.setData([], [])

    def add(self, step: int, loss: float) -> None:
        """Take in a step; `draw` shows it."""
        self._steps.append(step)
        self._losses.append(loss)

    def recolor(self) -> None:
        self.painted()
        import pyqtgraph

        faint = pyqtgraph.mkColor(self.colors.text)
        faint.setAlpha(110)
        self._dots.setSymbolBrush(faint)
        self._curve.setPen(pyqtgraph.mkPen(self.colors.curve, width=2))

    def draw(self) -> None:
        """Show what came in."""
        if self._plot is None or len(self._steps) < 2:
            return
        steps, losses = self.points()
        smooth = _smoothed(losses)
        self._dots.setData(steps, losses)
        self._curve.setData(steps, smooth)
        # The first steps are far above all others; the curve is about those.
        low, high = np.percentile(losses, (0, 90))
        margin = 0.15 * max(float(high - low), 1e-6)
        self._plot.setYRange(float(low) - margin, float(max(high, smooth[-1])) + margin, padding=0)
        self.setVisible(True)

    def show_if_drawn(self, wanted: bool) -> None:
        """Show the curve if there is one and it is wanted, or hide it."""
        self.setVisible(wanted and self._plot is not None and len(self._steps) > 1)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return steps and losses, averaged to as many points as can be seen."""
        size = max(1, -(-len(self._steps) // _CURVE_POINTS))
        starts = range(0, len(self._steps), size)
        steps = np.array([np.mean(self._steps[i : i + size]) for i in starts])
        losses = np.array([np.mean(self._losses[i : i + size]) for i in starts])
        return steps, losses


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """Return a running average that forgets over a twentieth of the curve."""
    weight = min(1.0, max(0.05, 20 / max(1, len(losses))))
    smooth = np.empty_like(losses)
    value = losses[0]
    for i, loss in enumerate(losses):
        value += max(weight, 1 / (i + 1)) * (loss - value)
        smooth[i] = value
    return smooth
