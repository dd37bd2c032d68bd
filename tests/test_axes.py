"""Axes are checked with messages that say what to do, and layouts lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_ssdenoise.axes import AXES, Layout, default_spatial, guess_axes, parse_axes

SIZES = {"T": 3, "C": 2, "Z": 4, "Y": 5, "X": 6, "S": 3}


@st.composite
def axis_strings(draw: st.DrawFn, letters: str = AXES) -> str:
    """Any order of any letters that include Y and X."""
    others = draw(st.lists(st.sampled_from([a for a in letters if a not in "YX"]), unique=True))
    return "".join(draw(st.permutations(["Y", "X", *others])))


@given(axis_strings())
def test_any_order_of_letters_is_accepted_in_either_case(axes: str) -> None:
    shape = [SIZES[a] for a in axes]
    assert parse_axes(axes.lower(), shape) == axes


@pytest.mark.parametrize(
    ("axes", "shape", "words"),
    [
        ("ZYQ", (3, 4, 5), "contain 'Q'"),
        ("YYX", (3, 4, 5), "twice"),
        ("TYX", (2, 3, 4, 5), "name 3 dimensions, but the array has 4"),
        ("ZY", (3, 4), "must contain Y and X"),
    ],
)
def test_wrong_axes_are_refused_with_a_remedy(axes: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_axes(axes, shape)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((8, 9), "float32", "YX"),
        ((5, 8, 9), "uint16", "ZYX"),
        ((8, 9, 3), "uint8", "YXS"),
        ((8, 9, 3), "uint16", "ZYX"),
        ((2, 5, 8, 9), "uint16", "CZYX"),
        ((7, 5, 8, 9), "uint16", "TZYX"),
        ((7, 2, 5, 8, 9), "uint16", "TCZYX"),
        ((5, 8, 9, 4), "uint8", "ZYXS"),
    ],
)
def test_guesses(shape: tuple[int, ...], dtype: str, axes: str) -> None:
    assert guess_axes(shape, dtype) == axes


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4, 5, 6)])
def test_no_guess_for_too_few_or_too_many_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"dimensions"):
        guess_axes(shape)


def test_a_thin_stack_is_denoised_plane_by_plane() -> None:
    assert default_spatial("ZYX", (7, 64, 64)) == "YX"
    assert default_spatial("ZYX", (8, 64, 64)) == "ZYX"


@given(data=st.data(), axes=axis_strings())
def test_layout_reads_every_pixel_once_and_puts_it_back(data: st.DataObject, axes: str) -> None:
    spatials = ["YX"] + ["ZYX"] * ("Z" in axes) + ["TYX"] * ("T" in axes)
    spatial = data.draw(st.sampled_from(spatials))
    channels = data.draw(st.sampled_from(["auto", "independent", "joint"]))
    shape = tuple(SIZES[a] for a in axes)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    layout = Layout.choose(axes, shape, spatial, channels)
    copy = np.full_like(image, -1)
    for index in layout.indices(shape):
        region = tuple(slice(0, n) for n in layout.spatial_shape(shape))
        block = layout.read(image, index, region)
        assert block.shape == (layout.n_channels(shape), *layout.spatial_shape(shape))
        copy[layout.key(index, region)] = layout.from_network(block)
    np.testing.assert_array_equal(copy, image)


def test_layout_joins_rgb_but_keeps_fluorescence_channels_apart() -> None:
    assert Layout.choose("YXS", (5, 6, 3)).channel == "S"
    assert Layout.choose("CYX", (2, 5, 6)).channel == ""
    assert Layout.choose("CYX", (2, 5, 6), channels="joint").channel == "C"


@pytest.mark.parametrize(("axes", "spatial", "words"), [("YX", "ZYX", "Z is missing"), ("ZYX", "ZY", "not supported")])
def test_impossible_layouts_are_refused(axes: str, spatial: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Layout(axes, spatial)


def test_reading_a_block_converts_nothing() -> None:
    image = np.arange(24, dtype=">u2").reshape(2, 3, 4)
    block = Layout("TYX", "YX").read(image, (1,), (slice(1, 3), slice(0, 2)))
    assert block.shape == (1, 2, 2)
    np.testing.assert_array_equal(block[0], image[1, 1:3, :2])
