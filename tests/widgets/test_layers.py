"""Layers to volumes and back: nothing copied, nothing moved."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image

from napari_ssdenoise.widgets._layers import contrast_limits, layer_axes, layer_volume, look, place, sample_of


@pytest.mark.parametrize(
    ("labels", "shape", "axes"),
    [
        (("z", "y", "x"), (9, 32, 32), "ZYX"),
        (("Time", "row", "column"), (9, 32, 32), "TYX"),
        (("t", "channel", "Z", "Y", "X"), (2, 2, 9, 32, 32), "TCZYX"),
        (("X", "Y"), (32, 32), "XY"),
        (("z", "z", "x"), (9, 32, 32), "ZYX"),
        (("foo", "y", "x"), (9, 32, 32), "ZYX"),
        (("a", "b", "c", "d"), (9, 9, 32, 32), "TZYX"),
    ],
)
def test_axes_come_from_labels_where_they_make_sense(labels, shape, axes):
    assert layer_axes(Image(np.zeros(shape, np.uint8), axis_labels=labels)) == axes


def test_unlabelled_axes_are_guessed_and_units_tell_time_from_depth():
    data = np.zeros((9, 32, 32), np.uint8)
    assert layer_axes(Image(data)) == "ZYX"
    assert layer_axes(Image(data, units=("second", "um", "um"))) == "TYX"


def test_volume_keeps_data_geometry_and_name():
    data = np.zeros((9, 32, 32), np.uint16)
    layer = Image(data, name="n", scale=(2, 0.5, 0.5), translate=(1, 2, 3), units=("um", "um", "um"))
    volume = layer_volume(layer)
    assert volume.data is data
    assert (volume.axes, volume.scale, volume.translate) == ("ZYX", (2, 0.5, 0.5), (1, 2, 3))
    assert (volume.units, volume.name) == (("micrometer",) * 3, "n")
    assert layer_volume(Image(data)).units == (None,) * 3


def test_other_axes_can_be_given_and_must_fit():
    layer = Image(np.zeros((9, 32, 32), np.uint16))
    assert layer_volume(layer, "TYX").axes == "TYX"
    with pytest.raises(ValueError, match="name a dimension twice"):
        layer_volume(layer, "YYX")


def test_lazy_arrays_and_levels_are_not_copied():
    lazy = da.zeros((9, 32, 32), chunks=8)
    stored = zarr.zeros((9, 32, 32), chunks=(3, 16, 16))
    assert layer_volume(Image(lazy)).data is lazy
    assert layer_volume(Image(stored)).data is stored
    levels = [stored, stored[:, ::2, ::2]]
    volume = layer_volume(Image(levels, multiscale=True))
    assert volume.data is stored
    assert volume.chunks == (3, 16, 16)


def test_rgb_gets_samples_and_alpha_is_left_out():
    rgb = np.zeros((20, 30, 3), np.uint8)
    volume = layer_volume(Image(rgb, rgb=True, scale=(2, 2)))
    assert (volume.axes, volume.shape, volume.scale) == ("YXS", (20, 30, 3), (2, 2, 1))
    assert volume.data is rgb
    rgba = np.arange(4 * 20 * 30, dtype=np.uint8).reshape(20, 30, 4)
    for data in (rgba, da.from_array(rgba), zarr.array(rgba)):
        volume = layer_volume(Image(data, rgb=True))
        assert volume.shape == (20, 30, 3)
        np.testing.assert_array_equal(volume[2:5, 3:9], rgba[2:5, 3:9, :3])
        np.testing.assert_array_equal(volume[2:5, 3:9, 0:2], rgba[2:5, 3:9, :2])


def test_a_part_is_placed_where_it_was_cut_out():
    affine = np.array([[1, 0.3, 5], [0, 1, 6], [0, 0, 1]])
    source = Image(
        np.zeros((32, 32)),
        scale=(2, 0.5),
        translate=(1, 2),
        rotate=20,
        shear=(0.2,),
        affine=affine,
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    part = Image(np.zeros((5, 5)), **place(source, (10, 20)))
    np.testing.assert_allclose(part.data_to_world((3, 3)), source.data_to_world((13, 23)))
    assert (part.units, part.axis_labels) == (source.units, source.axis_labels)


def test_results_look_like_their_source():
    source = Image(np.zeros((8, 8)), colormap="magma", gamma=0.7)
    copy = Image(np.zeros((8, 8)), **look(source))
    assert (copy.colormap, copy.gamma) == (source.colormap, source.gamma)


def test_contrast_limits_ignore_outliers_and_are_never_equal():
    values = np.concatenate([np.linspace(0, 1, 10_000), [1e6, np.nan, np.inf]])
    low, high = contrast_limits(values)
    assert 0 <= low < 0.01
    assert 0.99 < high <= 1
    assert contrast_limits(np.ones(5)) == (1, 2)
    assert contrast_limits(np.array([np.nan])) == (0, 1)


def test_samples_are_small():
    assert sample_of(np.zeros((5, 600, 600))).shape == (1, 256, 256)
    assert sample_of(np.zeros((20, 30))).shape == (20, 30)
