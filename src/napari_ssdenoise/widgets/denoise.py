"""The Denoise dock widget: learn from the noisy layer, watch it become clean, apply, keep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_ssdenoise.volume import Volume, require_intensities
from napari_ssdenoise.widgets._apply_control import UNCERTAINTY, ApplyControl
from napari_ssdenoise.widgets._checks import Assessing, Comparing, Diagnosing
from napari_ssdenoise.widgets._control import TrainingControl
from napari_ssdenoise.widgets._dialogs import ask_model_to_load, ask_model_to_save, ask_output
from napari_ssdenoise.widgets._docked import WorkingWidget
from napari_ssdenoise.widgets._input_panel import InputPanel
from napari_ssdenoise.widgets._job import Newest, Reason, Work
from napari_ssdenoise.widgets._method_panel import MethodPanel
from napari_ssdenoise.widgets._models import ModelsPanel, unfinished_trainings
from napari_ssdenoise.widgets._quality_control import FitControl, QualityControl
from napari_ssdenoise.widgets._reports import problem
from napari_ssdenoise.widgets._run_panel import QUICK_SECONDS, RunPanel
from napari_ssdenoise.widgets._work import Diagnosed, Method, Saving, Task, Training

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

QUICK_METHOD = "zs-n2n"


class DenoiseWidget(WorkingWidget):
    """Denoise an image layer with a network that learns from that layer itself.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.model: TrainedModel | None = None
        self.input = InputPanel(napari_viewer)
        self.method = MethodPanel()
        self.run = RunPanel()
        self.training = TrainingControl(napari_viewer, self.run, self)
        self.applying = ApplyControl(napari_viewer, self.run, self)
        self.quality = QualityControl(self.run.quality, self)
        self.fit = FitControl(self.run.fit, self)
        self.models = ModelsPanel()
        self.seeking = Newest(self)
        self.arrange((self.input, self.method, self.models), self.run)
        self.training.ended.connect(self._end_training)  # before what follows every job
        self.attend(self.training, self.applying)
        self.input.changed.connect(self.update_check)
        self.method.changed.connect(self.update_check)
        self.input.layer_box.layer_changed.connect(self.method.diagnosis.clear)
        self.method.diagnose.clicked.connect(self.diagnose)
        self.training.diagnosed.connect(self.method.diagnosis.take)
        for background in (self.quality, self.fit, self.models, self.seeking):
            background.ended.connect(self.leave)
        self.models.load.connect(self.load_model)
        self.models.go_on.connect(self.train_further)
        self.models.failed.connect(self.show_problem)
        self.input.changed.connect(self._compare)
        self.run.quick.clicked.connect(self.quick_look)
        self.run.resume.clicked.connect(self.train_on)
        self.run.train.clicked.connect(self._train_or_stop)
        self.run.apply.clicked.connect(self.apply)
        self.run.apply_to_file.clicked.connect(self._ask_file)
        self.run.save.clicked.connect(self._ask_save)
        self.run.load.clicked.connect(self._ask_load)
        self.run.copy_as.chosen.connect(self.copy_as)
        self.update_check()

    def update_check(self, *_: Any) -> None:
        """Say whether training can start, and what to change if it cannot."""
        self.input.show_target(self.method.wants_target)
        readable = False
        try:
            text, error = self.input.check(), False
            readable = True
            self.method.method()
            if self.method.wants_target and self.input.target_box.layer is self.input.layer:
                raise ValueError("Choose a second noisy image of the same scene, or other pairs.")
        except ValueError as refusal:
            text, error = problem(refusal), True
        self.run.say_check("" if self.busy else text, error)
        self._enable(readable=readable, ready=not error)
        self._seek(ready=not error)

    def _enable(self, readable: bool, ready: bool) -> None:
        busy, has_model = self.busy, self.model is not None
        self.input.setEnabled(not busy)
        self.method.setEnabled(not busy)
        self.models.setEnabled(not busy)
        stopping = self.stopping
        self.run.train.setText("Stopping…" if stopping else "Stop" if busy else "Train")
        self.run.train.setEnabled(not stopping if busy else ready)
        has_layer = self.input.layer is not None
        self.run.uncertainty.setVisible(self._has_uncertainty)
        self.run.uncertainty.setEnabled(not busy)
        for button, enabled in (
            (self.run.quick, readable),
            (self.method.diagnose, readable),
            (self.run.apply, has_model and has_layer),
            (self.run.apply_to_file, has_model and has_layer),
            (self.run.save, has_model),
            (self.run.load, True),
            (self.run.copy_as, self.applying.made is not None),
        ):
            button.setEnabled(enabled and not busy)

    @property
    def _has_uncertainty(self) -> bool:
        """Whether the model tells the uncertainty of its results, and a layer can show it."""
        model, layer = self.model, self.input.layer
        return model is not None and UNCERTAINTY in model.algorithm.outputs and layer is not None and not layer.rgb

    def train(self) -> None:
        """Start to learn from the chosen layer."""
        self._begin_training(self.method.method)

    def train_on(self) -> None:
        """Go on with the training of the chosen layer that an earlier session left unfinished."""
        self._begin_training(self.method.method, resume=True)

    def train_further(self, path: Path) -> None:
        """Go on training a saved model, on the chosen layer."""
        self._begin_training(lambda: replace(self.method.method(), start=path))

    def quick_look(self) -> None:
        """Show within seconds what denoising can do for the chosen layer."""
        device, seed = str(self.method.device.currentData()), self.method.seed.value()
        method = Method(QUICK_METHOD, seconds=QUICK_SECONDS, device=device, seed=seed)
        self._begin_training(lambda: method, quick=True)

    def diagnose(self) -> None:
        """Look at the noise of the chosen layer, and recommend a method."""

        def show(found: Diagnosed) -> str:
            self.method.diagnosis.take(found.report, unfold=True)
            return "Looked at the noise: see “Diagnosis”."

        if self.busy:
            return
        try:
            volume = self.input.volume()
            require_intensities(volume)
        except ValueError as error:
            self.show_problem(error)
            return
        self.run_task(Diagnosing(volume).reports, show)

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
            volume = None if self.input.layer is None else self._volume()
            self.run_task(Saving(model, path, volume).reports, lambda _: self._take_saved(model, path))

    def load_model(self, path: Path) -> None:
        """Load a model: a folder, a .zip, or the model.json in a folder."""
        folder = path.parent if path.name == "model.json" else path

        def load() -> TrainedModel:
            from napari_ssdenoise.model import TrainedModel

            return TrainedModel.load(folder)

        self.run_task(Task("Loading PyTorch and the model…", load, heavy=True).reports, self._take_model)

    def copy_as(self, kind: str) -> None:
        """Copy how the last result was made; ``kind``: command, python or notebook."""
        made = self.applying.made
        if made is not None:
            self.copy_recipe(kind, made.recipe)

    def run_task(self, work: Work, done: Callable[[Any], str]) -> None:
        """Do something short; what goes on in the background waits."""
        if not self.busy:
            self._pause()
        super().run_task(work, done)

    @property
    def working(self) -> bool:
        """Whether something still runs in another thread."""
        return self.busy or any(work.job is not None for work in (self.quality, self.fit, self.models, self.seeking))

    def make_room(self, opened: bool) -> None:
        """Fold what the last training left while people look at a section of the form."""
        self.run.make_room(opened)

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        self.quality.forget()
        self.fit.forget()
        self.models.stop()
        self.seeking.forget()
        super().let_go()
        self.input.disconnect_viewer()
        self.training.forget_preview()

    def _train_or_stop(self) -> None:
        if self.busy:
            self.stop()
        else:
            self.train()

    def _seek(self, *, ready: bool) -> None:
        """Look whether an earlier session left this training unfinished, and offer to go on with it."""
        self.run.offer(None)
        self.seeking.forget()
        if ready and not self.busy and not self._closed:
            with suppress(ValueError):  # a second image that does not fit, of which the training will tell
                self.seeking.ask(self._training(self.method.method()).left, self.run.offer)

    def _training(self, method: Method, *, quick: bool = False, resume: bool = False) -> Training:
        """Return a training of the chosen layer.

        Raises
        ------
        ValueError
            If that is not possible.
        """
        volume, target = self.input.volume(), None if quick else self.input.target()
        require_intensities(volume)
        # A first look is short, and what a saved model learns further would be found by no settings.
        shelf = None if quick or method.start else unfinished_trainings()
        return Training(method, volume, target, self.input.spatial, self.input.channel_mode, shelf, resume)

    def _begin_training(self, choose: Callable[[], Method], *, quick: bool = False, resume: bool = False) -> None:
        layer = self.input.layer
        if layer is None or self.busy:
            return
        try:
            training = self._training(choose(), quick=quick, resume=resume)
        except ValueError as error:
            self.show_problem(error)
            return
        self.input.layer_box.follow = False
        if not quick:
            self.quality.forget()
            self.fit.forget()
        self._pause()
        self.training.begin(training, layer, quick=quick)
        self.update_check()

    def _pause(self) -> None:
        """Let what people started go first."""
        self.quality.pause()
        self.fit.pause()

    def _volume(self) -> Volume | None:
        """Return the chosen layer as a volume, if its axes allow that."""
        try:
            return self.input.volume()
        except ValueError:
            return None

    def _compare(self) -> None:
        """Look whether a model from elsewhere fits the chosen layer."""
        volume = self._volume()
        self.fit.forget()
        if self.model is not None and volume is not None and not self.busy and not self._closed:
            self.fit.begin(Comparing(self.model, volume))

    def _begin_apply(self, begin: Callable[..., None]) -> None:
        layer, model = self.input.layer, self.model
        if layer is None or model is None or self.busy:
            return
        try:
            volume = self.input.volume()
            require_intensities(volume)
            device, augment = self.method.device.currentData(), self.method.augment.isChecked()
            uncertainty = self._has_uncertainty and self.run.uncertainty.isChecked()
            begin(model=model, layer=layer, volume=volume, device=device, augment=augment, uncertainty=uncertainty)
        except (ValueError, OSError, MemoryError) as error:
            self.show_problem(error)
            return
        self._pause()
        self.training.forget_preview()
        self.update_check()

    def _take_saved(self, model: TrainedModel, path: Path) -> str:
        saved, made = replace(model, path=path), self.applying.made
        self.applying.made = made and made.saved(model, saved)
        self.model = saved if self.model is model else self.model
        self.models.notice(path)
        return f"Saved as {path.name}."

    def _take_model(self, model: TrainedModel) -> str:
        self.model = model
        self.quality.forget()
        self._compare()
        steps = model.record.get("steps", "unknown")
        return f"Loaded {model.algorithm.title} for {model.geometry.spatial} images, trained {steps} steps."

    def _end_training(self, reason: Reason, error: Exception | None) -> None:
        training = self.training.training
        lost = reason is Reason.FAILED and isinstance(error, ArithmeticError)  # it has diverged
        made = None if training is None or lost else training.model
        if made is not None and training is not None and not (self.training.quick and self.model is not None):
            self.model = made  # a first look must not take the place of a long training
            if not self.training.quick and not self._closed:
                self.quality.begin(Assessing(made, training.volume, training.target, training.method.device))

    def end(self, reason: Reason, error: Exception | None) -> None:
        """Take in that a job has ended: what waited in the background goes on."""
        self.quality.resume()
        self.fit.resume()
        super().end(reason, error)

    def _ask_file(self) -> None:
        name = self.input.layer.name if self.input.layer is not None else "image"
        chosen = ask_output(self, f"{name} denoised.ome.zarr")
        if chosen is not None:
            self.apply_to(*chosen)

    def _ask_save(self) -> None:
        path = ask_model_to_save(self)
        if path is not None:
            self.save_model(path)

    def _ask_load(self) -> None:
        path = ask_model_to_load(self)
        if path is not None:
            self.load_model(path)
