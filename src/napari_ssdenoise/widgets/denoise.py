"""The Denoise dock widget: learn from the noisy layer, watch it become clean, apply, keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from napari.utils.theme import get_theme
from napari.viewer import Viewer
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFileDialog, QMessageBox, QVBoxLayout, QWidget

from napari_ssdenoise._threads import share_processor, use_large_pages
from napari_ssdenoise.volume import require_intensities
from napari_ssdenoise.widgets._control import ApplyControl, TrainingControl
from napari_ssdenoise.widgets._form import FormArea
from napari_ssdenoise.widgets._input_panel import InputPanel
from napari_ssdenoise.widgets._job import Job, Reason
from napari_ssdenoise.widgets._method_panel import MethodPanel
from napari_ssdenoise.widgets._run_panel import RunPanel
from napari_ssdenoise.widgets._work import Task, Training

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

MODEL_FILTER = "Models (*.zip model.json)"


class DenoiseWidget(QWidget):
    """Denoise an image layer with a network that learns from that layer itself.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        use_large_pages()
        share_processor()  # with the viewer's own event loop
        self.viewer = napari_viewer
        self.model: TrainedModel | None = None
        self.input = InputPanel(napari_viewer)
        self.method = MethodPanel()
        self.run = RunPanel()
        self.training = TrainingControl(napari_viewer, self.run, self)
        self.applying = ApplyControl(napari_viewer, self.run, self)
        self._task: Job | None = None
        self._closed = False
        self._arrange()
        self._paint()
        self.input.changed.connect(self.update_check)
        self.method.changed.connect(self.update_check)
        self.training.ended.connect(self._end_training)
        self.applying.ended.connect(self._end)
        self.run.train.clicked.connect(self._train_or_stop)
        self.run.apply.clicked.connect(self.apply)
        self.run.apply_to_file.clicked.connect(self._ask_file)
        self.run.save.clicked.connect(self._ask_save)
        self.run.load.clicked.connect(self._ask_load)
        self.update_check()

    def _paint(self) -> None:
        theme = get_theme(self.viewer.theme)
        self.run.set_colors(theme.text.as_hex(), theme.current.as_hex())

    def _arrange(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 6, 0)
        column.setSpacing(8)
        column.addWidget(self.input)
        column.addWidget(self.method)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(8)
        layout.addWidget(FormArea(content))
        layout.addWidget(self.run)
        layout.addStretch(1)
        self.setMinimumWidth(340)

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    @property
    def _job(self) -> Job | None:
        return self.training.job or self.applying.job or self._task

    def update_check(self) -> None:
        """Say whether training can start, and what to change if it cannot."""
        self.input.show_target(self.method.wants_target)
        try:
            text, error = self.input.check(), False
            self.method.method()
            if self.method.wants_target and self.input.target_box.layer is self.input.layer:
                raise ValueError("Choose a second noisy image of the same scene, or other pairs.")
        except ValueError as problem:
            text, error = _sentence(problem), True
        self.run.say_check("" if self.busy else text, error)
        self._enable(ready=not error)

    def _enable(self, ready: bool) -> None:
        busy, has_model = self.busy, self.model is not None
        self.input.setEnabled(not busy)
        self.method.setEnabled(not busy)
        stopping = self._job is not None and self._job.cancelled
        self.run.train.setText("Stopping…" if stopping else "Stop" if busy else "Train")
        self.run.train.setEnabled(not stopping if busy else ready)
        has_layer = self.input.layer is not None
        for button, enabled in (
            (self.run.apply, has_model and has_layer),
            (self.run.apply_to_file, has_model and has_layer),
            (self.run.save, has_model),
            (self.run.load, True),
        ):
            button.setEnabled(enabled and not busy)

    def train(self) -> None:
        """Start to learn from the chosen layer."""
        layer = self.input.layer
        if layer is None or self.busy:
            return
        try:
            volume, target, method = self.input.volume(), self.input.target(), self.method.method()
            require_intensities(volume)
        except ValueError as error:
            self.show_problem(error)
            return
        self.input.layer_box.follow = False
        self._paint()
        training = Training(method, volume, target, self.input.spatial, self.input.channel_mode)
        self.training.begin(training, layer)
        self.update_check()

    def stop(self) -> None:
        """Stop what is running; what is done is kept."""
        if self._job is not None:
            self._job.cancel()
        self.update_check()

    def apply(self) -> None:
        """Denoise the chosen layer into a new one."""
        self._begin_apply(lambda **common: self.applying.begin(**common))

    def apply_to(self, path: Path, overwrite: bool = False) -> None:
        """Denoise the chosen layer into an OME-Zarr file.

        Parameters
        ----------
        path
            The file; ``.ome.zarr`` is added unless it is there.
        overwrite
            Replace an existing file.
        """
        if path.suffix.lower() != ".zarr":
            path = path.with_name(path.name + ".ome.zarr")
        self._begin_apply(lambda **common: self.applying.begin_file(path=path, overwrite=overwrite, **common))

    def save_model(self, path: Path) -> None:
        """Save the model, in another thread."""
        model = self.model
        if model is not None:
            self._run_task(Task("Saving the model…", lambda: model.save(path)), lambda _: f"Saved as {path.name}.")

    def load_model(self, path: Path) -> None:
        """Load a model: a folder, a .zip, or the model.json in a folder."""
        folder = path.parent if path.name == "model.json" else path

        def load() -> TrainedModel:
            from napari_ssdenoise.model import TrainedModel

            return TrainedModel.load(folder)

        self._run_task(Task("Loading PyTorch and the model…", load), self._take_model)

    def show_problem(self, error: Exception) -> None:
        """Tell people what is wrong, here and as a notification; napari goes on."""
        known = isinstance(error, (ValueError, OSError, MemoryError, ArithmeticError))
        text = _sentence(error) if known else f"Unexpected error: {type(error).__name__}: {error}"
        self.run.say(text, error=True)
        show_error(text)

    def shut_down(self) -> None:
        """Stop everything and let go of the viewer; for when the widget is closed."""
        if self._closed:
            return
        self._closed = True
        if self._job is not None:
            self._job.cancel()
        else:
            self.deleteLater()
        self.input.disconnect_viewer()
        self.training.forget_preview()

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari then takes the widget out of it."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.shut_down()
        return bool(super().event(event))

    def _train_or_stop(self) -> None:
        if self.busy:
            self.stop()
        else:
            self.train()

    def _begin_apply(self, begin: Callable[..., None]) -> None:
        layer, model = self.input.layer, self.model
        if layer is None or model is None or self.busy:
            return
        try:
            volume = self.input.volume()
            require_intensities(volume)
            device, augment = self.method.device.currentData(), self.method.augment.isChecked()
            begin(model=model, layer=layer, volume=volume, device=device, augment=augment)
        except (ValueError, OSError, MemoryError) as error:
            self.show_problem(error)
            return
        self.training.forget_preview()
        self.update_check()

    def _run_task(self, task: Task, done: Callable[[Any], str]) -> None:
        def end(reason: Reason, error: Exception | None) -> None:
            self._task = None
            self.run.set_progress(None)
            self._end(reason, error)
            if reason is Reason.COMPLETED:
                self.run.say(done(task.result))
                self.update_check()

        if self.busy:
            return
        self._task = Job(task.reports, self)
        self._task.reported.connect(lambda stage: self.run.say(stage.text))
        self._task.ended.connect(end)
        self.run.set_progress(-1)
        self._task.start()
        self.update_check()

    def _take_model(self, model: TrainedModel) -> str:
        self.model = model
        steps = model.record.get("steps", "unknown")
        return f"Loaded {model.algorithm.title} for {model.geometry.spatial} images, trained {steps} steps."

    def _end_training(self, reason: Reason, error: Exception | None) -> None:
        if reason is not Reason.FAILED and self.training.training is not None:
            self.model = self.training.training.model or self.model
        self._end(reason, error)

    def _end(self, _: Reason, error: Exception | None) -> None:
        if error is not None:
            self.show_problem(error)
        self.update_check()
        if self._closed:
            # Nobody else destroys a widget that was taken out of its dock, and no other thread may.
            self.deleteLater()

    def _ask_file(self) -> None:
        name = f"{self.input.layer.name if self.input.layer is not None else 'image'} denoised.ome.zarr"
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Denoise into a file", name, "OME-Zarr (*.zarr)", options=QFileDialog.Option.DontConfirmOverwrite
        )
        if not chosen:
            return
        path = Path(chosen)
        overwrite = False
        if path.exists():
            question = f"{path.name} exists. Replace it when the new one is complete?"
            overwrite = QMessageBox.question(self, "Replace the file?", question) == QMessageBox.StandardButton.Yes
            if not overwrite:
                return
        self.apply_to(path, overwrite)

    def _ask_save(self) -> None:
        chosen, _ = QFileDialog.getSaveFileName(self, "Save the model", "denoiser.model.zip", "Model (*.zip)")
        if chosen:
            self.save_model(Path(chosen) if chosen.endswith(".zip") else Path(f"{chosen}.zip"))

    def _ask_load(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, "Load a model", "", MODEL_FILTER)
        if chosen:
            self.load_model(Path(chosen))


def _sentence(error: Exception) -> str:
    """Return an error's message as a sentence; an OSError without its number."""
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error) or type(error).__name__
    is_name = any(sign in text.partition(" ")[0] for sign in "_='\"/")
    return text if is_name else text[0].upper() + text[1:]
