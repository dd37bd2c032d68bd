"""The Denoise-many dock widget: files, folders and layers, with one model or one that learns from each image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QPushButton, QWidget

from napari_ssdenoise._words import counted
from napari_ssdenoise.batch import Begun, Job, Outcome
from napari_ssdenoise.widgets._batch_panel import ImageTable, OutputPanel
from napari_ssdenoise.widgets._batch_work import BatchDenoising, Share, require_uncertainty
from napari_ssdenoise.widgets._control import Control
from napari_ssdenoise.widgets._dialogs import ask_model_to_load
from napari_ssdenoise.widgets._docked import WorkingWidget
from napari_ssdenoise.widgets._form import add_row, beside, button_row, form_layout, stack
from napari_ssdenoise.widgets._job import Reason
from napari_ssdenoise.widgets._method_panel import MethodPanel
from napari_ssdenoise.widgets._reports import problem
from napari_ssdenoise.widgets._run_panel import StatusPanel, describe_seconds
from napari_ssdenoise.widgets._work import Task

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

EACH, CURRENT, SAVED = "each", "current", "saved"


class BatchRunPanel(StatusPanel):
    """Start, stop, and keep the table."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.main = self.run = QPushButton("Denoise all")
        self.save = QPushButton("Save table…")
        self.save.setToolTip("What became of each image, as a CSV file.")
        stack(self, self.check, button_row(self.run, self.save), self.bar, self.status)


