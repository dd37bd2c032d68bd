"""How the learning rate rises and falls in a training."""

from __future__ import annotations

import math


def annealing(fraction: float, step: int, steady: float = 0.0, warm_up: int = 20) -> float:
    """Return the learning rate's factor: a short warm-up, then a cosine down to zero at the end of the budget.

    Parameters
    ----------
    fraction
        Share of the budget that is used.
    step
        Steps done.
    steady
        Share of the budget before the cosine begins; 1 for no cosine.
    warm_up
        Steps in which it rises.
    """
    falling = max(0.0, fraction - steady) / (1 - steady) if steady < 1 else 0.0
    rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    return rising * 0.5 * (1 + math.cos(math.pi * falling))
