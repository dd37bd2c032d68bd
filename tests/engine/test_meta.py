"""Meta-gradients: what they claim to be, by finite differences and by hand."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from napari_ssdenoise.engine.meta import Inner, Task, meta_gradient, step_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

mse = nn.functional.mse_loss
COUNTS = (0.2, 0.3, 0.5)


@pytest.fixture
def network() -> nn.Module:
    """Return a tiny network that is smooth, so that differences tell its gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 3, padding=1)).double()


@pytest.fixture
def task() -> Task:
    rng = torch.Generator().manual_seed(1)
    images = [torch.randn((2, 1, 8, 8), dtype=torch.float64, generator=rng) for _ in range(4)]
    return Task((images[0], images[1]), (images[2], images[3]))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}


def adapted(network: nn.Module, task: Task, rate: float, steps: int, loss: nn.Module | None = None) -> list[nn.Module]:
    """Return copies after one, two, ... steps of gradient descent on the support."""
    measure = loss or mse
    copies: list[nn.Module] = []
    for _ in range(steps):
        copy = deepcopy(copies[-1] if copies else network)
        copy.zero_grad()
        measure(copy(task.support[0]), task.support[1]).backward()
        torch.optim.SGD(copy.parameters(), rate).step()
        copies.append(copy)
    return copies


def outer_loss(network: nn.Module, task: Task, rate: float, counts: Sequence[float]) -> float:
    """Return the weighted losses on the query, step by step."""
    copies = adapted(network, task, rate, len(counts))
    with torch.no_grad():
        losses = [float(mse(copy(task.query[0]), task.query[1])) for copy in copies]
    return sum(count * loss for count, loss in zip(counts, losses, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("progress", [-1.0, 0.0, 0.3, 1.0, 7.0])
def test_step_weights_sum_to_one(progress: float, steps: int) -> None:
    counts = step_weights(progress, steps)
    assert len(counts) == steps
    assert sum(counts) == pytest.approx(1)
    assert min(counts) > 0
    assert counts[-1] == pytest.approx(max(counts))
    assert len(set(counts[:-1])) <= 1


def test_step_weights_move_to_the_last_step() -> None:
    assert step_weights(0, 5) == pytest.approx([0.2] * 5)
    last = [step_weights(progress, 5)[-1] for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert last == sorted(last)
    assert step_weights(1, 5) == pytest.approx([0.006] * 4 + [0.976])
    assert step_weights(2, 5) == step_weights(1, 5)


def test_the_second_order_gradient_equals_finite_differences(network: nn.Module, task: Task) -> None:
    rate, small = 0.3, 1e-5
    found, _ = meta_gradient(network, weights_of(network), task, Inner(3, rate), COUNTS, mse)
    for name, p in network.named_parameters():
        flat, expected = p.data.view(-1), []
        for i in range(flat.numel()):
            before = float(flat[i])
            sides = []
            for step in (small, -small):
                flat[i] = before + step
                sides.append(outer_loss(network, task, rate, COUNTS))
            flat[i] = before
            expected.append((sides[0] - sides[1]) / (2 * small))
        torch.testing.assert_close(found[name].view(-1), torch.tensor(expected).double(), rtol=1e-6, atol=1e-8)


def test_the_first_order_gradient_is_that_at_the_adapted_copies(network: nn.Module, task: Task) -> None:
    rate = 0.3
    inner = Inner(3, rate, second_order=False)
    found, losses = meta_gradient(network, weights_of(network), task, inner, COUNTS, mse)
    copies = adapted(network, task, rate, 3)
    for count, copy, loss in zip(COUNTS, copies, losses, strict=True):
        copy.zero_grad()
        query = mse(copy(task.query[0]), task.query[1])
        (count * query).backward()
        assert loss == pytest.approx(query.item(), rel=1e-9)
    for name in found:
        expected = sum(dict(copy.named_parameters())[name].grad for copy in copies)
        torch.testing.assert_close(found[name], expected)


def test_both_orders_agree_where_steps_are_tiny_and_differ_where_not(network: nn.Module, task: Task) -> None:
    def angle(rate: float) -> float:
        both = [
            meta_gradient(network, weights_of(network), task, Inner(3, rate, second), COUNTS, mse)[0]
            for second in (True, False)
        ]
        first, second = (torch.cat([g.flatten() for g in gradient.values()]) for gradient in both)
        return float(1 - torch.cosine_similarity(first, second, 0))

    assert angle(1e-6) < 1e-9
    assert angle(0.3) > 1e-3


@pytest.mark.parametrize("second_order", [False, True])
def test_losses_are_those_of_the_adapted_copies(network: nn.Module, task: Task, second_order: bool) -> None:
    """With the mean absolute error, which is what is taken by default."""
    weights = weights_of(network)
    before = {name: w.detach().clone() for name, w in weights.items()}
    found, losses = meta_gradient(network, weights, task, Inner(2, 0.05, second_order), (0.5, 0.5))
    for copy, loss in zip(adapted(network, task, 0.05, 2, nn.L1Loss()), losses, strict=True):
        with torch.no_grad():
            assert loss == pytest.approx(float(nn.functional.l1_loss(copy(task.query[0]), task.query[1])), rel=1e-9)
    assert list(found) == list(weights)
    for name, w in weights.items():
        assert found[name].shape == w.shape
        assert not found[name].requires_grad
        assert torch.equal(w, before[name])


@pytest.mark.parametrize("second_order", [False, True])
def test_following_the_gradient_lowers_the_loss_after_adapting(network: nn.Module, second_order: bool) -> None:
    """Tasks: scale an image by an unknown factor."""

    def tasks(seed: int) -> list[Task]:
        rng = torch.Generator().manual_seed(seed)
        made = []
        for _ in range(4):
            images = torch.randn((2, 2, 1, 8, 8), dtype=torch.float64, generator=rng)
            scale = 1 + float(torch.rand((), generator=rng))
            made.append(Task((images[0], scale * images[0]), (images[1], scale * images[1])))
        return made

    inner = Inner(2, 0.1, second_order)
    weights = weights_of(network)
    last: list[float] = []
    for step in range(40):
        total, losses = {}, []
        for task in tasks(step):
            gradient, found = meta_gradient(network, weights, task, inner, (0.2, 0.8), mse)
            losses.append(found[-1])
            total = {name: total.get(name, 0) + g for name, g in gradient.items()}
        last.append(sum(losses) / len(losses))
        weights = {name: (w - 0.05 * total[name]).detach().requires_grad_() for name, w in weights.items()}
    assert sum(last[-5:]) < 0.5 * sum(last[:5])
