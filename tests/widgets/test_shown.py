"""What is in view, and the layers we add."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_ssdenoise.widgets import _shown
from napari_ssdenoise.widgets._input_panel import AxesEditor, InputPanel
from napari_ssdenoise.widgets._layers import PREVIEW_KEY
from napari_ssdenoise.widgets._shown import PreviewLayer, ResultLayer, visible_region


@pytest.fixture
def model():
    return ViewerModel()


def region_of(viewer, layer, **options):
    return [(s.start, s.stop) for s in visible_region(viewer, layer, **options)]


def test_the_slice_in_view_is_found_by_the_sliders(model):
    layer = model.add_image(np.zeros((5, 20, 30, 40)), scale=(1, 2, 0.5, 0.5), translate=(0, 10, 0, 0))
    model.dims.set_current_step((0, 1), (3, 7))
    assert region_of(model, layer) == [(3, 4), (7, 8), (0, 30), (0, 40)]


def test_only_the_visible_part_and_not_too_much_of_it(model):
    layer = model.add_image(np.zeros((3, 2000, 1000)))
    layer.corner_pixels = np.array([[0, 100, 200], [0, 299, 399]])
    assert region_of(model, layer)[1:] == [(100, 300), (200, 400)]
    assert region_of(model, layer, half=True)[1:] == [(100, 300), (300, 400)]
    layer.corner_pixels = np.array([[0, 0, 0], [0, 1999, 999]])
    y, x = visible_region(model, layer, pixels=10_000)[1:]
    assert (y.stop - y.start) * (x.stop - x.start) <= 10_000
    assert (y.start + y.stop, x.start + x.stop) == (2000, 1000)


def test_other_displayed_axes_are_followed(model):
    layer = model.add_image(np.zeros((20, 30, 40)))
    model.dims.order = (1, 0, 2)
    model.dims.set_current_step(1, 12)
    assert region_of(model, layer) == [(0, 20), (12, 13), (0, 40)]


def test_a_2d_layer_among_3d_ones(model):
    model.add_image(np.zeros((20, 30, 40)))
    layer = model.add_image(np.zeros((30, 40)))
    assert region_of(model, layer) == [(0, 30), (0, 40)]


def test_3d_view_gives_the_plane_of_the_slider(model):
    layer = model.add_image(np.zeros((20, 30, 40)))
    model.dims.set_current_step(0, 4)
    model.dims.ndisplay = 3
    assert region_of(model, layer) == [(4, 5), (0, 30), (0, 40)]


def test_coarse_levels_count_in_full_pixels(model):
    full = np.zeros((4, 400, 400))
    layer = model.add_image([full, full[:, ::2, ::2]], multiscale=True)
    layer.data_level = 1
    layer.corner_pixels = np.array([[0, 10, 20], [0, 59, 79]])
    assert region_of(model, layer)[1:] == [(20, 119), (40, 159)]


def test_rgb_keeps_its_samples_and_removed_layers_have_no_view(model):
    layer = model.add_image(np.zeros((30, 40, 3), np.uint8), rgb=True)
    assert region_of(model, layer) == [(0, 30), (0, 40), (0, 3)]
    model.layers.clear()
    assert visible_region(model, layer) is None


def test_the_preview_lies_on_top_and_leaves_the_selection(model):
    source = model.add_image(np.zeros((5, 30, 40)), scale=(2, 1, 1), units=("um",) * 3, name="a")
    model.add_image(np.zeros((5, 30, 40)), name="b")
    model.layers.selection.active = source
    preview = PreviewLayer(model, source)
    preview.show(np.ones((1, 10, 10)), (slice(2, 3), slice(5, 15), slice(8, 18)), (0, 1))
    assert [layer.name for layer in model.layers] == ["a", "b", "a preview"]
    assert model.layers.selection.active is source
    assert PREVIEW_KEY in preview.layer.metadata
    np.testing.assert_allclose(preview.layer.data_to_world((0, 0, 0)), source.data_to_world((2, 5, 8)))
    preview.show(np.ones((1, 4, 4)), (slice(4, 5), slice(0, 4), slice(0, 4)), (0, 5))
    np.testing.assert_allclose(preview.layer.data_to_world((0, 0, 0)), source.data_to_world((4, 0, 0)))
    assert tuple(preview.layer.contrast_limits) == (0, 5)
    preview.remove()
    assert [layer.name for layer in model.layers] == ["a", "b"]


def test_a_layer_that_is_slow_to_draw_is_drawn_rarely_but_at_last(model, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_shown.time, "perf_counter", lambda: now[0])
    result = ResultLayer(model, model.add_image(np.zeros((30, 40))))
    result.add(np.zeros((30, 40)), "result", (0, 1), select=True)
    drawn = []

    def draw(**_):
        drawn.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(result.layer, "refresh", draw)
    for moment in (0.0, 2.0, 3.9, 4.1):  # one of four seconds
        now[0] = moment
        result.touch()
        result.refresh()
    assert drawn == [0.0, 4.1]
    now[0] = 5.5
    result.touch()
    result.refresh()
    assert drawn == [0.0, 4.1]
    result.refresh(now=True)
    assert drawn == [0.0, 4.1, 5.5]


def test_a_deleted_preview_or_source_is_left_alone(model):
    source = model.add_image(np.zeros((30, 40)))
    preview = PreviewLayer(model, source)
    region = (slice(0, 30), slice(0, 40))
    preview.show(np.ones((30, 40)), region, (0, 1))
    model.layers.remove(preview.layer)
    preview.show(np.ones((30, 40)), region, (0, 1))
    assert not preview.alive
    model.layers.clear()
    fresh = PreviewLayer(model, source)
    fresh.show(np.ones((30, 40)), region, (0, 1))
    assert len(model.layers) == 0


def test_contrast_that_people_chose_stays(model):
    source = model.add_image(np.zeros((30, 40)))
    result = ResultLayer(model, source)
    result.add(np.zeros((30, 40)), "r", (0, 1), select=True)
    result.set_limits((10, 20))
    assert tuple(result.layer.contrast_limits) == (10, 20)
    result.layer.contrast_limits = (12, 18)
    result.set_limits((0, 1))
    assert tuple(result.layer.contrast_limits) == (12, 18)


def test_a_finished_file_takes_the_place_of_the_filling_layer(model):
    source = model.add_image(np.zeros((64, 64)), colormap="green", name="s")
    result = ResultLayer(model, source)
    result.add(np.zeros((64, 64)), "r", (0, 1), select=True, metadata={"a": 1})
    model.add_image(np.zeros((64, 64)), name="top")
    result.layer.opacity = 0.5
    full = np.ones((64, 64))
    result.finish((full, full[::2, ::2]), (0, 2))
    assert [layer.name for layer in model.layers] == ["s", "r", "top"]
    assert result.layer.multiscale
    assert (result.layer.opacity, result.layer.metadata, result.layer.colormap.name) == (0.5, {"a": 1}, "green")
    assert tuple(result.layer.contrast_limits) == (0, 2)


def test_axes_can_be_edited_and_are_checked(model, qtbot):
    model.add_image(np.zeros((12, 32, 32)), axis_labels=("t", "y", "x"))
    panel = InputPanel(model)
    qtbot.addWidget(panel)
    options = lambda: [panel.dimensions.itemData(i) for i in range(panel.dimensions.count())]  # noqa: E731
    assert (panel.axes_editor.axes, panel.spatial, options()) == ("TYX", "YX", ["YX", "TYX"])
    assert "12 images of 32 x 32" in panel.check()
    panel.axes_editor.boxes[0].setCurrentText("Z")
    assert (panel.spatial, options()) == ("ZYX", ["YX", "ZYX"])
    assert "1 volume of 12 x 32 x 32" in panel.check()
    panel.axes_editor.boxes[0].setCurrentText("Y")
    with pytest.raises(ValueError, match="twice"):
        panel.check()
    panel.disconnect_viewer()


def test_better_layers_than_the_magnitude_of_a_complex_image_are_named(model, qtbot):
    for part in ("real", "magnitude"):
        model.add_image(np.zeros((32, 32)), metadata={"complex": {"part": part, "data": np.zeros((32, 32), complex)}})
    panel = InputPanel(model)
    qtbot.addWidget(panel)
    for layer, advised in zip(model.layers, (False, True), strict=True):
        model.layers.selection.active = layer
        assert ("real and imaginary part denoise better" in panel.check()) == advised
    panel.disconnect_viewer()


def test_channels_are_asked_for_where_there_are_some(model, qtbot):
    model.add_image(np.zeros((2, 32, 32)), axis_labels=("c", "y", "x"))
    panel = InputPanel(model)
    qtbot.addWidget(panel)
    assert not panel.channels.isHidden()
    for mode, images in (("auto", "2 images"), ("independent", "2 images"), ("joint", "1 image ")):
        panel.channels.setCurrentIndex(panel.channels.findData(mode))
        assert (panel.channel_mode, images in panel.check()) == (mode, True)
    model.add_image(np.zeros((32, 32, 3)), rgb=True)
    assert (panel.channels.isHidden(), panel.channel_mode) == (False, "joint")
    model.add_image(np.zeros((4, 32, 32)))
    assert (panel.channels.isHidden(), panel.channel_mode) == (True, "auto")
    model.layers.clear()
    assert panel.channels.isHidden()
    with pytest.raises(ValueError, match="no image layer"):
        panel.check()
    panel.disconnect_viewer()


def test_the_choice_follows_the_active_layer_until_it_is_made(model, qtbot):
    first = model.add_image(np.zeros((32, 32)), name="first")
    panel = InputPanel(model)
    qtbot.addWidget(panel)
    second = model.add_image(np.zeros((32, 32)), name="second")
    model.add_labels(np.zeros((32, 32), int))
    assert panel.layer is second
    panel.layer_box.set_layer(first)
    model.layers.selection.active = second
    assert panel.layer is first
    model.layers.remove(first)
    assert panel.layer is second
    panel.disconnect_viewer()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((32, 32), bool), "boolean mask"),
        (np.zeros((2, 32)), "only 2 pixels along Y"),
    ],
)
def test_hopeless_images_are_refused_before_anything_is_read(model, qtbot, data, message):
    model.add_image(data)
    panel = InputPanel(model)
    qtbot.addWidget(panel)
    with pytest.raises(ValueError, match=message):
        panel.check()
    panel.disconnect_viewer()


def test_editing_axes_twice_leaves_one_set_of_boxes(qtbot):
    editor = AxesEditor()
    qtbot.addWidget(editor)
    editor.set_axes("ZYX", (3, 4, 5))
    editor.set_axes("YX", (4, 5))
    assert (editor.axes, len(editor.boxes)) == ("YX", 2)
