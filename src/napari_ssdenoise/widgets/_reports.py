"""Show reports for people: what a diagnosis found, and what a result is worth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QPushButton, QWidget

from napari_ssdenoise._errors import explain, is_input_error
from napari_ssdenoise._words import counted
from napari_ssdenoise.algorithms import list_algorithms, settings
from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.widgets._colors import Colors, Painted, Tone, in_tone, set_tone
from napari_ssdenoise.widgets._form import FormArea, folded, stack

_MARKS = {True: ("✓", Tone.GOOD), False: ("✗", Tone.BAD), None: ("?", Tone.UNSURE)}


class WrappedText(QLabel):
    """A text that always has the height it needs at its width; a folded section asks for no more than the least."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)

    def setText(self, text: str | None) -> None:
        """Show another text."""
        super().setText(text)
        self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Fit the height to another width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setMinimumHeight(self.heightForWidth(self.width()) if self.text() else 0)


class Caution(WrappedText):
    """A warning; it takes no room while there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        set_tone(self, Tone.UNSURE)
        self.setText("")

    def setText(self, text: str | None) -> None:
        """Show another text, or nothing."""
        super().setText(text)
        self.setVisible(bool(text))


class ReportSection(Painted):
    """A folded section with a text; it takes no room while there is none.

    Parameters
    ----------
    title
        What it is, on its heading.
    most
        Height of the text, in pixels, beyond which it scrolls.
    """

    def __init__(self, title: str, parent: QWidget | None = None, *, most: int | None = None) -> None:
        super().__init__(parent)
        self.text = WrappedText()
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.content = QWidget()
        self.column = stack(self.content, self.text)
        self._title, self._html = title, ""
        area: QWidget = self.content
        if most is not None:
            area = FormArea(self.content, least=60)
            area.setMaximumHeight(most)
        self.section = folded(title, area)
        stack(self, self.section)
        self.clear()

    def show_report(self, summary: str, html: str, *, unfold: bool) -> None:
        """Show a text under a heading that says the most important."""
        self.section.setText(f"{self._title}: {summary}" if summary else self._title)
        self._write(html)
        self.setVisible(True)
        self.content.setVisible(bool(html))
        if unfold and not self.section.isExpanded():
            self.section.expand(animate=False)

    def clear(self) -> None:
        """Forget the report."""
        self._write("")
        self.section.collapse(animate=False)
        self.setVisible(False)

    def paint(self, colors: Colors) -> None:
        super().paint(colors)
        self._write(self._html)

    def _write(self, html: str) -> None:
        self._html = html
        self.text.setText(self.colors.html(html))


class DiagnosisPanel(ReportSection):
    """What is known of the noise, and the method that fits it."""

    use = Signal(str, object)  # algorithm key, settings by name

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Diagnosis", parent)
        self.report: Any = None
        self.button = QPushButton("Use this")
        self.button.setToolTip("Choose the recommended method above, with its settings, to look at or change them.")
        self.button.clicked.connect(self._use)
        self.column.insertWidget(0, self.button)  # above the reasons, which may need more room than there is

    def take(self, report: Any, *, unfold: bool = False) -> None:
        """Show a diagnosis."""
        self.report = report
        title = list_algorithms()[report.algorithm].title
        self.show_report(title, diagnosis_html(report), unfold=unfold)

    def _use(self) -> None:
        self.section.collapse(animate=False)  # what was chosen is to be seen in the form
        self.use.emit(self.report.algorithm, dict(self.report.settings))


def diagnosis_html(report: Any) -> str:
    """Write a diagnosis: the recommendation, its reasons, and each assumption with a mark."""
    recommended = f"<b>Recommended: {escape(list_algorithms()[report.algorithm].title)}</b>"
    chosen = "".join(f"<br>{escape(line)}" for line in describe_settings(report.algorithm, report.settings))
    reasons = "".join(f"<li>{message_html(reason)}</li>" for reason in report.reasons)
    found = "".join(_assumption(entry) for entry in report.assumptions)
    return f"{recommended}{chosen}{_list(reasons)}<b>What methods rely on</b>{found}"


def sentence(text: str) -> str:
    """Begin with a capital letter."""
    return text[:1].upper() + text[1:]


def problem(error: Exception) -> str:
    """Say for people what is wrong."""
    text = explain(error)
    if not is_input_error(error):
        text = f"Unexpected error: {type(error).__name__}: {text}"
    is_name = any(sign in text.partition(" ")[0] for sign in "_='\"/")
    text = text if is_name else sentence(text)
    left = getattr(error, "__notes__", ())  # what a job leaves although it failed
    return " ".join((f"{text.rstrip('.')}.", *left)) if left else text


def describe_settings(key: str, values: dict[str, Any]) -> list[str]:
    """Name settings as the form does: ``Structured noise mask: 111``."""
    labels = {setting.name: setting.label for setting in settings(list_algorithms()[key])}
    lines = []
    for name, value in values.items():
        shown = {True: "yes", False: "no", None: AUTO}.get(value) if value is None or isinstance(value, bool) else None
        shown = shown or (f"{value:.4g}" if isinstance(value, float) else str(value).replace("_", " "))
        lines.append(f"{labels.get(name, name)}: {shown}")
    return lines


def quality_summary(report: Any) -> str:
    """Say in a few words what a result is worth."""
    count = len(report.warnings)
    warned = counted(count, "warning") if count else "no warnings"
    return warned if report.psnr is None else f"about {report.psnr.value:.0f} dB, {warned}"


def quality_html(report: Any) -> str:
    """Write what a result is worth, its warnings first."""
    warned = "".join(f"<li>{in_tone(Tone.BAD, message_html(text))}</li>" for text in report.warnings)
    rows = "".join(
        f"<tr><td style='padding-right: 10px'>{message_html(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in report.rows()
    )
    return f"{_list(warned)}<table>{rows}</table>"


def differences_html(found: Sequence[str]) -> str:
    """Write in which ways an image is unlike those of the training."""
    items = "".join(f"<li>{in_tone(Tone.BAD, message_html(text))}</li>" for text in found)
    return f"{_list(items)}Train on this image, or go on training the model on it."


def message_html(text: str) -> str:
    """Write a sentence of plain text."""
    return escape(sentence(text))


def _assumption(entry: Any) -> str:
    mark, tone = _MARKS[entry.holds]
    said = f"{message_html(entry.name)}: {escape(entry.why)}"
    return f"<p style='margin: 4px 0 0 0'>{in_tone(tone, mark)} {said}</p>"


def _list(items: str) -> str:
    return f"<ul style='margin: 4px 0 4px -24px'>{items}</ul>" if items else ""
