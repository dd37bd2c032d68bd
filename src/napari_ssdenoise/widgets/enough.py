"""The dock widget "Is my data enough?": how much more images like these would improve a denoiser."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QPushButton, QSpinBox, QWidget

from napari_ssdenoise.study._pairs import count_pairs, held_out
from napari_ssdenoise.volume import Volume, require_intensities
from napari_ssdenoise.widgets._control import Control
from napari_ssdenoise.widgets._docked import WorkingWidget
from napari_ssdenoise.widgets._enough import RiskPlot, Source, Studied, Studying, save_study, table_html
from napari_ssdenoise.widgets._form import FormArea, add_row, button_row, folded, form_layout, stack
from napari_ssdenoise.widgets._input_panel import LayerPanel
from napari_ssdenoise.widgets._job import Reason
from napari_ssdenoise.widgets._layer_box import LayerBox
from napari_ssdenoise.widgets._layers import layer_volume
from napari_ssdenoise.widgets._method_panel import device_box
from napari_ssdenoise.widgets._recipes import RecipeButton
from napari_ssdenoise.widgets._reports import WrappedText, problem
from napari_ssdenoise.widgets._run_panel import StatusPanel, describe_seconds
from napari_ssdenoise.widgets._work import Stage, Task

IN_ONE, IN_TWO = "one", "two"
RESULTS = "Plot (*.png);;Plot (*.svg);;Numbers (*.json)"


class EnoughPanel(StatusPanel):
    """Run, stop, and the answer."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.main = self.run = QPushButton("Find out")
        self.stop = QPushButton("Stop")
        self.save, self.copy_as = QPushButton("Save…"), RecipeButton()
        self.copy_as.setToolTip("How the answer was found, to find it again without napari.")
        self.answer, self.plot, self.table = WrappedText(), RiskPlot(), QLabel()
        self.answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.table.setTextFormat(Qt.TextFormat.RichText)
        self.table.setWordWrap(True)
        self.table.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        content = QWidget()
        stack(content, self.answer, self.plot, self.table)
        above, below = button_row(self.run, self.stop), button_row(self.save, self.copy_as)
        stack(self, self.check, above, self.bar, self.status, FormArea(content), below)

    def clear(self) -> None:
        """Forget the answer."""
        self.answer.setText("")
        self.table.setText("")
        self.plot.clear()


