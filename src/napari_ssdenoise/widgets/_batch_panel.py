"""The list of images to denoise and what becomes of each, and where the results go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_ssdenoise.axes import parse_axes
from napari_ssdenoise.batch import MARK, STD_MARK, Job, Outcome, Status, absolute, images_in, path_for, plan_jobs
from napari_ssdenoise.widgets._colors import Colors, Painted, Tone
from napari_ssdenoise.widgets._form import add_row, beside, button_row, form_layout, stack
from napari_ssdenoise.widgets._layers import PREVIEW_KEY, layer_volume
from napari_ssdenoise.widgets._reports import sentence
from napari_ssdenoise.widgets._run_panel import describe_seconds

COLUMNS = ("Image", "Status", "Time", "Message")
_FORMAT_NAMES = {"": "as the image", "ome.zarr": "OME-Zarr", "ome.tif": "OME-TIFF", "tif": "TIFF", "npy": "NumPy"}
_FORMAT_NAMES |= {"nii.gz": "NIfTI"}


@dataclass(frozen=True, eq=False)
class Entry:
    """A file, or an open layer."""

    path: Path
    layer: Image | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path.name if self.layer is None else f"{self.layer.name} (layer)"


class ImageTable(Painted):
    """Images in a table: add, remove, and see what becomes of each."""

    changed = Signal()

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.entries: list[Entry] = []
        self.files, self.folder = QPushButton("Files…"), QPushButton("Folder…")
        self.layers, self.remove = QPushButton("Layers"), QPushButton("Remove")
        self.files.setToolTip("Add image files.")
        self.folder.setToolTip("Add all images in a folder, an OME-Zarr, or the folder of a DICOM series.")
        self.layers.setToolTip("Add the selected image layers.")
        self.remove.setToolTip("Take the chosen rows off the list; without a choice, all of them. No file is deleted.")
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.table.setWordWrap(False)
        self.table.setMinimumHeight(150)
        header, rows = self.table.horizontalHeader(), self.table.verticalHeader()
        if header is not None and rows is not None:
            rows.setVisible(False)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            header.setMinimumSectionSize(40)
            for column, width in ((1, 100), (2, 46), (3, 80)):
                self.table.setColumnWidth(column, width)
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("as the files say")
        self.axes.setToolTip(
            "For files that do not name their axes, or wrongly: one letter of TCZYXS per dimension, e.g. TYX for a "
            "film. Layers have the axes that they are shown with."
        )
        form = form_layout()
        add_row(form, "Axes of files", self.axes)
        stack(self, button_row(self.files, self.folder, self.layers, self.remove), self.table, form)
        self.axes.textChanged.connect(lambda _: self.changed.emit())
        self.files.clicked.connect(self._ask_files)
        self.folder.clicked.connect(self._ask_folder)
        self.layers.clicked.connect(lambda: self.add_layers(self._viewer.layers.selection))
        self.remove.clicked.connect(self._remove)

    def add_paths(self, paths: Iterable[Path]) -> None:
        """Add files; those that are there already stay once."""
        known = {absolute(entry.path) for entry in self.entries if entry.layer is None}
        self._add([Entry(path) for path in dict.fromkeys(paths) if absolute(path) not in known])

    def add_folder(self, folder: Path) -> None:
        """Add the images in a folder."""
        self.add_paths(images_in(folder))

    def add_layers(self, layers: Iterable[Image]) -> None:
        """Add image layers, in the order of the viewer's list."""
        chosen, known = list(layers), [entry.layer for entry in self.entries]
        images = [la for la in self._viewer.layers if isinstance(la, Image) and PREVIEW_KEY not in la.metadata]
        self._add([Entry(path_for(la.name), la) for la in images if la in chosen and la not in known])

    def jobs(self, folder: Path, form: str, uncertainty: bool = False) -> list[Job]:
        """Return what is to be made of each image.

        Raises
        ------
        ValueError
            If there is no image, a layer was deleted, or names of outputs do not work out.
        """
        if not self.entries:
            raise ValueError("There is no image on the list. Add files, a folder, or the selected layers.")
        gone = [
            entry.name for entry in self.entries if entry.layer is not None and entry.layer not in self._viewer.layers
        ]
        if gone:
            raise ValueError(f"{', '.join(gone)}: the layer was deleted. Remove it from the list.")
        suffix = f".{form}" if form else ""
        planned = plan_jobs([entry.path for entry in self.entries], folder, suffix, folder=True)
        volumes = [None if entry.layer is None else layer_volume(entry.layer) for entry in self.entries]
        jobs = [Job(job.source, job.output, volume=volume) for job, volume in zip(planned, volumes, strict=True)]
        return [replace(job, std=uncertainty_of(job.output)) for job in jobs] if uncertainty else jobs

    def chosen_axes(self) -> str | None:
        """Return the axes of all files; None if each says its own.

        Raises
        ------
        ValueError
            If they are no axes of an image.
        """
        text = self.axes.text().strip()
        return parse_axes(text, (1,) * len(text)) if text else None

    def show_share(self, row: int, fraction: float, text: str) -> None:
        """Show how far an image is."""
        self._set(row, 1, f"{text} {fraction:.0%}")

    def show_outcome(self, outcome: Outcome) -> None:
        """Show what became of an image."""
        failed = outcome.status is Status.FAILED
        self._set(outcome.number, 1, outcome.status.value, Tone.BAD if failed else Tone.GOOD)
        self._set(outcome.number, 2, describe_seconds(outcome.seconds) if outcome.seconds else "")
        self._set(outcome.number, 3, sentence(outcome.message))

    def wait(self) -> None:
        """Forget what became of the images."""
        for row in range(len(self.entries)):
            self.show_stopped(row, "waiting")
            for column in (2, 3):
                self._set(row, column, "")

    def show_stopped(self, row: int, text: str = "stopped") -> None:
        """Show that nothing goes on."""
        self._set(row, 1, text)

    def text(self, row: int, column: int) -> str:
        """Return what a cell says."""
        item = self.table.item(row, column)
        return item.text() if item is not None else ""

    def paint(self, colors: Colors) -> None:
        super().paint(colors)
        for row in range(len(self.entries)):
            item = self.table.item(row, 1)
            tone = item and item.data(Qt.ItemDataRole.UserRole)
            if item is not None and tone:
                item.setForeground(QColor(colors.tones[tone]))

    def _set(self, row: int, column: int, text: str, tone: Tone | None = None) -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(text)
        if tone:
            item.setData(Qt.ItemDataRole.UserRole, tone)
            item.setForeground(QColor(self.colors.tones[tone]))
        self.table.setItem(row, column, item)

    def _add(self, entries: list[Entry]) -> None:
        for entry in entries:
            row = len(self.entries)
            self.entries.append(entry)
            self.table.insertRow(row)
            self._set(row, 0, entry.name)
            item = self.table.item(row, 0)
            if item is not None and entry.layer is None:
                item.setToolTip(str(entry.path))
            self._set(row, 1, "waiting")
        self.changed.emit()

    def _remove(self) -> None:
        rows = {index.row() for index in self.table.selectedIndexes()} or set(range(len(self.entries)))
        for row in sorted(rows, reverse=True):
            del self.entries[row]
            self.table.removeRow(row)
        self.changed.emit()

    def _ask_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Add images")
        self.add_paths(Path(name) for name in chosen)

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Add the images in a folder")
        if chosen:
            self.add_folder(Path(chosen))


