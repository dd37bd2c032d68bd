"""Buttons of the Super-resolve widget, and the job that they start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QPushButton, QWidget

import napari_ssdenoise
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._control import Control
from napari_ssdenoise.widgets._denoising import Filling, Progress, require_memory
from napari_ssdenoise.widgets._form import button_row, stack
from napari_ssdenoise.widgets._job import Reason
from napari_ssdenoise.widgets._layers import Pixels, layer_array
from napari_ssdenoise.widgets._recipes import Made, RecipeButton
from napari_ssdenoise.widgets._reports import Caution
from napari_ssdenoise.widgets._run_panel import StatusPanel, describe_seconds
from napari_ssdenoise.widgets._shown import AddedLayer, PreviewLayer, ResultLayer, visible_region
from napari_ssdenoise.widgets._upscaling import (
    Adapted,
    Looked,
    Update,
    Upscale,
    Upscaling,
    in_new_pixels,
    preview_pixels,
)
from napari_ssdenoise.widgets._work import Preview

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

INSTEAD = "Use “ssdenoise upscale” in a terminal: it writes into a file, and needs little memory."


class UpscaleRunPanel(StatusPanel):
    """Preview, run, stop, and compare."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.preview = QPushButton("Preview")
        self.preview.setToolTip("Adapt to the image, then enlarge only what is in view. Move on and click it again.")
        self.main = self.run = QPushButton("Run")
        self.run.setToolTip("Adapt to the image, unless that has been done, then enlarge all of it into a new layer.")
        self.stop = QPushButton("Stop")
        self.compare = QPushButton("Before / after")
        self.compare.setToolTip("Hide the enlarged image, or show it again, to compare it with the image below.")
        self.warning, self.copy_as = Caution(), RecipeButton()
        above, below = button_row(self.preview, self.run, self.stop), button_row(self.compare, self.copy_as)
        stack(self, self.check, above, self.bar, self.status, self.warning, below)


