"""A form for any algorithm, made from its settings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil, log10
from typing import Any

from magicgui.widgets import create_widget
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QFocusEvent, QIcon, QResizeEvent, QValidator
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_ssdenoise.algorithms import Algorithm, Setting, settings
from napari_ssdenoise.algorithms._base import AUTO

_UNBOUNDED = 10**9
_FINE = 12  # decimals
_BORDER = 4  # pixels that a theme may take around a scrolled form
REVEAL_MS = 100  # nested layouts need several rounds


class FloatBox(QDoubleSpinBox):
    """A spin box that keeps small numbers as they are, and shows no trailing zeros."""

    def textFromValue(self, value: float) -> str:
        return f"{value:.6g}"


class AutoBox(FloatBox):
    """A number box that may be left at "auto": its lowest position, which an empty text stands for as well.

    Parameters
    ----------
    setting
        An optional number.
    """

    def __init__(self, setting: Setting, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = setting.type
        self._step = setting.step or 1.0
        self._low, high = _limits(setting)
        # An estimate may be of any size: the gain of an image between 0 and 1 is a thousandth.
        self.setDecimals(0 if setting.type is int else _FINE)
        self.setRange(self._low - max(1.0, abs(self._low)), high)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.setSpecialValueText(AUTO)
        self.set(setting.default)

    def get(self) -> Any:
        """Return the number, or None for "auto"."""
        return None if self.value() <= self.minimum() else self._kind(self.value())

    def set(self, value: float | None) -> None:
        """Show a number, or "auto" for None."""
        self.setValue(self.minimum() if value is None else value)

    def stepBy(self, steps: int) -> None:
        """Go from "auto" to zero, or as near as the range allows, not to the far end of it."""
        if self.get() is None:
            if steps > 0:
                self.setValue(min(max(0.0, self._low), self.maximum()))
        elif self.value() == 0:  # where an adaptive step would be the smallest there is
            self.setValue(max(self._low, steps * self._step))
        else:
            super().stepBy(steps)
            if self.value() < self._low:
                self.setValue(self._low)

    def valueFromText(self, text: str | None) -> float:
        """Return the number that a text stands for."""
        if (text or "").strip().lower() == AUTO:
            return self.minimum()
        return max(self._low, float(super().valueFromText(text)))  # what lies between stands for nothing

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        """Take an empty text, and the beginning of "auto", as numbers that are being typed."""
        typed = (text or "").strip().lower()
        if AUTO.startswith(typed):
            state = QValidator.State.Acceptable if typed == AUTO else QValidator.State.Intermediate
            return state, text or "", position
        return super().validate(text, position)  # type: ignore[no-any-return]

    def fixup(self, text: str | None) -> str:
        """Complete an unfinished "auto"."""
        return AUTO if AUTO.startswith((text or "").strip().lower()) else str(super().fixup(text))

    def focusInEvent(self, event: QFocusEvent | None) -> None:
        """Select all, so that typing replaces "auto"."""
        super().focusInEvent(event)
        QTimer.singleShot(0, self.selectAll)


class Field:
    """One setting as a widget, mostly of magicgui: what it shows, and how its number box rounds and steps."""

    def __init__(self, setting: Setting, changed: Callable[[], object]) -> None:
        self.setting = setting
        self.widget: QWidget
        if setting.optional:
            self.widget = self._auto = AutoBox(setting)
            self._auto.valueChanged.connect(lambda _: changed())
            self.widget.setToolTip(f"{setting.help} Clear it for “{AUTO}”.")
            self.widget.setObjectName(setting.name)
            return
        self._control = create_widget(
            value=setting.default, annotation=setting.type, name=setting.name, options=self._options()
        )
        self._control.changed.connect(lambda _: changed())
        self.widget = self._control.native
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
        if self.setting.optional:
            return self._auto.get()
        value = self._control.value
        return value.strip() if isinstance(value, str) else value

    def set(self, value: Any) -> None:
        """Show a value."""
        if self.setting.optional:
            self._auto.set(value)
        else:
            self._control.value = value

    def _options(self) -> dict[str, Any]:
        setting = self.setting
        if setting.choices:
            return {"choices": [(choice.replace("_", " "), choice) for choice in setting.choices]}
        if setting.type in (bool, str):
            return {}
        low, high = _limits(setting)
        return {"min": low, "max": high, "step": setting.step}

    def _refine(self, box: QDoubleSpinBox) -> None:
        """Give a box the decimals for the smallest number that the setting knows; it would round it to zero."""
        box.setDecimals(_decimals(self.setting))
        box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        box.setMinimum(_limits(self.setting)[0])
        self.set(self.setting.default)


def _limits(setting: Setting) -> tuple[float, float]:
    """Return a number's range, very large where the setting has none."""
    low = -_UNBOUNDED if setting.min is None else setting.min
    return low, _UNBOUNDED if setting.max is None else setting.max


