"""Colours that can be read in the viewer's theme, for texts that say good or bad, and for curves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Tone(StrEnum):
    """What a text says of something."""

    GOOD = "good"
    BAD = "bad"
    UNSURE = "unsure"


# Of a contrast of at least 4.5 with both of a theme's backgrounds, as accessible texts have (WCAG 2, 1.4.3).
ON_DARK = {Tone.GOOD: "#56bd62", Tone.BAD: "#ff8080", Tone.UNSURE: "#f0a030"}
ON_LIGHT = {Tone.GOOD: "#176a27", Tone.BAD: "#ae2026", Tone.UNSURE: "#7c4d00"}
MAIN = "main"  # property of the button that people come for


def in_tone(tone: Tone, html: str) -> str:
    """Give a part of a rich text a tone, for `Colors.html`."""
    return f"<span class='{tone}'>{html}</span>"


@dataclass(frozen=True)
class Colors:
    """A theme's colours.

    Attributes
    ----------
    text
        Of texts.
    accent
        Behind the button that people come for.
    """

    text: str = "#f0f1f2"
    accent: str = "#007acc"

    @classmethod
    def of(cls, viewer: Viewer) -> Colors:
        """Return those of a viewer's theme."""
        theme = get_theme(viewer.theme)
        return cls(theme.text.as_hex(), theme.current.as_hex())

    @property
    def tones(self) -> dict[Tone, str]:
        """Colours of the tones."""
        return ON_DARK if self._is_dark else ON_LIGHT

    @property
    def curve(self) -> str:
        """Colour of a curve that matters."""
        return "#4fb3ff" if self._is_dark else "#0a6ebd"

    @property
    def points(self) -> str:
        """Colour of measured points."""
        return "#e08a1e" if self._is_dark else "#b05f00"

    @property
    def sheet(self) -> str:
        """Style sheet of a widget whose parts have tones."""
        tones = "".join(f'*[tone="{tone}"] {{ color: {color}; }}' for tone, color in self.tones.items())
        return f"{tones} QPushButton[{MAIN}=true]:enabled {{ background-color: {self.accent}; font-weight: bold; }}"

    def html(self, body: str) -> str:
        """Complete a rich text whose parts have a tone as their class."""
        rules = "".join(f".{tone} {{ color: {color}; }}" for tone, color in self.tones.items())
        return f"<style>{rules}</style>{body}" if body else ""

    @property
    def _is_dark(self) -> bool:
        return QColor(self.text).lightness() > 127


class Painted(QWidget):
    """A widget that draws in colours of its own, and hears of those of the viewer's theme."""

    colors = Colors()

    def paint(self, colors: Colors) -> None:
        """Take on the colours of the viewer's theme."""
        self.colors = colors


def set_tone(widget: QWidget, tone: Tone | None) -> None:
    """Give a text a tone, or none."""
    value = tone.value if tone else ""
    if widget.property("tone") == value:
        return
    widget.setProperty("tone", value)
    style = widget.style()
    if style is not None:  # which looks at properties only when it is asked to, and takes its time
        style.unpolish(widget)
        style.polish(widget)
