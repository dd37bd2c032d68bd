"""The small parts: arrays under other axes, units, channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_ssdenoise.io._channels import channels_of, color_of, hex_color, ome_color, window_of
from napari_ssdenoise.io._lazy import LazyArray
from napari_ssdenoise.io._units import is_length, is_time, unit_name, unit_symbol
from napari_ssdenoise.volume import Volume

LENGTHS = {"T": 3, "C": 1, "Z": 4, "Y": 5, "X": 6}


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Integers and slices for some of the leading axes, or around an ellipsis."""
    parts: list[Any] = [
        draw(st.one_of(st.integers(-n, n - 1), st.slices(n))) for n in shape[: draw(st.integers(0, len(shape)))]
    ]
    if len(parts) < len(shape) and draw(st.booleans()):
        parts.append(...)
    return tuple(parts)


@given(data=st.data())
def test_a_lazy_array_indexes_like_numpy(data: st.DataObject) -> None:
    base_axes = "".join(data.draw(st.permutations("TZYX")))
    base = np.arange(360).reshape([LENGTHS[a] for a in base_axes])
    axes = "".join(data.draw(st.permutations("TCZYX")))
    lazy = LazyArray(base.copy(), base_axes, axes)
    expected = np.expand_dims(base.transpose([base_axes.index(a) for a in axes if a != "C"]), axes.index("C"))
    assert lazy.shape == expected.shape
    key = data.draw(keys(lazy.shape))
    np.testing.assert_array_equal(lazy[key], expected[key])
    if all(not isinstance(k, slice) or (k.step or 1) > 0 for k in key):
        value = data.draw(st.sampled_from([0, -expected[key]]))
        expected = expected.copy()
        lazy[key] = value
        expected[key] = value
        np.testing.assert_array_equal(np.asarray(lazy), expected)


def test_a_lazy_array_leaves_out_axes_of_length_one() -> None:
    lazy = LazyArray(np.arange(6).reshape(1, 2, 3), "TYX", "XY")
    np.testing.assert_array_equal(lazy[...], [[0, 3], [1, 4], [2, 5]])
    lazy[0] = 9
    assert lazy[0].tolist() == [9, 9]
    assert (len(lazy), lazy.ndim, lazy.nbytes, lazy.chunks) == (3, 2, 48, (3, 2))
    assert repr(lazy) == "<LazyArray XY (3, 2) int64>"
    with pytest.raises(ValueError, match="leave out"):
        LazyArray(np.zeros((2, 3, 4)), "TYX", "YX")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ((5,), "out of range for axis Y"),
        ((0, 0, 0), "3 indices for an image of 2 dimensions"),
        ((..., ...), "2 indices"),
        (([0, 1],), "not list"),
        ((True,), "masks are not supported"),
        ((np.zeros((4, 5), bool),), "not ndarray"),
        ((None, 0), "not NoneType"),
    ],
    ids=str,
)
def test_keys_that_cannot_be_read_from_files(key: Any, words: str) -> None:
    with pytest.raises(IndexError, match=words):
        LazyArray(np.zeros((4, 5)), "YX", "YX")[key]


def test_writing_backwards_is_refused() -> None:
    with pytest.raises(IndexError, match="forwards"):
        LazyArray(np.zeros((4, 5)), "YX", "YX")[::-1] = 1


@pytest.mark.parametrize(
    "text", ["um", "µm", "\u03bcm", "\\u00B5m", "micron", "Microns", "micrometer", "micrometre", "Âµm", " um\0"]
)
def test_spellings_of_micrometer(text: str) -> None:
    assert unit_name(text) == "micrometer"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nm", "nanometer"),
        ("s", "second"),
        ("sec", "second"),
        ("ms", "millisecond"),
        ("hours", "hour"),
        ("Å", "angstrom"),
        ("parsec", "parsec"),
    ],
)
def test_other_units(text: str, name: str) -> None:
    assert unit_name(text) == name


@pytest.mark.parametrize("text", ["", "pixel", "Pixels", None, 3, "reference frame"])
def test_no_unit(text: object) -> None:
    assert unit_name(text) is None


def test_units_have_symbols_and_kinds() -> None:
    assert unit_symbol("micrometer") == "µm"
    assert unit_symbol("parsec") is None
    assert is_length("micrometer")
    assert is_time("second")
    assert not is_time("micrometer")
    assert not is_length(None)


@given(st.from_regex(r"[0-9A-F]{6}", fullmatch=True))
def test_colours_survive_ome(color: str) -> None:
    assert hex_color(ome_color(color)) == color
    assert -(2**31) <= ome_color(color) < 2**31


@pytest.mark.parametrize(
    "window", [None, 3, {}, {"start": "a", "end": 1}, {"start": 2, "end": 2}, {"start": 0, "end": np.inf}]
)
def test_bad_windows_are_ignored(window: Any) -> None:
    assert window_of({"window": window}) is None


def test_bad_colours_are_ignored() -> None:
    assert color_of({"color": "red"}) is None
    assert color_of({}) is None
    assert color_of({"color": "#ff00aa"}) == "FF00AA"


@pytest.mark.parametrize("omero", [None, [], {"channels": 3}, {"channels": [{}]}, {"channels": [1, 2]}])
def test_channels_of_a_volume_with_odd_metadata(omero: Any) -> None:
    volume = Volume(np.zeros((2, 4, 5)), "CYX", channel_names=("a", "b"), metadata={"omero": omero})
    assert [c["label"] for c in channels_of(volume)] == ["a", "b"]