class OutputPanel(QWidget):
    """Folder and format of the results, and what to do with those that exist."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folder, self.browse = QLineEdit(), QPushButton("Browse…")
        self.folder.setPlaceholderText("folder for the results")
        self.folder.setToolTip("Results are called like their images, with “.denoised” added.")
        self.format_box, self.existing = QComboBox(), QComboBox()
        for key, name in _FORMAT_NAMES.items():
            self.format_box.addItem(name, key)
        self.existing.addItem("leave it as it is", False)
        self.existing.addItem("replace it", True)
        self.existing.setToolTip("What to do with images whose result is there already.")
        self.uncertainty = QCheckBox("Also write the uncertainty")
        self.uncertainty.setToolTip(
            "A second file with “.uncertainty” in its name: the standard deviation of every pixel's estimate. For the "
            "blind-spot network, and models of it."
        )
        form = form_layout(self)
        add_row(form, "Results into", beside(self.folder, self.browse))
        add_row(form, "Format", self.format_box)
        add_row(form, "If a result exists", self.existing)
        form.addRow(self.uncertainty)
        self.browse.clicked.connect(self._ask)
        self.folder.textChanged.connect(lambda _: self.changed.emit())
        self.uncertainty.toggled.connect(lambda _: self.changed.emit())

    def chosen_folder(self) -> Path:
        """Return the folder for the results.

        Raises
        ------
        ValueError
            If none is chosen, or it cannot be made.
        """
        text = self.folder.text().strip()
        folder = Path(text).expanduser()
        if not text:
            raise ValueError("Choose a folder for the results.")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder.name} is a file. Choose a folder for the results.")
        if not folder.absolute().parent.is_dir():
            raise ValueError(f"The folder {folder.absolute().parent} does not exist. Choose another one.")
        return folder

    def _ask(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Choose a folder for the results", self.folder.text())
        if chosen:
            self.folder.setText(chosen)


def uncertainty_of(output: Path) -> Path:
    """Return where the uncertainty of a result goes: ``a.denoised.tif`` to ``a.uncertainty.tif``."""
    before, _, after = output.name.rpartition(MARK)
    return output.with_name(f"{before}{STD_MARK}{after}")