class EnoughControl(Control):
    """The study, and what it says."""

    def __init__(self, viewer: Viewer, panel: EnoughPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.answer_panel = panel
        self.work: Studying | None = None
        self.study: Any = None
        self._last: Any = None

    def begin(self, work: Studying) -> None:
        """Start."""
        self.work, self.study, self._last = work, None, None
        self.answer_panel.clear()
        self.run(work.reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Studied):
            self.study = report.study
        elif not isinstance(report, Stage):
            self._last = report
            if report.training is not None:
                self.answer_panel.plot.add(report.training)

    def tick(self) -> None:
        step = self._last
        if step is None or self.job is None:
            return
        left = f"{describe_seconds(step.remaining)} left" if step.remaining < float("inf") else ""
        self.panel.set_progress(step.done, left)
        self.say(f"Training {step.number} of {step.trainings}, on {step.size} image{'s' * (step.size > 1)}")

    def finish(self, reason: Reason) -> None:
        if self.study is None:
            self.panel.say("Stopped: there is no answer without all of the trainings.")
            return
        self.panel.say("")
        first, *more = (escape(line) for line in self.study.describe().split("\n"))
        self.answer_panel.answer.setText(f"<b>{first}</b>" + "".join(f"<br>{line}" for line in more))
        self.answer_panel.table.setText(table_html(self.study))
        self.answer_panel.plot.show_study(self.study)


class EnoughWidget(WorkingWidget):
    """Find out whether a layer's images are enough to learn from.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.input = LayerPanel(napari_viewer, "Noisy images", "A film or a stack, whose images are counted.")
        self.views, self.second = QComboBox(), LayerBox(napari_viewer)
        self.seeds, self.steps, self.device = QSpinBox(), QSpinBox(), device_box()
        self.run = EnoughPanel()
        self.control = EnoughControl(napari_viewer, self.run, self)
        self.attend(self.control)
        self.arrange((self.input, self._form()), self.run)
        self.input.changed.connect(self._forget)
        self.second.layer_changed.connect(self.update_check)
        self.views.currentIndexChanged.connect(self.update_check)
        self.run.run.clicked.connect(self.find_out)
        self.run.stop.clicked.connect(self.stop)
        self.run.save.clicked.connect(self._ask_save)
        self.run.copy_as.chosen.connect(self.copy_as)
        self.update_check()

    def find_out(self) -> None:
        """Begin to study the chosen layer."""
        if self.busy:
            return
        try:
            images, target = self._chosen()
        except ValueError as error:
            self.show_problem(error)
            return
        self.input.layer_box.follow = False
        self.run.say("")
        work = Studying(images, target, self.seeds.value(), self.steps.value(), self.device.currentData())
        self.control.begin(work)
        self.update_check()

    def copy_as(self, kind: str) -> None:
        """Copy how the answer was found; ``kind``: command, python or notebook."""
        work = self.control.work
        if work is not None:
            self.copy_recipe(kind, work.recipe)

    def save(self, path: Path) -> None:
        """Save the plot (.png, .svg) or all numbers (.json)."""
        study = self.control.study
        if study is not None:
            self.run_task(Task("Saving…", lambda: save_study(study, path)).reports, lambda _: f"Saved as {path.name}.")

    def update_check(self, *_: Any) -> None:
        """Say what there is to learn from, or what to change."""
        text, error = "", False
        try:
            (images, target) = self._chosen()
            pairs, kind = count_pairs(images.volume, target=target is not None)
            held = len(held_out(pairs))
            what = {
                "frames": f"{2 * pairs} frames make {pairs} pairs of views",
                "target": f"{pairs} images with a second view each",
                "pixels": f"{pairs} images, each split into two by its pixels",
            }[kind]
            text = f"Ready: {what}; {pairs - held} to learn from, {held} to judge by."
        except ValueError as refusal:
            text, error = problem(refusal), True
        self.run.say_check("" if self.busy else text, error and self.input.layer is not None)
        self._enable(not error)

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        super().let_go()
        self.input.disconnect_viewer()
        self.second.disconnect_viewer()

    def _form(self) -> QWidget:
        form, more = QWidget(), QWidget()
        rows = form_layout()
        self.views.addItem("in this image", IN_ONE)
        self.views.addItem("in a second one", IN_TWO)
        self.views.setToolTip(
            "Two noisy views of one scene tell how much noise there is, without clean images. In this image: frames 1 "
            "and 2, 3 and 4, …, or else two halves of the pixels."
        )
        self.second.setToolTip("A second noisy image of the same scenes, of the same shape.")
        add_row(rows, "Two views", self.views)
        self._second_label = add_row(rows, "Second image", self.second)
        advanced = form_layout(more)
        self.seeds.setRange(1, 20)
        self.seeds.setValue(3)
        self.seeds.setToolTip("Trainings on each number of images: more make the answer surer.")
        self.steps.setRange(1, 100_000)
        self.steps.setValue(300)
        self.steps.setToolTip("Updates of the network in each training, at most.")
        add_row(advanced, "Trainings of each size", self.seeds)
        add_row(advanced, "Steps", self.steps)
        add_row(advanced, "Device", self.device)
        stack(form, rows, folded("Advanced", more))
        return form

    def _chosen(self) -> tuple[Source, Source | None]:
        """Return the images and their second views.

        Raises
        ------
        ValueError
            If there are none, or they do not fit.
        """
        images = self.input.volume()
        require_intensities(images)
        if self.views.currentData() == IN_ONE:
            return _source(images, self.input.layer), None
        layer = self.second.layer
        if layer is None:
            raise ValueError("There is no second image. Open it, or take both views from one image.")
        axes = self.input.axes_editor.axes
        target = layer_volume(layer, axes if layer.ndim == len(axes) else None)
        if layer == self.input.layer or (target.axes, target.shape) != (images.axes, images.shape):
            raise ValueError("The second image must be another one, with the same axes and shape.")
        return _source(images, self.input.layer), _source(target, layer)

    def _enable(self, ready: bool) -> None:
        busy, done = self.busy, self.control.study is not None
        two = self.views.currentData() == IN_TWO
        for part in (self._second_label, self.second):
            part.setVisible(two)
        for part in (self.input, self.views, self.second, self.seeds, self.steps, self.device):
            part.setEnabled(not busy)
        self.run.run.setEnabled(ready and not busy)
        self.run.stop.setEnabled(busy and not self.stopping)
        self.run.save.setEnabled(done and not busy)
        self.run.copy_as.setEnabled(done and not busy)

    def _ask_save(self) -> None:
        chosen, kind = QFileDialog.getSaveFileName(self, "Save the answer", "enough.png", RESULTS)
        if chosen:
            path = Path(chosen)
            suffix = kind[kind.rfind(".") : -1] or ".png"
            self.save(path if path.suffix.lower() in (".png", ".svg", ".json") else path.with_name(path.name + suffix))

    def _forget(self) -> None:
        """Another image: the answer was about the one before."""
        if not self.busy:
            self.control.study = self.control.work = None
            self.run.clear()
            self.run.say("")
        self.update_check()


def _source(volume: Volume, layer: Image | None) -> Source:
    path = layer.source.path if layer is not None else None
    return Source(volume, Path(path) if path else None)
