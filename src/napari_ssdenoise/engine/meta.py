"""Meta-training: find weights from which a few updates on one image suffice (MAML; Finn et al. 2017, Soh et al. 2020).

Each task has its own data, split into support and query. A copy of the weights takes a few gradient steps on the
support; how well each intermediate copy does on the query is what the weights are trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, "Tensor"]
Loss = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Task:
    """Pairs of input and target (B, C, *spatial) that share one degradation."""

    support: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Inner:
    """How a copy of the weights adapts to a task.

    Parameters
    ----------
    steps
        Gradient steps (5 in Soh et al.).
    rate
        Of plain gradient descent.
    second_order
        Differentiate through the steps; otherwise the gradient at each adapted copy counts as that of the weights,
        which is four times as fast.
    """

    steps: int = 5
    rate: float = 1e-2
    second_order: bool = True


def step_weights(progress: float, steps: int) -> list[float]:
    """Return how much the query loss after each inner step counts.

    They start equal; all but the last fall to 3 % of that at ``progress`` 1, the last takes up the rest (multi-step
    loss, Antoniou et al. 2019).
    """
    early = (1 - 0.97 * min(max(progress, 0.0), 1.0)) / steps
    return [early] * (steps - 1) + [1 - early * (steps - 1)]


def meta_gradient(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    task: Task,
    inner: Inner,
    counts: Sequence[float],
    loss: Loss = torch.nn.functional.l1_loss,
) -> tuple[Weights, list[float]]:
    """Return the gradient of a task's weighted query losses, and these losses.

    Parameters
    ----------
    weights
        To start from, by name; leaves that require gradients.
    counts
        From `step_weights`.
    """
    names = list(weights)
    start = [weights[name] for name in names]
    total = [torch.zeros_like(w) for w in start]
    current: list[Tensor] = start if inner.second_order else [w.detach().requires_grad_() for w in start]
    losses: list[float] = []
    whole: Any = 0.0

    def at(values: Sequence[Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        return loss(functional_call(network, dict(zip(names, values, strict=True)), (pair[0],)), pair[1])

    for count in counts:
        slope = torch.autograd.grad(at(current, task.support), current, create_graph=inner.second_order)
        current = [w - inner.rate * g for w, g in zip(current, slope, strict=True)]
        if not inner.second_order:
            current = [w.detach().requires_grad_() for w in current]
        query = at(current, task.query)
        losses.append(float(query.detach()))
        if inner.second_order:
            whole = whole + count * query
        else:
            for sum_, g in zip(total, torch.autograd.grad(query, current), strict=True):
                sum_.add_(g, alpha=count)
    if inner.second_order:
        total = list(torch.autograd.grad(whole, start))
    return dict(zip(names, total, strict=True)), losses
