"""The saved models in a folder: look at them, load, rename, delete, go on training."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

from qtpy.QtCore import QFile, QSettings, QSize, QStandardPaths, Qt, Signal
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_ssdenoise.io.library import Shelved, models_in, rename_model
from napari_ssdenoise.widgets._form import button_row, folded, stack
from napari_ssdenoise.widgets._job import Job, Reason
from napari_ssdenoise.widgets._plots import LossCurve
from napari_ssdenoise.widgets._reports import WrappedText

ICON = QSize(80, 40)
LIST_HEIGHT = 112  # two models and a half, so that people see that there are more
NO_FOLDER = "Choose the folder in which you keep models."
NO_MODELS = "There are no models in this folder yet: “Save model…” puts one there."


def stored() -> QSettings:
    """Return what is remembered between sessions."""
    return QSettings("napari-ssdenoise", "napari-ssdenoise")


def unfinished_trainings() -> Path:
    """Return the folder of trainings that are not at their end, in which what a killed session left is found again."""
    data = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    return Path(data) / "napari-ssdenoise" / "unfinished"


@dataclass(frozen=True)
class Listing:
    """Look at all models of a folder, as a job."""

    folder: Path

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Shelved` after `Shelved`."""
        for shelved in models_in(self.folder):
            if stop.is_set():
                return
            yield shelved


