"""Judge a network, while it trains, by its loss on patches that no training patch overlaps."""

from __future__ import annotations

from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

import torch

from napari_ssdenoise.engine.device import autocast
from napari_ssdenoise.engine.held_out import MOST
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, placed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.engine.patches import PatchSampler
    from napari_ssdenoise.geometry import Geometry

TIMES = 20  # in a training
COST = 0.03  # of the time, at most
_STEP = 3  # a training step costs as much as so many predictions of its batch


class Judge:
    """Evaluates an algorithm's loss on held-out patches, with a network of its own.

    Parameters
    ----------
    algorithm, geometry, device, dtype
        Of the training.
    sampler
        Which patches are held out.
    seed
        Of whatever is random in the loss; the same for every evaluation, so that they can be compared.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        geometry: Geometry,
        sampler: PatchSampler,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        self._algorithm = algorithm
        self._geometry = geometry
        self._sampler = sampler
        self._device = device
        self._dtype = dtype
        self._seed = seed
        # Of few patches, the loss is averaged over several draws of what is random in it.
        count = sampler.held_out_patches
        self._repeats = ceil(MOST / count) if count else 0

    @property
    def can(self) -> bool:
        """Whether any patches are held out."""
        return bool(self._repeats)

    @property
    def least_steps(self) -> int:
        """Training steps that must lie between two evaluations for them to cost little."""
        patches = self._repeats * self._sampler.held_out_patches
        return ceil(patches / (_STEP * self._sampler.batch * COST))

    def is_due(self, before: float, now: float, steps_since: int) -> bool:
        """Tell whether to evaluate: now and then, and at the end.

        Parameters
        ----------
        before, now
            Shares of the budget that were used before and after the last step.
        steps_since
            Steps since the last evaluation.
        """
        if not self._repeats:
            return False
        return now >= 1 or (int(now * TIMES) > int(before * TIMES) and steps_since >= self.least_steps)

    @torch.no_grad()
    def loss(self, weights: Mapping[str, Tensor], most: int) -> float:
        """Return the loss of a network with these weights, looking at ``most`` patches at once."""
        network, batch = self._prepared
        network.load_state_dict(weights)
        rng = torch.Generator().manual_seed((self._seed << 32) + (1 << 32) - 1)
        total, size = 0.0, len(batch.noisy)
        for start in [*range(0, size, most)] * self._repeats:
            part = Batch(batch.noisy[start : start + most], batch.target[start : start + most])
            with autocast(self._device, self._dtype):
                loss = self._algorithm.loss(network, part, rng)
            total += float(loss) * len(part.noisy) / size
        return total / self._repeats

    @cached_property
    def held_out(self) -> Batch | None:
        """The patches, read when they are needed first; None if there are none."""
        return self._sampler.held_out()

    @cached_property
    def _prepared(self) -> tuple[Any, Batch]:
        """The network and the patches, made and read when they are needed first."""
        held = self.held_out
        if held is None:
            raise RuntimeError("no patches are held out.")
        layout = MEMORY_FORMAT[len(self._geometry.spatial)]
        noisy, target = (image.to(self._device).contiguous(memory_format=layout) for image in (held.noisy, held.target))
        with torch.random.fork_rng(devices=[]):
            network = self._geometry.build(self._algorithm)
        return placed(network, self._device).eval(), Batch(noisy, target)
