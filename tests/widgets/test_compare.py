"""Before and after in one view, the residual, and values along a line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_ssdenoise.widgets._comparing import along_line, neighbour_correlation
from napari_ssdenoise.widgets._layers import PREVIEW_KEY
from napari_ssdenoise.widgets.compare import CompareWidget


@pytest.fixture
def open_compare(viewer, qtbot) -> Iterator[Callable[[], CompareWidget]]:
    opened: list[CompareWidget] = []

    def make() -> CompareWidget:
        widget = CompareWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Compare", area="right")
        opened.append(widget)
        return widget

    yield make
    for widget in opened:
        with suppress(RuntimeError, LookupError):  # the test has closed it
            qtbot.waitUntil(lambda widget=widget: not widget.working, timeout=10_000)
            widget.shut_down()
            viewer.window.remove_dock_widget(widget)
            widget.deleteLater()
    qtbot.waitUntil(lambda: not living(), timeout=10_000)


def living() -> list[CompareWidget]:
    return [widget for widget in QApplication.allWidgets() if isinstance(widget, CompareWidget)]


@pytest.fixture
def pair(viewer):
    rng = np.random.default_rng(0)
    clean = np.tile(np.linspace(0, 10, 40, dtype=np.float32), (3, 32, 1))
    noisy = clean + rng.normal(0, 1, clean.shape).astype(np.float32)
    place = {"scale": (5, 0.5, 0.5), "translate": (1, 2, 3)}
    before = viewer.add_image(noisy, name="noisy", **place)
    after = viewer.add_image(clean, name="noisy denoised", metadata={"ssdenoise": {"source": "noisy"}}, **place)
    return before, after


def split_layer(viewer):
    return next((layer for layer in viewer.layers if PREVIEW_KEY in layer.metadata), None)


def test_the_split_view_lies_on_the_result_and_goes_with_slider_and_slice(viewer, open_compare, pair, qtbot):
    before, after = pair
    widget = open_compare()
    assert (widget.before.layer, widget.after.layer) == (before, after)
    viewer.dims.set_current_step(0, 1)
    widget.split.setChecked(True)
    qtbot.waitUntil(lambda: split_layer(viewer) is not None, timeout=10_000)
    shown = split_layer(viewer)
    np.testing.assert_array_equal(shown.data, after.data[1:2, :, 20:])
    np.testing.assert_allclose(shown.data_to_world((0, 0, 0)), after.data_to_world((1, 0, 20)))
    assert before.visible
    assert not after.visible
    widget.slider.setValue(50)
    qtbot.waitUntil(lambda: split_layer(viewer).data.shape == (1, 32, 30), timeout=10_000)
    np.testing.assert_allclose(shown.data_to_world((0, 0, 0)), after.data_to_world((1, 0, 10)))
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(lambda: np.array_equal(split_layer(viewer).data, after.data[2:3, :, 10:]), timeout=10_000)
    widget.split.setChecked(False)
    assert split_layer(viewer) is None
    assert after.visible


def test_a_split_view_that_is_deleted_is_off(viewer, open_compare, pair, qtbot):
    widget = open_compare()
    widget.split.setChecked(True)
    qtbot.waitUntil(lambda: split_layer(viewer) is not None, timeout=10_000)
    viewer.layers.remove(split_layer(viewer))
    widget.slider.setValue(20)
    qtbot.waitUntil(lambda: not widget.split.isChecked(), timeout=10_000)
    assert pair[1].visible


def test_the_residual_is_what_was_taken_away_and_tells_structure(viewer, open_compare, pair, qtbot):
    before, after = pair
    widget = open_compare()
    widget.residual.click()
    assert not widget.residual.isEnabled()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    layer = viewer.layers["noisy denoised residual"]
    np.testing.assert_allclose(np.asarray(layer.data[1]), before.data[1] - after.data[1])
    low, high = layer.contrast_limits
    assert low == -high < 0
    np.testing.assert_allclose(layer.scale, before.scale)
    assert "as in noise alone" in widget.text.text()
    after.data = np.full_like(after.data, 5)
    widget.residual.click()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    assert "structure was taken away" in widget.text.text()


def test_values_along_a_line_in_a_scaled_layer(viewer, open_compare, pair, monkeypatch, qtbot):
    widget = open_compare()
    shown = {}
    monkeypatch.setattr(widget.plot, "show_lines", lambda lines, *_: shown.update(lines))
    widget.profile.click()
    assert "Draw a line first" in widget.text.text()
    ends = [pair[1].data_to_world((0, 16, x))[1:] for x in (5, 35)]
    viewer.add_shapes([np.array(ends)], shape_type="line")
    widget.profile.click()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    distances, values = shown["noisy denoised"]
    np.testing.assert_allclose(distances, np.arange(31), atol=1e-6)
    np.testing.assert_allclose(values, pair[1].data[0, 16, 5:36], atol=1e-5)
    assert list(shown) == ["noisy", "noisy denoised"]


def test_rings_of_independent_images_give_a_resolution_in_the_layers_units(viewer, open_compare, qtbot, monkeypatch):
    rng = np.random.default_rng(0)
    grains = rng.normal(0, 1, (96, 96))
    clean = sum(np.roll(grains, (i, j), (0, 1)) for i in range(4) for j in range(4))  # no detail finer than that
    place = {"scale": (0.5, 0.5), "units": ("um", "um")}
    for name in ("first", "second"):
        viewer.add_image(clean + rng.normal(0, 4, clean.shape), name=name, **place)
    widget = open_compare()
    shown = {}
    monkeypatch.setattr(widget.plot, "show_lines", lambda lines, *_: shown.update(lines))
    widget.rings.click()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    frequencies, correlation = shown["correlation"]
    assert frequencies[-1] == pytest.approx(1.0)  # cycles per micrometre, of pixels of half of one
    assert correlation[2:8].min() > 0.8
    assert correlation[-1] < correlation[2:8].min() / 2
    np.testing.assert_allclose(shown["1/7"][1], 1 / 7)
    assert "micrometer" in widget.text.text()
    assert "only if they were taken independently" in widget.text.text()


def test_rings_of_an_image_and_its_result_are_called_no_resolution(open_compare, pair, qtbot):
    widget = open_compare()
    widget.rings.click()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    assert "This is no resolution" in widget.text.text()
    assert widget.plot.isVisibleTo(widget)


class Stuck:
    """Planes full of their numbers; waits when it is read, until it is let go, or breaks."""

    shape, ndim, dtype = (3, 32, 40), 3, np.dtype(np.float32)

    def __init__(self) -> None:
        self.slow, self.broken = threading.Event(), False
        self.slow.set()
        self.asked = []  # while slow

    def __getitem__(self, key):
        if not self.slow.is_set():
            self.asked.append(key[0].start)
        self.slow.wait(30)
        if self.broken:
            raise OSError("the disk is gone")
        return np.broadcast_to(np.arange(3, dtype=self.dtype)[:, None, None], self.shape)[key]


@pytest.fixture
def stuck(viewer, open_compare, qtbot):
    """A split view of a hidden layer whose plane 0 is being read, and does not come."""
    data = Stuck()
    viewer.add_image(np.zeros(data.shape), name="first")
    viewer.add_image(data, name="second", contrast_limits=(0, 1), multiscale=False, visible=False)
    viewer.dims.set_current_step(0, 0)
    widget = open_compare()
    data.slow.clear()
    widget.split.setChecked(True)
    qtbot.waitUntil(lambda: data.asked == [0], timeout=10_000)
    yield data, widget
    data.slow.set()


def test_slices_of_the_split_view_are_read_beside_the_event_loop_and_the_newest_wins(viewer, stuck, qtbot):
    data, widget = stuck
    for plane in (1, 2):
        viewer.dims.set_current_step(0, plane)
        qtbot.waitUntil(lambda: not widget._timer.isActive(), timeout=10_000)  # the event loop goes round
    assert widget.working
    assert split_layer(viewer) is None
    data.slow.set()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    np.testing.assert_array_equal(split_layer(viewer).data, np.full((1, 32, 20), 2))
    assert data.asked == [0]  # and plane 1 was never read


def test_a_slice_that_comes_when_its_layer_is_gone_is_not_shown(viewer, stuck, qtbot):
    data, widget = stuck
    viewer.layers.clear()
    qtbot.waitUntil(lambda: not widget._timer.isActive(), timeout=10_000)
    data.slow.set()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    assert not viewer.layers
    assert "Choose two layers" in widget.text.text()


def test_a_slice_that_comes_when_the_widget_is_closed_is_not_shown(viewer, stuck, qtbot):
    data, widget = stuck
    viewer.window.remove_dock_widget(widget)
    data.slow.set()
    qtbot.waitUntil(lambda: not living(), timeout=10_000)
    assert split_layer(viewer) is None


def test_a_slice_that_cannot_be_read_ends_the_split_view_and_says_so(viewer, stuck, qtbot):
    data, widget = stuck
    data.broken = True
    data.slow.set()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    assert "disk is gone" in widget.text.text()
    assert not widget.split.isChecked()
    assert split_layer(viewer) is None


def test_slow_layers_are_read_beside_the_event_loop_and_faults_are_told(viewer, open_compare, qtbot):
    data = Stuck()
    viewer.add_image(np.zeros(data.shape), name="first")
    viewer.add_image(data, name="second", contrast_limits=(0, 1), multiscale=False)
    widget = open_compare()
    data.slow.clear()
    widget.residual.click()
    assert widget.working  # the click has come back, though nothing can be read
    data.broken = True
    data.slow.set()
    qtbot.waitUntil(lambda: not widget.working, timeout=10_000)
    assert "disk is gone" in widget.text.text()
    assert len(viewer.layers) == 2


def test_layers_that_do_not_fit_are_refused(viewer, open_compare, pair):
    widget = open_compare()
    widget.before.set_layer(viewer.add_image(np.zeros((4, 4)), name="small"))
    widget.residual.click()
    assert "differ in shape" in widget.text.text()


def test_correlation_and_lines_by_hand():
    noise = np.random.default_rng(0).normal(size=(100, 100))
    assert abs(neighbour_correlation(noise)) < 0.05
    smooth = noise[:, :-1] + noise[:, 1:]
    assert neighbour_correlation(smooth) == pytest.approx(0.5, abs=0.05)
    assert neighbour_correlation(np.ones((5, 5))) == 0
    distances, values = along_line(np.arange(25.0).reshape(5, 5), np.array([0, 0]), np.array([4, 3]))
    np.testing.assert_allclose(distances, np.linspace(0, 5, 6))
    np.testing.assert_allclose(values[[0, -1]], (0, 23))


def test_two_layers_that_nothing_connects_are_taken_as_they_lie(viewer, open_compare):
    below, above = (viewer.add_image(np.zeros((8, 8)), name=name) for name in ("noisy", "smooth"))
    widget = open_compare()
    assert (widget.before.layer, widget.after.layer) == (below, above)
