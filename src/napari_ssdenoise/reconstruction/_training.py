"""Learn to reconstruct from many undersampled slices, without one that was fully sampled."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.device import autocast, choose_device, choose_precision
from napari_ssdenoise.io.kspace import KSpace, open_kspace
from napari_ssdenoise.networks.unrolled import Unrolled
from napari_ssdenoise.ops.kspace import Sense
from napari_ssdenoise.ops.kspace_split import disjoint_split, unbiased_split
from napari_ssdenoise.reconstruction._model import ReconstructionModel
from napari_ssdenoise.reconstruction._problem import Problem, line_axis, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Loss = Literal["split", "ssdu", "supervised"]
LOSSES: Final = {
    "split": "the unbiased weighted loss on acquired lines that were not given (Klug et al., 2023)",
    "ssdu": "the plain loss on these lines (Yaman et al., 2020)",
    "supervised": "the loss on all of fully sampled k-space: the yardstick",
}
RATE: Final = 1e-3


@dataclass(frozen=True)
class TrainingStep:
    """One update: its number from 1, how many there will be, and the relative squared error on the target lines."""

    step: int
    steps: int
    loss: float


class ReconstructionTrainer:
    """Train an unrolled network on slices, one update per iteration; `model` is what has been learnt so far.

    Parameters
    ----------
    kspace
        One or several of what `open_kspace` takes. Undersampled, unless the loss is supervised.
    loss
        ``"split"``, ``"ssdu"`` or ``"supervised"``. With the first, the network learns on average what it would learn
        from fully sampled data, if the lines outside the centre were acquired at random.
    masks
        For ``"supervised"``: the sampling of every slice (slices, Y, X) that the network will have to deal with, for
        each of ``kspace``.
    steps
        Updates.
    width, rounds
        Of the network, see `Unrolled`.
    device, seed
        Where to compute; of weights, order and splits.

    Raises
    ------
    ValueError
        If slices cannot be learnt from; the message says why.
    """

    def __init__(
        self,
        kspace: Any,
        loss: Loss = "split",
        *,
        masks: Any = None,
        steps: int = 2000,
        width: int = 16,
        rounds: int = 3,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; choose one of {', '.join(LOSSES)}.")
        if (loss == "supervised") != (masks is not None):
            raise ValueError("masks are needed with loss='supervised', and with no other.")
        self.loss, self.steps, self.step = loss, steps, 0
        self.device = choose_device(device)
        self.rng = torch.Generator().manual_seed(seed)
        sources = list(kspace) if isinstance(kspace, (list, tuple)) else [kspace]
        self.problems = self._problems([open_kspace(k) for k in sources], masks)
        sets = max(p.maps.shape[0] for p in self.problems)
        self.problems = [_with_sets(p, sets) for p in self.problems]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Unrolled(sets, width=width, rounds=rounds).to(self.device)
        self._averaged = copy.deepcopy(self.network)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        self._order: list[int] = []

    def _problems(self, sources: Sequence[KSpace], masks: Any) -> list[Problem]:
        """Estimate the maps of every slice, from the lines that the network will be given."""
        found = []
        given = [masks] if masks is not None and len(sources) == 1 and not isinstance(masks, (list, tuple)) else masks
        for number, source in enumerate(sources):
            sampled = source if given is None else source.undersampled(given[number])
            for index in range(len(source)):
                problem = prepare(*sampled.read(index), device=self.device)
                axis = line_axis(problem.mask)
                lines = (problem.mask & ~problem.centre).any(1 - axis).sum() if axis is not None else 0
                if int(lines) < 4:
                    raise ValueError(
                        f"{source.name}, slice {index}: {int(lines)} whole lines were acquired outside the centre of "
                        "k-space; at least 4 are needed to learn from."
                    )
                if given is not None:
                    full = torch.tensor(source.read(index)[0], device=self.device)
                    problem = replace(problem, kspace=full / problem.scale)
                found.append(problem)
        return found

    def __iter__(self) -> Iterator[TrainingStep]:
        return self

    def __next__(self) -> TrainingStep:
        if self.step >= self.steps:
            raise StopIteration
        if not self._order:
            self._order = torch.randperm(len(self.problems), generator=self.rng).tolist()
        problem = self.problems[self._order.pop()]
        self._optimizer.param_groups[0]["lr"] = RATE * annealing(self.step / self.steps, self.step, 0.4)
        loss = self._loss(problem)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        follow = 1 - min(0.99, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self._averaged.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(new, follow)
        self.step += 1
        return TrainingStep(self.step, self.steps, float(loss.detach()))

    def _loss(self, problem: Problem) -> Tensor:
        """Return the weighted squared error on the target lines, in parts of the energy outside the centre."""
        axis = line_axis(problem.mask)
        if axis is None:
            raise ValueError("single samples were acquired, and not lines; such k-space cannot be learnt from yet.")
        along = 1 - axis
        acquired, centre = problem.mask.any(along), problem.centre.any(along)
        padding = problem.mask.any(axis)  # of a readout that was not acquired to its ends
        if self.loss == "supervised":
            given, weights = acquired, (~acquired).to(torch.float32)
        else:
            split = disjoint_split if self.loss == "ssdu" else unbiased_split
            given, weights = split(acquired, centre, self.rng)

        def plane(lines: Tensor) -> Tensor:
            return lines.unsqueeze(along) * padding.unsqueeze(axis)

        known = replace(problem, mask=plane(given).bool())
        operator, data = known.sense()
        with autocast(self.device, choose_precision(self.device)):
            image = self.network(operator.adjoint(data), operator, data)
        target = Sense(problem.maps, plane(weights > 0).bool())
        wanted = target.prepare(problem.kspace)
        squares = (target.forward(image) - wanted).abs().square() * weights.unsqueeze(along)
        # The same divisor in every split: one that is drawn with the lines would bias the loss.
        outside = problem.mask & ~problem.centre
        energy = (problem.kspace.abs().square() * outside).sum() * float((~acquired).sum() / outside.any(along).sum())
        loss: Tensor = squares.sum() / energy
        return loss

    @property
    def model(self) -> ReconstructionModel:
        """The network with averaged weights."""
        record = {"loss": self.loss, "steps": self.step, "slices": len(self.problems)}
        return ReconstructionModel(copy.deepcopy(self._averaged).eval(), record)


def _with_sets(problem: Problem, sets: int) -> Problem:
    """Add empty sets of maps, so that all slices have as many."""
    missing = sets - problem.maps.shape[0]
    if not missing:
        return problem
    return replace(
        problem, maps=torch.cat([problem.maps, torch.zeros_like(problem.maps[:1]).expand(missing, -1, -1, -1)])
    )


def train_reconstruction(kspace: Any, loss: Loss = "split", **options: Any) -> ReconstructionModel:
    """Train a network to reconstruct; see `ReconstructionTrainer`.

    Returns
    -------
    ReconstructionModel
        For `reconstruct(kspace, method=model)`.
    """
    trainer = ReconstructionTrainer(kspace, loss, **options)
    for _ in trainer:
        pass
    return trainer.model
