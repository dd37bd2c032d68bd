"""Super-resolution from Python: one call, or step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.superres import METHODS, Upscaler, at_new_pixels, blur_warning, noise_warning, upscale
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FAST: dict[str, Any] = {"kernel": "0.8", "precision": "float32", "device": "cpu"}
SMALL: dict[str, Any] = {"patch": 16, "batch": 2, **FAST}
MICROMETERS = ("micrometer", "micrometer")


@pytest.fixture
def image(clean_image: NDArray[np.float32]) -> Volume:
    return Volume(100 * clean_image[:40, :48], "YX", (0.4, 0.2), MICROMETERS, (3.0, -1.0), name="cells")


def options_of(method: str) -> dict[str, Any]:
    return {**SMALL, "adapt": 2} if method == "zssr" else FAST


@pytest.mark.parametrize("method", ["ibp", "bicubic", "zssr"])
@pytest.mark.parametrize("factor", [2, 3])
def test_size_and_place(image: Volume, method: str, factor: int) -> None:
    fine = upscale(image, method, factor=factor, **options_of(method))
    assert fine.shape == (40 * factor, 48 * factor)
    assert fine.dtype == np.float32
    assert fine.scale == pytest.approx((0.4 / factor, 0.2 / factor))
    assert fine.units == MICROMETERS
    assert fine.name == "cells"
    for axis in range(2):  # the edges of the field of view are where they were
        low, high = (v.translate[axis] - v.scale[axis] / 2 for v in (image, fine))
        assert low == pytest.approx(high)
    coarse = np.asarray(fine).reshape(40, factor, 48, factor).mean((1, 3))
    inside = slice(4, -4)
    np.testing.assert_allclose(coarse[inside, inside], np.asarray(image)[inside, inside], atol=6)


def test_the_topleft_grid_keeps_the_first_pixel(image: Volume) -> None:
    fine = upscale(image, "bicubic", grid="topleft", **FAST)
    assert fine.translate == image.translate
    np.testing.assert_allclose(np.asarray(fine)[::2, ::2], np.asarray(image), atol=1e-3)


@pytest.mark.parametrize("grid", ["registered", "topleft"])
def test_the_result_lies_where_the_sharp_image_lay(grid: Any, clean_image: NDArray[np.float32]) -> None:
    """Moved by a single new pixel, it would fit far worse."""
    import torch

    from napari_ssdenoise.ops.degrade import Degradation

    degradation = Degradation.gaussian((1.0, 1.0), (2, 2), grid)
    coarse = degradation.down(torch.from_numpy(clean_image)[None, None])[0, 0].numpy()
    found = np.asarray(upscale(coarse, "ibp", grid=grid, **{**FAST, "kernel": "1.0"}))

    def error(image: NDArray[Any]) -> float:
        return float(np.mean((image - clean_image)[8:-8, 8:-8] ** 2))

    moved = [error(np.roll(found, by, axis)) for axis in (0, 1) for by in (-1, 1)]
    assert error(found) < 0.1 * min(moved)


@pytest.mark.parametrize("method", ["ibp", "mzsr"])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("along_z", [False, True], ids=["plane", "z"])
def test_a_spot_stays_where_it_is(method: str, factor: int, along_z: bool) -> None:
    spot = np.zeros((21, 36, 38) if along_z else (41, 43), np.float32)
    place = (10, 18, 17) if along_z else (20, 17)
    spot[place] = 1000
    plane, z = ({"factor": factor, "kernel": "1.2"}, {"factor": 1, "factor_z": factor, "kernel": "1.5,0,0"})
    # No updates: what is learnt from a single spot may well be lopsided.
    fine = upscale(Volume(spot, "ZYX"[-spot.ndim :], (0.5,) * spot.ndim), method, adapt=0, **(z if along_z else plane))
    pixels = np.asarray(fine, float)
    for axis, (scale, translate) in enumerate(zip(fine.scale, fine.translate, strict=True)):
        profile = pixels.sum(tuple(a for a in range(pixels.ndim) if a != axis))
        centroid = (profile * np.arange(len(profile))).sum() / profile.sum()
        assert centroid * scale + translate == pytest.approx(0.5 * place[axis], abs=0.05 * 0.5)  # of an old pixel


def test_it_is_part_of_the_package(image: Volume) -> None:
    assert ssd.upscale is upscale
    assert ssd.Upscaler is Upscaler


def test_arrays_and_paths(image: Volume, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asarray(image))
    expected = np.asarray(upscale(image, "ibp", **FAST))
    np.testing.assert_array_equal(upscale(np.asarray(image), "ibp", **FAST), expected)
    np.testing.assert_array_equal(upscale(tmp_path / "a.npy", "ibp", **FAST), expected)
    stack = np.stack([np.asarray(image)] * 3)
    frames = upscale(stack, "ibp", axes="TYX", **FAST)
    assert (frames.axes, frames.shape) == ("TYX", (3, 80, 96))
    np.testing.assert_allclose(np.asarray(frames)[1], expected, atol=1e-3)


def test_along_z() -> None:
    y, x = np.mgrid[:34, :38]
    stack = np.stack([np.sin((x + 2 * z) / 4) * np.cos(y / 5) for z in range(12)]).astype(np.float32)
    volume = Volume(stack, "ZYX", (2.0, 0.5, 0.5), ("micrometer",) * 3)
    fine = upscale(volume, "ibp", factor=1, factor_z=4, kernel="auto", precision="float32")
    assert fine.shape == (48, 34, 38)
    assert fine.scale == (0.5, 0.5, 0.5)
    assert fine.translate == (-0.75, 0.0, 0.0)
    expected = np.sin((x + 2 * 5.125) / 4) * np.cos(y / 5)  # plane 22 lies at 22 / 4 - 3 / 8
    plane = np.asarray(fine)[22]
    assert np.abs(plane - expected)[4:-4, 4:-4].max() < 0.1


def test_updates_are_counted_and_reported(image: Volume) -> None:
    upscaler = Upscaler(image, "zssr", adapt=3, **SMALL)
    steps = list(upscaler)
    assert [step.step for step in steps] == [1, 2, 3]
    assert steps[-1].fraction == 1
    assert upscaler.model.record["steps"] == 3
    assert list(upscaler) == []


def test_equal_seeds_give_equal_results(image: Volume) -> None:
    first, second, other = (np.asarray(upscale(image, "zssr", adapt=2, seed=seed, **SMALL)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("method", ["ibp", "bicubic", "zssr"])
def test_no_updates(image: Volume, method: str) -> None:
    upscaler = Upscaler(image, method, adapt=0, **FAST)
    assert list(upscaler) == []
    assert upscaler.model.predict(image).shape == (80, 96)


def test_the_blur_can_be_looked_at(image: Volume) -> None:
    kernel = Upscaler(image, "ibp", **FAST).kernel
    assert kernel.sum() == pytest.approx(1, rel=1e-5)
    assert kernel.shape[0] % 2 == 0
    place = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    assert (kernel.sum(1) * place**2).sum() == pytest.approx(0.64, rel=0.05)


def test_the_precision_asked_for_is_that_of_the_result(image: Volume) -> None:
    """Tiles of another size give the same."""
    whole = np.asarray(upscale(image, "zssr", adapt=1, **SMALL))
    upscaler = Upscaler(image, "zssr", adapt=1, **SMALL)
    list(upscaler)
    tiled = upscaler.model.predict(image, precision="float32", tile=(40, 32))
    assert np.abs(tiled - whole).max() < 1e-5 * np.ptp(whole)


def test_until_best_stops_and_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out loss is made to rise after the second evaluation."""
    image = np.random.default_rng(0).normal(100, 20, (160, 160)).astype(np.float32)
    upscaler = Upscaler(image, "zssr", adapt=60, until_best=True, **SMALL)
    scripted = iter([3.0, 1.0, 2.0, 2.0, 2.0, *[9.0] * 60])
    asked: list[int] = []
    judge = upscaler._judge
    monkeypatch.setattr(judge, "is_due", lambda *_: True)
    monkeypatch.setattr(judge, "loss", lambda *_: asked.append(upscaler.step) or next(scripted))
    steps = list(upscaler)
    assert len(steps) == 5
    assert upscaler.model.record["steps"] == 2
    assert len(asked) == 5


