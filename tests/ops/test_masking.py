"""The statistics of Noise2Void's masks and replacements, in two and three dimensions."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch

from napari_ssdenoise.ops.masking import mask_pixels, stratified_pixels, uniform_neighbours
from napari_ssdenoise.ops.struct_mask import parse_struct


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spatial", [(64, 64), (50, 37), (16, 64, 64), (9, 21, 33)], ids=str)
@pytest.mark.parametrize("percent", [0.2, 1.0])
def test_every_pixel_is_masked_equally_often(spatial: tuple[int, ...], percent: float) -> None:
    batch, rounds = 64, 40
    counts = torch.zeros(prod(spatial))
    rng = generator()
    for _ in range(rounds):
        _, coordinates = stratified_pixels(batch, spatial, percent, rng)
        flat = np.ravel_multi_index(tuple(coordinates.T.numpy()), spatial)
        counts += torch.bincount(torch.from_numpy(flat), minlength=len(counts))
    share = counts.sum() / (batch * rounds * prod(spatial))
    assert float(share) == pytest.approx(percent / 100, rel=0.02)
    # Near the borders, where boxes stick out, as often as elsewhere.
    volume = counts.reshape(spatial)
    for axis in range(len(spatial)):
        first = volume.movedim(axis, 0)[[0, -1]].mean() / (batch * rounds)
        assert float(first) == pytest.approx(percent / 100, rel=0.15)


@pytest.mark.parametrize("spatial", [(64, 64), (16, 64, 64)], ids=str)
def test_one_masked_pixel_in_every_box(spatial: tuple[int, ...]) -> None:
    percent = 100 / 4 ** len(spatial)  # boxes of four pixels a side, in any dimension
    image, coordinates = stratified_pixels(3, spatial, percent, generator())
    boxes = torch.cat([image[:, None], coordinates // 4], 1)
    assert len(boxes.unique(dim=0)) == len(boxes) == 3 * prod(spatial) // 4 ** len(spatial)


@pytest.mark.parametrize("centre", [(10, 10), (0, 0), (20, 1), (3, 20)], ids=str)
def test_replacement_is_uniform_over_the_window_without_its_centre(centre: tuple[int, int]) -> None:
    spatial, radius, draws = (21, 21), 2, 40_000
    coordinates = torch.tensor([centre]).expand(draws, 2)
    drawn = uniform_neighbours(coordinates, spatial, radius, generator())
    window = [
        (y, x)
        for y in range(max(0, centre[0] - radius), min(21, centre[0] + radius + 1))
        for x in range(max(0, centre[1] - radius), min(21, centre[1] + radius + 1))
        if (y, x) != centre
    ]
    pixels, counts = np.unique(drawn.numpy(), axis=0, return_counts=True)
    assert {tuple(p) for p in pixels.tolist()} == set(window)  # own row and column are in, the centre is not
    expected = draws / len(window)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < len(window) + 5 * np.sqrt(2 * len(window))


def test_replacement_is_uniform_in_3d() -> None:
    draws = 60_000
    drawn = uniform_neighbours(torch.tensor([[4, 4, 0]]).expand(draws, 3), (9, 9, 9), 1, generator())
    pixels, counts = np.unique(drawn.numpy(), axis=0, return_counts=True)
    assert len(pixels) == 3 * 3 * 2 - 1
    assert counts.std() / counts.mean() < 0.04


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (2, 1, 12, 20, 17)], ids=str)
@pytest.mark.parametrize("replacement", ["uniform", "median"])
def test_only_masked_pixels_change(shape: tuple[int, ...], replacement: str) -> None:
    noisy = torch.randn(shape, generator=generator(1))
    before = noisy.clone()
    masked = mask_pixels(noisy, generator(), masked_percent=2, radius=2, replacement=replacement)
    assert torch.equal(noisy, before)
    changed = (masked.noisy != noisy).any(1).flatten(1).nonzero()
    assert torch.equal(changed, torch.stack([masked.batch, masked.pixel], 1).unique(dim=0))
    assert torch.equal(masked.at(noisy), noisy.flatten(2)[masked.batch, :, masked.pixel])


def test_median_replacement_is_the_window_without_its_centre() -> None:
    noisy = torch.randn((1, 1, 30, 30), generator=generator(1))
    masked = mask_pixels(noisy, generator(), masked_percent=1, radius=2, replacement="median")
    for pixel, value in zip(masked.pixel, masked.at(masked.noisy), strict=True):
        y, x = divmod(int(pixel), 30)
        window = [
            float(noisy[0, 0, j, i])
            for j in range(max(0, y - 2), min(30, y + 3))
            for i in range(max(0, x - 2), min(30, x + 3))
            if (j, i) != (y, x)
        ]
        assert float(value) == pytest.approx(sorted(window)[(len(window) - 1) // 2])


def test_struct_mask_hides_the_line() -> None:
    noisy = torch.randn((4, 1, 64, 64), generator=generator(1))
    struct = tuple(o[1:] for o in parse_struct("1111111"))
    masked = mask_pixels(noisy, generator(), masked_percent=0.2, radius=5, struct=struct)
    changed = masked.noisy != noisy
    for image, pixel in zip(masked.batch, masked.pixel, strict=True):
        y, x = divmod(int(pixel), 64)
        assert changed[image, 0, y, max(0, x - 3) : x + 4].all()
    assert changed.sum() <= 7 * len(masked.pixel)
    assert masked.noisy.min() >= noisy.min()
    assert masked.noisy.max() <= noisy.max()


def test_struct_mask_text() -> None:
    assert parse_struct("111") == ((0, 0, -1), (0, 0, 1))
    assert parse_struct("1/1/1") == ((0, -1, 0), (0, 1, 0))
    assert parse_struct("1|1|1") == ((-1, 0, 0), (1, 0, 0))
    assert len(parse_struct("010/111/010")) == 4


@pytest.mark.parametrize("text", ["11", "111/11/111", "abc", "1/1", "1x1", "/"], ids=str)
def test_bad_struct_mask(text: str) -> None:
    with pytest.raises(ValueError, match="struct_mask"):
        parse_struct(text)


def test_a_patch_smaller_than_a_box_still_masks_a_pixel_at_times() -> None:
    for seed in range(20):
        image, coordinates = stratified_pixels(2, (4, 4), 0.05, generator(seed))
        assert len(image) >= 1
        assert (coordinates < 4).all()
