"""Degradations are what they say, pixel by pixel, and interpolation puts everything back where it was."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_ssdenoise.ops.degrade import Degradation, interpolated, mirrored
from napari_ssdenoise.ops.kernels import widths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.ops.kernels import Grid

BENCHMARK_DATA = Path(os.environ.get("SSDENOISE_BENCHMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
GRIDS: tuple[Grid, ...] = ("registered", "topleft")


def random_degradation(factors: tuple[int, ...], grid: Grid, rng: np.random.Generator) -> Degradation:
    """Return a lopsided kernel whose numbers of taps fit."""
    shape = [3 + 2 * d if grid == "topleft" or f % 2 else 4 + 2 * d for d, f in enumerate(factors)]
    kernel = rng.uniform(0.1, 1, shape)
    return Degradation((kernel / kernel.sum()).astype(np.float32), factors, grid)


def reduced_slowly(image: NDArray[Any], degradation: Degradation) -> NDArray[np.float64]:
    """Sum over the taps of each low-resolution pixel, one after the other, with mirrored borders."""
    kernel, factors = degradation.kernel.astype(float), degradation.factors
    offsets = [(f - 1) / 2 if degradation.grid == "registered" else 0.0 for f in factors]
    out = np.zeros([n // f for n, f in zip(image.shape, factors, strict=True)])
    for pixel in np.ndindex(*out.shape):
        for tap in np.ndindex(*kernel.shape):
            place = []
            for p, t, f, offset, taps, n in zip(pixel, tap, factors, offsets, kernel.shape, image.shape, strict=True):
                at = p * f + offset - (taps - 1) / 2 + t
                assert at == int(at)  # a tap lies on a pixel
                at = int(at)
                while not 0 <= at < n:  # mirrored, with the border pixel
                    at = -1 - at if at < 0 else 2 * n - 1 - at
                place.append(at)
            out[pixel] += kernel[tap] * image[tuple(place)]
    return out


def tensor(image: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float64))[None, None]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("factors", "shape"),
    [((2, 2), (8, 10)), ((3, 3), (9, 12)), ((1, 2), (5, 8)), ((4, 1, 1), (8, 4, 5)), ((2, 2, 2), (4, 6, 4))],
    ids=str,
)
def test_down_is_a_weighted_sum(
    factors: tuple[int, ...], shape: tuple[int, ...], grid: Grid, rng: np.random.Generator
) -> None:
    degradation = random_degradation(factors, grid, rng)
    images = rng.normal(size=(2, 3, *shape))
    out = degradation.down(torch.from_numpy(images)).numpy()
    for b, c in product(range(2), range(3)):
        np.testing.assert_allclose(out[b, c], reduced_slowly(images[b, c], degradation), atol=1e-12)


def test_down_with_a_kernel_wider_than_the_image(rng: np.random.Generator) -> None:
    degradation = Degradation.gaussian((4.0, 4.0), (2, 2))
    image = rng.normal(size=(6, 6))
    assert degradation.kernel.shape[0] > 2 * 6
    out = degradation.down(tensor(image))[0, 0].numpy()
    np.testing.assert_allclose(out, reduced_slowly(image, degradation), atol=1e-12)


def test_a_kernel_smaller_than_a_cell_is_padded(rng: np.random.Generator) -> None:
    degradation = Degradation(np.ones((1, 1), np.float32), (3, 3))
    image = rng.normal(size=(9, 9))
    np.testing.assert_array_equal(degradation.down(tensor(image))[0, 0].numpy(), image[1::3, 1::3])


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (4, 1, 1)], ids=str)
def test_constant_images_stay_constant(factors: tuple[int, ...], grid: Grid, rng: np.random.Generator) -> None:
    degradation = random_degradation(factors, grid, rng)
    coarse = torch.full((1, 2, *(6,) * len(factors)), 7.0, dtype=torch.float64)
    fine = degradation.up(coarse)
    assert fine.shape[2:] == tuple(6 * f for f in factors)
    torch.testing.assert_close(fine, torch.full_like(fine, 7.0))
    # float32 taps sum to 1 within their precision only
    torch.testing.assert_close(degradation.down(fine), coarse, rtol=1e-6, atol=0)
    torch.testing.assert_close(degradation.refine(fine, coarse, 5), fine, rtol=1e-6, atol=0)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_up_continues_a_ramp_in_the_right_place(factor: int, grid: Grid) -> None:
    degradation = Degradation.gaussian((1.0, 1.0), (factor, 1), grid)
    coarse = np.add.outer(2.0 * np.arange(12), 5.0 * np.arange(4))
    fine = degradation.up(tensor(coarse))[0, 0].numpy()
    offset = (factor - 1) / 2 if grid == "registered" else 0
    expected = np.add.outer(2.0 * (np.arange(12 * factor) - offset) / factor, 5.0 * np.arange(4))
    inside = slice(2 * factor, -2 * factor)
    np.testing.assert_allclose(fine[inside], expected[inside], atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 4), (3, 2), (4, 1, 1), (2, 1, 1)], ids=str)
def test_a_blob_stays_where_it_is(factors: tuple[int, ...], grid: Grid) -> None:
    n, centre = 20, 9.3
    places = np.meshgrid(*[np.arange(n)] * len(factors), indexing="ij")
    blob = np.exp(-sum((p - centre - 0.2 * d) ** 2 for d, p in enumerate(places)) / (2 * 1.4**2))
    degradation = Degradation.gaussian([1.0] * len(factors), factors, grid)
    fine = degradation.up(tensor(blob))
    refined = degradation.refine(fine, tensor(blob), 3)
    for image in (fine, refined):
        for d, (factor, offset) in enumerate(zip(factors, degradation.offsets, strict=True)):
            profile = image[0, 0].numpy().sum(tuple(other for other in range(len(factors)) if other != d))
            found = ((profile * np.arange(len(profile))).sum() / profile.sum() - offset) / factor
            assert found == pytest.approx(centre + 0.2 * d, abs=0.01)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (3, 1, 1)], ids=str)
def test_refining_approaches_the_image(factors: tuple[int, ...], grid: Grid, rng: np.random.Generator) -> None:
    degradation = Degradation.gaussian([(f / 2) ** 2 if f > 1 else 0.0 for f in factors], factors, grid)
    coarse = tensor(rng.normal(size=(12,) * len(factors)))
    fine = degradation.up(coarse)
    errors = []
    for _ in range(6):
        errors.append(float((degradation.down(fine) - coarse).square().sum()))
        fine = degradation.refine(fine, coarse, 1)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_rounds_of_refining_add_up(rng: np.random.Generator) -> None:
    degradation, coarse = Degradation.gaussian((1.0, 1.0), (2, 2)), tensor(rng.normal(size=(8, 8)))
    fine = degradation.up(coarse)
    twice = degradation.refine(degradation.refine(fine, coarse, 1), coarse, 1)
    torch.testing.assert_close(degradation.refine(fine, coarse, 2), twice)
    assert degradation.refine(fine, coarse, 0) is fine


def cubic_weight(x: float) -> float:
    """Keys' kernel of 1981, written as piecewise polynomials."""
    x = abs(x)
    if x <= 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def cubic_reduction(line: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Reduce the first axis as imresize documents: the kernel is stretched by the factor, the weights sum to 1."""
    out = np.full((len(line) // factor, *line.shape[1:]), np.nan)
    for i in range(len(out)):
        centre = (i + 0.5) * factor - 0.5
        near = [x for x in range(-len(line), 2 * len(line)) if abs(x - centre) < 2 * factor]
        if near[0] >= 0 and near[-1] < len(line):
            weights = np.array([cubic_weight((x - centre) / factor) for x in near])
            out[i] = np.tensordot(weights / weights.sum(), line[near], 1)
    return out


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_an_antialiased_cubic_reduction(factor: int, rng: np.random.Generator) -> None:
    image = rng.normal(size=(8 * factor, 9 * factor))
    expected = cubic_reduction(cubic_reduction(image, factor).T, factor).T
    inside = np.isfinite(expected)
    assert inside.sum() >= 12
    out = Degradation.bicubic((factor, factor)).down(tensor(image))[0, 0].numpy()
    np.testing.assert_allclose(out[inside], expected[inside], atol=1e-6)


def test_bicubic_after_a_blur(rng: np.random.Generator) -> None:
    image = tensor(rng.normal(size=(32, 32)))
    blurred = Degradation.gaussian((2.0, 1.0), (1, 1)).down(image)
    expected = Degradation.bicubic((2, 2)).down(blurred)
    found = Degradation.bicubic((2, 2), (2.0, 1.0)).down(image)
    torch.testing.assert_close(found[..., 5:-5, 5:-5], expected[..., 5:-5, 5:-5], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("taps", "factors", "grid", "message"),
    [
        ((5, 4), (2, 2), "registered", "make it even"),
        ((5, 4), (3, 3), "registered", "make it odd"),
        ((5, 4), (2, 2), "topleft", "make it odd"),
        ((5, 5, 5), (2, 2), "topleft", "does not fit the factors"),
    ],
)
def test_kernels_without_a_middle_are_refused(
    taps: tuple[int, ...], factors: tuple[int, ...], grid: Grid, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Degradation(np.ones(taps, np.float32), factors, grid)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (0, 0), (-2, -1), (-2, 3), (13, 11), (3, -2)])
def test_mirroring(before: int, after: int) -> None:
    line = torch.arange(5.0)
    expected = np.pad(line.numpy(), (max(before, 0), max(after, 0)), mode="symmetric")
    expected = expected[max(0, -before) : len(expected) - max(0, -after)]
    np.testing.assert_array_equal(mirrored(line[None, None], 2, before, after)[0, 0].numpy(), expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_images_shorter_than_four_taps_are_enlarged(n: int) -> None:
    fine = interpolated(torch.arange(float(n))[None, None], 2, 3, 1.0)[0, 0]
    assert fine.shape == (3 * n,)
    torch.testing.assert_close(fine[1::3], torch.arange(float(n)))
    assert bool((fine.diff() >= -1e-6).all())


def test_interpolation_can_be_learnt_through_after_a_prediction() -> None:
    """What is remembered of the taps must not belong to inference mode."""
    degradation, coarse = Degradation.gaussian((1.0, 1.0), (2, 2)), torch.ones((1, 1, 37, 41))
    with torch.inference_mode():
        degradation.up(coarse)
    degradation.up(coarse.requires_grad_()).sum().backward()
    assert coarse.grad is not None
    assert bool((coarse.grad[..., 3:-3, 3:-3] - 4).abs().max() < 1e-5)  # each pixel weighs 2 x 2


def test_reach_bounds_a_step_of_back_projection(rng: np.random.Generator) -> None:
    degradation = random_degradation((2, 1, 3), "registered", rng)
    coarse = torch.zeros((1, 1, 9, 9, 9), dtype=torch.float64)
    fine = torch.zeros((1, 1, 18, 9, 27), dtype=torch.float64)
    fine[..., 9, 4, 13] = 1
    changed = (degradation.refine(fine, coarse, 1) - fine)[0, 0].nonzero()
    away = (changed - torch.tensor([9, 4, 13])).abs().amax(0).tolist()
    assert all(a <= r for a, r in zip(away, degradation.reach, strict=True))


PUBLISHED = BENCHMARK_DATA / "sr" / "mzsr_official_input_g20"
NAMES = ("baby", "bird", "butterfly", "head", "woman")  # in the order of Set5's own names


@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)), ids=NAMES)
def test_published_inputs_are_reproduced_bit_for_bit(number: int, name: str) -> None:
    """Soh et al. made the low-resolution Set5 with a Gaussian of variance 2, 21 x 21 taps, top-left pixels."""
    from PIL import Image

    sharp = sorted((BENCHMARK_DATA / "sr" / "set5").glob("*.png"))
    if len(sharp) != len(NAMES) or not (PUBLISHED / f"{name}.png").is_file():
        pytest.skip(f"no Set5 with its published inputs in {BENCHMARK_DATA} (set SSDENOISE_BENCHMARK_DATA)")
    with Image.open(sharp[number]) as opened:
        image = np.asarray(opened.convert("RGB"), float)
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    degradation = Degradation.gaussian((2.0, 2.0), (2, 2), "topleft", size=21)
    object.__setattr__(degradation, "kernel", kernel_in_double())
    reduced = degradation.down(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0].numpy()
    found = np.clip(np.round(reduced), 0, 255).transpose(1, 2, 0)
    with Image.open(PUBLISHED / f"{name}.png") as opened:
        np.testing.assert_array_equal(found, np.asarray(opened.convert("RGB")))


def kernel_in_double() -> NDArray[np.float64]:
    from napari_ssdenoise.ops.kernels import gaussian

    return gaussian((2.0, 2.0), (2, 2), "topleft", size=21)


def test_automatic_precision_rounds_nothing(rng: np.random.Generator) -> None:
    """Rounded to eight bits, what is corrected by back-projection would be noise."""
    degradation = Degradation.gaussian((1.0, 1.0), (2, 2))
    sharp = tensor(rng.normal(size=(16, 16))).float()
    expected = degradation.refine(sharp, degradation.down(sharp) + 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = degradation.refine(sharp, degradation.down(sharp) + 1, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("factor", "grid"), [(4, "registered"), (4, "topleft"), (6, "registered"), (8, "topleft")])
def test_a_coarser_blur_is_the_same_in_larger_pixels(factor: int, grid: Any) -> None:
    degradation = Degradation.gaussian(((9.0, 1.0), (1.0, 6.0)), (factor, factor), grid)
    half = degradation.coarser(2)
    assert half.factors == (factor // 2, factor // 2)
    assert half.kernel.sum() == pytest.approx(1, abs=1e-5)
    for own, found in zip(widths(degradation.kernel), widths(half.kernel), strict=True):
        assert own / 2 <= found <= np.hypot(own / 2, 0.5)
    place = np.indices(half.kernel.shape) - (np.array(half.kernel.shape)[:, None, None] - 1) / 2
    np.testing.assert_allclose((half.kernel * place).sum((1, 2)), 0, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be divided"):
        half.coarser(factor)