def test_until_best_takes_all_updates_while_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(100, 20, (160, 160)).astype(np.float32)
    upscaler = Upscaler(image, "zssr", adapt=6, until_best=True, **SMALL)
    falling = iter(range(100, 0, -1))
    monkeypatch.setattr(upscaler._judge, "is_due", lambda *_: True)
    monkeypatch.setattr(upscaler._judge, "loss", lambda *_: float(next(falling)))
    assert len(list(upscaler)) == 6
    assert upscaler.model.record["steps"] == 6


def test_a_stopped_search_for_the_best_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(100, 20, (160, 160)).astype(np.float32)

    def searching(losses: list[float]) -> Upscaler:
        upscaler = Upscaler(image, "zssr", adapt=60, until_best=True, **SMALL)
        scripted = iter(losses)
        monkeypatch.setattr(upscaler._judge, "is_due", lambda *_: True)
        monkeypatch.setattr(upscaler._judge, "loss", lambda *_: next(scripted))
        return upscaler

    first = searching([3.0, 1.0, 2.0, 2.0])
    for _ in range(4):
        next(first)
    second = searching([2.0])
    second.resume(first.checkpoint())
    assert len(list(second)) == 1
    for name, value in first.model.network.state_dict().items():
        assert torch.equal(second.model.network.state_dict()[name], value)