class UpscaleControl(Control):
    """Adapts a method to an image and enlarges it; what was adapted last is kept for the same image and settings."""

    looked = Signal(object)  # Looked

    def __init__(self, viewer: Viewer, panel: UpscaleRunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.preview: PreviewLayer | None = None
        self.result: ResultLayer | None = None
        self.upscaling: Upscaling | None = None
        self.model: TrainedModel | None = None
        self.updates = 0
        self.made: Made | None = None
        self._adapted_to: tuple[Any, ...] = ()
        self._source: Image | None = None
        self._name = ""
        self._filling: Filling | None = None
        self._last: Update | Progress | None = None

    @property
    def _deleted(self) -> bool:
        """Whether somebody has deleted the result of this run."""
        whole = self.upscaling is not None and self.upscaling.whole
        return whole and self.result is not None and self.result.layer is not None and not self.result.alive

    @property
    def shown(self) -> AddedLayer | None:
        """The newest of our layers that is in the viewer."""
        layers = [added for added in (self.preview, self.result) if added is not None and added.alive]
        return layers[0] if layers else None

    def begin(self, upscale: Upscale, layer: Image, volume: Volume, *, whole: bool) -> None:
        """Start to enlarge a layer, or the part of it that is in view.

        Raises
        ------
        MemoryError
            If the result does not fit into memory.
        """
        algorithm = upscale.algorithm
        new = algorithm.prepared(volume)
        if whole:
            require_memory(new, volume.dtype.itemsize if layer.rgb else 4, INSTEAD)
        self._remember(upscale, layer, volume)
        self.forget_preview()
        moved = np.subtract(new.translate, volume.translate) / volume.scale
        factors = tuple(algorithm.along.get(axis, 1) for axis in volume.axes)
        pixels = Pixels(factors[: layer.ndim], tuple(moved[: layer.ndim]))
        self._source, self._name = layer, f"{layer.name} ({described(algorithm)})"
        self._last = self._filling = None
        if whole:
            self.result = ResultLayer(self.viewer, layer, pixels)
        else:
            self.preview = PreviewLayer(self.viewer, layer, pixels)
        self.upscaling = Upscaling(upscale, volume, whole, self.model)
        self._look()
        self.run(self.upscaling.reports)

    def take(self, report: Any) -> None:
        if self.job is None or self.job.cancelled:
            return
        super().take(report)
        if isinstance(report, Looked):
            self.looked.emit(report)
        elif isinstance(report, Adapted):
            self.model, self.updates, self._last = report.model, report.updates, None
        elif isinstance(report, Preview) and self.preview is not None and self._source is not None:
            limits = report.limits if self._source.rgb else tuple(self._source.contrast_limits)
            self.preview.show(report.image, report.region, limits)
        elif isinstance(report, Filling):
            self._filling = report
        elif isinstance(report, (Update, Progress)):
            self._last = report
            if isinstance(report, Progress):
                self._fill()

    def tick(self) -> None:
        self._look()
        last = self._last
        if last is None or self.job is None or self.job.cancelled:
            return
        left = f"{describe_seconds(last.remaining)} left"
        if isinstance(last, Update):
            self.panel.set_progress(last.fraction, left)
            self.say(f"Adapting to the image: update {last.done} of {last.total} on {self.device}")
            return
        if self._deleted:
            self.cancel()
            return
        if self.result is not None:
            self.result.refresh(now=not self._timer.isActive())
        self.panel.set_progress(last.done / last.total, left)
        self.say(f"Enlarging on {self.device}")

    def finish(self, reason: Reason) -> None:
        if self.result is not None and self.result.alive and self.result.layer is not None:
            self.result.layer.refresh(extent=False)  # with its thumbnail
        last = self._last
        if self._deleted:
            self.panel.say("Stopped: the result was deleted.")
            return
        if reason is not Reason.COMPLETED:
            self._mark()
            done = f"{last.done / last.total:.0%} of the image is" if isinstance(last, Progress) else "nothing is"
            self.panel.say(f"Stopped: {done} enlarged.")
            return
        how = f" after {self.updates} updates on this image" if self.updates else ""
        self._note_made()
        if self.upscaling is not None and self.upscaling.whole:
            self.panel.say(f"Done: “{self._name}”{how}.")
        elif self.preview is not None and self.preview.alive:
            self.panel.say(f"This is what it becomes{how}. Run enlarges all of the image.")
        else:
            self.panel.say("There is nothing to show any longer: the image was deleted.")

    def fail(self, error: Exception) -> str:
        self._mark()
        return ""

    def _mark(self) -> None:
        """Let no part look like the whole."""
        if self.result is not None:
            self.result.mark()

    def _note_made(self) -> None:
        """Note how a result was made."""
        work, layer, filling = self.upscaling, self._source, self._filling
        if work is not None and work.whole and layer is not None and filling is not None and self.model is not None:
            how = {"dtype": str(filling.data.dtype), "memory": work.memory, "device": work.upscale.device}
            self.made = Made.of(self.model, layer, work.volume, **how)

    def compare(self) -> None:
        """Hide our newest layer, so that the image below it is seen, or show it again."""
        shown = self.shown
        if shown is None or shown.layer is None:
            return
        shown.layer.visible = not shown.layer.visible
        if shown.source in self.viewer.layers and not shown.layer.visible:
            shown.source.visible = True

    def forget_preview(self) -> None:
        """Take the preview away."""
        if self.preview is not None:
            self.preview.remove()
            self.preview = None

    def _remember(self, upscale: Upscale, layer: Image, volume: Volume) -> None:
        """Keep the adapted model only if it is for this image and these settings."""
        before = self._adapted_to
        now = (upscale, volume.axes, volume.scale, volume.units, layer_array(layer))
        if before[:-1] != now[:-1] or before[-1] is not now[-1]:
            self.model, self.updates = None, 0
        self._adapted_to = now

    def _look(self) -> None:
        """Tell the job where people look."""
        work, layer = self.upscaling, self._source
        if work is None or layer is None:
            return
        algorithm = work.upscale.algorithm
        pixels = 1 << 40 if work.whole else preview_pixels(algorithm)
        region = visible_region(self.viewer, layer, pixels=pixels)
        factors = tuple(algorithm.along.get(axis, 1) for axis in work.volume.axes)
        work.view = None if region is None else in_new_pixels(region, factors)

    def _fill(self) -> None:
        """Show the result; it appears with its first block."""
        result, filling = self.result, self._filling
        if result is None or filling is None or self.model is None:
            return
        if result.layer is None:
            about = {"version": napari_ssdenoise.__version__, "source": result.source.name, **self.model.describe()}
            low, high = result.source.contrast_limits if not result.source.rgb else (0, 1)
            options = {"metadata": {"ssdenoise": about}}
            result.add(filling.data, self._name, (float(low), float(high)), select=True, **options)
        result.touch()


def described(algorithm: Any) -> str:
    """Say by how much: ``x2``, ``Z x4``, or both."""
    parts = [f"x{algorithm.factor}"] if algorithm.factor > 1 else []
    return ", ".join([*parts, f"Z x{algorithm.factor_z}"] if algorithm.factor_z > 1 else parts)
