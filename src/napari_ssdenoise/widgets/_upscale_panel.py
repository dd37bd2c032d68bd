"""How to enlarge: method, factors, blur and updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_ssdenoise.algorithms import _super_resolution as methods
from napari_ssdenoise.algorithms import list_algorithms
from napari_ssdenoise.widgets._dialogs import ask_blur
from napari_ssdenoise.widgets._form import SettingsForm, add_row, folded, form_layout, stack
from napari_ssdenoise.widgets._kernel_view import KernelView
from napari_ssdenoise.widgets._method_panel import device_box, seed_box, summary
from napari_ssdenoise.widgets._reports import WrappedText
from napari_ssdenoise.widgets._upscaling import Upscale

BEST_UPDATES = 200  # at most, where updates go on until they stop helping
# For benchmarks and experiments: the command line and Python have them.
_ELSEWHERE = ("grid", "patch", "batch", "descent")
_NOTHING_LEARNT = ("scales", "son_noise", "learning_rate")
_KEPT = ("factor", "factor_z", "kernel")  # whatever the method


@dataclass(frozen=True)
class Choice:
    """A method as the box offers it: its name, algorithm, own settings and updates, and what is not asked for."""

    label: str
    key: str
    values: dict[str, Any]
    updates: int
    hidden: tuple[str, ...] = ()
    hint: str = ""


_BICUBIC = methods.METHODS["bicubic"]
METHODS = {
    "mzsr": Choice("MZSR", *methods.METHODS["mzsr"]),
    "zssr": Choice("ZSSR", *methods.METHODS["zssr"]),
    "ibp": Choice("Back-projection (IBP)", *methods.METHODS["ibp"], _NOTHING_LEARNT),
    "bicubic": Choice(
        "Bicubic interpolation",
        *_BICUBIC._replace(values={**_BICUBIC.values, "kernel": "bicubic"}),
        (*_NOTHING_LEARNT, "back_projections", "kernel"),
        "Enlarge by cubic convolution: smooth, fast, and not sharper than before.",
    ),
}


class UpscalePanel(QWidget):
    """Choose a method and its settings."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._has_z = False
        self._kept: dict[str, Any] = {}
        self.method_box = QComboBox()
        for method, choice in METHODS.items():
            self.method_box.addItem(choice.label, method)
            reference = list_algorithms()[choice.key].reference
            self.method_box.setItemData(self.method_box.count() - 1, reference, Qt.ItemDataRole.ToolTipRole)
        self.hint = WrappedText()
        self.kernel = KernelView()
        self.updates = QSpinBox()
        self.updates.setRange(0, 1_000_000)
        self.updates.setToolTip("How long the method learns from this image before it enlarges it; 0: not at all.")
        self.until_best = QCheckBox()
        self.until_best.setToolTip(
            "Keep a part of the image aside, and stop before all updates are taken once the error on it no longer "
            "falls; for images large enough to spare a part."
        )
        self._arrange()
        self._make_form()
        self._set_updates()
        self.method_box.currentIndexChanged.connect(self._show_method)
        self.until_best.toggled.connect(self._set_updates)
        self.device.currentIndexChanged.connect(lambda _: self.changed.emit())
        for box in (self.updates, self.seed):
            box.valueChanged.connect(lambda _: self.changed.emit())

    def _arrange(self) -> None:
        top, bottom, advanced = form_layout(), form_layout(), QWidget()
        add_row(top, "Method", self.method_box)
        self._settings = QVBoxLayout()
        self._updates_rows = [
            (add_row(bottom, "Updates", self.updates), self.updates),
            (add_row(bottom, "Until they stop helping", self.until_best), self.until_best),
        ]
        self._advanced_form = form_layout(advanced)
        self.device, self.seed = device_box(), seed_box()
        add_row(self._advanced_form, "Device", self.device)
        add_row(self._advanced_form, "Random seed", self.seed)
        stack(self, top, self.hint, self._settings, self.kernel, bottom, folded("Advanced", advanced))

    @property
    def choice(self) -> Choice:
        """The chosen method."""
        return METHODS[str(self.method_box.currentData())]

    def choose(self, method: str, **values: Any) -> None:
        """Choose a method, and settings of it."""
        self.method_box.setCurrentIndex(self.method_box.findData(method))
        self.form.set_values(values)

    def upscale(self) -> Upscale:
        """Return the choices.

        Raises
        ------
        ValueError
            If a setting does not fit.
        """
        choice, values = self.choice, {**self.choice.values, **self.form.values()}
        values["kernel"] = values["kernel"] or "auto"
        if not self._has_z:
            values["factor_z"] = 1
        upscale = Upscale(
            str(self.method_box.currentData()),
            choice.key,
            values,
            self.updates.value() if choice.updates else 0,
            choice.updates > 0 and self.until_best.isChecked(),
            str(self.device.currentData()),
            self.seed.value(),
        )
        _ = upscale.algorithm  # which checks the values
        return upscale

    def offer_z(self, has_z: bool) -> None:
        """Offer to enlarge along Z, or not."""
        if has_z != self._has_z:
            self._has_z = has_z
            self._show_z()

    def _make_form(self) -> None:
        """Show the settings of the chosen method."""
        choice = self.choice
        kind = list_algorithms()[choice.key]
        self.form = SettingsForm(kind, self._advanced_form, without=(*_ELSEWHERE, *choice.hidden))
        known = {**choice.values, **self._kept}
        self.form.set_values({name: value for name, value in known.items() if name in self.form.fields})
        self._add_browse()
        for label, widget in self._updates_rows:
            label.setVisible(choice.updates > 0)
            widget.setVisible(choice.updates > 0)
        self.hint.setText(choice.hint or summary(choice.key))
        self.form.changed.connect(self.changed)
        self._settings.addWidget(self.form)
        self._show_z()

    def _add_browse(self) -> None:
        """Put a button beside the text for the blur."""
        edit = self.form.fields["kernel"].widget if "kernel" in self.form.fields else None
        layout = self.form.layout()
        if not isinstance(edit, QLineEdit) or layout is None:
            return
        edit.setPlaceholderText("auto")
        browse = QPushButton("Browse…")
        browse.setToolTip("Choose a measured point-spread function, sampled in new pixels (.tif, .npy).")
        browse.clicked.connect(self._browse)
        both = QWidget()
        layout.replaceWidget(edit, both)
        row = QHBoxLayout(both)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(edit, 1)
        row.addWidget(browse)

    def _browse(self) -> None:
        path = ask_blur(self)
        if path is not None:
            self.form.set_values({"kernel": str(path)})

    def _show_z(self) -> None:
        """Show the factor along Z where there is one; without it, a factor of 1 would leave the image as it is."""
        planes, plane, layout = *(self.form.fields[n].widget for n in ("factor_z", "factor")), self.form.layout()
        label = layout.labelForField(planes) if isinstance(layout, QFormLayout) else None
        for part in (planes, label):
            if part is not None:
                part.setVisible(self._has_z)
        if isinstance(plane, QAbstractSpinBox):  # superqt's, for numbers of any size
            plane.setMinimum(1 if self._has_z else 2)

    def _show_method(self, _: int = 0) -> None:
        before = self.form
        self._kept |= {name: value for name, value in before.values().items() if name in _KEPT}
        before.clear()
        self._settings.removeWidget(before)
        before.hide()
        before.deleteLater()
        self._make_form()
        self._set_updates()
        self.changed.emit()

    def _set_updates(self, _: bool = False) -> None:
        """Show as many updates as the method takes; until they stop helping, it may be more."""
        usual = self.choice.updates
        self.updates.setValue(max(usual, BEST_UPDATES) if self.until_best.isChecked() else usual)
        self.changed.emit()