class ModelsPanel(QWidget):
    """A folded section with the models of a folder that people choose once."""

    load = Signal(object)  # Path
    go_on = Signal(object)  # Path: train it further
    failed = Signal(object)  # Exception
    ended = Signal()  # a listing

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.job: Job | None = None
        self._again = False
        self.folder = QLabel()
        self.folder.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.choose = QPushButton("Folder…")
        self.choose.setToolTip("Choose the folder whose models to list. It is remembered.")
        self.list = QListWidget()
        self.list.setIconSize(ICON)
        self.list.setFixedHeight(LIST_HEIGHT)
        self.list.setToolTip("Double-click loads a model.")
        self.about = WrappedText()
        self.curve = LossCurve()
        self.load_button = QPushButton("Load")
        self.load_button.setToolTip("Use this model.")
        self.go_on_button = QPushButton("Train further")
        self.go_on_button.setToolTip("Go on training this model, on the chosen image, for as long as set above.")
        self.rename_button = QPushButton("Rename…")
        self.delete_button = QPushButton("Delete…")
        self.delete_button.setToolTip("Move the model to the trash.")
        self._arrange()
        self.choose.clicked.connect(self._ask_folder)
        self.list.currentItemChanged.connect(lambda *_: self._show_chosen())
        self.list.itemDoubleClicked.connect(lambda _: self._emit(self.load))
        self.load_button.clicked.connect(lambda: self._emit(self.load))
        self.go_on_button.clicked.connect(lambda: self._emit(self.go_on))
        self.rename_button.clicked.connect(self._ask_name)
        self.delete_button.clicked.connect(self._ask_delete)
        self.section.toggled.connect(lambda opened: self.refresh() if opened else None)
        self._show_chosen()

    def _arrange(self) -> None:
        content = QWidget()
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(self.choose)
        load, change = (self.load_button, self.go_on_button), (self.rename_button, self.delete_button)
        stack(content, row, self.list, self.about, self.curve, button_row(*load), button_row(*change))
        self.section = folded("Saved models", content)
        stack(self, self.section)

    @property
    def chosen(self) -> Shelved | None:
        """The model that is marked in the list."""
        item = self.list.currentItem()
        return None if item is None else item.data(Qt.ItemDataRole.UserRole)

    @property
    def path(self) -> Path | None:
        """The folder, if one was ever chosen."""
        found = stored().value("models", "")
        return Path(str(found)) if found else None

    def set_folder(self, folder: Path) -> None:
        """Remember a folder and list it."""
        stored().setValue("models", str(folder))
        self.refresh()

    def notice(self, path: Path) -> None:
        """Take in that a model was saved: its folder is the one to list, unless another was chosen."""
        if self.path is None:
            stored().setValue("models", str(path.absolute().parent))
        self.refresh()

    def refresh(self) -> None:
        """List the folder anew, in another thread, if people see it."""
        if not self.section.isExpanded():
            return
        if self.job is not None:  # one at a time; the end of this one begins the next
            self._again = True
            self.job.cancel()
            return
        self.list.clear()
        folder = self.path
        self.folder.setText("" if folder is None else folder.name)
        self.folder.setToolTip("" if folder is None else str(folder))
        self._show_chosen()
        if folder is None:
            return
        # Methods, not functions that hold the job: a cycle would be taken apart while Qt destroys it.
        self.job = Job(Listing(folder).reports, self)
        self.job.reported.connect(self._add)
        self.job.ended.connect(self._end)
        self.job.start()

    def stop(self) -> None:
        """Look no further."""
        self._again = False
        if self.job is not None:
            self.job.cancel()

    def _add(self, shelved: Shelved) -> None:
        if self._again:
            return
        item = QListWidgetItem(f"{shelved.name}\n{shelved.title}, {shelved.axes}")  # the date is told below
        item.setData(Qt.ItemDataRole.UserRole, shelved)
        pixmap = QPixmap(ICON)
        pixmap.fill(Qt.GlobalColor.transparent)
        if shelved.picture is not None:
            pixmap.loadFromData(shelved.picture)
        item.setIcon(QIcon(pixmap))
        self.list.addItem(item)

    def _end(self, reason: Reason, error: Exception | None) -> None:
        self.job = None
        if self._again:
            self._again = False
            self.refresh()
        elif error is not None:
            self.about.setText(escape(f"The folder cannot be read: {error}"))
        elif reason is Reason.COMPLETED and not self.list.count():
            self.about.setText(NO_MODELS)
        self.ended.emit()

    def _show_chosen(self) -> None:
        shelved = self.chosen
        for button in (self.load_button, self.go_on_button, self.rename_button, self.delete_button):
            button.setEnabled(shelved is not None)
        self.curve.setVisible(shelved is not None and len(shelved.loss) > 1)
        if shelved is None:
            self.about.setText(NO_FOLDER if self.path is None else "")
            return
        self.about.setText(about_html(shelved))
        self.curve.clear()
        for step, loss in shelved.loss:
            self.curve.add(step, loss)
        self.curve.draw()

    def _emit(self, signal: Any) -> None:
        if self.chosen is not None:
            signal.emit(self.chosen.path)

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Choose the folder of your models", str(self.path or ""))
        if chosen:
            self.set_folder(Path(chosen))

    def _ask_name(self) -> None:
        if self.chosen is not None:
            name, agreed = QInputDialog.getText(self, "Rename the model", "New name:", text=self.chosen.name)
            if agreed:
                self.rename(name)

    def rename(self, name: str) -> None:
        """Give the chosen model another name."""
        if self.chosen is None:
            return
        try:
            rename_model(self.chosen.path, name)
        except (ValueError, OSError) as error:
            self.failed.emit(error)
        self.refresh()

    def _ask_delete(self) -> None:
        if self.chosen is not None:
            question = f"Move “{self.chosen.name}” to the trash?"
            answer = QMessageBox.question(self, "Delete the model?", question)
            if answer == QMessageBox.StandardButton.Yes:
                self.delete()

    def delete(self) -> None:
        """Move the chosen model to the trash."""
        if self.chosen is None:
            return
        if not QFile(str(self.chosen.path)).moveToTrash():
            self.failed.emit(OSError(f"{self.chosen.path} could not be moved to the trash. Delete it by hand."))
        self.refresh()


def about_html(shelved: Shelved) -> str:
    """Say what a model is."""
    low, high = shelved.data_range
    rows = [
        ("Method", shelved.title),
        ("Looks along", shelved.axes),
        ("Trained on", ", ".join(shelved.trained_on) or "unknown images"),
        ("Values there", f"{low:.4g} to {high:.4g}" if math.isfinite(low) and math.isfinite(high) else "unknown"),
        ("Steps", "unknown" if shelved.steps is None else str(shelved.steps)),
        ("Saved", f"{shelved.saved:%Y-%m-%d %H:%M}"),
    ]
    cells = "".join(
        f"<tr><td style='padding-right: 10px'>{name}</td><td>{escape(text)}</td></tr>" for name, text in rows
    )
    return f"<table>{cells}</table>"
