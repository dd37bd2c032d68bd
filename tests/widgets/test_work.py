"""Previews stay within their share of the time, whatever the machine."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets import _stopping, _work
from napari_ssdenoise.widgets._denoising import ArrayDenoising, Sampled, thin
from napari_ssdenoise.widgets._job import Stopped
from napari_ssdenoise.widgets._run_panel import LossCurve, describe_seconds
from napari_ssdenoise.widgets._stopping import interrupt_between_layers
from napari_ssdenoise.widgets._work import PREVIEW_CONTEXT, PREVIEW_VOXELS, Method, Previewer, Training, Window

REGION = (slice(0, 8), slice(0, 8))


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose only entry is the time."""
    now = [0.0]
    monkeypatch.setattr(_work.time, "perf_counter", lambda: now[0])
    return now


def test_previews_are_rare_in_proportion_to_their_cost(clock):
    window = Window(REGION)
    previewer = Previewer(Volume(np.zeros((8, 8)), "YX"), window, "cpu")
    clock[0] = 1.9
    assert not previewer.due()
    clock[0] = 2.1
    assert previewer.due()
    previewer.shown, previewer.ended, previewer.cost = REGION, 10.0, 3.0
    clock[0] = 21.9
    assert not previewer.due()
    clock[0] = 22.1  # 3 of 15 seconds are a fifth
    assert previewer.due()


def test_looking_elsewhere_brings_the_preview_soon(clock):
    window = Window(REGION)
    previewer = Previewer(Volume(np.zeros((8, 8)), "YX"), window, "cpu")
    previewer.shown, previewer.ended, previewer.cost = REGION, 10.0, 0.1
    clock[0] = 10.5
    assert not previewer.due()
    window.region = (slice(4, 8), slice(0, 8))
    assert previewer.due()
    window.region = None
    assert not previewer.due()


def test_slow_machines_get_cheaper_previews_and_quick_ones_full_ones():
    window, sizes = Window(REGION), {"Z": 30, "Y": 8, "X": 8}
    assert (window.planes("YX", sizes), window.planes("ZYX", sizes)) == (1, 2 * PREVIEW_CONTEXT + 1)
    window.adapt(5)
    assert (window.planes("ZYX", sizes), window.voxels) == (PREVIEW_CONTEXT + 1, PREVIEW_VOXELS)
    window.adapt(5)
    assert window.voxels < PREVIEW_VOXELS
    window.adapt(0.5)
    assert window.voxels < PREVIEW_VOXELS
    window.adapt(0.01)
    assert (window.context, window.voxels) == (PREVIEW_CONTEXT, PREVIEW_VOXELS)


@pytest.mark.parametrize(("seconds", "postponed"), [(0.3, False), (3.0, True)])
def test_a_first_preview_that_would_last_long_waits_for_a_smaller_part(clock, seconds, postponed):
    window = Window(REGION)
    previewer = Previewer(Volume(np.zeros((8, 8)), "YX"), window, "cpu")
    clock[0] = 2.1
    assert previewer.due()
    # Steps of 4 x 128 x 128 voxels.
    trainer = SimpleNamespace(seconds=10 * seconds, step=10, sampler=SimpleNamespace(batch=4, patch=(128, 128)))
    assert previewer.postponed(trainer) == postponed
    assert (window.voxels < PREVIEW_VOXELS) == postponed
    assert previewer.due() != postponed
    clock[0] = 4.2
    assert previewer.due()
    assert not previewer.postponed(trainer)  # once


def test_a_network_stops_between_its_layers():
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    stop = threading.Event()
    interrupt_between_layers(network, stop)
    network(torch.zeros(1))
    network[0].register_forward_hook(lambda *_: stop.set())
    with pytest.raises(Stopped):
        network(torch.zeros(1))


def test_a_network_stops_between_its_layers_on_the_way_back():
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 1) for _ in range(3)))
    stop = threading.Event()
    interrupt_between_layers(network, stop)
    seen = network(torch.zeros(1, 1, 4, 4))
    seen.register_hook(lambda _: stop.set())
    with pytest.raises(Stopped):
        seen.sum().backward()
    assert network[0].weight.grad is None


def test_a_stop_does_not_wait_for_torch(monkeypatch):
    begun, over = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        over.wait(60)

    monkeypatch.setattr(_stopping, "_import_torch", slow)
    monkeypatch.setattr(_stopping, "_loading", [])
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        _stopping.load_torch(stop)
    assert begun.wait(60)
    threading.Timer(0.1, over.set).start()
    _stopping.load_torch(threading.Event())  # the same import, which ends
    assert over.is_set()


