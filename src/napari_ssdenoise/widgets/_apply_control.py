"""Denoise the chosen image into layers that fill in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject

import napari_ssdenoise
from napari_ssdenoise.axes import Region
from napari_ssdenoise.engine.outputs import UNCERTAINTY
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._control import Control
from napari_ssdenoise.widgets._denoising import (
    APPLY_MEMORY,
    ArrayDenoising,
    FileDenoising,
    Filling,
    Progress,
    require_memory,
)
from napari_ssdenoise.widgets._job import Reason
from napari_ssdenoise.widgets._recipes import Made
from napari_ssdenoise.widgets._run_panel import RunPanel, describe_seconds
from napari_ssdenoise.widgets._shown import ResultLayer, visible_region

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

MEAN = "mean"
# A hidden layer above the result: above, so that one click shows it; hidden, so that the result is seen first.
_LOOKS: dict[str, dict[str, Any]] = {UNCERTAINTY: {"colormap": "magma", "gamma": 1.0, "visible": False}}
_WORDS = {MEAN: "denoised", UNCERTAINTY: "uncertainty"}


class ApplyControl(Control):
    """Denoise into a layer that fills in, in memory or backed by a file; on request, its uncertainty into another."""

    def __init__(self, viewer: Viewer, panel: RunPanel, parent: QObject) -> None:
        super().__init__(viewer, panel, parent)
        self.results: dict[str, ResultLayer] = {}  # by output
        self._about: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        self._last: Progress | None = None
        self._deleted = False
        self._view: Region | None = None  # read by the thread that computes
        self.made: Made | None = None

    def begin(
        self, model: TrainedModel, layer: Image, volume: Volume, *, device: str, augment: bool, uncertainty: bool
    ) -> None:
        """Start to denoise into a new layer, which is there at once.

        Parameters
        ----------
        uncertainty
            Make a layer of the standard deviations as well; the model must give them.

        Raises
        ------
        ValueError
            If the image does not fit the model.
        MemoryError
            If the result does not fit into memory.
        """
        model.geometry.layout(volume)
        dtype = volume.dtype.newbyteorder("=") if layer.rgb else np.dtype(np.float32)
        dtypes = {MEAN: dtype, UNCERTAINTY: np.dtype(np.float32)} if uncertainty else {MEAN: dtype}
        require_memory(volume, sum(kind.itemsize for kind in dtypes.values()))
        outs = {output: np.zeros(volume.shape, kind) for output, kind in dtypes.items()}
        self._prepare(model, layer, list(outs), {})
        for output, out in outs.items():
            self._add(output, out, None)
        view = visible_region(self.viewer, layer, pixels=1 << 40)
        how = {"dtype": str(dtype), "memory": APPLY_MEMORY, "device": device, "augment": augment}
        self.made = Made.of(model, layer, volume, std=uncertainty, **how)
        self.run(ArrayDenoising(model, volume, outs, device, augment, view).reports)

    def begin_file(
        self,
        model: TrainedModel,
        layer: Image,
        volume: Volume,
        path: Path,
        *,
        device: str,
        augment: bool,
        uncertainty: bool,
        overwrite: bool,
    ) -> None:
        """Start to denoise into an OME-Zarr; the layer appears with the first block.

        The uncertainty goes into a second one beside it: see `uncertainty_path`.

        Raises
        ------
        ValueError
            If the image does not fit the model.
        """
        model.geometry.layout(volume)
        if self._paths.get(MEAN) == path:
            for result in self.results.values():
                result.remove()  # it showed the part that an earlier run had done
        paths = {MEAN: path, UNCERTAINTY: uncertainty_path(path)} if uncertainty else {MEAN: path}
        self._prepare(model, layer, list(paths), paths)
        self._look()
        how = {"memory": APPLY_MEMORY, "device": device, "augment": augment}
        self.made = Made.of(model, layer, volume, std=uncertainty, **how)
        self.run(FileDenoising(model, volume, paths, device, augment, overwrite, lambda: self._view).reports)

    def take(self, report: Any) -> None:
        super().take(report)
        if isinstance(report, Filling) and report.output in self.results:
            result = self.results[report.output]
            if not report.levels or result.layer is None:  # None: an earlier run had done all but the end
                self._add(report.output, report.data, report.limits)
            if report.levels:
                result.finish(report.levels, report.limits)
        elif isinstance(report, Progress):
            self._last = report
            for output, result in self.results.items():
                result.set_limits(report.limits.get(output))
                result.touch()

    def tick(self) -> None:
        self._look()
        mean = self.results.get(MEAN)
        if not self._paths and self.job is not None and mean is not None and not mean.alive:
            self._deleted = True  # there is no file that would be worth going on for
            self.cancel()
        for result in self.results.values():
            result.refresh(now=not self._timer.isActive())
        last = self._last
        if last is not None and self.job is not None:
            left = f"{describe_seconds(last.remaining)} left" if last.done < last.total else "finishing…"
            self.panel.set_progress(last.done / last.total, left)
            if last.done < last.total:
                self.say(f"Block {last.done} of {last.total} on {self.device}")

    def finish(self, reason: Reason) -> None:
        if reason is Reason.COMPLETED:
            hidden = " Click the eye of the uncertainty layer to see it." if UNCERTAINTY in self.results else ""
            self.panel.say(f"Done: {' and '.join(map(self._where, self.results))}.{hidden}")
            return
        self._mark()
        if self._deleted:
            self.panel.say("Stopped: the result was deleted.")
            return
        done = f"{self._last.done} of {self._last.total} blocks are" if self._last is not None else "nothing is"
        self.panel.say(f"Stopped: {done} done.{self._more}")

    def fail(self, error: Exception) -> str:
        self._mark()
        return self._more.strip()

    @property
    def _more(self) -> str:
        """What can be made of a part."""
        return " Apply to the same file goes on from there." if self._paths and self._last is not None else ""

    def _mark(self) -> None:
        """Let no part look like the whole."""
        for result in self.results.values():
            result.mark()

    def _look(self) -> None:
        """Note what is in view: the computation goes on there."""
        if self.results:
            source = self.results[MEAN].source
            self._view = visible_region(self.viewer, source, pixels=1 << 40)

    def _where(self, output: str) -> str:
        result, path = self.results[output], self._paths.get(output)
        if result.layer is None or not result.alive:  # deleted by hand; its file was made all the same
            return f"saved as {path.name}" if path else "the result"
        return f"“{result.layer.name}”" + (f", saved as {path.name}" if path else "")

    def _prepare(self, model: TrainedModel, layer: Image, outputs: list[str], paths: dict[str, Path]) -> None:
        self._paths, self._last, self._deleted = paths, None, False
        self.results = {output: ResultLayer(self.viewer, layer) for output in outputs}
        self._about = {"version": napari_ssdenoise.__version__, "source": layer.name, **model.describe()}

    def _add(self, output: str, data: Any, limits: tuple[float, float] | None) -> None:
        """Show an output's data; the denoised image is what people go on with."""
        result = self.results[output]
        source = result.source
        about = {**self._about, "output": output}
        if output in self._paths:
            about["path"] = str(self._paths[output])
        chosen = limits or (float(source.contrast_limits[0]), float(source.contrast_limits[1]))
        options = {"metadata": {"ssdenoise": about}, **_LOOKS.get(output, {})}
        result.add(data, f"{source.name} {_WORDS[output]}", chosen, select=output == MEAN, **options)


def uncertainty_path(path: Path) -> Path:
    """Return where the uncertainty of a result goes: ``a.ome.zarr`` to ``a uncertainty.ome.zarr``."""
    suffix = ".ome.zarr" if path.name.lower().endswith(".ome.zarr") else path.suffix
    return path.with_name(f"{path.name[: -len(suffix)]} {_WORDS[UNCERTAINTY]}{suffix}")