class BatchControl(Control):
    """The job, and the table that shows how it goes."""

    def __init__(self, viewer: Viewer, panel: BatchRunPanel, table: ImageTable, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.table = table
        self.work: BatchDenoising | None = None
        self._number: int | None = None
        self._share: Share | None = None
        self._began: tuple[float, float] | None = None  # images done, and when

    def begin(self, work: BatchDenoising) -> None:
        """Start."""
        self.work, self._number, self._share, self._began = work, None, None, None
        self.table.wait()
        self.run(work.reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Begun):
            self._number, self._share = report.number, None
        elif isinstance(report, Outcome):
            self.table.show_outcome(report)
            self._number = self._share = None
        elif isinstance(report, Share):
            self._share = report

    def tick(self) -> None:
        work, number, share = self.work, self._number, self._share
        if work is None or number is None or self.job is None:
            return
        fraction = 0.0 if share is None else share.fraction
        if share is not None:
            self.table.show_share(number, fraction, share.text)
        done, now = number + fraction, time.perf_counter()
        if self._began is None:
            self._began = (done, now)  # what an earlier run had done took no time
        part = (done - self._began[0]) / max(len(work.jobs) - self._began[0], 1e-6)
        left = f", about {describe_seconds((now - self._began[1]) * (1 / part - 1))} left" if part > 0.02 else ""
        self.panel.set_progress(done / len(work.jobs), f"image {number + 1} of {len(work.jobs)}{left}")
        self.say("")

    def finish(self, reason: Reason) -> None:
        batch = self.work.batch if self.work is not None else None
        if self._number is not None:
            self.table.show_stopped(self._number)
        said = batch.summary() if batch is not None else "Nothing was done."
        kept = " What is done is kept: “Denoise all” goes on from there." if batch is not None else ""
        self.panel.say(said if reason is Reason.COMPLETED else f"Stopped. {said}{kept}")


class BatchWidget(WorkingWidget):
    """Denoise many files and layers into a folder.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.images = ImageTable(napari_viewer)
        self.model_box, self.model_path = QComboBox(), QLineEdit()
        self.method, self.output, self.run = MethodPanel(), OutputPanel(), BatchRunPanel()
        self.control = BatchControl(napari_viewer, self.run, self.images, self)
        self.arrange((self.images, self._model_panel(), self.method, self.output), self.run)
        self.method.diagnose.setVisible(False)  # each image is looked at by itself
        self.attend(self.control)
        for part in (self.images, self.output, self.method):
            part.changed.connect(self.update_check)
        self.model_path.textChanged.connect(self.update_check)
        self.model_box.currentIndexChanged.connect(self.update_check)
        self.run.run.clicked.connect(self._run_or_stop)
        self.run.save.clicked.connect(self._ask_table)
        self.update_check()

    def _model_panel(self) -> QWidget:
        panel, browse = QWidget(), QPushButton("Browse…")
        form, both = form_layout(panel), beside(self.model_path, browse)
        self.model_box.addItem("a model learnt from each image", EACH)
        self.model_box.addItem("the model in “Denoise”", CURRENT)
        self.model_box.addItem("a saved model", SAVED)
        self.model_box.setToolTip("One model is quick, and right for images of one kind; learning adapts to each.")
        self.model_path.setPlaceholderText("model.zip or model.json")
        browse.clicked.connect(self._ask_model)
        add_row(form, "Denoise with", self.model_box)
        self._model_row = (add_row(form, "Model", both), both)
        return panel

    def update_check(self, *_: Any) -> None:
        """Say whether it can start, and what to change if it cannot."""
        choice = self.model_box.currentData()
        self.method.setVisible(choice == EACH)
        for part in self._model_row:
            part.setVisible(choice == SAVED)
        try:
            work = self._work()
            count = len(work.jobs)
            text, error = f"Ready: {counted(count, 'image')} to denoise.", False
        except ValueError as refusal:
            text, error = problem(refusal), bool(self.images.entries)
            work = None
        self.run.say_check("" if self.busy else text, error)
        self.run.run.setText("Stopping…" if self.stopping else "Stop" if self.busy else "Denoise all")
        self.run.run.setEnabled(not self.stopping if self.busy else work is not None)
        done = self.control.work
        self.run.save.setEnabled(not self.busy and done is not None and done.batch is not None)
        for part in (self.images, self.model_box, self.method, self.output, *self._model_row):
            part.setEnabled(not self.busy)

    def denoise(self) -> None:
        """Start; what an earlier run has done is not done again."""
        if self.busy:
            return
        try:
            work = self._work()
            self.output.chosen_folder().mkdir(exist_ok=True)
        except (ValueError, OSError) as error:
            self.show_problem(error)
            return
        self.control.begin(work)
        self.update_check()

    def save_table(self, path: Path) -> None:
        """Write what became of each image."""
        work = self.control.work
        if work is None or work.batch is None:
            return
        batch = work.batch
        task = Task("Saving…", lambda: batch.write_table(path))
        self.run_task(task.reports, lambda _: f"{batch.summary()} Saved as {path.name}.")

    def _work(self) -> BatchDenoising:
        """Return what is to be done.

        Raises
        ------
        ValueError
            If something is missing.
        """
        method = self.method.method()
        if self.method.wants_target:
            raise ValueError("Pairs with a second image cannot be learnt from here. Choose another method or pairs.")
        if not self.images.entries:
            self.images.jobs(Path(), "")  # which says so
        folder = self.output.chosen_folder()
        form, uncertainty = str(self.output.format_box.currentData()), self.output.uncertainty.isChecked()
        jobs: list[Job] = self.images.jobs(folder, form, uncertainty)
        model = self._model()
        if model is not None and not isinstance(model, Path):
            require_uncertainty(model.algorithm, jobs[0])
        replace, axes = bool(self.output.existing.currentData()), self.images.chosen_axes()
        return BatchDenoising(jobs, method, model, replace, axes)

    def _model(self) -> TrainedModel | Path | None:
        choice = self.model_box.currentData()
        if choice == EACH:
            return None
        if choice == CURRENT:
            return self._current_model()
        path = Path(self.model_path.text().strip())
        if not self.model_path.text().strip() or not path.exists():
            raise ValueError("Choose a saved model.")
        return path.parent if path.name == "model.json" else path

    def _current_model(self) -> TrainedModel:
        from napari_ssdenoise.widgets.denoise import DenoiseWidget

        models = [widget.model for widget in self.window().findChildren(DenoiseWidget) if widget.model is not None]
        if not models:
            raise ValueError("There is no model in “Denoise”. Train or load one there, or choose a saved model.")
        return models[-1]

    def _run_or_stop(self) -> None:
        if self.busy:
            self.stop()
        else:
            self.denoise()

    def _ask_model(self) -> None:
        path = ask_model_to_load(self)
        if path is not None:
            self.model_path.setText(str(path))

    def _ask_table(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the table", "denoised.csv", "CSV (*.csv)")
        if chosen:
            self.save_table(Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv"))
