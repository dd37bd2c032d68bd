"""Buttons, progress and time left."""

from __future__ import annotations

from datetime import datetime

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QProgressBar, QPushButton, QWidget

from napari_ssdenoise.io.unfinished import Unfinished
from napari_ssdenoise.widgets._colors import Tone, set_tone
from napari_ssdenoise.widgets._form import add_row, button_row, form_layout, stack
from napari_ssdenoise.widgets._plots import LossCurve
from napari_ssdenoise.widgets._recipes import RecipeButton
from napari_ssdenoise.widgets._reports import ReportSection

QUICK_SECONDS = 10.0
QUALITY_HEIGHT = 140  # pixels: with a long report, all of the panel should still fit on a small screen
PREVIEWS = {"whole": "whole view", "half": "right half of the view", "off": "off"}


class StatusPanel(QWidget):
    """What a check says, a progress bar and a sentence about what goes on; subclasses lay them out.

    Attributes
    ----------
    main
        The button that people come for.
    """

    main: QPushButton

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.check = QLabel()
        self.check.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.bar.setVisible(False)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.say("")

    def say(self, text: str, error: bool = False) -> None:
        """Show a sentence."""
        _show(self.status, text, error)

    def say_check(self, text: str, error: bool = False) -> None:
        """Show what the check of the input says."""
        _show(self.check, text, error)

    def set_progress(self, fraction: float | None, text: str = "") -> None:
        """Show a share of the work; None hides the bar, and a negative one means that nobody knows."""
        self.bar.setVisible(fraction is not None)
        self.bar.setRange(0, 0 if fraction is not None and fraction < 0 else 1000)
        if fraction is not None and fraction >= 0:
            self.bar.setValue(round(1000 * fraction))
        self.bar.setFormat(text)


class RunPanel(StatusPanel):
    """Start, watch, stop, apply, keep."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.main = self.train = QPushButton("Train")
        self.train.setToolTip("Learn to denoise from the image itself. Stop at any time: what is learned is kept.")
        self.quick = QPushButton("Quick look")
        self.quick.setToolTip(
            f"See in {QUICK_SECONDS:g} seconds what denoising can do, with the simplest method and no settings. "
            "A training gives better results."
        )
        self.resume = QPushButton()
        self.resume.setToolTip(
            "An earlier training of this image with these settings was cut short. Go on where it was; “Train” begins "
            "anew."
        )
        self.curve = LossCurve()
        self.preview = QComboBox()
        for key, label in PREVIEWS.items():
            self.preview.addItem(label, key)
        self.preview.setToolTip("While it trains, a second layer shows the slice in view as it would become.")
        self.uncertainty = QCheckBox("Also make an uncertainty layer")
        self.uncertainty.setToolTip(
            "A second layer with the standard deviation of every pixel's estimate, in the image's units: the true "
            "value lies within two of them in about 95 of 100 pixels."
        )
        self.quality = ReportSection("Quality", most=QUALITY_HEIGHT)
        self.fit = ReportSection("This image", most=QUALITY_HEIGHT)
        self.apply = QPushButton("Apply")
        self.apply.setToolTip("Denoise the chosen image into a new layer.")
        self.apply_to_file = QPushButton("Apply to file…")
        self.apply_to_file.setToolTip("Denoise into an OME-Zarr, for images of any size. A stopped run goes on later.")
        self.save = QPushButton("Save model…")
        self.load = QPushButton("Load model…")
        self.copy_as = RecipeButton()
        preview_row = form_layout()
        add_row(preview_row, "Live preview of", self.preview)
        stack(
            self, preview_row, self.check, button_row(self.quick, self.train), self.resume, self.bar, self.status,
            self.curve, self.quality, self.fit, self.uncertainty, button_row(self.apply, self.apply_to_file),
            button_row(self.save, self.load, self.copy_as),
        )  # fmt: skip
        self.uncertainty.setVisible(False)
        self.offer(None)

    def offer(self, left: Unfinished | None) -> None:
        """Offer to go on with an unfinished training, or nothing."""
        self.resume.setVisible(left is not None)
        if left is not None:
            self.resume.setText(f"Continue from step {left.step} ({describe_moment(left.saved)})")

    def make_room(self, needed: bool) -> None:
        """Fold the reports and hide the curve, or show the curve again."""
        if needed:
            for report in (self.quality, self.fit):
                report.section.collapse(animate=False)
        self.curve.show_if_drawn(not needed)


def describe_seconds(seconds: float) -> str:
    """Write a duration as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe_moment(moment: datetime) -> str:
    """Write when something was, as people say it: ``yesterday 18:02``."""
    days = (datetime.now(moment.tzinfo).date() - moment.date()).days
    day = {0: "today", 1: "yesterday"}.get(days, f"{moment:%Y-%m-%d}")
    return f"{day} {moment:%H:%M}"


def _show(label: QLabel, text: str, error: bool) -> None:
    label.setText(text)
    set_tone(label, Tone.BAD if error else None)
    label.setVisible(bool(text))
