"""A list of the viewer's image layers to choose from."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QWidget

from napari_ssdenoise.widgets._layers import PREVIEW_KEY


class LayerBox(QComboBox):
    """Choose one of the image layers; previews are not offered.

    Parameters
    ----------
    viewer
        Whose layers to list.
    follow
        Whether to go with the viewer's active layer until somebody chooses here.
    """

    layer_changed = Signal()

    def __init__(self, viewer: Viewer, follow: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.follow = follow
        self._shown: Image | None = None
        self._events = (
            viewer.layers.events.inserted,
            viewer.layers.events.removed,
            viewer.layers.events.reordered,
            viewer.layers.selection.events.active,
        )
        for event in self._events:
            event.connect(self._reload)
        self.activated.connect(self._choose)
        self.currentIndexChanged.connect(self._tell)
        self._reload()

    @property
    def layer(self) -> Image | None:
        """The chosen layer, if there is one."""
        data = self.currentData()
        return data if isinstance(data, Image) else None

    def set_layer(self, layer: Image) -> None:
        """Choose a layer, as a click would."""
        self.follow = False
        self.setCurrentIndex(self.findLayer(layer))

    def findLayer(self, layer: Image | None) -> int:
        """Return the row of a layer, or -1; plugins see layers through proxies, which are equal but not identical."""
        return next((row for row in range(self.count()) if self.itemData(row) == layer), -1)

    def showPopup(self) -> None:
        """Show the names as they are now."""
        self._reload()
        super().showPopup()

    def disconnect_viewer(self) -> None:
        """Listen no longer."""
        for event in self._events:
            event.disconnect(self._reload)

    def _choose(self, _: int) -> None:
        self.follow = False

    def _reload(self, event: Any = None) -> None:
        layers = [la for la in self._viewer.layers if isinstance(la, Image) and PREVIEW_KEY not in la.metadata]
        active = self._viewer.layers.selection.active
        wanted: Any = self.layer
        if self.follow and active in layers:
            wanted = active
        blocked = self.blockSignals(True)
        self.clear()
        for layer in reversed(layers):  # the topmost first, as in napari's own list
            self.addItem(layer.name, layer)
        self.setCurrentIndex(max(0, self.findLayer(wanted)) if layers else -1)
        self.blockSignals(blocked)
        self._tell()

    def _tell(self, _: int = 0) -> None:
        if self.layer is not self._shown:
            self._shown = self.layer
            self.layer_changed.emit()
