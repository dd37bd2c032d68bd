"""Buttons, progress, time left and the loss curve."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_ssdenoise.widgets._form import add_row, form_layout
from napari_ssdenoise.widgets._recipes import RecipeButton
from napari_ssdenoise.widgets._reports import ReportSection

QUICK_SECONDS = 10.0
QUALITY_HEIGHT = 140  # pixels: with a long report, all of the panel should still fit on a small screen
PREVIEWS = {"whole": "whole view", "half": "right half of the view", "off": "off"}
_CURVE_POINTS = 300
_ERROR_COLOR = "#d4494c"


class LossCurve(QWidget):
    """The training loss over the steps, smoothed; made when it is first needed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text_color, self.line_color = "#f0f1f2", "#4fb3ff"
        self._plot: Any = None
        self._steps: list[int] = []
        self._losses: list[float] = []
        self.setFixedHeight(138)
        self.setVisible(False)

    def clear(self) -> None:
        """Begin a new curve."""
        self._steps, self._losses = [], []
        if self._plot is None:
            self._make_plot()
        self._paint()
        self._curve.setData([], [])
        self._dots.setData([], [])

    def add(self, step: int, loss: float) -> None:
        """Take in a step; `draw` shows it."""
        self._steps.append(step)
        self._losses.append(loss)

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

    def _make_plot(self) -> None:
        # Importing pyqtgraph replaces the hooks that bring napari's users their error messages.
        hooks = sys.excepthook, threading.excepthook
        import pyqtgraph

        sys.excepthook, threading.excepthook = hooks
        self._plot = plot = pyqtgraph.PlotWidget(parent=self, background=None)
        plot.setMenuEnabled(False)
        plot.setMouseEnabled(False, False)
        plot.hideButtons()
        plot.setLabel("bottom", "step")
        plot.setLabel("left", "loss")
        plot.getPlotItem().setContentsMargins(0, 0, 0, 5)  # else what hangs below the line of the label is cut off
        plot.getPlotItem().showGrid(y=True, alpha=0.15)
        self._dots = plot.plot([], [], pen=None, symbol="o", symbolSize=3, symbolPen=None)
        self._curve = plot.plot([], [])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(plot)

    def _paint(self) -> None:
        """Take on the colours of the viewer's theme."""
        import pyqtgraph

        for side in ("bottom", "left"):
            axis = self._plot.getAxis(side)
            axis.setPen(self.text_color)
            axis.setTextPen(self.text_color)
            axis.setStyle(maxTickLevel=0)
            axis.enableAutoSIPrefix(False)
        faint = pyqtgraph.mkColor(self.text_color)
        faint.setAlpha(110)
        self._dots.setSymbolBrush(faint)
        self._curve.setPen(pyqtgraph.mkPen(self.line_color, width=2))


def _smoothed(losses: np.ndarray) -> np.ndarray:
    """Return a running average that forgets over a twentieth of the curve."""
    weight = min(1.0, max(0.05, 20 / max(1, len(losses))))
    smooth = np.empty_like(losses)
    value = losses[0]
    for i, loss in enumerate(losses):
        value += max(weight, 1 / (i + 1)) * (loss - value)
        smooth[i] = value
    return smooth


class StatusPanel(QWidget):
    """What a check says, a progress bar and a sentence about what goes on; subclasses lay them out."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.check = QLabel()
        self.check.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.bar.setVisible(False)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.say("")

    def say(self, text: str, error: bool = False) -> None:
        """Show a sentence."""
        _show(self.status, text, error)

    def say_check(self, text: str, error: bool = False) -> None:
        """Show what the check of the input says."""
        _show(self.check, text, error)

    def set_progress(self, fraction: float | None, text: str = "") -> None:
        """Show a share of the work; None hides the bar, and a negative one means that nobody knows."""
        self.bar.setVisible(fraction is not None)
        self.bar.setRange(0, 0 if fraction is not None and fraction < 0 else 1000)
        if fraction is not None and fraction >= 0:
            self.bar.setValue(round(1000 * fraction))
        self.bar.setFormat(text)


class RunPanel(StatusPanel):
    """Start, watch, stop, apply, keep."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.train = QPushButton("Train")
        self.train.setToolTip("Learn to denoise from the image itself. Stop at any time: what is learned is kept.")
        self.quick = QPushButton("Quick look")
        self.quick.setToolTip(
            f"See in {QUICK_SECONDS:g} seconds what denoising can do, with the simplest method and no settings. "
            "A training gives better results."
        )
        self.curve = LossCurve()
        self.preview = QComboBox()
        for key, label in PREVIEWS.items():
            self.preview.addItem(label, key)
        self.preview.setToolTip("While it trains, a second layer shows the slice in view as it would become.")
        self.uncertainty = QCheckBox("Also make an uncertainty layer")
        self.uncertainty.setToolTip(
            "A second layer with the standard deviation of every pixel's estimate, in the image's units: the true "
            "value lies within two of them in about 95 of 100 pixels."
        )
        self.quality = ReportSection("Quality", most=QUALITY_HEIGHT)
        self.fit = ReportSection("This image", most=QUALITY_HEIGHT)
        self.apply = QPushButton("Apply")
        self.apply.setToolTip("Denoise the chosen image into a new layer.")
        self.apply_to_file = QPushButton("Apply to file…")
        self.apply_to_file.setToolTip("Denoise into an OME-Zarr, for images of any size. A stopped run goes on later.")
        self.save = QPushButton("Save model…")
        self.load = QPushButton("Load model…")
        self.copy_as = RecipeButton()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        preview_row = form_layout()
        add_row(preview_row, "Live preview of", self.preview)
        layout.addLayout(preview_row)
        layout.addWidget(self.check)
        layout.addLayout(button_row(self.quick, self.train))
        for item in (self.bar, self.status, self.curve, self.quality, self.fit, self.uncertainty):
            layout.addWidget(item)
        layout.addLayout(button_row(self.apply, self.apply_to_file))
        layout.addLayout(button_row(self.save, self.load, self.copy_as))
        self.uncertainty.setVisible(False)

    def make_room(self, needed: bool) -> None:
        """Fold the reports and hide the curve, or show the curve again."""
        if needed:
            for report in (self.quality, self.fit):
                report.section.collapse(animate=False)
        self.curve.show_if_drawn(not needed)

    def set_colors(self, text: str, accent: str) -> None:
        """Take on the colours of the viewer's theme."""
        self.curve.text_color = text
        self.train.setStyleSheet(main_button(accent))


def main_button(accent: str) -> str:
    """Return the style of the button that people come for, in the colour of the viewer's theme."""
    return f"QPushButton:enabled {{ background-color: {accent}; font-weight: bold; }}"


def describe_seconds(seconds: float) -> str:
    """Write a duration as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _show(label: QLabel, text: str, error: bool) -> None:
    label.setText(text)
    label.setStyleSheet(f"color: {_ERROR_COLOR};" if error else "")
    label.setVisible(bool(text))


def button_row(*buttons: QPushButton) -> QHBoxLayout:
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button, 1)
    return row
