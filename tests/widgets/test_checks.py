"""Look at the noise before, at the quality after, at the uncertainty with it, and at what comes out in seconds."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_ssdenoise import diagnosis
from napari_ssdenoise.algorithms import algorithms_for
from napari_ssdenoise.quality import assess as really_assess
from napari_ssdenoise.widgets import denoise
from napari_ssdenoise.widgets._apply_control import uncertainty_path
from napari_ssdenoise.widgets._layers import PREVIEW_KEY
from napari_ssdenoise.widgets._reports import describe_settings, diagnosis_html, quality_html

PATIENCE = 120_000  # ms, for machines that are busy
FOREVER = 10**6  # steps
BLIND = {"noise": "gaussian", "sigma": 10.0, "depth": 1, "width": 4, "patch": 16, "batch": 2}


def noisy(*shape: int) -> np.ndarray:
    grid = np.indices(shape).sum(0)
    return (100 + 20 * np.sin(grid / 5) + np.random.default_rng(0).normal(0, 10, shape)).astype(np.float32)


@dataclass(frozen=True)
class Assumption:
    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True)
class Report:
    """What the widget uses of a diagnosis."""

    algorithm: str = "n2v"
    settings: dict[str, Any] = field(default_factory=lambda: {"struct_mask": "111", "width": 4, "depth": 1})
    reasons: tuple[str, ...] = ("neighbours share noise.",)
    assumptions: tuple[Assumption, ...] = (
        Assumption("noise averages to zero", True, "nothing is cut off."),
        Assumption("noise independent between pixels", False, "correlation 0.4 along X."),
        Assumption("signal predictable", None, "cannot be told, <b>really</b>."),
    )


@dataclass(frozen=True)
class Quality:
    warnings: tuple[str, ...] = ()
    psnr: Any = field(default_factory=lambda: SimpleNamespace(value=28.1))

    def rows(self) -> list[tuple[str, str]]:
        return [("PSNR, estimated", "28.1 dB"), ("<script>", "<script>")]


@pytest.fixture
def diagnose(monkeypatch):
    """Replace the diagnosis; return a function that says how."""

    def replace(function=lambda volume, **_: Report()):
        monkeypatch.setattr(diagnosis, "diagnose", function, raising=False)

    replace()
    return replace


def layer_named(viewer, name):
    return next(layer for layer in viewer.layers if layer.name == name)


def train(widget, finish):
    assert widget.run.train.isEnabled(), widget.run.check.text()
    widget.run.train.click()
    finish(widget)
    assert widget.model is not None, widget.run.status.text()


def test_diagnose_and_use_what_it_recommends(viewer, open_widget, finish, diagnose):
    viewer.add_image(noisy(40, 40), name="cells")
    widget = open_widget()
    panel = widget.method.diagnosis
    assert panel.isHidden()
    widget.method.choose("zs-n2n", {})
    widget.method.diagnose.click()
    assert not widget.method.isEnabled()
    finish(widget)
    assert panel.isVisibleTo(widget)
    assert panel.section.isExpanded()
    assert panel.section.text() == "Diagnosis: Noise2Void"
    for words in ("Structured noise mask: 111", "Neighbours share noise.", "✓", "✗", "?", "correlation 0.4 along X."):
        assert words in panel.text.text()
    assert "&lt;b&gt;really" in panel.text.text()
    assert widget.method.algorithm == "zs-n2n"
    panel.button.click()
    assert widget.method.algorithm == "n2v"
    assert widget.method.form.values()["struct_mask"] == "111"
    assert widget.method.form.values()["n2v2"] is False
    assert widget.model is None


def test_a_diagnosis_belongs_to_its_layer(viewer, open_widget, finish, diagnose):
    viewer.add_image(noisy(40, 40), name="a")
    other = viewer.add_image(noisy(40, 40), name="b")
    widget = open_widget()
    widget.input.layer_box.set_layer(layer_named(viewer, "a"))
    widget.method.diagnose.click()
    finish(widget)
    assert not widget.method.diagnosis.isHidden()
    widget.input.layer_box.set_layer(other)
    assert widget.method.diagnosis.isHidden()


def test_auto_is_first_and_trains_what_the_diagnosis_recommends(viewer, open_widget, finish, diagnose):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    box = widget.method.algorithm_box
    assert [box.itemData(row) for row in range(box.count())] == ["auto", *algorithms_for("denoise")]
    widget.method.algorithm_box.setCurrentIndex(0)
    assert "noise first" in widget.method.hint.text()
    assert widget.method.form.values() == {}
    train(widget, finish)
    assert widget.model.algorithm.key == "n2v"
    assert widget.model.algorithm.struct_mask == "111"
    assert widget.method.diagnosis.isVisibleTo(widget)
    assert "Trained 3 steps" in widget.run.status.text()


def test_a_new_widget_is_on_auto(viewer, qtbot):
    viewer.add_image(noisy(40, 40))
    widget = denoise.DenoiseWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.method.algorithm == "auto"
    assert widget.run.train.isEnabled()
    widget.input.disconnect_viewer()


@pytest.mark.parametrize("auto", [False, True])
def test_a_diagnosis_is_stopped_between_two_reads(viewer, open_widget, finish, diagnose, qtbot, auto):
    reading, gate = threading.Event(), threading.Event()

    def slowly(volume, **_):
        while True:
            np.asarray(volume[0:4])
            reading.set()
            gate.wait(60)

    diagnose(slowly)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.algorithm_box.setCurrentIndex(0)
    (widget.run.train if auto else widget.method.diagnose).click()
    qtbot.waitUntil(reading.is_set, timeout=PATIENCE)
    assert widget.run.train.text() == "Stop"
    widget.run.train.click()
    gate.set()
    finish(widget)
    assert "Stopped" in widget.run.status.text()
    assert widget.method.diagnosis.isHidden()
    assert widget.model is None


def test_a_diagnosis_that_cannot_be_made_is_told(viewer, open_widget, finish, diagnose, notified):
    def refuse(volume, **_):
        raise ValueError("the image holds NaN.")

    diagnose(refuse)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    widget.method.diagnose.click()
    finish(widget)
    assert notified == ["The image holds NaN."]
    widget.method.algorithm_box.setCurrentIndex(0)
    widget.run.train.click()
    finish(widget)
    assert len(notified) == 2


def test_a_quick_look_shows_a_preview_and_needs_no_settings(viewer, open_widget, finish, monkeypatch, qtbot):
    monkeypatch.setattr(denoise, "QUICK_SECONDS", 0.2)
    viewer.add_image(noisy(40, 40), name="cells")
    widget = open_widget()
    widget.run.preview.setCurrentIndex(widget.run.preview.findData("off"))
    widget.method.form.set_values({"struct_mask": "12"})
    assert not widget.run.train.isEnabled()
    assert widget.run.quick.isEnabled()
    widget.run.quick.click()
    assert widget.run.train.text() == "Stop"
    finish(widget)
    preview = next(layer for layer in viewer.layers if PREVIEW_KEY in layer.metadata)
    assert preview.data.shape == (40, 40)
    assert "first look" in widget.run.status.text()
    assert widget.model.algorithm.key == "zs-n2n"
    assert widget.method.algorithm == "n2v"
    assert widget.run.quality.isHidden()


def test_a_quick_look_does_not_replace_a_trained_model(viewer, open_widget, finish, monkeypatch):
    monkeypatch.setattr(denoise, "QUICK_SECONDS", 0.2)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    widget.run.quick.click()
    finish(widget)
    assert widget.model.algorithm.key == "n2v"


def test_the_quality_is_shown_after_the_model_is_there(viewer, open_widget, finish, assess, qtbot):
    gate = threading.Event()

    def slowly(model, volume, **_):
        gate.wait(60)
        return Quality(("Structure is left in the residual.",))

    assess(slowly)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    assert widget.run.apply.isEnabled()
    assert widget.run.quality.section.text() == "Quality: checking…"
    gate.set()
    qtbot.waitUntil(lambda: widget.quality.job is None, timeout=PATIENCE)
    assert widget.run.quality.section.text() == "Quality: about 28 dB, 1 warning"
    assert widget.run.quality.section.isExpanded()
    assert widget.run.quality.text.text().count("left in the residual") == 1
    assert "28.1 dB" in widget.run.quality.text.text()


def test_the_quality_waits_for_what_people_start(viewer, open_widget, finish, assess, qtbot):
    calls, started = [], threading.Event()

    def judge(model, volume, **_):
        calls.append(model)
        started.set()
        while len(calls) == 1:
            np.asarray(volume[0:2])  # raises once it is to stop
        return Quality()

    assess(judge)
    viewer.add_image(noisy(40, 40), name="cells")
    widget = open_widget()
    train(widget, finish)
    qtbot.waitUntil(started.is_set, timeout=PATIENCE)
    widget.run.apply.click()
    finish(widget)
    assert layer_named(viewer, "cells denoised")
    qtbot.waitUntil(lambda: widget.run.quality.section.text() == "Quality: about 28 dB, no warnings", timeout=PATIENCE)
    assert len(calls) == 2
    assert not widget.run.quality.section.isExpanded()


def test_another_training_takes_the_old_quality_away(viewer, open_widget, finish, assess, qtbot):
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    qtbot.waitUntil(lambda: widget.quality.job is None, timeout=PATIENCE)
    assert not widget.run.quality.isHidden()
    widget.method.length.set_steps(FOREVER)
    widget.run.train.click()
    assert widget.run.quality.isHidden()
    qtbot.waitUntil(lambda: widget.training._last is not None, timeout=PATIENCE)
    widget.stop()
    finish(widget)
    assert not widget.run.quality.isHidden()  # what is learnt until a stop is judged as well


def test_a_quality_that_cannot_be_computed_is_no_error(viewer, open_widget, finish, assess, qtbot, notified):
    def refuse(model, volume, **_):
        raise ValueError("the image is too small to judge.")

    assess(refuse)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    qtbot.waitUntil(lambda: widget.quality.job is None, timeout=PATIENCE)
    assert widget.run.quality.section.text() == "Quality: could not be checked"
    assert "too small" in widget.run.quality.text.text()
    assert notified == []


def test_closing_while_the_quality_is_computed(viewer, open_widget, finish, assess, qtbot):
    started = threading.Event()

    def judge(model, volume, **_):
        started.set()
        while True:
            np.asarray(volume[0:2])

    assess(judge)
    viewer.add_image(noisy(40, 40))
    widget = open_widget()
    train(widget, finish)
    qtbot.waitUntil(started.is_set, timeout=PATIENCE)
    viewer.window.remove_dock_widget(widget)
    qtbot.waitUntil(lambda: widget.quality.job is None, timeout=PATIENCE)


def test_an_uncertainty_layer(viewer, open_widget, finish):
    image = noisy(3, 40, 48)
    source = viewer.add_image(
        image, name="cells", axis_labels=("t", "y", "x"), scale=(1, 0.2, 0.2), units=("s", "um", "um"), colormap="green"
    )
    widget = open_widget()
    assert widget.run.uncertainty.isHidden()
    widget.method.choose("blindspot", BLIND)
    train(widget, finish)
    assert widget.run.uncertainty.isVisibleTo(widget)
    widget.run.uncertainty.setChecked(True)
    widget.run.apply.click()
    finish(widget)
    result, doubt = (layer_named(viewer, f"cells {kind}") for kind in ("denoised", "uncertainty"))
    assert viewer.layers.selection.active == result
    mean, std = widget.model.predict(widget.input.volume(), outputs=("mean", "std"))
    np.testing.assert_allclose(result.data, mean, rtol=1e-2, atol=1e-1)
    np.testing.assert_allclose(doubt.data, std, rtol=5e-2, atol=1e-1)
    assert (doubt.colormap.name, result.colormap.name) == ("magma", "green")
    assert not doubt.visible
    np.testing.assert_array_equal(doubt.scale, source.scale)
    assert doubt.units == source.units
    assert doubt.data.min() <= doubt.contrast_limits[0] < doubt.contrast_limits[1] <= doubt.data.max()
    assert doubt.metadata["ssdenoise"]["output"] == "std"
    assert "cells uncertainty" in widget.run.status.text()
    widget.run.uncertainty.setChecked(False)
    widget.run.apply.click()
    finish(widget)
    assert len([layer for layer in viewer.layers if "uncertainty" in layer.name]) == 1


def test_uncertainty_into_a_second_file(viewer, open_widget, finish, tmp_path):
    viewer.add_image(noisy(3, 40, 48), name="cells", axis_labels=("t", "y", "x"), scale=(1, 0.2, 0.2))
    widget = open_widget()
    widget.method.choose("blindspot", BLIND)
    train(widget, finish)
    widget.run.uncertainty.setChecked(True)
    widget.apply_to(tmp_path / "clean")
    finish(widget)
    names = ["clean uncertainty.ome.zarr", "clean.ome.zarr"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    std = widget.model.predict(widget.input.volume(), outputs=("std",))[0]
    doubt = layer_named(viewer, "cells uncertainty")
    np.testing.assert_allclose(np.asarray(doubt.data), std, rtol=5e-2, atol=1e-1)
    assert doubt.metadata["ssdenoise"]["path"].endswith(names[0])
    assert all(name in widget.run.status.text() for name in names)


@pytest.mark.parametrize("kind", ["rgb", "other model"])
def test_no_uncertainty_is_offered_where_there_is_none(viewer, open_widget, finish, kind):
    data = np.clip(np.stack([noisy(40, 40)] * 3, -1), 0, 255).astype(np.uint8) if kind == "rgb" else noisy(40, 40)
    viewer.add_image(data)
    widget = open_widget()
    if kind == "rgb":
        widget.method.choose("blindspot", BLIND)
    train(widget, finish)
    assert widget.run.uncertainty.isHidden()


def test_names_of_uncertainty_files(tmp_path):
    assert uncertainty_path(tmp_path / "a.ome.zarr").name == "a uncertainty.ome.zarr"
    assert uncertainty_path(tmp_path / "a.zarr").name == "a uncertainty.zarr"


def test_settings_in_words():
    values = {"noise": "poisson-gaussian", "sigma": None, "gain": 2.123456, "learn_noise": True}
    assert describe_settings("blindspot", values) == [
        "Noise: poisson-gaussian",
        "Noise deviation: auto",
        "Gain: 2.123",
        "Learn the noise: yes",
    ]


def test_reports_escape_what_they_show():
    assert "<script" not in diagnosis_html(Report(reasons=("<script>",)))
    assert "<script" not in quality_html(Quality(("<script>",)))


def test_the_real_diagnosis_and_the_real_quality(viewer, open_widget, finish, assess, qtbot):
    assess(really_assess)
    viewer.add_image(noisy(128, 128), name="cells")
    widget = open_widget()
    widget.method.diagnose.click()
    finish(widget)
    panel = widget.method.diagnosis
    assert panel.report.algorithm in panel.report.recommendation.key
    panel.button.click()
    widget.method.form.set_values({"depth": 1, "width": 4, "patch": 16, "batch": 2})
    train(widget, finish)
    assert widget.model.algorithm.key == panel.report.algorithm
    qtbot.waitUntil(lambda: widget.quality.job is None, timeout=PATIENCE)
    assert "PSNR, estimated" in widget.run.quality.text.text()
