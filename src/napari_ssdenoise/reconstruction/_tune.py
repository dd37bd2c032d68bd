"""Choose a strength by the error on acquired lines that were held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from napari_ssdenoise.reconstruction._problem import Problem

    Path = Callable[[Problem], Iterator[tuple[float, Tensor]]]

# A path ends where the error is this much above its least.
RISEN: Final = 1.02


def tune(problem: Problem, folds: list[Tensor], path: Path, errors: dict[float, list[float]]) -> Iterator[float]:
    """Reconstruct along a path of strengths, without the lines of each fold, and yield each strength when it is done.

    Parameters
    ----------
    errors
        Is filled: for every strength, the errors of the folds.
    """
    for held in folds:
        least = np.inf
        for strength, image in path(problem.without(held)):
            error = problem.error(image, held)
            errors.setdefault(strength, []).append(error)
            yield strength
            least = min(least, error)
            if error > RISEN * least:
                break


def best(errors: dict[float, list[float]], folds: int) -> tuple[float, list[float]]:
    """Return the strength of the least mean error, of those that every fold has tried, and its errors."""
    tried = {strength: found for strength, found in errors.items() if len(found) == folds}
    strength = min(tried, key=lambda s: float(np.mean(tried[s])))
    return strength, tried[strength]
