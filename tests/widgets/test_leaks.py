"""Nothing of a run outlives its widget."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from napari_ssdenoise.engine import trainer as engine
from napari_ssdenoise.widgets.denoise import DenoiseWidget

TINY = {"depth": 1, "width": 4, "patch": 16, "batch": 2}
RUNS = 20


@pytest.mark.slow
def test_trainers_models_jobs_and_widgets_are_let_go(viewer, finish, qtbot, monkeypatch):
    kept: dict[str, list[weakref.ref]] = {name: [] for name in ("trainer", "training", "model", "widget")}
    begin = engine.Trainer.__init__

    def noting(trainer, *args, **kwargs):
        begin(trainer, *args, **kwargs)
        kept["trainer"].append(weakref.ref(trainer))

    monkeypatch.setattr(engine.Trainer, "__init__", noting)
    for _ in range(RUNS):
        layer = viewer.add_image(np.random.default_rng(0).normal(100, 20, (40, 40)).astype("float32"))
        widget = DenoiseWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Denoise", area="right")
        widget.method.choose("n2v", TINY)
        widget.method.length.set_steps(2)
        widget.input.layer_box.set_layer(layer)
        widget.train()
        finish(widget)
        kept["training"].append(weakref.ref(widget.training.training))
        kept["model"].append(weakref.ref(widget.model))
        kept["widget"].append(weakref.ref(widget))
        widget.apply()
        finish(widget)
        qtbot.waitUntil(lambda widget=widget: not widget.working, timeout=60_000)
        viewer.window.remove_dock_widget(widget)
        del widget, layer
        viewer.layers.clear()
    qtbot.wait(50)
    gc.collect()
    assert all(len(found) == RUNS for found in kept.values())
    assert {name: sum(ref() is not None for ref in found) for name, found in kept.items()} == dict.fromkeys(kept, 0)
