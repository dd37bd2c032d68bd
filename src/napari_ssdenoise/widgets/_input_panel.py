"""Which image to work on, what its axes are, and along which of them the network looks."""

from __future__ import annotations

from collections.abc import Sequence

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_ssdenoise._words import counted
from napari_ssdenoise.axes import Channels, Layout, default_spatial, parse_axes
from napari_ssdenoise.volume import Volume, require_intensities
from napari_ssdenoise.widgets._form import add_row, form_layout
from napari_ssdenoise.widgets._layer_box import LayerBox
from napari_ssdenoise.widgets._layers import COMPLEX_KEY, layer_array, layer_axes, layer_volume

# Fewer pixels than this along an axis hold no neighbourhood to learn from.
MIN_SIDE = 4
_DIMENSIONS = {"YX": "2D slices (YX)", "ZYX": "3D (ZYX)", "TYX": "2D with time as context (TYX)"}
_NAMES = {"T": "time", "C": "channel", "Z": "depth", "Y": "row", "X": "column"}
# Five drop-downs side by side have room for a letter each, if their arrows are small.
_NARROW = "QComboBox { padding: 3px 2px 3px 7px; } QComboBox::drop-down { width: 12px; }"
_NARROW += " QComboBox::down-arrow { width: 8px; height: 8px; }"


def _advice(volume: Volume) -> str:
    """Say what to denoise instead of a part of a complex image in which noise has a bias, or turns over."""
    part = volume.metadata.get(COMPLEX_KEY, {}).get("part")
    if part not in ("magnitude", "phase"):
        return ""
    return (
        f" But this is the {part} of a complex image, whose real and imaginary part denoise better: choose those, "
        "or give the file to the command ssdenoise denoise, which does both at once."
    )


class AxesEditor(QWidget):
    """One drop-down per dimension, with its length below."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(4)
        self._columns: list[QWidget] = []
        self.boxes: list[QComboBox] = []

    @property
    def axes(self) -> str:
        """The letters as chosen, valid or not."""
        return "".join(str(box.currentData()) for box in self.boxes)

    def set_axes(self, axes: str, shape: Sequence[int]) -> None:
        """Show other axes; one drop-down per letter."""
        for column in self._columns:
            self._row.removeWidget(column)
            column.hide()
            column.deleteLater()
        self._columns, self.boxes = [], []
        for axis, n in zip(axes, shape, strict=True):
            column = QWidget()
            inner = QVBoxLayout(column)
            inner.setContentsMargins(0, 0, 0, 0)
            inner.setSpacing(1)
            box = QComboBox()
            for letter, name in _NAMES.items():
                box.addItem(letter, letter)
                box.setItemData(box.count() - 1, name, Qt.ItemDataRole.ToolTipRole)
            box.setCurrentIndex(box.findData(axis))
            box.setToolTip(f"What the dimension of length {n} is: " + ", ".join(f"{k} {v}" for k, v in _NAMES.items()))
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.setMinimumWidth(34)
            box.setStyleSheet(_NARROW)
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
            length = QLabel(str(n))
            length.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            length.setStyleSheet("font-size: 10px;")
            inner.addWidget(box)
            inner.addWidget(length)
            self._row.addWidget(column, 1)
            self._columns.append(column)
            self.boxes.append(box)
        self.changed.emit()


class LayerPanel(QWidget):
    """Choose a layer and name its axes.

    Parameters
    ----------
    viewer
        Whose layers to list.
    label, tip
        What the layer is, and more about it.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer, label: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._form = form_layout(self)
        self.layer_box = LayerBox(viewer, follow=True)
        self.axes_editor = AxesEditor()
        self.layer_box.setToolTip(tip)
        add_row(self._form, label, self.layer_box)
        add_row(self._form, "Axes", self.axes_editor)
        self._show_layer()
        self.layer_box.layer_changed.connect(self._show_layer)
        self.axes_editor.changed.connect(self._show_axes)

    @property
    def layer(self) -> Image | None:
        """The chosen layer."""
        return self.layer_box.layer

    def volume(self) -> Volume:
        """Return the chosen layer as a volume.

        Raises
        ------
        ValueError
            If there is none, or the axes do not fit it.
        """
        if self.layer is None:
            raise ValueError("There is no image layer. Open an image, or one of File > Open Sample > ssdenoise.")
        return layer_volume(self.layer, self.axes_editor.axes)

    def disconnect_viewer(self) -> None:
        """Listen no longer."""
        self.layer_box.disconnect_viewer()

    def _show_layer(self) -> None:
        """Take over axes from another layer."""
        layer = self.layer
        if layer is None:
            self.axes_editor.set_axes("", ())
            return
        shape = layer_array(layer).shape[: layer.ndim]
        try:
            axes = layer_axes(layer)
        except ValueError:  # six dimensions and more, or one: let people see it, and a check say it
            axes = "TCZYX"[-layer.ndim :].rjust(layer.ndim, "T")
        self.axes_editor.set_axes(axes, shape)

    def _show_axes(self) -> None:
        """Take in other axes."""
        self.changed.emit()


