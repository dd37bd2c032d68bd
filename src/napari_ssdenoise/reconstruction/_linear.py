"""Reconstruction without a model of images: zero-filling and CG-SENSE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from napari_ssdenoise.ops.kspace import conjugate_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_ssdenoise.reconstruction._problem import Problem

# Weights of the image's energy that are tried, the largest first; data in units of `Problem`.
WEIGHTS: Final = (0.3, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
STEPS: Final = 30


def zero_filled(problem: Problem) -> Tensor:
    """Combine the coils' images of what was acquired, with 0 for what was not."""
    operator, data = problem.sense()
    return operator.adjoint(data)


def cg_sense(problem: Problem, weight: float, start: Tensor | None = None, steps: int = STEPS) -> Tensor:
    """Minimise the misfit to the data plus ``weight`` times the image's energy (Pruessmann et al., 2001)."""
    operator, data = problem.sense()
    right = operator.adjoint(data)
    start = torch.zeros_like(right) if start is None else start
    return conjugate_gradients(lambda image: operator.normal(image) + weight * image, right, start, steps=steps)


def cg_sense_path(problem: Problem) -> Iterator[tuple[float, Tensor]]:
    """Reconstruct with ever smaller weights."""
    for weight in WEIGHTS:
        yield weight, cg_sense(problem, weight)
