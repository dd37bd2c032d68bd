"""The two long jobs of the widget, training and denoising: start them, show how they go, take what they leave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

import napari_ssdenoise
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._denoising import ArrayDenoising, FileDenoising, Filling, Progress, require_memory
from napari_ssdenoise.widgets._job import Job, Reason, Work
from napari_ssdenoise.widgets._run_panel import RunPanel, describe_seconds
from napari_ssdenoise.widgets._shown import PreviewLayer, ResultLayer, visible_region
from napari_ssdenoise.widgets._work import Preview, Stage, Training

if TYPE_CHECKING:
    from napari_ssdenoise.engine.trainer import TrainStep
    from napari_ssdenoise.model import TrainedModel

# Redrawing a layer can cost a quarter of a second: at most three times a second.
TICK_MS = 350


class Control(QObject):
    """A job, the panel that shows it, and a slow timer for all that is costly to draw."""

    ended = Signal(object, object)  # Reason, Exception | None

    def __init__(self, viewer: Viewer, panel: RunPanel, parent: QObject) -> None:
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

    def cancel(self) -> None:
        """Ask the job to stop."""
        if self.job is not None:
            self.job.cancel()

    def take(self, report: Any) -> None:
        """Take in a report of the job."""
        if isinstance(report, Stage):
            self.device = report.device or self.device
            self.panel.say(report.text)

    def tick(self) -> None:
        """Draw what came in."""

    def finish(self, reason: Reason) -> None:
        """Take what the job leaves, unless it failed."""

    def _end(self, reason: Reason, error: Exception | None) -> None:
        self._timer.stop()
        self.tick()
        self.job = None
        self.panel.set_progress(None)
        if reason is not Reason.FAILED:
            self.finish(reason)
        self.ended.emit(reason, error)


class TrainingControl(Control):
    """Train, with the loss curve and the preview of what is in view."""

    def __init__(self, viewer: Viewer, panel: RunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.preview: PreviewLayer | None = None
        self.training: Training | None = None
        self.model: TrainedModel | None = None
        self._last: TrainStep | None = None
        self._began = 0.0
        panel.preview.currentIndexChanged.connect(self._switch)

    def begin(self, training: Training, layer: Image) -> None:
        """Start a training on a layer."""
        self.forget_preview()
        self.preview = PreviewLayer(self.viewer, layer)
        self.training = training
        self._last = None
        self._look()
        self.panel.curve.clear()
        self.run(training.reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Preview):
            if self.preview is not None and self._mode != "off":
                self.preview.show(report.image, report.region, report.limits)
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
        count = f"Step {step.step} of {step.steps}" if step.steps else f"Step {step.step}"
        self.panel.set_progress(step.fraction, f"{describe_seconds(left)} left")
        self.panel.say(f"{count} on {self.device}")
        self.panel.curve.draw()

    def finish(self, reason: Reason) -> None:
        training, step = self.training, self._last
        if training is None or training.model is None or step is None:
            self.panel.say("Stopped before the first step.")
            return
        self.model = training.model
        how = "Trained" if reason is Reason.COMPLETED else "Stopped: trained"
        self.panel.say(
            f"{how} {step.step} steps in {describe_seconds(step.seconds)} on {self.device}. "
            "Apply denoises the image with it."
        )

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
        if region is not None and self.training.channels == "joint":
            at = self.training.volume.axes.index("C")
            region = (*region[:at], slice(0, self.training.volume.shape[at]), *region[at + 1 :])
        window.region = None if self._mode == "off" else region

    def _switch(self, _: int) -> None:
        if self.preview is not None:
            self.preview.remove()
        self._look()


class ApplyControl(Control):
    """Denoise into a layer that fills in, in memory or backed by a file."""

    def __init__(self, viewer: Viewer, panel: RunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.result: ResultLayer | None = None
        self._options: dict[str, Any] = {}
        self._path: Path | None = None
        self._last: Progress | None = None

    def begin(self, model: TrainedModel, layer: Image, volume: Volume, *, device: str, augment: bool) -> None:
        """Start to denoise into a new layer, which is there at once.

        Raises
        ------
        ValueError
            If the image does not fit the model.
        MemoryError
            If the result does not fit into memory.
        """
        model.geometry.layout(volume)
        dtype = volume.dtype.newbyteorder("=") if layer.rgb else np.dtype(np.float32)
        require_memory(volume, dtype)
        out = np.zeros(volume.shape, dtype)
        self._prepare(model, layer, None)
        self._add(out, None)
        view = visible_region(self.viewer, layer, pixels=1 << 40)
        self.run(ArrayDenoising(model, volume, out, device, augment, view).reports)

    def begin_file(
        self,
        model: TrainedModel,
        layer: Image,
        volume: Volume,
        path: Path,
        *,
        device: str,
        augment: bool,
        overwrite: bool,
    ) -> None:
        """Start to denoise into an OME-Zarr; the layer appears with the first block.

        Raises
        ------
        ValueError
            If the image does not fit the model.
        """
        model.geometry.layout(volume)
        if self.result is not None and self._path == path:
            self.result.remove()  # it showed the part that an earlier run had done
        self._prepare(model, layer, path)
        self.run(FileDenoising(model, volume, path, device, augment, overwrite).reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Filling) and self.result is not None:
            if report.levels:
                if self.result.layer is None:  # an earlier run had done all but the end
                    self._add(report.levels[0], report.limits)
                self.result.finish(report.levels, report.limits)
            else:
                self._add(report.data, report.limits)
        elif isinstance(report, Progress):
            self._last = report
            if self.result is not None:
                self.result.set_limits(report.limits)
                self.result.touch()

    def tick(self) -> None:
        if self.result is not None:
            self.result.refresh()
        last = self._last
        if last is not None and self.job is not None:
            left = f"{describe_seconds(last.remaining)} left" if last.done < last.total else "finishing…"
            self.panel.set_progress(last.done / last.total, left)
            if last.done < last.total:
                self.panel.say(f"Block {last.done} of {last.total} on {self.device}")

    def finish(self, reason: Reason) -> None:
        name = self.result.layer.name if self.result is not None and self.result.layer is not None else "the result"
        where = f"“{name}”" if self._path is None else f"“{name}”, saved as {self._path.name}"
        if reason is Reason.COMPLETED:
            self.panel.say(f"Done: {where}.")
            return
        done = f"{self._last.done} of {self._last.total} blocks are" if self._last is not None else "nothing is"
        more = "" if self._path is None or self._last is None else " Apply to the same file goes on from there."
        self.panel.say(f"Stopped: {done} done.{more}")

    def _prepare(self, model: TrainedModel, layer: Image, path: Path | None) -> None:
        self._path, self._last = path, None
        self.result = ResultLayer(self.viewer, layer)
        about = {"version": napari_ssdenoise.__version__, "source": layer.name, **model.describe()}
        if path is not None:
            about["path"] = str(path)
        self._options = {"metadata": {"ssdenoise": about}}

    def _add(self, data: Any, limits: tuple[float, float] | None) -> None:
        result = self.result
        if result is None:
            return
        source = result.source
        chosen = limits or (float(source.contrast_limits[0]), float(source.contrast_limits[1]))
        result.add(data, f"{source.name} denoised", chosen, select=True, **self._options)
