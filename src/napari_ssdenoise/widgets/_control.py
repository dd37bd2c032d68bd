"""The widget's long jobs: start them, show how they go, take what they leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_warning
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_ssdenoise._errors import INPUT_ERRORS
from napari_ssdenoise.widgets._job import Job, Reason, Work
from napari_ssdenoise.widgets._reports import problem, sentence
from napari_ssdenoise.widgets._run_panel import RunPanel, StatusPanel, describe_seconds
from napari_ssdenoise.widgets._shown import PreviewLayer, visible_region
from napari_ssdenoise.widgets._work import Diagnosed, Preview, Resumed, Stage, Training, Unseen

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import TrainStep
    from napari_ssdenoise.model import TrainedModel

# Redrawing a layer can cost a quarter of a second: at most three times a second.
TICK_MS = 350


class Control(QObject):
    """A job, the panel that shows it, and a slow timer for all that is costly to draw."""

    ended = Signal(object, object)  # Reason, Exception | None

    def __init__(self, viewer: Viewer, panel: StatusPanel, parent: QObject) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.panel = panel
        self.job: Job | None = None
        self.device = ""
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.tick)

    def run(self, work: Work) -> None:
        """Begin a job."""
        self.job = Job(work, self)
        self.job.reported.connect(self.take)
        self.job.ended.connect(self._end)
        self.panel.set_progress(-1)
        self._timer.start()
        self.job.start()

    @property
    def stopping(self) -> bool:
        """Whether the job has been asked to stop, and has not ended yet."""
        return self.job is not None and self.job.cancelled

    def cancel(self) -> None:
        """Ask the job to stop."""
        if self.job is not None:
            self.job.cancel()
            self.say("")

    def say(self, text: str) -> None:
        """Tell what goes on; once it is to stop, that."""
        self.panel.say("Stopping…" if self.stopping else text)

    def take(self, report: Any) -> None:
        """Take in a report of the job."""
        if isinstance(report, Stage):
            self.device = report.device or self.device
            self.say(report.text)

    def tick(self) -> None:
        """Draw what came in."""

    def finish(self, reason: Reason) -> None:
        """Take what the job leaves, unless it failed."""

    def fail(self, error: Exception) -> str:
        """Take what a job leaves that failed; return what to say about it."""
        return ""

    def _end(self, reason: Reason, error: Exception | None) -> None:
        self._timer.stop()
        self.tick()
        self.job = None
        self.panel.set_progress(None)
        try:
            if error is None:
                self.finish(reason)
            elif left := self.fail(error):
                error.add_note(left)
        except INPUT_ERRORS as refusal:  # of a file that is written at last, here
            reason, error = Reason.FAILED, refusal
        self.ended.emit(reason, error)


class TaskControl(Control):
    """A short job that reports one thing at its end."""

    def __init__(self, viewer: Viewer, panel: StatusPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self._result: Any = None
        self._done: Callable[[Any], str] = str

    def begin(self, work: Work, done: Callable[[Any], str]) -> None:
        """Start it; ``done`` takes what it reports, and returns what to say about it."""
        self._result, self._done = None, done
        self.run(work)

    def take(self, report: Any) -> None:
        super().take(report)
        if not isinstance(report, Stage):
            self._result = report

    def finish(self, reason: Reason) -> None:
        self.panel.say(self._done(self._result) if reason is Reason.COMPLETED else "Stopped.")


class TrainingControl(Control):
    """Train, with the loss curve and the preview of what is in view."""

    diagnosed = Signal(object)  # the report

    def __init__(self, viewer: Viewer, panel: RunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.preview: PreviewLayer | None = None
        self.training: Training | None = None
        self.model: TrainedModel | None = None
        self.quick = False
        self._last: TrainStep | None = None
        self._began = 0.0
        panel.preview.currentIndexChanged.connect(self._switch)

    def begin(self, training: Training, layer: Image, *, quick: bool = False) -> None:
        """Start a training on a layer; a quick one is for its preview alone."""
        self.forget_preview()
        self.quick = quick
        if quick and self._mode == "off":
            self.panel.preview.setCurrentIndex(self.panel.preview.findData("whole"))
        self.preview = PreviewLayer(self.viewer, layer)
        self.training = training
        self._last = None
        self._look()
        self.panel.curve.clear()
        self.run(training.reports)

    def cancel(self) -> None:
        if self.training is not None:
            self.training.taken = True
        super().cancel()

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Diagnosed):
            self.diagnosed.emit(report.report)
        elif isinstance(report, Preview):
            if self.preview is not None and self._mode != "off":
                self.preview.show(report.image, report.region, report.limits)
        elif isinstance(report, Resumed):
            for step, loss in report.losses:
                self.panel.curve.add(step, loss)
        elif isinstance(report, Unseen):
            self.panel.preview.setCurrentIndex(self.panel.preview.findData("off"))
            show_warning(f"The preview is off, as it failed; the training goes on. {problem(report.error)}")
        elif not isinstance(report, Stage):
            if self._last is None:
                self._began = time.perf_counter() - report.seconds
            self._last = report
            self.panel.curve.add(report.step, report.loss)

    def tick(self) -> None:
        self._look()
        step = self._last
        if step is None or self.job is None:
            return
        # The steps' own time, stretched to what else goes on meanwhile: the previews.
        left = step.remaining * max(1.0, (time.perf_counter() - self._began) / max(step.seconds, 1e-6))
        timed = self.training is not None and self.training.method.seconds is not None  # steps are then a bound
        count = f"Step {step.step}" if timed or not step.steps else f"Step {step.step} of {step.steps}"
        self.panel.set_progress(step.fraction, f"{describe_seconds(left)} left")
        self.say(f"{count} on {self.device}")
        self.panel.curve.draw()

    def finish(self, reason: Reason) -> None:
        training, step = self.training, self._last
        if training is None or training.model is None or step is None:
            self.panel.say("Stopped before the first step.")
            return
        self.model = training.model
        how = "Trained" if reason is Reason.COMPLETED else "Stopped: trained"
        record = training.model.record
        begun = (
            f"It began with the program's weights, which moved by {record['moved']:.0%}. " if "moved" in record else ""
        )
        self.panel.say(
            f"{how} {step.step} steps in {describe_seconds(step.seconds)} on {self.device}. {begun}"
            + "".join(f"{sentence(remark)} " for remark in record.get("remarks", ()))
            + ("This was a first look: Train gives a better result." if self.quick else "Apply denoises the image.")
        )

    def fail(self, error: Exception) -> str:
        training = self.training
        if isinstance(error, ArithmeticError) or training is None or training.model is None or self._last is None:
            return ""  # what has diverged is worth nothing
        self.model = training.model
        return f"What was learnt in {self._last.step} steps is kept."

    def forget_preview(self) -> None:
        """Take the preview away."""
        if self.preview is not None:
            self.preview.remove()
            self.preview = None

    @property
    def _mode(self) -> str:
        return str(self.panel.preview.currentData())

    def _look(self) -> None:
        """Tell the training where people look."""
        if self.training is None or self.preview is None:
            return
        window, shown = self.training.window, self.preview
        if shown.layer is not None and not shown.alive and self._mode != "off":  # deleted by hand
            self.panel.preview.setCurrentIndex(self.panel.preview.findData("off"))
        depth = window.planes(self.training.spatial, self.training.volume.sizes)
        region = visible_region(self.viewer, shown.source, self._mode == "half", window.voxels // depth)
        axes = self.training.volume.axes
        if region is not None and self.training.channels == "joint" and "C" in axes:
            at = axes.index("C")
            region = (*region[:at], slice(0, self.training.volume.shape[at]), *region[at + 1 :])
        window.region = None if self._mode == "off" else region

    def _switch(self, _: int) -> None:
        if self.preview is not None:
            self.preview.remove()
        self._look()
