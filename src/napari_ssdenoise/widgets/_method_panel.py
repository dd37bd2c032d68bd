"""Which algorithm to train, with which settings, for how long and on what device; or how to find out."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_ssdenoise.algorithms import algorithms_for, get_algorithm, list_algorithms, settings
from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.widgets._form import FloatBox, SettingsForm, add_row, folded, form_layout, stack
from napari_ssdenoise.widgets._reports import DiagnosisPanel, WrappedText
from napari_ssdenoise.widgets._work import Method

AUTO_HELP = "Look at the noise first, then train the method that fits it."
DEFAULT_MINUTES = 2.0
DEFAULT_STEPS = 2000


class LengthEditor(QWidget):
    """A budget, in minutes or in steps."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.minutes = FloatBox()
        self.minutes.setRange(0.01, 10_000)
        self.minutes.setSingleStep(1)
        self.minutes.setValue(DEFAULT_MINUTES)
        self.steps = QSpinBox()
        self.steps.setRange(1, 10_000_000)
        self.steps.setSingleStep(500)
        self.steps.setValue(DEFAULT_STEPS)
        self.unit = QComboBox()
        self.unit.addItems(["minutes", "steps"])
        for widget, width in ((self.minutes, 60), (self.steps, 60), (self.unit, 96)):
            widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            widget.setMinimumWidth(width)
            row.addWidget(widget, 1)
        self.unit.currentIndexChanged.connect(self._show_unit)
        for part in (self.minutes.valueChanged, self.steps.valueChanged, self.unit.currentIndexChanged):
            part.connect(lambda _: self.changed.emit())
        self._show_unit()

    def set_steps(self, steps: int) -> None:
        """Choose a number of steps."""
        self.unit.setCurrentText("steps")
        self.steps.setValue(steps)

    def budget(self) -> tuple[int | None, float | None]:
        """Return steps and seconds; one of them is None."""
        if self.unit.currentText() == "steps":
            return self.steps.value(), None
        return None, 60 * self.minutes.value()

    def _show_unit(self, _: int = 0) -> None:
        in_steps = self.unit.currentText() == "steps"
        self.minutes.setVisible(not in_steps)
        self.steps.setVisible(in_steps)


class MethodPanel(QWidget):
    """Choose an algorithm and its settings, or let a diagnosis choose."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.algorithm_box = QComboBox()
        self.algorithm_box.addItem("Auto", AUTO)
        for key, algorithm in algorithms_for("denoise").items():
            self.algorithm_box.addItem(algorithm.title, key)
            row = self.algorithm_box.count() - 1
            self.algorithm_box.setItemData(row, f"{summary(key)}\n{algorithm.reference}", Qt.ItemDataRole.ToolTipRole)
        self.diagnose = QPushButton("Diagnose")
        self.diagnose.setToolTip("Look at the noise of the image, and say which method fits it and why.")
        self.diagnosis = DiagnosisPanel()
        self.diagnosis.use.connect(self.choose)
        self.hint = WrappedText()
        top = form_layout()
        add_row(top, "Method", self.algorithm_box)
        hint_row = QHBoxLayout()
        hint_row.addWidget(self.hint, 1)
        hint_row.addWidget(self.diagnose, 0, Qt.AlignmentFlag.AlignTop)
        self._settings = QVBoxLayout()
        self.length = LengthEditor()
        self.length.setToolTip("Longer is better, with ever smaller gains. Stopping early keeps what is learned.")
        bottom = form_layout()
        add_row(bottom, "Train for", self.length)
        stack(self, top, hint_row, self.diagnosis, self._settings, bottom, folded("Advanced", self._advanced()))
        self.form = self._make_form()
        self.algorithm_box.currentIndexChanged.connect(self._show_algorithm)
        self.length.changed.connect(self.changed)
        self.seed.valueChanged.connect(lambda _: self.changed.emit())

    def _advanced(self) -> QWidget:
        content = QWidget()
        self._advanced_form = form_layout(content)
        self.device, self.seed = device_box(), seed_box()
        self.augment = QCheckBox()
        self.augment.setToolTip("Average over flipped and turned copies: a little better, up to 8 times slower.")
        add_row(self._advanced_form, "Device", self.device)
        add_row(self._advanced_form, "Random seed", self.seed)
        add_row(self._advanced_form, "Average over flips when applying", self.augment)
        return content

    @property
    def algorithm(self) -> str:
        """Key of the chosen algorithm, or "auto"."""
        return str(self.algorithm_box.currentData())

    @property
    def wants_target(self) -> bool:
        """Whether the algorithm, as it is set, learns from a second image."""
        return self.form.values().get("pairs") == "target"

    def choose(self, algorithm: str, values: dict[str, Any]) -> None:
        """Choose an algorithm, and settings that differ from its defaults."""
        self.algorithm_box.setCurrentIndex(self.algorithm_box.findData(algorithm))
        self.form.set_values({setting.name: setting.default for setting in settings(list_algorithms()[algorithm])})
        self.form.set_values(values)

    def method(self) -> Method:
        """Return the choices.

        Raises
        ------
        ValueError
            If a setting does not fit.
        """
        values = self.form.values()
        if self.algorithm != AUTO:
            get_algorithm(self.algorithm, **values)
        steps, seconds = self.length.budget()
        device, augment = str(self.device.currentData()), self.augment.isChecked()
        return Method(self.algorithm, values, steps, seconds, device, augment, self.seed.value())

    def _make_form(self) -> SettingsForm:
        form = SettingsForm(list_algorithms().get(self.algorithm), self._advanced_form)
        self.hint.setText(summary(self.algorithm))
        form.changed.connect(self.changed)
        self._settings.addWidget(form)
        return form

    def _show_algorithm(self, _: int = 0) -> None:
        before = self.form
        before.clear()
        self._settings.removeWidget(before)
        before.hide()
        before.deleteLater()
        self.form = self._make_form()
        self.changed.emit()


def device_box() -> QComboBox:
    """Return a box with the devices to compute on."""
    box = QComboBox()
    box.addItem("automatic", "auto")
    for name in ("cpu", "cuda", "mps"):
        box.addItem(name, name)
    box.setToolTip("Where to compute; automatic takes the graphics card if there is one.")
    return box


def seed_box() -> QSpinBox:
    """Return a box for a random seed."""
    box = QSpinBox()
    box.setRange(0, 2**31 - 1)
    box.setToolTip("Equal seeds give equal results on equal machines.")
    return box


def summary(key: str) -> str:
    """Say in one sentence what a choice of the method box does."""
    return AUTO_HELP if key == AUTO else (list_algorithms()[key].__doc__ or "").strip().splitlines()[0]
