"""The generated form shows and returns what the settings declare."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_ssdenoise.algorithms import Setting, get_algorithm, list_algorithms, settings
from napari_ssdenoise.widgets._form import Field, FormArea, SettingsForm, folded, form_layout


@pytest.fixture
def make_form(qtbot):
    def make(key):
        folded = QWidget()
        qtbot.addWidget(folded)
        form = SettingsForm(list_algorithms()[key], form_layout(folded))
        qtbot.addWidget(form)
        return form, folded

    return make


@pytest.mark.parametrize("key", list_algorithms())
def test_defaults_round_trip(make_form, key):
    form, _ = make_form(key)
    assert form.values() == {s.name: s.default for s in settings(list_algorithms()[key])}
    assert get_algorithm(key, **form.values()) == get_algorithm(key)


@pytest.mark.parametrize("key", list_algorithms())
def test_extremes_round_trip(make_form, key):
    form, _ = make_form(key)
    for setting in settings(list_algorithms()[key]):
        values = setting.choices or [v for v in (setting.min, setting.max) if v is not None]
        values = [False, True] if setting.type is bool else values
        for value in values:
            form.set_values({setting.name: value})
            assert form.values()[setting.name] == (pytest.approx(value) if setting.type is float else value)


def test_small_learning_rates_survive(make_form):
    form, _ = make_form("n2v")
    form.set_values({"learning_rate": 4e-4})
    assert form.values()["learning_rate"] == pytest.approx(4e-4)
    assert form.fields["learning_rate"].widget.text() == "0.00040"


def test_own_settings_are_in_view_and_advanced_ones_folded(make_form):
    form, folded = make_form("n2v")
    for setting in settings(list_algorithms()["n2v"]):
        home = folded if setting.advanced else form
        assert form.fields[setting.name].widget in home.findChildren(QWidget)


def test_a_change_is_told_and_advanced_rows_go_with_the_form(make_form, qtbot):
    form, folded = make_form("n2v")
    with qtbot.waitSignal(form.changed):
        form.fields["n2v2"].set(True)
    form.clear()
    qtbot.waitUntil(lambda: not folded.findChildren(QWidget))


def test_a_check_box_does_not_repeat_its_label(make_form):
    form, _ = make_form("n2v")
    assert form.fields["n2v2"].widget.text() == ""


OPTIONAL = {
    "sigma": Setting("sigma", float, None, "Sigma", "Of the noise.", min=0.0, max=1e6, step=0.01, optional=True),
    "offset": Setting("offset", float, None, "Offset", "Of zero.", min=-1e6, max=1e6, step=0.1, optional=True),
    "frames": Setting("frames", int, None, "Frames", "To average.", min=1, max=10, step=1, optional=True),
}


@pytest.fixture
def make_field(qtbot):
    def make(name):
        told = []
        field = Field(OPTIONAL[name], lambda: told.append(field.get()))
        qtbot.addWidget(field.widget)
        return field, told

    return make


@pytest.mark.parametrize(
    ("name", "values"), [("sigma", [0.0, 3.21e-5, 0.03, 1e6]), ("offset", [-1e6, -0.5, 0.0, 1e6]), ("frames", [1, 10])]
)
def test_an_optional_number_is_auto_until_it_is_given(make_field, name, values):
    field, told = make_field(name)
    assert field.get() is None
    assert field.widget.text() == "auto"
    for value in (*values, None):
        field.set(value)
        assert field.get() == value
        assert type(field.get()) is type(value)
    assert told == [*values, None]


@pytest.mark.parametrize(("name", "first"), [("sigma", 0), ("offset", 0), ("frames", 1)])
def test_an_optional_number_steps_from_auto_to_the_nearest_number(make_field, name, first):
    field, _ = make_field(name)
    field.widget.stepUp()
    assert field.get() == first


def test_an_optional_number_steps_by_amounts_that_one_sees(make_field):
    field, _ = make_field("sigma")
    seen = []
    for step in (1, 1, 1, -1, -1, -1):
        field.widget.stepBy(step)
        seen.append(field.get())
    assert seen[:2] == [0.0, 0.01]
    assert seen[2] == pytest.approx(0.011)
    assert min(seen) == 0.0
    field.set(None)
    field.widget.stepDown()
    assert field.get() is None


def test_an_optional_number_below_its_range_is_the_least(make_field, qtbot):
    field, _ = make_field("sigma")
    field.widget.selectAll()
    qtbot.keyClicks(field.widget, "-0.5")
    qtbot.keyClick(field.widget, Qt.Key.Key_Return)
    assert field.get() == 0.0


@pytest.mark.parametrize("typed", ["", "auto", "a"])
def test_an_optional_number_is_typed_and_cleared(make_field, qtbot, typed):
    field, _ = make_field("offset")
    field.widget.selectAll()
    qtbot.keyClicks(field.widget, "-2.5")
    qtbot.keyClick(field.widget, Qt.Key.Key_Return)
    assert field.get() == -2.5
    field.widget.selectAll()
    qtbot.keyClick(field.widget, Qt.Key.Key_Delete)
    qtbot.keyClicks(field.widget, typed)
    qtbot.keyClick(field.widget, Qt.Key.Key_Return)
    assert field.get() is None
    assert field.widget.text() == "auto"


def test_a_section_shows_its_title_and_whether_it_is_open(qtbot):
    section = folded("Advanced", QWidget())
    qtbot.addWidget(section)
    assert section.text() == "Advanced"
    closed = section.toggleButton().text()
    section.expand(animate=False)
    section.setText("Settings")
    assert section.text() == "Settings"
    assert section.toggleButton().text() not in (closed, closed.replace("Advanced", "Settings"))


def test_a_short_form_is_not_stretched(qtbot):
    area = FormArea(QLabel("one line"))
    qtbot.addWidget(area)
    assert area.minimumSizeHint().height() < 60
    high = QLabel("\n".join("lines of it"))
    long = FormArea(high)
    qtbot.addWidget(long)
    assert long.minimumSizeHint().height() == 120