class InputPanel(LayerPanel):
    """Choose a layer and say how to read it."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(viewer, "Noisy image", "The noisy image: to learn from, and to denoise.", parent)
        self.dimensions = QComboBox()
        self.channels = QComboBox()
        self.target_box = LayerBox(viewer)
        self.dimensions.setToolTip("The axes the network looks along. More of them see more, and take longer.")
        self.channels.setToolTip(
            "Each by itself: every channel or colour is an image of its own. Together: one network sees all of a pixel "
            "at once. Automatic: channels each by itself, colours as suits the method."
        )
        self.target_box.setToolTip("A second noisy image of the same scene, registered to the pixel.")
        self.channels.addItem("automatic", "auto")
        self.channels.addItem("each by itself", "independent")
        self.channels.addItem("together", "joint")
        add_row(self._form, "Learn in", self.dimensions)
        self._channels_label = add_row(self._form, "Channels", self.channels)
        self._target_label = add_row(self._form, "Second image", self.target_box)
        self.show_target(False)
        self.dimensions.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.channels.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.target_box.layer_changed.connect(self.changed)
        self._show_axes()

    @property
    def spatial(self) -> str:
        """Axes that the network convolves over."""
        return str(self.dimensions.currentData() or "YX")

    @property
    def channel_mode(self) -> Channels:
        """How axis C, or the colours, are understood."""
        chosen: Channels = self.channels.currentData()
        return chosen if self._has_channels() else "auto"

    def target(self) -> Volume | None:
        """Return the second image, where one is asked for."""
        if self._target_label.isHidden() or self.target_box.layer is None:
            return None
        layer = self.target_box.layer
        axes = self.axes_editor.axes
        return layer_volume(layer, axes if layer.ndim == len(axes) else None)

    def show_target(self, visible: bool) -> None:
        """Show the choice of a second image, or hide it."""
        self._target_label.setVisible(visible)
        self.target_box.setVisible(visible)

    def check(self) -> str:
        """Look at what can be seen without reading pixels, and say what there is to learn from.

        Raises
        ------
        ValueError
            If nothing can be learned from it; the message says what to do.
        """
        volume = self.volume()
        require_intensities(volume)
        layout = Layout.choose(volume.axes, volume.shape, self.spatial, self.channel_mode)
        sizes = layout.spatial_shape(volume.shape)
        for axis, n in zip(layout.spatial, sizes, strict=True):
            if n < MIN_SIDE:
                fix = "Choose a larger image, or check the axes." if axis in "YX" else "Choose 2D slices."
                raise ValueError(f"The image has only {n} pixels along {axis}, too few to learn from. {fix}")
        count = 1
        for n in layout.sizes(layout.batch, volume.shape):
            count *= n
        what = "volume" if layout.spatial == "ZYX" else "film" if "T" in layout.spatial else "image"
        size = " x ".join(str(n) for n in sizes)
        return f"Ready: {counted(count, what)} of {size} pixels to learn from.{_advice(volume)}"

    def disconnect_viewer(self) -> None:
        """Listen no longer."""
        super().disconnect_viewer()
        self.target_box.disconnect_viewer()

    def _has_channels(self) -> bool:
        return self.layer is not None and (self.layer.rgb or "C" in self.axes_editor.axes)

    def _show_axes(self) -> None:
        """Offer what the axes allow, and keep what was chosen where it is still possible."""
        axes, layer, before = self.axes_editor.axes, self.layer, self.spatial
        blocked = self.dimensions.blockSignals(True)
        self.dimensions.clear()
        if layer is not None:
            shape = layer_array(layer).shape[: layer.ndim]
            for spatial, label in _DIMENSIONS.items():
                if all(a in axes and (a in "YX" or shape[axes.index(a)] >= MIN_SIDE) for a in spatial):
                    self.dimensions.addItem(label, spatial)
            try:
                chosen = default_spatial(parse_axes(axes, shape), shape)
            except ValueError:
                chosen = before
            self.dimensions.setCurrentIndex(max(0, self.dimensions.findData(chosen)))
        self.dimensions.blockSignals(blocked)
        visible = self._has_channels()
        self._channels_label.setVisible(visible)
        self.channels.setVisible(visible)
        self.changed.emit()
