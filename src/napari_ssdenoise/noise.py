"""What noise does to an intensity: how likely a noisy value is, and what it tells about the clean one.

A blind-spot network (Laine et al. 2019) predicts for every pixel, from all others, a normal distribution of the clean
value: mean and covariance between channels. A noise model adds what the camera does: the likelihood of the noisy value
trains the network, and Bayes' rule joins prediction and noisy value into the posterior mean and its deviation.

All functions work pixel by pixel on normalised images ``(B, C, *spatial)`` in float32. The noise's parameters are
images too, so that every image of a batch may have its own; see `NoiseModel.conditions`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from napari_ssdenoise.magnitude import Magnitude

if TYPE_CHECKING:
    from torch import Generator, Tensor

CONDITIONS = 4  # numbers a channel: three that say how its noise is, and the network's doubt
SMALLEST_VARIANCE = 1e-6  # of normalised intensities
DOUBT = 1e-6  # variance, in parts of the noise's, that is added to what a network says, before it is calibrated


@dataclass(frozen=True)
class NoiseLevel:
    """Parameters of the noise of one channel, in the image's units.

    Attributes
    ----------
    gain
        Growth of the variance with the intensity.
    offset
        Intensity without light.
    read_noise
        Standard deviation at the offset; of Rician noise, that of its two components.
    share
        Of pixels that are replaced (impulse noise only).
    low, high
        Smallest and largest value that may replace them.
    """

    gain: float = 0.0
    offset: float = 0.0
    read_noise: float = 0.0
    share: float = 0.0
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Prior:
    """What the network says of a pixel without having seen it.

    Attributes
    ----------
    mean : (B, C, *spatial)
    covariance : (B, *spatial, C, C)
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def from_network(cls, raw: Tensor, channels: int) -> Prior:
        """Read mean and upper triangular root A of the covariance, AᵀA, off a network's output.

        Parameters
        ----------
        raw : (B, C + C (C + 1) / 2 or more, *spatial)
        """
        mean = raw[:, :channels]
        if channels == 1:
            return cls(mean, raw[:, 1, ..., None, None].square())
        places = combinations_with_replacement(range(channels), 2)
        root = {place: raw[:, channels + n] for n, place in enumerate(places)}
        # Entry by entry, as sizes that a trace keeps may not be numbers of this image.
        rows = [
            [
                sum((root[k, i] * root[k, j] for k in range(1, min(i, j) + 1)), root[0, i] * root[0, j])
                for j in range(channels)
            ]
            for i in range(channels)
        ]
        return cls(mean, torch.stack([torch.stack(row, -1) for row in rows], -2))


def covariance_entries(channels: int) -> int:
    """Return how many numbers describe a covariance."""
    return channels * (channels + 1) // 2


