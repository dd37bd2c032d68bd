"""The split of k-space estimates, without bias, the error that all of k-space would show."""

from __future__ import annotations

import pytest
import torch

from napari_ssdenoise.ops.kspace_split import disjoint_split, unbiased_split


def draw(n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the acquired lines, a third of all, and the centre, 8 % of all."""
    middle = round(0.08 * n)
    centre = torch.zeros(n, dtype=torch.bool)
    centre[n // 2 - middle // 2 : n // 2 - middle // 2 + middle] = True
    acquired = centre.clone()
    others = (~centre).nonzero()[:, 0]
    acquired[others[torch.randperm(len(others), generator=rng)[: round(n / 3) - middle]]] = True
    return acquired, centre


def errors(n: int, given: torch.Tensor) -> torch.Tensor:
    """Return what a network's squared errors may be: larger where k-space is strong, and where nothing was given."""
    away = (torch.arange(n) - n // 2).abs() / n
    near = torch.nn.functional.max_pool1d(given.float()[None], 3, 1, 1)[0]  # neighbours help
    return 1 / (0.05 + away) ** 1.5 * (1 - 0.6 * given.float()) * (1 - 0.3 * near)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("n", [96, 160, 396])
def test_the_weighted_error_is_that_of_all_lines_on_average(n: int, reuse: bool) -> None:
    rng = torch.Generator().manual_seed(n)
    estimated = true = naive = 0.0
    for _ in range(10_000):
        acquired, centre = draw(n, rng)
        split = unbiased_split(acquired, centre, rng, reuse=reuse)
        error = errors(n, split.given)
        estimated += float((split.weights * error).sum())
        true += float(error.sum() if reuse else error[~split.given].sum())
        naive += float(
            error[split.weights > 0].sum() / (split.weights > 0).sum() * (n if reuse else (~split.given).sum())
        )
    assert abs(estimated / true - 1) < 0.01
    # What the weights are for: with all targets counted equally, it is wrong by far where the centre is among them.
    assert not reuse or abs(naive / true - 1) > 0.05


def test_input_and_new_targets_share_no_line() -> None:
    rng = torch.Generator().manual_seed(0)
    acquired, centre = draw(160, rng)
    split = unbiased_split(acquired, centre, rng)
    target = split.weights > 0
    assert not (split.given & target).any()
    assert bool(((split.given | target) == acquired).all())
    assert bool(split.given[centre].all())
    outside = int((acquired & ~centre).sum())
    assert int((split.given & ~centre).sum()) == round(2 / 3 * outside)
    hidden = int((~centre).sum()) - round(2 / 3 * outside)
    assert float(split.weights.sum()) == pytest.approx(hidden, rel=1e-5)


def test_reused_lines_are_as_likely_targets_as_new_ones() -> None:
    rng = torch.Generator().manual_seed(0)
    acquired, centre = draw(396, rng)
    split = unbiased_split(acquired, centre, rng, reuse=True)
    levels = split.weights[(split.weights > 0) & ~centre].unique()
    assert float(levels.max() / levels.min()) < 1.1
    assert bool((split.weights[centre] == 1).all())


def test_a_disjoint_split_weighs_all_targets_equally() -> None:
    rng = torch.Generator().manual_seed(0)
    acquired, centre = draw(160, rng)
    split = disjoint_split(acquired, centre, rng)
    assert set(split.weights.tolist()) == {0.0, 1.0}
    assert not (split.given & (split.weights > 0)).any()


def test_too_few_lines_cannot_be_split() -> None:
    centre = torch.zeros(20, dtype=torch.bool)
    centre[6:14] = True
    with pytest.raises(ValueError, match="too few to split"):
        unbiased_split(centre, centre, torch.Generator())
