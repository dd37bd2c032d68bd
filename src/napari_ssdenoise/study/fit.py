"""Fit how the error falls with the number of images, and say how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

# What an exponent may be. 1 is that of a model with finitely many parameters; networks are slower where N is small.
EXPONENTS = (0.2, 2.0)
DRAWS = 4000
COVERED = 0.9
SURE_RATIO = 3.0  # an exponent counts as found if its interval's ends differ by less than this factor
RELATIVE = 1e-3  # measurements are never trusted further than this


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that holds it with 90 % probability."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return plain values; None for what is endless."""
        values = {"value": self.value, "low": self.low, "high": self.high}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class RiskFit:
    """The curve R(N) = R_inf + c / N**beta through measured risks, as many curves that all fit.

    Attributes
    ----------
    sizes, risks
        What was fitted.
    floors, excesses, exponents
        One entry per curve: R_inf; c / N**beta at the reference size; beta. Curves are drawn in proportion to how well
        they fit, so quantiles over them are confidence intervals.
    reference
        A size in the middle of those measured.
    """

    sizes: Floats
    risks: Floats
    floors: Floats
    excesses: Floats
    exponents: Floats
    reference: float

    @cached_property
    def floor(self) -> Estimate:
        """The risk that endless data would leave."""
        return _estimate(self.floors)

    @cached_property
    def exponent(self) -> Estimate:
        """How fast the rest falls."""
        return _estimate(self.exponents)

    @property
    def identified(self) -> bool:
        """Whether the measurements tell the exponent; if not, what lies beyond the largest size is a guess."""
        return self.exponent.high < SURE_RATIO * self.exponent.low

    def predict(self, size: float) -> Estimate:
        """Return the risk at a number of images, measured or not."""
        return _estimate(self._at(size))

    def curve(self, sizes: ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Return median, lower and upper end of the 90 % band at many sizes."""
        low, middle, high = np.quantile(
            self.floors + self.excesses * self._decay(np.asarray(sizes, float)[:, None]), _quantiles(), axis=1
        )
        return middle, low, high

    def gain_db(self, size: float, to: float | None = None) -> Estimate:
        """Return by how many decibels the risk falls between two numbers of images, by default to endless ones."""
        with np.errstate(divide="ignore"):
            after = self.floors if to is None else self._at(to)
            return _estimate(10 * np.log10(self._at(size) / after))

    def more_to_halve(self, size: float) -> Estimate:
        """Return how many more images would halve what is left to gain by more data."""
        return _estimate(size * (2 ** (1 / self.exponents) - 1))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the curve at some sizes."""
        sizes = np.geomspace(self.sizes.min(), 4 * self.sizes.max(), 25)
        middle, low, high = self.curve(sizes)
        return {
            "model": "R(N) = floor + c / N**exponent",
            "floor": self.floor.to_json(),
            "exponent": self.exponent.to_json(),
            "exponent_identified": self.identified,
            "probability": COVERED,
            "curve": [
                {"size": float(n), "risk": float(m), "low": float(a), "high": float(b)}
                for n, m, a, b in zip(sizes, middle, low, high, strict=True)
            ],
        }

    def _decay(self, size: float | Floats) -> Floats:
        return np.asarray((size / self.reference) ** -self.exponents)

    def _at(self, size: float) -> Floats:
        return self.floors + self.excesses * self._decay(size)


def fit_risk(
    sizes: Sequence[float] | Floats, risks: Sequence[float] | Floats, deviations: Sequence[float] | Floats | None = None
) -> RiskFit:
    """Fit R(N) = R_inf + c / N**beta to measured risks.

    Parameters
    ----------
    sizes
        Numbers of images; repeated where a size was measured several times. Three different ones or more.
    risks
        What was measured at each: positive, in any unit.
    deviations
        How uncertain each is, up to a common factor that is found from how the curve misses them; by default in
        proportion to the risk.

    Returns
    -------
    RiskFit
        Medians and 90 % intervals: the posterior for uniform R_inf in [0, lowest risk] and c >= 0, a uniform log(beta)
        in [0.2, 2], and an unknown level of the errors (Student's t). Where the measurements do not tell the exponent,
        its interval says so: it is nearly that of the prior.

    Raises
    ------
    ValueError
        If there are fewer than three sizes, or values that are not positive.
    """
    n, r = np.asarray(sizes, float), np.asarray(risks, float)
    if n.shape != r.shape or n.ndim != 1 or len(np.unique(n)) < 3:
        raise ValueError(
            f"a curve needs one risk for each size, at three sizes or more; got {n.tolist()}, {r.tolist()}."
        )
    if not (np.isfinite(n).all() and np.isfinite(r).all() and n.min() > 0 and r.min() > 0):
        raise ValueError(f"sizes {n.tolist()} and risks {r.tolist()} must be positive numbers.")
    scale = r if deviations is None else np.asarray(deviations, float)
    if scale.shape != r.shape or not (scale > 0).all():
        raise ValueError(f"deviations {scale.tolist()} must be positive numbers, one for each risk.")
    reference = float(np.exp(np.log(n).mean()))
    exponents = np.geomspace(*EXPONENTS, 81)
    # Even steps towards zero and fine ones below the lowest risk, where most curves end.
    edge = r.min() * (1 + 2 * float(np.min(scale / r) if deviations is not None else 0.0))
    floors = np.linspace(0, edge, 241)
    beta, floor = (g.ravel() for g in np.meshgrid(exponents, floors, indexing="ij"))
    slopes = (n / reference) ** -beta[:, None] / scale
    offsets = (r - floor[:, None]) / scale
    curvature = np.square(slopes).sum(1)
    excess = np.maximum(0, (slopes * offsets).sum(1) / curvature)
    chi2 = np.square(offsets - excess[:, None] * slopes).sum(1) + len(n) * RELATIVE**2 * np.square(r / scale).mean()
    log_weight = -0.5 * max(len(n) - 1, 1) * np.log(chi2)
    weight = np.exp(log_weight - log_weight.max())
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(weight), DRAWS, p=weight / weight.sum())
    freedom = max(len(n) - 3, 1)
    spread = np.sqrt(chi2[drawn] / freedom / curvature[drawn]) * rng.standard_t(freedom, DRAWS)
    steps = [exponents[1] / exponents[0], floors[1] - floors[0]]
    return RiskFit(
        sizes=n,
        risks=r,
        floors=np.maximum(0, floor[drawn] + steps[1] * rng.uniform(-0.5, 0.5, DRAWS)),
        excesses=np.maximum(0, excess[drawn] + spread),
        exponents=np.clip(beta[drawn] * steps[0] ** rng.uniform(-0.5, 0.5, DRAWS), *EXPONENTS),
        reference=reference,
    )


def measured_gain(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Return by how many decibels the mean of measured risks fell, and how sure that is: single trainings scatter.

    Parameters
    ----------
    before, after
        Risks of single trainings, two or more on either side for an interval that ends (Student's t).
    """
    sides = [np.asarray(side, float) for side in (before, after)]
    change = 10 * np.log10(sides[0].mean() / sides[1].mean())
    freedom = min(map(len, sides)) - 1
    if freedom < 1:
        return Estimate(float(change), float("-inf"), float("inf"))
    error = 10 / np.log(10) * np.sqrt(sum(side.var(ddof=1) / len(side) / side.mean() ** 2 for side in sides))
    around = _estimate(change + error * np.random.default_rng(0).standard_t(2 * freedom, DRAWS))
    return replace(around, value=float(change))


def _quantiles() -> list[float]:
    return [(1 - COVERED) / 2, 0.5, (1 + COVERED) / 2]


def _estimate(draws: Floats) -> Estimate:
    finite = np.where(np.isfinite(draws), draws, np.finfo(float).max)
    low, middle, high = np.quantile(finite, _quantiles())
    return Estimate(*(float(x) if x < 1e300 else float("inf") for x in (middle, low, high)))
