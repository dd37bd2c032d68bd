"""Split the acquired lines of k-space into a network's input and its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Split(NamedTuple):
    """What a network gets, and what it has to predict.

    Parameters
    ----------
    given : (n,) bool
        Lines of the input.
    weights : (n,) float32
        Of the squared error on each line; 0 where it is no target.
    """

    given: Tensor
    weights: Tensor


def unbiased_split(
    acquired: Tensor, centre: Tensor, rng: torch.Generator, *, keep: float = 2 / 3, reuse: bool = False
) -> Split:
    """Split lines so that the weighted error estimates that on all lines, acquired or not (Klug et al., 2023).

    Parameters
    ----------
    acquired, centre : (n,) bool
        The lines that were measured; those of the centre, which are always part of the input.
    keep
        The part of the acquired lines outside the centre that is given to the network: 0.67 of a third of all lines
        makes an input of a quarter.
    reuse
        Let lines of the input be targets too, so that the estimate is of the error on all lines. Otherwise it is of
        the error on those that are not given, and no network is rewarded for repeating its input's noise.

    Returns
    -------
    Split
        Whose weighted sum of squared errors has, over the draws of the acquired lines and of the split, the
        expectation of the plain sum, if the lines outside the centre were acquired at random.

    Notes
    -----
    The paper weighs by the expected numbers of lines, which their rounding makes wrong by up to 5 % for small n. Here
    the numbers that were drawn count: with h lines outside the centre and a of them given, the t new targets weigh
    (h - a) / t each, as they stand for the h - a lines that are not given, and o reused ones a / o.
    """
    outside = acquired & ~centre
    lines = outside.nonzero()[:, 0].cpu()
    order = lines[torch.randperm(len(lines), generator=rng)].to(acquired.device)
    count = min(max(1, round(keep * len(order))), len(order) - 1)
    if count < 1:
        raise ValueError(
            f"{len(order)} lines outside the centre of k-space are too few to split; at least 2 are needed."
        )
    old, new = order[:count], order[count:]
    hidden = int((~centre).sum()) - count
    given = acquired & centre
    given[old] = True
    weights = torch.zeros(acquired.shape, device=acquired.device)
    weights[new] = hidden / len(new)
    if reuse:
        weights[centre & acquired] = 1.0
        # As many that new and reused lines are equally likely to be targets.
        again = min(count, max(1, round(count * len(new) / hidden)))
        weights[old[torch.randperm(count, generator=rng)[:again].to(old.device)]] = count / again
    return Split(given, weights)


def disjoint_split(acquired: Tensor, centre: Tensor, rng: torch.Generator, *, keep: float = 0.6) -> Split:
    """Split lines in two, and weigh all targets equally (SSDU: Yaman et al., 2020)."""
    found = unbiased_split(acquired, centre, rng, keep=keep)
    return Split(found.given, (found.weights > 0).to(torch.float32))
