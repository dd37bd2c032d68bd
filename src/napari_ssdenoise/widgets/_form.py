"""A form for any algorithm, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log10
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QSpinBox,
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
    """One setting as a widget, with the same way to read and write for all kinds."""

    def __init__(self, setting: Setting, changed: Callable[[], object]) -> None:
        self.setting = setting
        self.widget: QWidget
        self.get: Callable[[], Any]
        self.set: Callable[[Any], object]
        by_type = {bool: self._bool, int: self._int, float: self._float, str: self._str}
        make = self._choice if setting.choices else by_type[setting.type]
        make(changed)
        self.widget.setToolTip(setting.help)
        self.widget.setObjectName(setting.name)
        self.set(setting.default)

    def _choice(self, changed: Callable[[], object]) -> None:
        box = QComboBox()
        for choice in self.setting.choices:
            box.addItem(choice.replace("_", " "), choice)
        box.currentIndexChanged.connect(lambda _: changed())
        self.widget, self.get = box, box.currentData
        self.set = lambda value: box.setCurrentIndex(box.findData(value))

    def _bool(self, changed: Callable[[], object]) -> None:
        box = QCheckBox()
        box.toggled.connect(lambda _: changed())
        self.widget, self.get, self.set = box, box.isChecked, box.setChecked

    def _int(self, changed: Callable[[], object]) -> None:
        box = QSpinBox()
        low, high = self._range()
        box.setRange(int(low), int(high))
        box.setSingleStep(int(self.setting.step or 1))
        if low == 0 and self.setting.default == 0:
            box.setSpecialValueText("automatic")
        box.valueChanged.connect(lambda _: changed())
        self.widget, self.get, self.set = box, box.value, box.setValue

    def _float(self, changed: Callable[[], object]) -> None:
        box = FloatBox()
        low, high = self._range()
        # A spin box rounds to its decimals: they must resolve the smallest number that the setting knows.
        finest = min(abs(v) for v in (low, self.setting.default, self.setting.step) if v)
        box.setDecimals(max(2, ceil(-log10(finest)) + 2))
        box.setRange(low, high)
        box.setSingleStep(self.setting.step or 0.1)
        box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        box.valueChanged.connect(lambda _: changed())
        self.widget, self.get, self.set = box, box.value, box.setValue

    def _str(self, changed: Callable[[], object]) -> None:
        line = QLineEdit()
        line.setPlaceholderText("none")
        line.textChanged.connect(lambda _: changed())
        self.widget, self.get = line, lambda: line.text().strip()
        self.set = line.setText

    def _range(self) -> tuple[float, float]:
        low, high = self.setting.min, self.setting.max
        return (-_UNBOUNDED if low is None else low), (_UNBOUNDED if high is None else high)


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
    if isinstance(widget, (QComboBox, QLineEdit, QSpinBox, QDoubleSpinBox)):
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