@pytest.mark.parametrize("gradual", [False, True])
def test_gradual_factors_learn_the_half_first(gradual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_ssdenoise.algorithms.zssr import ZeroShotSuperResolution

    image = np.random.default_rng(0).normal(100, 20, (96, 96)).astype(np.float32)
    seen: list[tuple[int, int]] = []
    error = ZeroShotSuperResolution.error

    def noting(self: Any, network: Any, fathers: Any, degradation: Any, rng: Any) -> Any:
        seen.append((degradation.factors[0], fathers.shape[-1]))
        return error(self, network, fathers, degradation, rng)

    monkeypatch.setattr(ZeroShotSuperResolution, "error", noting)
    upscaler = Upscaler(image, "zssr", adapt=24, factor=4, kernel="2", gradual=gradual, scales=False, patch=64)
    list(upscaler)
    factors = [factor for factor, _ in seen]
    assert {side for _, side in seen} == {64}
    assert set(factors[:12]) == ({2} if gradual else {4})
    assert set(factors[12:]) == ({2, 4} if gradual else {4})
    assert upscaler.model.predict(image).shape == (384, 384)


def test_a_blur_at_the_limit_is_said(image: Volume) -> None:
    smooth = np.random.default_rng(0).normal(100, 20, (160, 160)).astype(np.float32)
    for _ in range(12):
        for axis in (0, 1):
            smooth = (np.roll(smooth, 1, axis) + 2 * smooth + np.roll(smooth, -1, axis)) / 4
    assert "the most that is believed" in (blur_warning(Upscaler(smooth, "zssr", adapt=1)) or "")
    assert blur_warning(Upscaler(smooth, "zssr", adapt=1, kernel="3.2")) is None
    assert blur_warning(Upscaler(image, "zssr", adapt=1)) is None


def test_an_algorithm_in_the_place_of_a_method(image: Volume) -> None:
    expected = upscale(image, "ibp", **FAST)
    algorithm = get_algorithm("interpolation", kernel="0.8", back_projections=10)
    found = upscale(image, algorithm, precision="float32", device="cpu")
    np.testing.assert_array_equal(found, expected)
    assert Upscaler(image, get_algorithm("zssr", kernel="0.8")).adapt == METHODS["zssr"][2]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("espcn", {}, "unknown method 'espcn'; choose one of mzsr, zssr, ibp, bicubic"),
        ("ibp", {"factor": 1}, "leaves the image as it is"),
        ("ibp", {"sigma": 2}, "no setting sigma"),
        ("ibp", {"factor_z": 2}, "no Z to enlarge"),
        ("ibp", {"adapt": 3}, "learns nothing"),
        ("zssr", {"adapt": -1}, "adapt=-1 must be"),
        ("zssr", {"factor": 8}, "has only 40 pixels along Y: too few to learn from at factor 8"),
        (get_algorithm("n2v"), {}, "does not make pixels smaller"),
    ],
    ids=str,
)
def test_what_cannot_be(image: Volume, method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upscale(image, method, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((40, 40), bool), "boolean"),
        (np.zeros((40, 40), complex), "complex"),
        (np.zeros((0, 40)), "empty"),
        (np.zeros((10, 40)), "only 10 pixels along Y"),
        (np.ones((40, 40)), "same value"),
        (np.full((40, 40), np.nan), "NaN"),
    ],
    ids=["boolean", "complex", "empty", "thin", "constant", "NaN"],
)
def test_images_that_cannot_be_enlarged(data: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upscale(data, "ibp", **FAST)


def test_at_new_pixels_is_the_image_with_every_pixel_repeated(image: Volume) -> None:
    fine = at_new_pixels(image, get_algorithm("interpolation", factor=3))
    np.testing.assert_array_equal(fine, np.asarray(image).repeat(3, 0).repeat(3, 1))


def test_noisy_images_are_warned_about(clean_image: NDArray[np.float32], noisy_image: NDArray[np.float32]) -> None:
    text = noise_warning(Volume(noisy_image, "YX"))
    assert text is not None
    assert "Denoise" in text
    assert noise_warning(Volume(clean_image, "YX")) is None
    assert noise_warning(Volume(noisy_image[:40], "YX")) is None  # too small to tell
