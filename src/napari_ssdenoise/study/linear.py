"""The price of self-supervision where it can be calculated: a linear denoiser of signals in a subspace.

Signals x = U c lie in a d-dimensional subspace of R^n, c ~ N(0, I/d); inputs y = x + e with e ~ N(0, sigma^2/n I), and
the targets are x + e' with independent noise. A matrix W is learnt from N such pairs, by least squares until it has
converged or by gradient descent that is stopped early. Klug, Atik and Heckel: Analyzing the sample complexity of
self-supervised image reconstruction methods. NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.study.fit import RiskFit, fit_risk

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

STOPS = 96  # times at which gradient descent may stop
STEP = 0.3  # step size, as a share of the largest that converges


@dataclass(frozen=True, kw_only=True)
class LinearTheory:
    """The setting, with its closed forms.

    Attributes
    ----------
    n, d
        Dimensions of the signals, and of the subspace they lie in.
    noise
        Norm of the inputs' noise, relative to the signals'.
    """

    n: int = 100
    d: int = 10
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.d <= self.n or self.noise <= 0:
            raise ValueError(f"n={self.n}, d={self.d}, noise={self.noise}: need 1 <= d <= n and noise above 0.")

    @property
    def best_risk(self) -> float:
        """The risk R* of the best matrix, U U^T / (1 + noise**2 d / n)."""
        ratio = self.noise**2 * self.d / self.n
        return ratio / (1 + ratio)

    def risk(self, w: Floats, u: Floats) -> float:
        """Return E |W y - x|**2 of a matrix W (n, n) for a subspace U (n, d): exact, no test data needed."""
        error = np.square(w @ u - u).sum() / self.d
        return float(error + self.noise**2 / self.n * np.square(w).sum())

    def converged_risk(self, size: ArrayLike, target_noise: float) -> Floats:
        """Return the expected risk of least squares, R* + (R* + target_noise**2) n / (N - n - 1), for N > n + 1.

        Infinite at smaller sizes, where the formula does not hold.
        """
        room = np.asarray(size, float) - self.n - 1
        with np.errstate(divide="ignore"):
            excess = (self.best_risk + target_noise**2) * self.n / room
        return np.where(room > 0, self.best_risk + excess, np.inf)

    def stopped_risk(self, size: ArrayLike, target_noise: float) -> Floats:
        """Return the risk of gradient descent that stops in time, about R* + (R* + target_noise**2) d / (N - d - 1).

        Directions of signal have converged when it stops, those of noise alone have not begun: least squares in d
        dimensions. For N >> d that is the paper's R* + (R* + target_noise**2) d / N, which is 6 % lower at N = 164 for
        a target noise of 0.2. Infinite for N <= d + 1.
        """
        room = np.asarray(size, float) - self.d - 1
        with np.errstate(divide="ignore"):
            excess = (self.best_risk + target_noise**2) * self.d / room
        return np.where(room > 0, self.best_risk + excess, np.inf)

    def cost(self, target_noise: float) -> float:
        """Return how many times the samples noisy targets need for the same excess risk: 1 + target_noise**2 / R*."""
        return 1 + target_noise**2 / self.best_risk


@dataclass(frozen=True)
class LinearPoint:
    """Simulated and calculated risks of one size and target noise; deviations are those of one repeat."""

    size: int
    target_noise: float
    converged: float
    converged_deviation: float
    converged_theory: float
    stopped: float
    stopped_deviation: float
    stopped_theory: float
    stopped_after: int


@dataclass(frozen=True)
class LinearStudy:
    """What `linear_theory` found."""

    theory: LinearTheory
    points: tuple[LinearPoint, ...]
    repeats: int

    def curve(self, target_noise: float) -> list[LinearPoint]:
        """Return the points of one target noise, by size."""
        return sorted((p for p in self.points if p.target_noise == target_noise), key=lambda p: p.size)

    def slope(self, target_noise: float, *, smallest: int = 164) -> tuple[float, float]:
        """Return d log(R - R*) / d log(room) of converged least squares and of early stopping.

        The room is N - n - 1 for the first and N for the second; the theory says -1 for both.
        """
        curve = [p for p in self.curve(target_noise) if p.size >= smallest]
        sizes = np.array([p.size for p in curve], float)

        def slope(room: Floats, risks: list[float]) -> float:
            return float(np.polyfit(np.log(room), np.log(np.array(risks) - self.theory.best_risk), 1)[0])

        return (
            slope(sizes - self.theory.n - 1, [p.converged for p in curve]),
            slope(sizes, [p.stopped for p in curve]),
        )

    def fit(self, target_noise: float, *, smallest: int = 164) -> RiskFit:
        """Fit a curve to the early-stopped risks, as if nothing were known of the theory."""
        curve = [p for p in self.curve(target_noise) if p.size >= smallest]
        return fit_risk([p.size for p in curve], [p.stopped for p in curve])

    def to_json(self) -> dict[str, Any]:
        """Return plain values; None where the theory says nothing."""
        theory = self.theory
        levels = sorted({p.target_noise for p in self.points})
        large = max(p.size for p in self.points) >= 3 * 164
        return {
            "n": theory.n,
            "d": theory.d,
            "noise": theory.noise,
            "best_risk": theory.best_risk,
            "repeats": self.repeats,
            "targets": [
                {
                    "target_noise": level,
                    "sample_cost": theory.cost(level),
                    **(
                        {"slope_converged": self.slope(level)[0], "slope_stopped": self.slope(level)[1]}
                        if large
                        else {}
                    ),
                }
                for level in levels
            ],
            "points": [{k: v if np.isfinite(v) else None for k, v in vars(p).items()} for p in self.points],
        }


SIZES = (20, 40, 60, 80, 90, 100, 110, 125, 164, 256, 362, 512, 724, 1024, 1448, 2048, 4096)


def linear_theory(
    theory: LinearTheory | None = None,
    *,
    sizes: tuple[int, ...] = SIZES,
    target_noise: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2),
    repeats: int = 40,
    seed: int = 0,
) -> LinearStudy:
    """Simulate learning a linear denoiser from N pairs, and compare with the closed forms.

    Parameters
    ----------
    theory
        Dimensions and input noise; by default those of the paper: n = 100, d = 10, noise 0.1.
    sizes
        Numbers of training pairs. Around n the converged solution's risk has a peak (double descent).
    target_noise
        Norm of the targets' noise relative to the signals'; 0 is supervised.
    repeats
        Draws of the training set for each size.
    seed
        Of the draws.

    Returns
    -------
    LinearStudy
        Gradient descent stops at the time that has the lowest mean risk over the repeats.

    Raises
    ------
    ValueError
        If a size or the number of repeats is not positive.
    """
    theory = theory or LinearTheory()
    if not sizes or min(sizes) < 1 or repeats < 1 or not target_noise or min(target_noise) < 0:
        raise ValueError("sizes and repeats must be 1 or more, and noise levels not negative.")
    points: list[LinearPoint] = []
    for size in sorted(set(sizes)):
        rng = np.random.default_rng([seed, size])
        runs = [_repeat(theory, size, target_noise, rng) for _ in range(repeats)]
        for number, level in enumerate(target_noise):
            converged = np.array([run[number][0] for run in runs])
            stopped = np.stack([run[number][1] for run in runs])
            stop = int(stopped.mean(0).argmin())
            points.append(
                LinearPoint(
                    size=size,
                    target_noise=level,
                    converged=float(converged.mean()),
                    converged_deviation=float(converged.std()),
                    converged_theory=float(theory.converged_risk(size, level)),
                    stopped=float(stopped[:, stop].mean()),
                    stopped_deviation=float(stopped[:, stop].std()),
                    stopped_theory=float(theory.stopped_risk(size, level)),
                    stopped_after=int(stopping_times()[stop]),
                )
            )
    return LinearStudy(theory, tuple(points), repeats)


def stopping_times() -> NDArray[np.int64]:
    """Return the numbers of gradient steps after which to look."""
    return np.unique(np.geomspace(1, 100_000, STOPS).astype(np.int64))


def _repeat(
    theory: LinearTheory, size: int, target_noise: tuple[float, ...], rng: np.random.Generator
) -> list[tuple[float, Floats]]:
    """Draw a training set; return, for each target noise, the converged risk and those at all stopping times."""
    n, d = theory.n, theory.d
    u = np.linalg.qr(rng.standard_normal((n, d)))[0]
    clean = u @ rng.standard_normal((d, size)) / np.sqrt(d)
    noisy = clean + theory.noise / np.sqrt(n) * rng.standard_normal((n, size))
    extra = rng.standard_normal((n, size)) / np.sqrt(n)
    values, vectors = np.linalg.eigh(noisy @ noisy.T / size)
    return [_risks(theory, u, values, vectors, (clean + s * extra) @ noisy.T / size) for s in target_noise]


def _risks(theory: LinearTheory, u: Floats, values: Floats, vectors: Floats, cross: Floats) -> tuple[float, Floats]:
    """Return the risk of W = cross @ f(covariance) for least squares, and for every time of gradient descent.

    Gradient descent from zero with step s has, after t steps, f(v) = (1 - (1 - s v)**t) / v along each eigenvector;
    least squares has 1 / v (0 where v is 0: the solution of least norm, which gradient descent finds too).
    """
    values = np.maximum(values, 0)
    real = values > 1e-12 * values.max()
    shrink = 1 - 2 * STEP * values[real] / values.max()  # |.| < 1 for STEP < 1
    times = stopping_times()
    filters = np.zeros((1 + len(times), len(values)))
    filters[0, real] = 1 / values[real]
    filters[1:, real] = (1 - shrink ** times[:, None]) / values[real]
    turned = cross @ vectors
    inside = vectors.T @ u
    norms = np.square(turned).sum(0)
    # |W U - U|^2 = |W U|^2 - 2 <W U, U> + |U|^2, each from small matrices that all times share.
    gram = (turned.T @ turned) * (inside @ inside.T)
    along = ((turned.T @ u) * inside).sum(1)
    squared = np.einsum("ti,ij,tj->t", filters, gram, filters, optimize=True)
    errors = (squared - 2 * filters @ along + theory.d) / theory.d
    risks = errors + theory.noise**2 / theory.n * np.square(filters) @ norms
    return float(risks[0]), risks[1:]