def _decimals(setting: Setting) -> int:
    """Return the decimals that the smallest number a setting knows needs."""
    finest = min(abs(v) for v in (setting.min, setting.default, setting.step) if v)
    return max(2, ceil(-log10(finest)))


class SettingsForm(QWidget):
    """The settings of one algorithm; advanced ones are given to another layout, to be folded.

    Parameters
    ----------
    algorithm
        Whose settings to show; None for none.
    advanced
        Layout that the advanced settings are added to.
    without
        Names of settings that are not offered.
    """

    changed = Signal()

    def __init__(
        self,
        algorithm: type[Algorithm] | None,
        advanced: QFormLayout,
        parent: QWidget | None = None,
        *,
        without: Collection[str] = (),
    ) -> None:
        super().__init__(parent)
        shown = [s for s in settings(algorithm) if s.name not in without] if algorithm is not None else []
        self.fields = {s.name: Field(s, self.changed.emit) for s in shown}
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


class Section(QCollapsible):
    """A section that opens without animation.

    Its arrow is text, in the theme's colour; an icon would be black in a dark theme as well.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        super().__init__(title, collapsedIcon=QIcon(), expandedIcon=QIcon())
        self.setDuration(0)
        self.toggled.connect(lambda _: self.setText(self._title))
        self.setText(title)

    def text(self) -> str:
        """Return the title."""
        return self._title

    def setText(self, text: str) -> None:
        """Show another title."""
        self._title = text
        super().setText(f"{'▾' if self.isExpanded() else '▸'}  {text}")


def button_row(*buttons: QPushButton) -> QHBoxLayout:
    """Return buttons side by side, all of one width."""
    row = QHBoxLayout()
    for button in buttons:
        row.addWidget(button, 1)
    return row


def stack(parent: QWidget, *parts: QWidget | QLayout) -> QVBoxLayout:
    """Put parts below one another, up to the edges of their parent."""
    column = QVBoxLayout(parent)
    column.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        column.addLayout(part) if isinstance(part, QLayout) else column.addWidget(part)
    return column


def beside(edit: QLineEdit, button: QPushButton) -> QWidget:
    """Return a text field with a button to its right, as one part of a form."""
    both = QWidget()
    row = QHBoxLayout(both)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(edit, 1)
    row.addWidget(button)
    return both


def folded(title: str, content: QWidget) -> Section:
    """Return a closed section."""
    section = Section(title)
    section.addWidget(content)
    for layout, top in ((section.layout(), 0), (section.content().layout(), 6)):
        if layout is not None:
            layout.setContentsMargins(0, top, 0, 0)  # no indent: all forms line up
    return section


class FormArea(QScrollArea):
    """A form as high as it needs to be, which scrolls where there is less room.

    Parameters
    ----------
    content
        The form.
    least
        Height that it keeps where there is little room, if it needs as much.
    """

    def __init__(self, content: QWidget, parent: QWidget | None = None, *, least: int = 120) -> None:
        super().__init__(parent)
        self._least = least
        self._opened: QWidget | None = None
        self._revealing = QTimer(self)
        self._revealing.setSingleShot(True)
        self._revealing.setInterval(REVEAL_MS)
        self._revealing.timeout.connect(self._show_opened)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setWidget(content)

    def sizeHint(self) -> QSize:
        """Return the form's size; its wrapped labels make the height depend on the width."""
        content = self.widget()
        if content is None:
            return super().sizeHint()
        hint = content.sizeHint()
        high = content.heightForWidth(self.width()) if content.hasHeightForWidth() else 0
        return QSize(hint.width(), max(hint.height(), high) + _BORDER)

    def minimumSizeHint(self) -> QSize:
        """Return the least size: short forms are not stretched."""
        return QSize(super().minimumSizeHint().width(), min(self._least, self.sizeHint().height()))

    def reveal(self, section: QWidget) -> None:
        """Scroll to a section that was opened, once it has got its size."""
        self._opened = section
        self._revealing.start()

    def _show_opened(self) -> None:
        if self._opened is not None:
            self.ensureWidgetVisible(self._opened, 0, 0)
            self._opened = None

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Ask for another height at another width."""
        super().resizeEvent(event)
        self.updateGeometry()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Notice that the form has grown or shrunk."""
        if event is not None and watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))
