"""What people are warned with can be read in every theme, also after it is changed."""

from __future__ import annotations

import pytest
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel

from napari_ssdenoise.batch import Outcome, Status
from napari_ssdenoise.widgets._colors import ON_DARK, ON_LIGHT, Colors, Tone, in_tone, set_tone
from napari_ssdenoise.widgets.batch import BatchWidget
from napari_ssdenoise.widgets.compare import CompareWidget
from napari_ssdenoise.widgets.denoise import DenoiseWidget

ENOUGH = {"text": 4.5, "curve": 3.0}  # WCAG 2: contrast of texts, and of what else must be seen


def luminance(color: str) -> float:
    """As WCAG 2 has it."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in QColor(color).getRgbF()[:3]]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["dark", "light"])
def test_everything_stands_out_from_what_is_behind(name):
    theme = get_theme(name)
    colors = Colors(theme.text.as_hex(), theme.current.as_hex())
    assert colors.tones is (ON_LIGHT if name == "light" else ON_DARK)
    for behind in (theme.background.as_hex(), theme.foreground.as_hex()):
        assert all(contrast(color, behind) >= ENOUGH["text"] for color in colors.tones.values())
    for curve in (colors.curve, colors.points):
        assert contrast(curve, theme.background.as_hex()) >= ENOUGH["curve"]


def test_texts_and_curves_follow_the_theme(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.theme = "dark"
    widget = DenoiseWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.run.say("Something is wrong.", error=True)
    widget.run.quality.show_report("1 warning", in_tone(Tone.BAD, "structure"), unfold=True)
    widget.run.curve.clear()
    for step in range(3):
        widget.run.curve.add(step, 1.0)
    for theme, tones in (("dark", ON_DARK), ("light", ON_LIGHT)):
        viewer.theme = theme
        assert color_of(widget.run.status) == tones[Tone.BAD]
        assert tones[Tone.BAD] in widget.run.quality.text.text()
        assert widget.run.curve._curve.opts["pen"].color().name() == Colors.of(viewer).curve
        assert widget.run.curve.isHidden(), "nothing was drawn yet"
    widget.run.say("All is well.")
    assert color_of(widget.run.status) == get_theme("light").text.as_hex()


def test_outcomes_in_a_table_follow_the_theme(make_napari_viewer, tmp_path):
    viewer = make_napari_viewer()
    viewer.theme = "light"
    widget = BatchWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.images.add_paths([tmp_path / "a.tif", tmp_path / "b.tif"])
    for number, status in enumerate((Status.DONE, Status.FAILED)):
        widget.images.show_outcome(Outcome(number, status))
    for theme, tones in (("light", ON_LIGHT), ("dark", ON_DARK)):
        viewer.theme = theme
        found = [widget.images.table.item(row, 1).foreground().color().name() for row in range(2)]
        assert found == [tones[Tone.GOOD], tones[Tone.BAD]]


def test_a_closed_widget_hears_of_no_theme(make_napari_viewer):
    viewer = make_napari_viewer()
    widget = CompareWidget(viewer)
    before = len(viewer.events.theme.callbacks)
    widget.let_go()
    assert len(viewer.events.theme.callbacks) == before - 1


def color_of(label: QLabel) -> str:
    return label.palette().color(label.foregroundRole()).name()


def test_a_tone_can_be_taken_back(qtbot):
    label = QLabel("text")
    qtbot.addWidget(label)
    label.setStyleSheet(Colors().sheet)
    plain = color_of(label)
    set_tone(label, Tone.UNSURE)
    assert color_of(label) == ON_DARK[Tone.UNSURE]
    set_tone(label, None)
    assert color_of(label) == plain
