"""The Super-resolve dock widget: adapt to the layer, look at a part of it, make its pixels smaller."""

from __future__ import annotations

from typing import Any

from napari.viewer import Viewer
from qtpy.QtWidgets import QWidget

from napari_ssdenoise.volume import Volume, require_intensities
from napari_ssdenoise.widgets._docked import WorkingWidget
from napari_ssdenoise.widgets._input_panel import LayerPanel
from napari_ssdenoise.widgets._reports import problem
from napari_ssdenoise.widgets._upscale_panel import UpscalePanel
from napari_ssdenoise.widgets._upscale_run import UpscaleControl, UpscaleRunPanel
from napari_ssdenoise.widgets._upscaling import Looked, Upscale


class SuperResolveWidget(WorkingWidget):
    """Give an image layer smaller pixels, with what it teaches about itself.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.input = LayerPanel(napari_viewer, "Image", "The image that is to have smaller pixels.")
        self.method = UpscalePanel()
        self.run = UpscaleRunPanel()
        self.control = UpscaleControl(napari_viewer, self.run, self)
        self.attend(self.control)
        self.arrange((self.input, self.method), self.run)
        self.input.changed.connect(self._forget)
        self.method.changed.connect(self._forget)
        self.control.looked.connect(self._show_look)
        self.run.preview.clicked.connect(self.preview)
        self.run.run.clicked.connect(self.upscale)
        self.run.stop.clicked.connect(self.stop)
        self.run.compare.clicked.connect(self.compare)
        self.run.copy_as.chosen.connect(self.copy_as)
        napari_viewer.layers.events.removed.connect(self.update_check)
        self.update_check()

    def update_check(self, *_: Any) -> None:
        """Say what the image will become, or what to change."""
        self.method.offer_z("Z" in self.input.axes_editor.axes)
        try:
            text, error = self._check(), False
        except ValueError as refusal:
            text, error = problem(refusal), True
        self.run.say_check("" if self.busy else text, error)
        self._enable(ready=not error)

    def preview(self) -> None:
        """Enlarge the part of the chosen layer that is in view."""
        self._begin(whole=False)

    def upscale(self) -> None:
        """Enlarge the chosen layer into a new one."""
        self._begin(whole=True)

    def compare(self) -> None:
        """Hide the enlarged image, or show it again."""
        self.control.compare()

    def copy_as(self, kind: str) -> None:
        """Copy how the last result was made; ``kind``: command, python or notebook."""
        made = self.control.made
        if made is not None:
            self.copy_recipe(kind, made.recipe)

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        super().let_go()
        self.viewer.layers.events.removed.disconnect(self.update_check)
        self.input.disconnect_viewer()
        self.control.forget_preview()

    def _check(self) -> str:
        """Return what the image will become; an error if it cannot be enlarged."""
        volume, upscale = self._chosen()
        new = upscale.algorithm.prepared(volume)
        along = [axis for axis in "ZYX" if axis in volume.axes]
        before, after = (" x ".join(str(image.sizes[axis]) for axis in along) for image in (volume, new))
        return f"Ready: {before} pixels become {after}."

    def _chosen(self) -> tuple[Volume, Upscale]:
        volume = self.input.volume()
        require_intensities(volume)
        return volume, self.method.upscale()

    def _enable(self, ready: bool) -> None:
        busy = self.busy
        self.input.setEnabled(not busy)
        self.method.setEnabled(not busy)
        self.run.preview.setEnabled(ready and not busy)
        self.run.run.setEnabled(ready and not busy)
        self.run.stop.setEnabled(busy and not self.stopping)
        self.run.compare.setEnabled(self.control.shown is not None)
        self.run.copy_as.setEnabled(self.control.made is not None and not busy)

    def _begin(self, *, whole: bool) -> None:
        layer = self.input.layer
        if layer is None or self.busy:
            return
        try:
            volume, upscale = self._chosen()
            self.input.layer_box.follow = False
            self.control.begin(upscale, layer, volume, whole=whole)
        except (ValueError, MemoryError) as error:
            self.show_problem(error)
            return
        self.run.say("")
        self.update_check()

    def _show_look(self, look: Looked) -> None:
        if "kernel" in self.method.form.fields:
            self.method.kernel.show_kernel(look.kernel)
        self.run.warning.setText(look.warning)

    def _forget(self) -> None:
        """Forget what was seen of another image, or with other settings."""
        self.method.kernel.clear()
        self.run.warning.setText("")
        self.update_check()
