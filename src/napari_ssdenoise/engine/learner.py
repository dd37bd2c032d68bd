"""A network while it learns: gradients, steps, and the moving average of its weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from napari_ssdenoise.engine.device import autocast, free_memory, is_out_of_memory
from napari_ssdenoise.networks.blocks import learning_format, placed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.engine.patches import Batch


class Learner:
    """Moves a network's weights along an algorithm's loss.

    Parameters
    ----------
    algorithm
        Of which loss, optimizer and averaging are.
    network
        As it begins, on the CPU.
    ndim
        Spatial axes of its images.
    device, dtype
        On and in which to compute.
    at_once
        Patches to look at together, as long as the memory suffices.
    warm
        Whether it begins with weights that had learnt before, so that `moved` has a meaning.

    Attributes
    ----------
    network
        With the current weights, on the device.
    averaged
        Its tensors by name, averaged over the latest steps.
    at_once
        See above; smaller after memory ran out.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        network: Any,
        *,
        ndim: int,
        device: torch.device,
        dtype: torch.dtype,
        at_once: int,
        warm: bool,
    ) -> None:
        self._algorithm = algorithm
        layout = learning_format(network, device, dtype)
        self._layout = layout[ndim]
        self._device = device
        self._dtype = dtype
        self.at_once = at_once
        self.network: Any = placed(network, device, layout)
        self._state = self.network.state_dict()  # shares the weights' memory
        self.averaged = _copy(self._state)
        self._begun = _copy(self._state) if warm else {}
        self._learning = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = algorithm.optimizer(self._learning)

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn."""
        return self._optimizer is not None

    @property
    def warm(self) -> bool:
        """Whether it began with weights that had learnt before."""
        return bool(self._begun)

    @property
    def moved(self) -> float | None:
        """How far the averaged weights are from those that were begun with, relative; None after a random start."""
        if not self._begun:
            return None
        names = [name for name, _ in self.network.named_parameters()]
        pairs = [(self.averaged[n], self._begun[n].to(self._device)) for n in names]
        way = sum(float((new - old).square().sum()) for new, old in pairs)
        size = sum(float(old.square().sum()) for _, old in pairs)
        return math.sqrt(way / size)

    def gradient(self, batch: Batch, seed: int) -> Tensor:
        """Find the gradient of a batch's loss, and return the loss.

        If the device's memory is too small, ever smaller parts of the batch are looked at in turn. A look that is cut
        short, by this or by who stops the training, leaves nothing behind in the batch statistics.

        Parameters
        ----------
        batch
            Patches on the CPU.
        seed
            Of what is random in the loss.
        """
        self.network.train()
        statistics = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        while True:
            try:
                return self._accumulate(batch, torch.Generator().manual_seed(seed))
            except BaseException as error:
                for buffer, before in statistics:
                    buffer.copy_(before)
                if not is_out_of_memory(error) or self.at_once == 1:
                    raise
                self.at_once = max(1, self.at_once // 2)
                free_memory(self._device)

    def _accumulate(self, batch: Batch, rng: torch.Generator) -> Tensor:
        for parameter in self._learning:  # as `zero_grad` does, at a tenth of its cost
            parameter.grad = None
        total = torch.zeros((), device=self._device)
        size = len(batch.noisy)
        for start in range(0, size, self.at_once):
            part = slice(start, start + self.at_once)
            noisy, target = self._to_device(batch.noisy[part]), self._to_device(batch.target[part])
            learnt = None if batch.learnt is None else batch.learnt[part].to(self._device)
            with autocast(self._device, self._dtype):
                loss = self._algorithm.loss(
                    self.network, replace(batch, noisy=noisy, target=target, learnt=learnt), rng
                )
            share = loss * (len(noisy) / size)
            share.backward()  # type: ignore[no-untyped-call]
            total += share.detach()
        return total

    def _to_device(self, patches: Tensor) -> Tensor:
        if self._device.type == "cuda":
            patches = patches.pin_memory()
        return patches.to(self._device, non_blocking=True).contiguous(memory_format=self._layout)

    def move(self, rate: float, step: int) -> None:
        """Move the weights against the gradient, and the averaged ones (and batch statistics) towards them.

        Parameters
        ----------
        rate
            Step size.
        step
            Steps done before.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        weight = 1 - min(self._algorithm.averaging, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self._state.items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, weight)
                else:
                    self.averaged[name].copy_(value)

    def checkpoint(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of all tensors that `resume` needs."""
        optimizer = self._optimizer.state_dict()["state"]
        return {
            "network": _copy(self._state),
            "averaged": _copy(self.averaged),
            "optimizer": {f"{i}.{k}": v.clone() for i, state in optimizer.items() for k, v in state.items()},
        }

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        ValueError
            If it is of another network.
        """
        try:
            self.network.load_state_dict(checkpoint["network"])
        except RuntimeError as error:
            raise ValueError(
                "the checkpoint belongs to a network with other settings. Train from the start."
            ) from error
        self._state = self.network.state_dict()
        self.averaged = {k: v.to(self._device).clone() for k, v in checkpoint["averaged"].items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint["optimizer"].items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value.clone()
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        for parameter, moments in self._optimizer.state.items():  # in one order in memory, or fused updates mix them up
            for key, value in moments.items():
                if value.shape == parameter.shape:
                    moments[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}
