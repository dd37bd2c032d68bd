"""Look for structure in what the denoising took away, which should be noise alone.

The residual of even the best result is not quite white, since a part of each pixel's noise stays in the result. What it
should look like is known from noise that was added and taken away again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise.quality._smooth import smooth

if TYPE_CHECKING:
    from napari_ssdenoise.quality._places import Place
    from napari_ssdenoise.quality._smooth import Floats

_LAGS: Final = 5
# Detail of these sizes (pixels) is looked for.
_SIZES: Final = (1.0, 2.0, 4.0)
_WHITE, _COLOURED = 0.03, 0.1
_ROUNDING: Final = 1e-6  # of the noise's variance


@dataclass(frozen=True)
class Whiteness:
    """Autocorrelation of the residual against that of noise alone.

    Attributes
    ----------
    measured, expected
        By axis, at lags 1, 2, …
    score
        Largest difference between the two; 0 for noise alone.
    error
        What chance makes of it.
    verdict
        ``"white"``, ``"slightly correlated"`` or ``"correlated"``.
    """

    measured: Mapping[str, tuple[float, ...]]
    expected: Mapping[str, tuple[float, ...]]
    score: float
    error: float
    verdict: str


def whiteness(places: Sequence[Place], axes: str) -> Whiteness | None:
    """Compare the autocorrelation of residuals with what noise alone leaves, along the spatial axes."""
    parts = [part for place in places if (part := _standardised(place)) is not None]
    if not parts:
        return None
    measured: dict[str, tuple[float, ...]] = {}
    expected: dict[str, tuple[float, ...]] = {}
    for d, axis in enumerate(axes, start=1):
        lags = range(1, 1 + min(_LAGS, min(part.weights.shape[d] for part in parts) // 2))
        measured[axis] = tuple(_autocorrelation([(p.residual, p.weights) for p in parts], d, lag) for lag in lags)
        expected[axis] = tuple(
            _autocorrelation([(p.added - p.passed, p.weights) for p in parts], d, lag) for lag in lags
        )
    differences = [abs(a - b) for axis in axes for a, b in zip(measured[axis], expected[axis], strict=True)]
    error = float(np.sqrt(2 / max(1.0, sum(float(part.weights.sum()) for part in parts))))
    score = max(differences, default=0.0)
    beyond = score - 3 * error
    verdict = "white" if beyond < _WHITE else "slightly correlated" if beyond < _COLOURED else "correlated"
    return Whiteness(measured, expected, score, error, verdict)


def signal_correlation(places: Sequence[Place]) -> float | None:
    """Return the correlation of what was wrongly removed with the detail of the result, in units of the noise.

    Positive values mean that a part of each detail was taken away with the noise, negative ones that detail is still
    noise in part; a best possible result has 0. The largest of several sizes of detail is returned.
    """
    parts = [part for place in places if (part := _standardised(place)) is not None]
    found = []
    for size in _SIZES:
        together = details = count = 0.0
        for part in parts:
            detail, passed = (image - smooth(image, size) for image in (part.result, part.passed))
            # Of the noise, a part is both in the residual and in the result; it is known from the added noise (Stein).
            together += float((part.weights * (part.residual * detail - part.added * passed)).sum())
            count += float(part.weights.sum())
            details += float((part.weights * detail**2).sum())
        found.append(float(together / np.sqrt(count * details)) if details > 0 else 0.0)
    return max(found) if parts else None


@dataclass(frozen=True, eq=False)
class _Standardised:
    """Images of a place in units of the noise's deviation: residual, result, added noise, and what passed of it."""

    residual: Floats
    result: Floats
    added: Floats
    passed: Floats
    weights: Floats


def _standardised(place: Place) -> _Standardised | None:
    """Divide by the deviation; None where the noise is not known."""
    if place.level is None or place.nudge is None or place.response is None:
        return None
    result = place.denoised[0]
    spread = np.sqrt(place.level.variance(smooth(result, 2.0)))
    return _Standardised(
        residual=(place.noisy[0] - result) / spread,
        result=result / spread,
        added=place.nudge / spread,
        passed=place.response / spread,
        weights=place.weights,
    )


def _autocorrelation(images: Sequence[tuple[Floats, Floats]], axis: int, lag: int) -> float:
    product = square = 0.0
    for image, mask in images:
        moved, weights = np.moveaxis(image, axis, 0), np.moveaxis(mask, axis, 0)
        first, second, both = moved[lag:], moved[:-lag], weights[lag:] * weights[:-lag]
        product += float((first * second * both).sum())
        square += float(((first**2 + second**2) / 2 * both).sum())
    # Where nothing was removed, rounding is left.
    return product / square if square > _ROUNDING * sum(image.size for image, _ in images) else 0.0