class NoiseModel(ABC):
    """One kind of noise."""

    name: ClassVar[str]

    @abstractmethod
    def corrupt(self, clean: Tensor, level: NoiseLevel, rng: Generator) -> Tensor:
        """Add noise to a clean image, in the image's units."""

    @abstractmethod
    def conditions(self, level: NoiseLevel, mean: float, std: float) -> tuple[float, float, float]:
        """Return the noise's parameters for intensities normalised by ``(y - mean) / std``."""

    def prior(self, raw: Tensor, conditions: Tensor) -> Prior:
        """Read the distribution of the clean values off a network's output, (B, C + C (C + 1) / 2, *spatial)."""
        return self._doubted(Prior.from_network(raw, conditions.shape[1] // CONDITIONS), conditions)

    def _doubted(self, prior: Prior, conditions: Tensor) -> Prior:
        """Widen a prior: where there is more noise, a network learns more of it by heart."""
        added = conditions.chunk(CONDITIONS, 1)[3] * self.deviation(prior.mean.detach(), conditions).square()
        return Prior(prior.mean, prior.covariance + torch.diag_embed(added.movedim(1, -1)))

    @abstractmethod
    def log_likelihood(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> Tensor:
        """Return the log-likelihood of every noisy pixel without constants, (B, *spatial).

        Parameters
        ----------
        noisy : (B, C, *spatial)
        prior
            Of the clean pixels.
        conditions : (B, 4 C, *spatial)
        """

    @abstractmethod
    def posterior(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the clean pixels, given prior and noisy value."""

    @abstractmethod
    def deviation(self, clean: Tensor, conditions: Tensor) -> Tensor:
        """Return the standard deviation of the noise at clean values, (B, C, *spatial)."""

    def clean(self, mean: Tensor, conditions: Tensor) -> Tensor:
        """Return the clean value for what noisy ones are on average, which are the same where noise averages to 0."""
        return mean


class _Linear(NoiseModel):
    """Noise whose mean is a function of the clean value that a line replaces well, with a normal distribution.

    With h the slope at the prior's mean, the noisy value has the covariance h Σ h + diag(v) (Laine et al., eq. 3, where
    h = 1), and the posterior follows as in a Kalman filter.
    """

    @abstractmethod
    def moments(self, mean: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean of the noisy value, its slope and the noise's variance at a clean value, (B, C, *spatial)."""

    def log_likelihood(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> Tensor:
        expected, slope, variance = self.moments(prior.mean, conditions)
        residual = noisy - expected
        if noisy.shape[1] == 1:
            total = slope[:, 0].square() * prior.covariance[..., 0, 0] + variance[:, 0]
            return -0.5 * (total.log() + residual[:, 0].square() / total)
        return _log_normal(residual, _noisy_covariance(prior, slope, variance))

    def posterior(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> tuple[Tensor, Tensor]:
        expected, slope, variance = self.moments(prior.mean, conditions)
        residual = noisy - expected
        if noisy.shape[1] == 1:
            own = prior.covariance[..., 0, 0][:, None]
            gain = slope * own / (slope.square() * own + variance)
            return prior.mean + gain * residual, (own * (1 - gain * slope)).clamp_min(0).sqrt()
        across = prior.covariance * slope.movedim(1, -1)[..., None, :]  # between clean and noisy values
        gain = torch.linalg.solve(_noisy_covariance(prior, slope, variance), across, left=False)
        mean = prior.mean + (gain @ residual.movedim(1, -1)[..., None])[..., 0].movedim(-1, 1)
        left = prior.covariance - gain @ across.mT
        return mean, left.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt().movedim(-1, 1)

    def deviation(self, clean: Tensor, conditions: Tensor) -> Tensor:
        return self.moments(clean, conditions)[2].sqrt()


def _noisy_covariance(prior: Prior, slope: Tensor, variance: Tensor) -> Tensor:
    h = slope.movedim(1, -1)
    return h[..., :, None] * prior.covariance * h[..., None, :] + torch.diag_embed(variance.movedim(1, -1))


class PoissonGaussian(_Linear):
    """Photons and electronics: variance = gain (intensity - offset) + read noise²."""

    name = "poisson-gaussian"

    def corrupt(self, clean: Tensor, level: NoiseLevel, rng: Generator) -> Tensor:
        noisy = clean + level.read_noise * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)
        if level.gain > 0:
            photons = (clean - level.offset).clamp_min(0) / level.gain
            noisy = noisy + level.gain * (torch.poisson(photons, generator=rng) - photons)
        return noisy

    def conditions(self, level: NoiseLevel, mean: float, std: float) -> tuple[float, float, float]:
        constant = (level.gain * (mean - level.offset) + level.read_noise**2) / std**2
        # Where hardly any photon came, the prediction itself is uncertain: never less than a tenth of one count.
        floor = max(level.read_noise**2, 0.1 * level.gain**2) / std**2
        return level.gain / std, constant, max(floor, SMALLEST_VARIANCE)

    def moments(self, mean: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slope, constant, floor, _ = conditions.chunk(CONDITIONS, 1)
        return mean, torch.ones_like(mean), torch.maximum(slope * mean + constant, floor)


class Gaussian(PoissonGaussian):
    """The same variance everywhere."""

    name = "gaussian"


class Poisson(PoissonGaussian):
    """Photons alone: no read noise."""

    name = "poisson"


class Rician(_Linear):
    """The magnitude of a complex signal with normal noise in both parts (one coil).

    The noisy value's mean is s √(π/2) L½(-A²/2s²) for an amplitude A and a deviation s: the bias that bright and dark
    tissue have in different measure is part of the model (Gudbjartsson and Patz 1995). A network predicts that mean,
    and prior and noisy value are joined there, as magnitudes; what comes of it is turned back into an amplitude.
    """

    name = "rician"

    def corrupt(self, clean: Tensor, level: NoiseLevel, rng: Generator) -> Tensor:
        real, imaginary = level.read_noise * torch.randn((2, *clean.shape), generator=rng, dtype=clean.dtype)
        magnitude: Tensor = ((clean - level.offset + real).square() + imaginary.square()).sqrt()
        return magnitude + level.offset

    def conditions(self, level: NoiseLevel, mean: float, std: float) -> tuple[float, float, float]:
        return (level.offset - mean) / std, max(level.read_noise / std, SMALLEST_VARIANCE**0.5), 0.0

    def prior(self, raw: Tensor, conditions: Tensor) -> Prior:
        """Keep means above that of noise alone, with a gradient everywhere."""
        free = Prior.from_network(raw, conditions.shape[1] // CONDITIONS)
        zero, sigma, *_ = conditions.chunk(CONDITIONS, 1)
        least = zero + RAYLEIGH * sigma
        above = least + F.softplus((free.mean - least) / sigma, beta=20) * sigma
        return self._doubted(Prior(above, free.covariance), conditions)

    def moments(self, mean: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return these for the mean of a magnitude, in whose place an amplitude would have another slope."""
        zero, sigma, *_ = conditions.chunk(CONDITIONS, 1)
        ratio = ((mean - zero) / sigma).clamp_min(RAYLEIGH)
        # 0.43 to 1; the difference of large numbers would lose it.
        variance = torch.where(ratio < 20, 2 + _squared_amplitude(ratio) - ratio.square(), 1 - 0.5 / ratio.square())
        return mean, torch.ones_like(mean), variance * sigma.square()

    def posterior(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> tuple[Tensor, Tensor]:
        zero, sigma, *_ = conditions.chunk(CONDITIONS, 1)
        mean, std = super().posterior(noisy, prior, conditions)
        mean = torch.maximum(mean, zero + RAYLEIGH * sigma)
        low, high = (self.clean(mean + by, conditions) for by in (-std, std))
        return self.clean(mean, conditions), (high - low) / 2

    def clean(self, mean: Tensor, conditions: Tensor) -> Tensor:
        zero, sigma, *_ = conditions.chunk(CONDITIONS, 1)
        return zero + sigma * _squared_amplitude(((mean - zero) / sigma).clamp_min(RAYLEIGH)).sqrt()


RAYLEIGH = math.sqrt(math.pi / 2)  # mean of the magnitude of noise alone, of deviation 1
_FAR = 12.0  # means from which a root tells the amplitude


@cache
def _inverse() -> Tensor:
    """Return squared amplitudes for means whose squares are in even steps from that of noise alone."""
    amplitudes = np.linspace(0, _FAR + 0.1, 4000)
    squares = np.square(Magnitude(1.0).mean(amplitudes)) - RAYLEIGH**2
    even = np.linspace(0, _FAR**2 - RAYLEIGH**2, 4000)
    return torch.from_numpy(np.interp(even, squares, np.square(amplitudes)))


def _squared_amplitude(mean: Tensor) -> Tensor:
    """Return the squares of the amplitudes that have such magnitudes on average; the noise has a deviation of 1."""
    table = _inverse().to(mean)
    place = (mean.square() - RAYLEIGH**2) * ((len(table) - 1) / (_FAR**2 - RAYLEIGH**2))
    below = place.detach().clamp(0, len(table) - 2).long()
    low, high = table[below], table[below + 1]
    near = (low + (place - below) * (high - low)).clamp_min(0)
    return torch.where(mean < _FAR, near, mean.square() - 1)


class Impulse(NoiseModel):
    """A share of the pixels is replaced by values that are equally likely within a range (Laine et al., sec. 4.3)."""

    name = "impulse"

    def corrupt(self, clean: Tensor, level: NoiseLevel, rng: Generator) -> Tensor:
        random = level.low + (level.high - level.low) * torch.rand(clean.shape, generator=rng, dtype=clean.dtype)
        shape = (len(clean), 1, *clean.shape[2:])
        return torch.where(torch.rand(shape, generator=rng) < level.share, random, clean)

    def conditions(self, level: NoiseLevel, mean: float, std: float) -> tuple[float, float, float]:
        share = min(max(level.share, 1e-3), 1 - 1e-3)
        return share, (level.low - mean) / std, (level.high - mean) / std

    def log_likelihood(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> Tensor:
        """Take the noisy value as normal with the mixture's mean and covariance, as the paper does."""
        share, low, high, _ = conditions.chunk(CONDITIONS, 1)
        middle, share = (low + high) / 2, share[:, :1]
        expected = share * middle + (1 - share) * prior.mean
        of_random = _outer(middle) + torch.diag_embed(((high - low).square() / 12).movedim(1, -1))
        weight = share[:, 0, ..., None, None]
        total = weight * of_random + (1 - weight) * (prior.covariance + _outer(prior.mean)) - _outer(expected)
        return _log_normal(noisy - expected, total)

    def posterior(self, noisy: Tensor, prior: Prior, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the two explanations: the pixel is clean, or it was replaced and only the prior is left."""
        share, low, high, _ = conditions.chunk(CONDITIONS, 1)
        density = _log_normal(noisy - prior.mean, prior.covariance)[:, None]
        density = density - noisy.shape[1] / 2 * math.log(2 * math.pi)
        uniform = -(high - low).log().sum(1, keepdim=True)
        kept = torch.sigmoid(density + (1 - share[:, :1]).log() - uniform - share[:, :1].log())
        mean = prior.mean + kept * (noisy - prior.mean)
        own = prior.covariance.diagonal(dim1=-2, dim2=-1).movedim(-1, 1)
        # Variance of a mixture: a known value with probability `kept`, else the prior.
        return mean, ((1 - kept) * own + kept * (1 - kept) * (noisy - prior.mean).square()).sqrt()

    def deviation(self, clean: Tensor, conditions: Tensor) -> Tensor:
        share, low, high, _ = conditions.chunk(CONDITIONS, 1)
        away = (clean - (low + high) / 2).square() + (high - low).square() / 12
        return (share * away).sqrt()


def _log_normal(residual: Tensor, covariance: Tensor) -> Tensor:
    """Return the logarithm of normal densities, (B, *spatial), without the constant."""
    least = SMALLEST_VARIANCE * torch.eye(residual.shape[1], device=residual.device, dtype=residual.dtype)
    root: Tensor = torch.linalg.cholesky(covariance + least)
    white: Tensor = torch.linalg.solve_triangular(root, residual.movedim(1, -1)[..., None], upper=False)[..., 0]
    return -root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - 0.5 * white.square().sum(-1)


def _outer(image: Tensor) -> Tensor:
    """Return the outer products, (B, *spatial, C, C), of an image's channels."""
    last = image.movedim(1, -1)
    return last[..., :, None] * last[..., None, :]


NOISES: dict[str, NoiseModel] = {
    model.name: model for model in (Gaussian(), Poisson(), PoissonGaussian(), Rician(), Impulse())
}
