"""Zero-shot learning: a network that learns from the one slice it reconstructs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.device import autocast, choose_precision
from napari_ssdenoise.networks.unrolled import Unrolled
from napari_ssdenoise.ops.kspace import Sense
from napari_ssdenoise.reconstruction._problem import line_axis
from napari_ssdenoise.reconstruction._wavelet import compressed_sensing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_ssdenoise.reconstruction._problem import Problem

RATE: Final = 1e-3
# Splits that are learnt from, the part of the lines that is the target of each, and iterations of their first images.
SPLITS: Final = 24
TARGET: Final = 0.2
START_STEPS: Final = 60
# Of the network's images against the data, before the last one: the first image is good, and is kept.
FIRST_WEIGHT: Final = 10.0
# Steps between looks at the held-out lines, and looks without progress after which learning ends.
LOOK: Final = 10
PATIENCE: Final = 6


@dataclass(frozen=True, eq=False)
class Example:
    """A first image of some lines, these lines, and others that it should predict."""

    start: Tensor
    operator: Sense
    data: Tensor
    target: Sense
    wanted: Tensor

    def loss(self, network: Unrolled) -> Tensor:
        """Return the relative error on the target lines, in the mean of its L1 and L2 norms (Yaman et al., 2020)."""
        with autocast(self.start.device, choose_precision(self.start.device)):
            image = network(self.start, self.operator, self.data)
        difference = self.target.forward(image) - self.wanted
        ones = difference.abs().sum() / self.wanted.abs().sum()
        loss: Tensor = (difference.norm() / self.wanted.norm() + ones) / 2
        return loss


class ZeroShot:
    """Learn from one slice what its held-back lines look like (zero-shot SSDU: Yaman et al., ICLR 2022).

    The acquired lines are three sets. Those of `held` are never learnt from: the error on them says which weights are
    best. Of the others, some are the network's input and some its target, in many ways. The network improves the
    compressed-sensing image of its input, and for each split that image is made of this split's input alone.

    Parameters
    ----------
    problem
        The slice.
    held : (Y, X) bool
        Lines that are held out.
    threshold
        Of compressed sensing.
    rng
        Of splits and shifts.
    steps
        Updates, at most.

    Attributes
    ----------
    image, without : (sets, Y, X) complex
        Reconstructed with and without the held-out lines, by the weights that were best.
    error
        On the held-out lines.
    """

    def __init__(self, problem: Problem, held: Tensor, threshold: float, rng: torch.Generator, steps: int) -> None:
        self.problem, self.held, self.threshold, self.rng, self.steps = problem, held, threshold, rng, steps
        self.image = self.without = torch.empty(0)
        self.error = float("inf")

    def run(self) -> Iterator[float]:
        """Learn, and yield which part is done; then `image` and `error` are those of the best weights."""
        known = self.problem.without(self.held)
        examples = []
        for count in range(SPLITS):
            examples.append(self._example(known, self._target(known)))
            yield 0.2 * count / SPLITS
        judge = self._example(known, self.held)
        network = _network(self.problem, self.rng)
        averaged = copy.deepcopy(network)
        best, waited = copy.deepcopy(network), 0
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        for step in range(self.steps):
            if step % LOOK == 0:
                error = self._judge(averaged, judge)
                waited = 0 if error < self.error else waited + 1
                if error < self.error:
                    self.error, best = error, copy.deepcopy(averaged)
                if waited >= PATIENCE:
                    break
            optimizer.param_groups[0]["lr"] = RATE * annealing(step / self.steps, step, 0.3)
            chosen = int(torch.randint(len(examples), (1,), generator=self.rng))
            _update(network, averaged, optimizer, examples[chosen], step)
            yield 0.2 + 0.75 * step / self.steps
        error = self._judge(averaged, judge)
        if error < self.error:
            self.error, best = error, averaged
        everything = self._example(self.problem, self.held)
        with torch.no_grad(), autocast(self.held.device, choose_precision(self.held.device)):
            self.image = best(everything.start, everything.operator, everything.data)
            self.without = best(judge.start, judge.operator, judge.data)

    def _judge(self, network: Unrolled, judge: Example) -> float:
        with torch.no_grad(), autocast(self.held.device, choose_precision(self.held.device)):
            return self.problem.error(network(judge.start, judge.operator, judge.data), self.held)

    def _target(self, known: Problem) -> Tensor:
        """Draw lines (or samples) outside the centre."""
        free = known.mask & ~known.centre
        axis = line_axis(known.mask)
        shape = list(free.shape) if axis is None else [free.shape[0], 1] if axis == 0 else [1, free.shape[1]]
        while True:
            target = free & (torch.rand(shape, generator=self.rng) < TARGET).to(free.device)
            if target.any() and (free & ~target).any():
                return target

    def _example(self, known: Problem, target: Tensor) -> Example:
        """Make an example whose input is what is known, without the target."""
        given = known.without(target) if target is not self.held else known
        operator, data = given.sense()
        *_, start = compressed_sensing(given, self.threshold, self.rng, START_STEPS, fit=False)
        wanted = Sense(known.maps, target)
        return Example(start, operator, data, wanted, wanted.prepare(known.kspace))


def _network(problem: Problem, rng: torch.Generator) -> Unrolled:
    """Return an untrained network, the same for the same generator, and leave torch's own generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
        network = Unrolled(problem.maps.shape[0], weight=FIRST_WEIGHT)
    return network.to(problem.maps.device)


def _update(
    network: Unrolled, averaged: Unrolled, optimizer: torch.optim.Optimizer, example: Example, step: int
) -> float:
    """Take one step, and let the averaged weights follow."""
    loss = example.loss(network)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    follow = 1 - min(0.98, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, new in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(new, follow)
    return float(loss.detach())


def blend(problem: Problem, held: Tensor, images: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return the weight of the second of two images that predicts held-out lines best, and the error of the mixture.

    Parameters
    ----------
    images : two of (sets, Y, X)
        Made without the held-out lines.
    """
    operator = Sense(problem.maps, held)
    wanted = operator.prepare(problem.kspace)
    first = operator.forward(images[0])
    away = operator.forward(images[1]) - first
    weight = float(((away.conj() * (wanted - first)).real.sum() / away.abs().square().sum().clamp_min(1e-30)).cpu())
    weight = min(1.0, max(0.0, weight))
    return weight, float((first + weight * away - wanted).norm() / wanted.norm())
