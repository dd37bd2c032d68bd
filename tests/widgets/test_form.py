"""The generated form shows and returns what the settings declare."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QWidget

from napari_ssdenoise.algorithms import get_algorithm, list_algorithms, settings
from napari_ssdenoise.widgets._form import SettingsForm, form_layout


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
