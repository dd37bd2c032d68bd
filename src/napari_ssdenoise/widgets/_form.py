"""A form for any algorithm, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log10
from typing import Any

from magicgui.widgets import create_widget
from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QWidget,
)
from superqt import QCollapsible

from napari_ssdenoise.algorithms import Algorithm, Setting, settings

_UNBOUNDED = 10**9
_BORDER = 4  # pixels that a theme may take around a scrolled form


class FloatBox(QDoubleSpinBox):
    """A spin box that keeps small numbers as they are, and shows no trailing zeros."""

    def textFromValue(self, value: float) -> str:
        return f"{value:.6g}"


class Field:
    """One setting as a magicgui widget: what it shows, and how its number box rounds and steps."""

    def __init__(self, setting: Setting, changed: Callable[[], object]) -> None:
        self.setting = setting
        self._control = create_widget(
            value=setting.default, annotation=setting.type, name=setting.name, options=self._options()
        )
        self._control.changed.connect(lambda _: changed())
        self.widget: QWidget = self._control.native
        self.widget.setToolTip(setting.help)
        self.widget.setObjectName(setting.name)
        if isinstance(self.widget, QDoubleSpinBox):
            self._refine(self.widget)
        elif isinstance(self.widget, QLineEdit):
            self.widget.setPlaceholderText("none")
        elif isinstance(self.widget, QCheckBox):
            self.widget.setText("")  # the row has a label

    def get(self) -> Any:
        """Return the value."""
        value = self._control.value
        return value.strip() if isinstance(value, str) else value

    def set(self, value: Any) -> None:
        """Show a value."""
        self._control.value = value

    def _options(self) -> dict[str, Any]:
        setting = self.setting
        if setting.choices:
            return {"choices": [(choice.replace("_", " "), choice) for choice in setting.choices]}
        if setting.type in (bool, str):
            return {}
        low = -_UNBOUNDED if setting.min is None else setting.min
        high = _UNBOUNDED if setting.max is None else setting.max
        return {"min": low, "max": high, "step": setting.step}

    def _refine(self, box: QDoubleSpinBox) -> None:
        """Give a box the decimals for the smallest number that the setting knows; it would round it to zero."""
        finest = min(abs(v) for v in (self.setting.min, self.setting.default, self.setting.step) if v)
        box.setDecimals(max(2, ceil(-log10(finest))))
        box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        box.setMinimum(self.setting.min if self.setting.min is not None else -_UNBOUNDED)
        self.set(self.setting.default)


class SettingsForm(QWidget):
    """The settings of one algorithm; advanced ones are given to another layout, to be folded.

    Parameters
    ----------
    algorithm
        Whose settings to show.
    advanced
        Layout that the advanced settings are added to.
    """

    changed = Signal()

    def __init__(self, algorithm: type[Algorithm], advanced: QFormLayout, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.fields = {s.name: Field(s, self.changed.emit) for s in settings(algorithm)}
        own = form_layout(self)
        self._elsewhere: list[tuple[QFormLayout, QWidget]] = []
        for field in self.fields.values():
            add_row(advanced if field.setting.advanced else own, field.setting.label, field.widget)
            if field.setting.advanced:
                self._elsewhere.append((advanced, field.widget))

    def values(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {name: field.get() for name, field in self.fields.items()}

    def set_values(self, values: dict[str, Any]) -> None:
        """Show other values; names that the algorithm does not have are an error."""
        for name, value in values.items():
            self.fields[name].set(value)

    def clear(self) -> None:
        """Remove what lies in the other layout."""
        for layout, widget in self._elsewhere:
            layout.removeRow(widget)
        self._elsewhere = []


def form_layout(parent: QWidget | None = None) -> QFormLayout:
    """Return a two-column layout as all our forms have it."""
    layout = QFormLayout(parent) if parent is not None else QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(6)
    layout.setHorizontalSpacing(10)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


LABEL_WIDTH = 118


def add_row(layout: QFormLayout, text: str, widget: QWidget) -> QLabel:
    """Add a row whose label is as wide as every other one, so that several forms line up."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setFixedWidth(LABEL_WIDTH)
    label.setToolTip(widget.toolTip())
    label.setBuddy(widget)
    if isinstance(widget, (QComboBox, QLineEdit, QAbstractSpinBox)):
        # Long names of layers must not widen the dock.
        widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        widget.setMinimumWidth(80)
    layout.addRow(label, widget)
    return label


def folded(title: str, content: QWidget) -> QCollapsible:
    """Return a closed section that opens without animation."""
    section = QCollapsible(title)
    section.setDuration(0)
    section.setCollapsedIcon("▸")
    section.setExpandedIcon("▾")
    section.addWidget(content)
    for layout, top in ((section.layout(), 0), (section.content().layout(), 6)):
        if layout is not None:
            layout.setContentsMargins(0, top, 0, 0)  # no indent: all forms line up
    return section


class FormArea(QScrollArea):
    """A form as high as it needs to be, which scrolls where there is less room."""

    def __init__(self, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setMinimumHeight(120)
        self.setWidget(content)

    def sizeHint(self) -> QSize:
        """Return the form's size; its wrapped labels make the height depend on the width."""
        content = self.widget()
        if content is None:
            return super().sizeHint()
        hint = content.sizeHint()
        high = content.heightForWidth(self.width()) if content.hasHeightForWidth() else 0
        return QSize(hint.width(), max(hint.height(), high) + _BORDER)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Ask for another height at another width."""
        super().resizeEvent(event)
        self.updateGeometry()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Notice that the form has grown or shrunk."""
        if event is not None and watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))
