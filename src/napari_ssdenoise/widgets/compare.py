"""The Compare dock widget: before and after in one view, what was taken away, and values along a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Image, Shapes
from napari.utils import Colormap
from napari.utils.notifications import show_error
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton, QSlider, QWidget

from napari_ssdenoise.metrics import FRC_THRESHOLD, RingCorrelation, frc
from napari_ssdenoise.widgets._colors import Tone, set_tone
from napari_ssdenoise.widgets._compare_views import ProfilePlot, Slice, SplitView
from napari_ssdenoise.widgets._comparing import (
    STRUCTURE,
    along_line,
    difference,
    neighbour_correlation,
    residual_in_words,
    rings_in_words,
    symmetric_limits,
)
from napari_ssdenoise.widgets._docked import DockedWidget
from napari_ssdenoise.widgets._form import add_row, button_row, form_layout, stack
from napari_ssdenoise.widgets._job import Newest
from napari_ssdenoise.widgets._layer_box import LayerBox
from napari_ssdenoise.widgets._layers import layer_array, place
from napari_ssdenoise.widgets._reports import WrappedText, problem

DIVERGING = Colormap([[0.1, 0.35, 0.7, 1], [0.97, 0.97, 0.97, 1], [0.75, 0.1, 0.15, 1]], name="blue to red")
STEPS = 200  # of the slider
REDRAW_MS = 60


class CompareWidget(DockedWidget):
    """Compare a layer with what was made of it.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.before, self.after = LayerBox(napari_viewer), LayerBox(napari_viewer)
        self.split, self.slider = QCheckBox("Before left, after right of:"), QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setValue(STEPS // 2)
        self.residual, self.profile = QPushButton("Residual"), QPushButton("Line profile")
        self.rings = QPushButton("FRC curve")
        self.residual.setToolTip("A layer of what was taken away: blue below, red above 0. It should be noise alone.")
        self.profile.setToolTip("Values along the first line of a Shapes layer, before and after.")
        self.rings.setToolTip("Fourier ring correlation of the slices in view: down to which detail the two agree.")
        self.text, self.plot = WrappedText(), ProfilePlot()
        self.view = SplitView(napari_viewer)
        self.reading, self.splitting = Newest(self), Newest(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self._draw)
        top = QWidget()
        form = form_layout(top)
        add_row(form, "Before", self.before)
        add_row(form, "After", self.after)
        panel = QWidget()
        buttons = button_row(self.residual, self.profile, self.rings)
        stack(panel, self.split, self.slider, buttons, self.text, self.plot)
        self.arrange((top,), panel)
        self.split.toggled.connect(self._toggle)
        self.slider.valueChanged.connect(self._later)
        for box in (self.before, self.after):
            box.layer_changed.connect(self._restart)
        self.residual.clicked.connect(lambda: self._try(self.add_residual))
        self.profile.clicked.connect(lambda: self._try(self.show_profile))
        self.rings.clicked.connect(lambda: self._try(self.show_rings))
        self.reading.failed.connect(self._tell)
        self.splitting.failed.connect(self._fail_split)
        for work in (self.reading, self.splitting):
            work.ended.connect(self._end)
        self._events = (napari_viewer.dims.events.current_step, napari_viewer.dims.events.order)
        for event in self._events:
            event.connect(self._later)
        self.paint()
        self._guess()

    @property
    def working(self) -> bool:
        """Whether something is read in another thread."""
        return self.reading.job is not None or self.splitting.job is not None

    def let_go(self) -> None:
        """Take the split view away, and listen to the viewer no longer."""
        self._timer.stop()
        self.reading.forget()
        self.splitting.forget()
        super().let_go()
        for event in self._events:
            event.disconnect(self._later)
        for box in (self.before, self.after):
            box.disconnect_viewer()
        self.view.remove()

    def add_residual(self) -> None:
        """Add a layer of what was taken away, and say whether there is structure in it."""
        before, after = self._pair()
        taken = difference(before, after)
        region = Slice.in_view(self.viewer, before).region

        def look() -> tuple[tuple[float, float], float]:
            return symmetric_limits(taken), neighbour_correlation(np.squeeze(taken[region]))

        def show(limits: tuple[float, float], found: float) -> None:
            options = {"colormap": DIVERGING, "contrast_limits": limits, "multiscale": False, "rgb": False}
            self.viewer.layers.append(Image(taken, name=f"{after.name} residual", **options, **place(before)))
            self.say(residual_in_words(found), warning=found > STRUCTURE)

        self._read(look, lambda found: show(*found))

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
        wanted = {}
        for layer in self._pair():
            if layer.rgb:
                raise ValueError("Colour images have no single value along a line. Choose other layers.")
            seen = Slice.in_view(self.viewer, layer)
            shown = [d for d, s in enumerate(seen.region) if s.stop - s.start > 1]
            start, stop = (
                np.asarray(layer.world_to_data(self._world(shape, end)[-layer.ndim :]))[shown] for end in ends
            )
            wanted[layer.name] = (seen, start, stop)

        def look() -> dict[str, Any]:
            return {
                name: along_line(np.squeeze(seen.read()), start, stop) for name, (seen, start, stop) in wanted.items()
            }

        self._read(look, self._plot_lines)

    def show_rings(self) -> None:
        """Plot the Fourier ring correlation of the slices in view, and say what it means."""
        before, after = self._pair()
        difference(before, after)  # refuses what cannot be compared
        seen = Slice.in_view(self.viewer, before)
        result = replace(seen, array=layer_array(after))
        shown = [d for d in range(before.ndim) if seen.region[d].stop - seen.region[d].start > 1]
        scale, unit = [float(before.scale[d]) for d in shown], str(before.units[seen.across])
        related = after.metadata.get("ssdenoise", {}).get("source") == before.name

        def look() -> RingCorrelation:
            return frc(np.squeeze(seen.read()), np.squeeze(result.read()), scale=scale)

        def show(found: RingCorrelation) -> None:
            frequencies = np.asarray(found.frequencies)
            curves = {
                "1/7": (frequencies[[0, -1]], np.full(2, FRC_THRESHOLD)),
                "correlation": (frequencies, np.asarray(found.correlation)),
            }
            self._plot_lines(curves, (f"cycles per {unit}", "correlation"))
            self.say(rings_in_words(found.resolution(), unit, related=related), warning=related)

        self._read(look, show)

    def say(self, text: str, *, warning: bool = False) -> None:
        """Show a sentence."""
        set_tone(self.text, Tone.UNSURE if warning else None)
        self.text.setText(text)

    def _plot_lines(self, lines: dict[str, Any], *axes: tuple[str, str]) -> None:
        self.plot.show_lines(lines, *axes)

    def _read(self, look: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Read and compute in another thread, then show what was found."""

        def present(found: Any) -> None:
            self.say("")
            show(found)

        self.say("Reading…")
        self.reading.ask(look, present)
        self._enable()

    def _end(self) -> None:
        self._enable()
        self.leave()

    def _enable(self) -> None:
        for button in (self.residual, self.profile, self.rings):
            button.setEnabled(self.reading.job is None)

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
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        self.say(problem(error), warning=True)
        show_error(problem(error))

    def _toggle(self, on: bool) -> None:
        if on:
            self._try(self._split)
        else:
            self.splitting.forget()
            self.view.remove()

    def _restart(self) -> None:
        if self.split.isChecked():
            self.splitting.forget()
            self.view.remove()
            self.say("")
            self._later()

    def _later(self, _: Any = None) -> None:
        if self.split.isChecked() and not self._timer.isActive():
            self._timer.start()

    def _draw(self) -> None:
        """Go with the slider and the slice in view."""
        if self.view.layer is not None and not self.view.alive:  # deleted by hand
            self.split.setChecked(False)
        elif self.split.isChecked():
            try:
                self._split()
            except ValueError as refusal:  # one of the layers is gone, which nobody need be told twice
                self.say(problem(refusal), warning=True)

    def _split(self) -> None:
        """Move the boundary at once, and have the slice read that is in view now."""
        before, after = self._pair()
        seen = Slice.in_view(self.viewer, after)
        self.view.cut(self._share)
        self.splitting.ask(seen.read, lambda plane: self.view.show(before, after, seen, plane, self._share))

    def _fail_split(self, error: Exception) -> None:
        self.split.setChecked(False)
        self._tell(error)

    @property
    def _share(self) -> float:
        return self.slider.value() / STEPS
