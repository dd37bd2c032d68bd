"""Fit a small network to pairs of noisy images, step by step."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ssdenoise.engine.annealing import annealing
from napari_ssdenoise.engine.device import autocast, choose_precision
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, placed
from napari_ssdenoise.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from napari_ssdenoise.study.networks import NetworkStudy

LOOKS = 24  # how often in a training the validation images choose among the weights: at growing intervals
PATIENCE = 3.0  # a training ends when this many times the steps of its best weights brought no better ones
AVERAGED = 0.97  # the weights that are judged are an exponential average over some thirty steps


@dataclass(frozen=True)
class Views:
    """Images with one noisy input and one noisy target each: float32 tensors (N, 1, Y, X), as the network sees them."""

    noisy: Tensor
    target: Tensor


def last(fitting: Generator[int, None, UNet]) -> UNet:
    """Take all steps, and return the network."""
    while True:
        try:
            next(fitting)
        except StopIteration as end:
            network: UNet = end.value
            return network


def network_fitting(
    study: NetworkStudy, train: Views, validation: Views, seed: int, device: torch.device, *, turned: bool = False
) -> Generator[int, None, UNet]:
    """Make a network, with the averaged weights that came closest to the validation images' targets.

    Parameters
    ----------
    study
        Network and steps.
    train, validation
        Noisy images and their targets, on the device.
    seed, device
        Of the first weights and the order of the images; where to compute.
    turned
        Flip and turn the square images of each batch at random: what one has in the end makes the most of few images.

    Yields
    ------
    int
        How many steps are done.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: UNet = placed(UNet(2, depth=study.depth, width=study.width, residual=True), device)
    averaged, dtype = deepcopy(network), choose_precision(device, study.precision)
    optimizer = torch.optim.Adam(network.parameters(), study.rate)
    rng, queue = np.random.default_rng([seed, 2]), np.empty(0, np.int64)
    looks = set(np.geomspace(min(10, study.steps), study.steps, LOOKS).astype(int).tolist())
    best, best_step, kept = float("inf"), 0, averaged.state_dict()
    network.train()
    for step in range(study.steps):
        while len(queue) < study.batch:  # epochs in random order; an image may be twice in a batch of a small set
            queue = np.concatenate([queue, rng.permutation(len(train.noisy))])
        chosen, queue = torch.from_numpy(queue[: study.batch]).to(device), queue[study.batch :]
        for group in optimizer.param_groups:
            group["lr"] = study.rate * annealing(step / study.steps, step)
        noisy, target = train.noisy[chosen], train.target[chosen]
        if turned:
            turn, flip = int(rng.integers(4)), bool(rng.integers(2))
            noisy, target = (_turn(images, turn, flip) for images in (noisy, target))
        with autocast(device, dtype):
            predicted = network(noisy)
        loss = (predicted.float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _average(averaged, network, min(AVERAGED, step / (step + 5)))
        if step + 1 in looks:
            error = float(errors_of(averaged, validation.noisy, validation.target, dtype).mean())
            if error < best:
                best, best_step = error, step + 1
                kept = {k: v.detach().clone() for k, v in averaged.state_dict().items()}
            elif step + 1 > PATIENCE * best_step:
                break
        yield step + 1
    averaged.load_state_dict(kept)
    return averaged.eval()


def _turn(images: Tensor, turn: int, flip: bool) -> Tensor:
    return (images.rot90(turn, (2, 3)).flip(3) if flip else images.rot90(turn, (2, 3))).contiguous(
        memory_format=MEMORY_FORMAT[2]
    )


@torch.no_grad()
def _average(averaged: UNet, network: UNet, keep: float) -> None:
    for mean, now in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)


@torch.no_grad()
def errors_of(network: UNet, noisy: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mean squared error of every image (N,), in the network's units."""
    network.eval()
    with autocast(noisy.device, dtype):
        parts = [network(noisy[i : i + 32]).float() - target[i : i + 32] for i in range(0, len(noisy), 32)]
    return torch.cat(parts).square().flatten(1).mean(1).cpu()
