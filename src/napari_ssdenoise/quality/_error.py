"""Estimate the error that is left after denoising, without the truth.

With several noisy views of one scene, the error is what a result differs from *another* view, less what that view's own
noise adds; the latter is half the variance of the difference between views (Noise2Noise, Lehtinen et al. 2018).

With a single view, Stein's unbiased risk estimate does the same from the noise's variance v: the mean of
``(f - y)² - v + 2 v df/dy``. The last term is measured by adding a little more noise of the same kind and looking at
how much of it appears in the result (Ramani, Blu and Unser: Monte-Carlo SURE, IEEE Trans. Image Processing 17, 2008).
It holds for noise that depends on the signal as well, but takes the network as given: noise that it learnt by heart
from this very image makes the result too near to the image, and the estimate too good. A model that foretells its own
error was calibrated on pixels that it had not learnt from, and knows of that: where it foretells more, it is mostly
believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, exp, pi, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise.quality._smooth import smooth

if TYPE_CHECKING:
    from napari_ssdenoise.quality._places import Place
    from napari_ssdenoise.quality._smooth import Floats

# The part of the error that comes from the noise is measured a little too large: small noise passes more easily.
_PASSED: Final = 0.7
# How far a model is believed that foretells a larger error, and what that is uncertain by, as a part of it: chosen on
# images of known truth, on which long training makes models too cautious (benchmarks/README.md).
_BELIEVED: Final = 2 / 3
_FORETOLD: Final = 0.06


@dataclass(frozen=True)
class MeanSquare:
    """An estimate of the mean squared error, in squared units of the image.

    Attributes
    ----------
    value, error
        And its standard error.
    least
        What it cannot be below.
    noisy
        The mean squared error of the noisy image.
    """

    value: float
    error: float
    least: float
    noisy: float

    @property
    def expected(self) -> float:
        """The mean of a normal distribution around the estimate, cut off at the least possible value."""
        if self.error <= 0:
            return max(self.value, self.least)
        z = (self.least - self.value) / self.error
        above = 0.5 * (1 - erf(z / sqrt(2)))
        if above < 1e-6:
            return self.least + self.error / max(z, 1.0)
        return self.value + self.error * exp(-0.5 * z * z) / sqrt(2 * pi) / above

    @property
    def bounds(self) -> tuple[float, float]:
        """Between these it is 19 times in 20."""
        low = max(self.value - 2 * self.error, self.least)
        return low, max(self.value + 2 * self.error, low, self.expected)


def error_of_repeats(places: Sequence[Place], coverage: float) -> MeanSquare | None:
    """Estimate the error from views of the same scenes, all of them denoised.

    What changes from view to view, such as the brightness of the lamp, counts as noise: the truth is the scene's mean.
    """
    values, weights, noises = [], [], []
    for place in places:
        mask, views = place.weights, range(len(place.noisy))
        count = float(mask.sum())
        if not count:
            continue
        error, noise = np.zeros((len(views),) * 2), np.zeros((len(views),) * 2)
        for i in views:
            for j in views:
                error[i, j] = (mask * (place.denoised[i] - place.noisy[j]) ** 2).sum() / count
                noise[i, j] = (mask * (place.noisy[i] - place.noisy[j]) ** 2).sum() / count / 2
        values.append((error + error.T) / 2 - noise)
        noises.append(noise)
        weights.append(count)
    if not values:
        return None
    pairs = np.triu_indices(len(values[0]), 1)
    by_place = np.array([value[pairs] for value in values])
    share = np.array(weights) / sum(weights)
    by_pair = share @ by_place
    noisy = float(share @ [noise[pairs].mean() for noise in noises])
    # Uncertain are: the noise of the pixels, the places not seen, and what differs from view to view.
    unseen = _scatter(by_place.mean(1), share) * sqrt(1 - coverage)
    value = float(by_pair.mean())
    pixels = sqrt((2 * noisy**2 + 4 * noisy * max(value, 0.0)) / (sum(weights) * len(pairs[0])))
    between = float(by_pair.std(ddof=1)) / sqrt(len(by_pair)) if len(by_pair) > 1 else 0.05 * abs(value)
    return MeanSquare(value, float(np.sqrt(pixels**2 + unseen**2 + between**2)), 0.01 * abs(value), noisy)


def error_of_single_views(places: Sequence[Place], coverage: float) -> MeanSquare | None:
    """Estimate the error from the noise's level (SURE), and from what the model says of it."""
    values, uncertain, least, noisy, scatter, weights, foretold = [], [], [], [], [], [], []
    for place in places:
        level, image, mask = place.level, place.noisy[0], place.weights
        count = float(mask.sum())
        if not count or level is None or place.nudge is None or place.response is None:
            continue
        variance = level.gain * float((mask * image).sum()) / count + level.floor
        through = 2 * float((mask * place.nudge * place.response).sum()) / count
        missed = float((mask * (image - place.denoised[0]) ** 2).sum()) / count
        values.append(missed - variance + through)
        passing = float((mask * place.response**2).sum()) / count
        least.append(_PASSED * passing)
        noisy.append(variance)
        uncertain.append(level.error * abs(variance - through))
        # Of each pixel's squared difference, noise makes 2 v² + 4 v (error)² uncertain.
        local = level.variance(smooth(place.denoised[0], 2.0))
        wrong = float((mask * local * ((image - place.denoised[0]) ** 2 - local)).sum()) / count
        scatter.append((2 * float((mask * local**2).sum()) / count + 4 * max(0.0, wrong)) / count)
        weights.append(count)
        foretold.append(0.0 if place.doubt is None else float((mask * place.doubt**2).sum()) / count)
    if not values:
        return None
    share = np.array(weights) / sum(weights)
    unseen = _scatter(np.array(values), share) * sqrt(1 - coverage)
    value, own = float(share @ values), float(share @ foretold)
    more = max(0.0, own - value)
    doubts = (unseen, float(share @ uncertain), (1 - _BELIEVED) * more, _FORETOLD * own)
    error = sqrt(float(share**2 @ scatter) + sum(doubt**2 for doubt in doubts))
    return MeanSquare(value + _BELIEVED * more, error, float(share @ least), float(share @ noisy))


def _scatter(values: Floats, share: Floats) -> float:
    """Return the standard error of a weighted mean of independent values."""
    if len(values) < 2:
        return 0.0
    away = values - share @ values
    return float(np.sqrt(share**2 @ away**2 * len(values) / (len(values) - 1)))
