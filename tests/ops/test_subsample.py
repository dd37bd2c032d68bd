"""Two half-size images: from different pixels, neither shifted, each with half the noise variance."""

from __future__ import annotations

import pytest
import torch

from napari_ssdenoise.ops.subsample import diagonal_pair, neighbour_choice, pick


def test_the_two_diagonals() -> None:
    image = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])[None, None]
    first, second = diagonal_pair(image)
    assert first.tolist() == [[[[(1 + 6) / 2, (3 + 8) / 2]]]]
    assert second.tolist() == [[[[(2 + 5) / 2, (4 + 7) / 2]]]]


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (3, 6, 8), (5, 7, 9)])
def test_sizes(shape: tuple[int, ...]) -> None:
    for half in diagonal_pair(torch.zeros(2, 3, *shape)):
        assert half.shape == (2, 3, *shape[:-2], shape[-2] // 2, shape[-1] // 2)


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8)])
def test_every_pixel_is_in_one_of_them(shape: tuple[int, ...]) -> None:
    image = torch.zeros(1, 1, *shape, requires_grad=True)
    grads = [torch.autograd.grad(half.sum(), image)[0] for half in diagonal_pair(image)]
    assert (grads[0] * grads[1] == 0).all()
    assert (grads[0] + grads[1] == 0.5).all()


def test_a_ramp_is_the_same_in_both_and_noise_is_independent() -> None:
    ramp = torch.arange(64.0)[:, None] + 3 * torch.arange(64.0)
    first, second = diagonal_pair(ramp[None, None])
    torch.testing.assert_close(first, second)
    noise = torch.randn((1, 1, 512, 512), generator=torch.Generator().manual_seed(0))
    first, second = diagonal_pair(noise)
    assert float(first.var()) == pytest.approx(0.5, rel=0.03)
    assert float((first * second).mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("depth", [(), (3,)])
def test_neighbours_share_a_side_and_all_pairs_are_as_likely(depth: tuple[int, ...]) -> None:
    first, second = neighbour_choice((2, *depth, 40, 50), torch.Generator().manual_seed(0))
    pairs, counts = torch.unique(torch.stack([first.flatten(), second.flatten()]), dim=1, return_counts=True)
    assert sorted(map(tuple, pairs.T.tolist())) == [(0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2)]
    assert counts.min() > 0.8 * counts.float().mean()


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6)])
def test_pick_takes_the_chosen_pixel_of_all_channels(shape: tuple[int, ...]) -> None:
    image = torch.arange(2.0 * 3 * torch.Size(shape).numel()).reshape(2, 3, *shape)
    place, _ = neighbour_choice((2, *shape[:-2], shape[-2] // 2, shape[-1] // 2), torch.Generator().manual_seed(1))
    made = pick(image, place)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in made.shape)).tolist():
        batch, channel, *depth, y, x = index
        corner = int(place[(batch, 0, *depth, y, x)])
        assert made[tuple(index)] == image[(batch, channel, *depth, 2 * y + corner // 2, 2 * x + corner % 2)]
