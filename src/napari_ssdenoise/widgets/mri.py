"""The Reconstruct dock widget: raw MRI data in, images with their error on held-out lines out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QPushButton, QSpinBox, QWidget

from napari_ssdenoise._words import counted
from napari_ssdenoise.io.kspace import KSpace
from napari_ssdenoise.widgets._control import Control
from napari_ssdenoise.widgets._dialogs import ask_kspace
from napari_ssdenoise.widgets._docked import WorkingWidget
from napari_ssdenoise.widgets._form import add_row, button_row, form_layout, stack
from napari_ssdenoise.widgets._job import Reason
from napari_ssdenoise.widgets._kspace import Made, Reconstructing, axes_of, kspace_layer, kspace_of, read_kspace
from napari_ssdenoise.widgets._layer_box import LayerBox
from napari_ssdenoise.widgets._method_panel import device_box
from napari_ssdenoise.widgets._recipes import RecipeButton
from napari_ssdenoise.widgets._reports import Caution, WrappedText, problem
from napari_ssdenoise.widgets._run_panel import StatusPanel, describe_seconds
from napari_ssdenoise.widgets._work import Stage, Task

METHODS = {
    "auto": ("Auto", "All of the methods below; the one that best predicts lines it was not shown is taken."),
    "cs": ("Compressed sensing", "Images of which few wavelet coefficients are large. Seconds for each slice."),
    "cg-sense": ("CG-SENSE", "The image that fits what the coils measured. Noisy where many lines were skipped."),
    "zero-filled": ("Zero-filled", "What was not acquired is taken as 0. Shows what skipped lines do to an image."),
    "zs-ssdu": ("Zero-shot learning", "A network learns from the slice itself. Minutes for each slice."),
}
STEPS = 200
# Methods that learn if they are given steps.
LEARN = ("auto", "zs-ssdu")


class ReconstructRunPanel(StatusPanel):
    """Run, stop, and what came of it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.main = self.run = QPushButton("Reconstruct")
        self.stop = QPushButton("Stop")
        self.copy_as = RecipeButton()
        self.table = QLabel()
        self.table.setTextFormat(Qt.TextFormat.RichText)
        self.table.setToolTip("How far a method misses acquired lines that it was not shown, relative to their size.")
        self.table.setVisible(False)
        self.warning = Caution()
        above, below = button_row(self.run, self.stop), button_row(self.copy_as)
        stack(self, self.check, above, self.bar, self.status, self.table, self.warning, below)

    def show_errors(self, errors: dict[str, float], chosen: set[str]) -> None:
        """Show the error of each method on held-out lines; the chosen ones in bold."""
        rows = []
        for key, error in sorted(errors.items(), key=lambda item: item[1]):
            name = METHODS[key][0] if key in METHODS else key.capitalize()
            cells = [f"<b>{c}</b>" if key in chosen else c for c in (name, f"{error:.3f}")]
            rows.append("".join(f"<td style='padding-right:14px'>{cell}</td>" for cell in cells))
        head = "<tr><td>Method</td><td>Error on held-out lines</td></tr>"
        self.table.setText(f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        self.table.setVisible(bool(rows))


class ReconstructControl(Control):
    """Reconstructs k-space, and adds what comes of it to the viewer."""

    def __init__(self, viewer: Viewer, panel: ReconstructRunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.run_panel = panel
        self.layers: list[Image] = []
        self.work: Reconstructing | None = None
        self.made: Made | None = None
        self._last: Any = None
        self._began = 0.0

    def begin(self, work: Reconstructing) -> None:
        """Start."""
        self.work, self.made, self._last, self._began = work, None, None, time.perf_counter()
        self.run_panel.show_errors({}, set())
        self.run_panel.warning.setText("")
        self.run(work.reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Made):
            self.made = report
        elif not isinstance(report, Stage):
            self._last = report

    def tick(self) -> None:
        step = self._last
        if step is None or self.job is None:
            return
        spent = time.perf_counter() - self._began
        left = f"{describe_seconds(spent * (1 / step.done - 1))} left" if step.done > 0.02 else ""
        self.panel.set_progress(step.done, left)
        name = METHODS[step.method][0] if step.method in METHODS else step.method.capitalize()
        self.say(f"Slice {step.slice + 1} of {step.slices}: {name}" if step.slices > 1 else name)

    def finish(self, reason: Reason) -> None:
        if self.made is None:
            self.panel.say("Stopped. No image was made.")
            return
        self._add(self.made)
        self._describe(self.made)

    def _add(self, made: Made) -> None:
        """Add coil maps, mask, phase and magnitude; the last one is what people look at."""
        result = made.result
        magnitude = result.volume()
        place = {"scale": magnitude.scale, "units": tuple(u or "pixel" for u in magnitude.units)}
        labels = tuple(magnitude.axes.lower())
        maps, mask, phase = result.maps_volume(), result.mask_volume(), result.volume("phase")
        whole = {"part": "magnitude", "data": result.volume("complex").data}
        name = result.kspace.name
        n = maps.ndim - 2
        add = self.viewer.add_image
        self.layers = [
            add(
                maps.data, name=f"{name} coil maps", visible=False, axis_labels=tuple(maps.axes.lower()),
                scale=(1.0,) * n + place["scale"][-2:], units=("pixel",) * n + place["units"][-2:],
                contrast_limits=(0, 1),
            ),
            add(
                mask.data, name=f"{name} sampling mask", visible=False, axis_labels=labels,
                contrast_limits=(0, 1), **place,
            ),
            add(
                phase.data, name=f"{name} phase", visible=False, axis_labels=labels, colormap="hsv",
                contrast_limits=(-3.1416, 3.1416), metadata={"complex": {**whole, "part": "phase"}}, **place,
            ),
            add(
                magnitude.data, name=f"{name} magnitude", axis_labels=labels, contrast_limits=made.limits,
                metadata={"complex": whole, **magnitude.metadata}, **place,
            ),
        ]  # fmt: skip
        for layer in self.viewer.layers:
            if "kspace" in layer.metadata:
                layer.visible = False

    def _describe(self, made: Made) -> None:
        slices = made.result.slices
        errors = {n: sum(s.errors[n] for s in slices) / len(slices) for n in slices[0].errors}
        self.run_panel.show_errors(errors, set(made.result.methods))
        chosen = ", ".join(METHODS.get(m, (m.capitalize(),))[0] for m in sorted(set(made.result.methods)))
        sampled = sum(float(s.mask.mean()) for s in slices) / len(slices)
        took = describe_seconds(time.perf_counter() - self._began)
        self.panel.say(f"{chosen}, from {sampled:.0%} of the samples, in {took}.")
        wrapped = max(s.wrapped for s in slices)
        from napari_ssdenoise.reconstruction import WRAPPED

        warnings = []
        if not errors:
            warnings.append("Too few lines were acquired outside the centre to hold any out: the result is not judged.")
        if wrapped > WRAPPED:
            warnings.append(
                f"{wrapped:.0%} of the signal lies where parts of the object lie over one another: it is larger than "
                "the field of view. The image is less certain there."
            )
        self.run_panel.warning.setText(" ".join(warnings))


class ReconstructWidget(WorkingWidget):
    """Reconstruct undersampled k-space of a layer or a file.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.layer_box = LayerBox(napari_viewer, follow=True)
        self.layer_box.setToolTip("A layer that shows k-space, which cannot be had from layers that show images.")
        self.open = QPushButton("Open k-space…")
        self.open.setToolTip("fastMRI or ISMRMRD HDF5, .npy or .mat")
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("as the file says")
        self.axes.setToolTip(
            "For .npy and .mat: one letter for each dimension of the array, T, Z, C (coils), Y or X, e.g. YXC."
        )
        self.method = QComboBox()
        for key, (label, hint) in METHODS.items():
            self.method.addItem(label, key)
            self.method.setItemData(self.method.count() - 1, hint, Qt.ItemDataRole.ToolTipRole)
        self.hint = WrappedText()
        self.steps = QSpinBox()
        self.steps.setRange(0, 100_000)
        self.steps.setSpecialValueText("none")
        self.steps.setToolTip("Updates of a network that learns from each slice: about a second each.")
        self.device = device_box()
        self.run = ReconstructRunPanel()
        self.control = ReconstructControl(napari_viewer, self.run, self)
        self.arrange((self._form(),), self.run)
        self.attend(self.control)
        self.layer_box.layer_changed.connect(self.update_check)
        self.method.currentIndexChanged.connect(self._choose)
        self.open.clicked.connect(self.ask)
        self.run.run.clicked.connect(self.reconstruct)
        self.run.stop.clicked.connect(self.stop)
        self.run.copy_as.chosen.connect(self.copy_as)
        self._choose()

    def choose(self, method: str, steps: int = 0) -> None:
        """Choose a method, as a click would."""
        self.method.setCurrentIndex(self.method.findData(method))
        self.steps.setValue(steps or self.steps.value())

    def ask(self) -> None:
        """Ask for a file of k-space, and show it."""
        path = ask_kspace(self)
        if path is not None:
            self.open_file(path)

    def open_file(self, path: Path) -> None:
        """Read a file of k-space in another thread, and show it."""
        axes = self.axes.text().strip().upper() or None
        task = Task(f"Reading {path.name}…", lambda: read_kspace(path, axes))
        self.run_task(task.reports, lambda kspace: self.show_kspace(kspace, axes))

    def show_kspace(self, kspace: KSpace, axes: str | None = None) -> str:
        """Add a layer that shows k-space, choose it, and return what to say about it."""
        data, options, _ = kspace_layer(kspace, axes)
        self.layer_box.set_layer(self.viewer.add_image(data, **options))
        return ""

    def copy_as(self, kind: str) -> None:
        """Copy how the last result was made; ``kind``: command, python or notebook."""
        work = self.control.work
        if work is not None:
            self.copy_recipe(kind, work.recipe, "Looking at what the file of k-space holds…")

    def reconstruct(self) -> None:
        """Reconstruct what is chosen into new layers."""
        layer = self.layer_box.layer
        if layer is None or self.busy:
            return
        try:
            kspace = kspace_of(layer)
        except (ValueError, OSError) as error:
            self.show_problem(error)
            return
        steps = self.steps.value() if self.method.currentData() in LEARN else 0
        device, axes = self.device.currentData(), axes_of(layer)
        work = Reconstructing(kspace, self.method.currentData(), steps or None, device, axes=axes)
        self.layer_box.follow = False
        self.control.begin(work)
        self.update_check()

    def update_check(self, *_: Any) -> None:
        """Say what is chosen, or what to change."""
        layer, error, text = self.layer_box.layer, True, "Open k-space: a file of raw data from the scanner."
        if layer is not None:
            try:
                slices, coils, rows, columns = kspace_of(layer).shape
                text, error = f"Ready: {counted(slices, 'slice')}, {counted(coils, 'coil')}, {rows} x {columns}.", False
            except ValueError as refusal:
                text = problem(refusal)
        self.run.say_check("" if self.busy else text, error and layer is not None)
        for part in (self.layer_box, self.open, self.axes, self.method, self.steps, self.device):
            part.setEnabled(not self.busy)
        self.steps.setEnabled(not self.busy and self.method.currentData() in LEARN)
        self.run.run.setEnabled(not error and not self.busy)
        self.run.copy_as.setEnabled(self.control.made is not None and not self.busy)
        self.run.stop.setEnabled(self.busy and not self.stopping)

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        super().let_go()
        self.layer_box.disconnect_viewer()

    def _form(self) -> QWidget:
        form, source, axes, method, how = QWidget(), *(form_layout() for _ in range(4))
        add_row(source, "K-space", self.layer_box)
        add_row(axes, "Axes of the file", self.axes)
        add_row(method, "Method", self.method)
        add_row(how, "Learning steps", self.steps)
        add_row(how, "Device", self.device)
        stack(form, source, self.open, axes, method, self.hint, how)
        return form

    def _choose(self, _: int = 0) -> None:
        """Say what the method is, and offer steps where something is learnt."""
        key = self.method.currentData()
        self.hint.setText(METHODS[key][1])
        self.steps.setMinimum(1 if key == "zs-ssdu" else 0)
        self.steps.setValue(STEPS if key == "zs-ssdu" else 0)
        self.update_check()