def test_an_import_that_fails_is_told_and_tried_again(monkeypatch):
    def fail() -> None:
        raise ImportError("no torch here")

    monkeypatch.setattr(_stopping, "_import_torch", fail)
    monkeypatch.setattr(_stopping, "_loading", [])
    with pytest.raises(ImportError, match="no torch here"):
        _stopping.load_torch(threading.Event())
    monkeypatch.setattr(_stopping, "_import_torch", lambda: None)
    _stopping.load_torch(threading.Event())


def test_what_torch_is_made_of_is_not_looked_through_after_its_import(monkeypatch):
    made, young = [], []
    monkeypatch.setattr(_stopping, "HEAVY", ("torch",))
    monkeypatch.setattr(_stopping, "import_module", lambda _: made.extend([] for _ in range(100_000)))
    enable = gc.enable
    monkeypatch.setattr(gc, "enable", lambda: young.append(len(gc.get_objects(generation=0))))
    try:
        _stopping._import_torch()
    finally:
        enable()
    assert len(made) == 100_000
    assert young[0] < 10_000


def test_images_are_not_read_after_a_stop_unless_what_was_made_is_completed():
    stop = threading.Event()
    image = _stopping.guarded(Volume(np.arange(16).reshape(4, 4), "YX"), stop)
    assert image[0, 1] == 1
    stop.set()
    with pytest.raises(Stopped):
        image[0, 1]
    _stopping.release(image, None)
    assert image[0, 1] == 1


def test_a_training_that_is_stopped_while_its_model_is_completed_leaves_one(monkeypatch):
    from napari_ssdenoise.engine.trainer import Trainer

    stop = threading.Event()
    whole = Trainer.model.fget

    def interrupted(trainer: Trainer) -> object:
        stop.set()
        return whole(trainer)

    monkeypatch.setattr(Trainer, "model", property(interrupted))
    image = np.random.default_rng(0).normal(100, 20, (40, 40)).astype("float32")
    method = Method("blindspot", {"depth": 1, "width": 4, "patch": 32, "batch": 2}, steps=2)
    training = Training(method, Volume(image, "YX"), None, "YX", "auto")
    with pytest.raises(Stopped):
        list(training.reports(stop))
    assert training.model is not None
    assert np.isfinite(training.model.predict(image)).all()


def test_a_stop_while_the_network_is_prepared_is_not_taken_for_an_unknown_layer():
    from napari_ssdenoise.algorithms import get_algorithm

    network = get_algorithm("n2v", depth=1, width=4).build(1, (True, True))
    halo = network.reach()
    stop = threading.Event()
    interrupt_between_layers(network, stop)
    stop.set()
    assert network.reach() == halo
    torch = pytest.importorskip("torch")
    with pytest.raises(Stopped):
        network(torch.zeros(1, 1, 8, 8))


def test_a_model_that_tells_images_apart_looks_at_the_one_it_denoises():
    ssd = pytest.importorskip("napari_ssdenoise")
    rng = np.random.default_rng(0)
    quiet, loud = (Volume(rng.normal(100, sigma, (48, 40)).astype(np.float32), "YX") for sigma in (4, 16))
    algorithm = ssd.BlindSpot(depth=1, width=4, noise="gaussian", per_image=True, patch=16)
    model = ssd.train(quiet, algorithm, steps=1, device="cpu")
    out = np.zeros(loud.shape, np.float32)
    for _ in ArrayDenoising(model, loud, {"mean": out}, "cpu").reports(threading.Event()):
        pass
    np.testing.assert_array_equal(out, model.predict(loud, device="cpu"))


def test_limits_come_at_first_and_at_last():
    sampled = Sampled()
    assert sampled.add(np.zeros((100, 100))) == (0, 1)
    assert sampled.add(np.full((100, 100), 5.0)) is None
    assert sampled.add(np.full((100, 100), 10.0), last=True) == (0, 10)


def test_the_middle_plane_of_a_region():
    region = (slice(None), slice(4, 9), slice(0, 64), slice(0, 64))
    assert thin(region) == (slice(None), slice(6, 7), slice(0, 64), slice(0, 64))


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (80, "1 min 20 s"), (7260, "2 h 01 min")])
def test_durations_are_written_as_people_say_them(seconds, text):
    assert describe_seconds(seconds) == text


def test_long_curves_are_thinned(qtbot):
    curve = LossCurve()
    qtbot.addWidget(curve)
    curve.clear()
    for step in range(1, 2001):
        curve.add(step, 1 / step)
    curve.draw()
    steps, losses = curve.points()
    assert len(steps) == len(losses) <= 300
    assert losses[-1] == pytest.approx(1 / 2000, rel=0.01)
