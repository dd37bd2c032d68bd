"""Find out the noise that a training has to reckon with: what the user gave, and the rest from the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.noise import DOUBT, NOISES, NoiseLevel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ssdenoise.algorithms._base import Conditions
    from napari_ssdenoise.diagnosis import NoiseFit
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume

PIXELS = 2_000_000  # looked at per channel
VOLUMES = 8  # looked at


class NoiseSettings(Protocol):
    """The settings that say what is known of the noise; None is to be estimated."""

    @property
    def noise(self) -> str: ...
    @property
    def sigma(self) -> float | None: ...
    @property
    def gain(self) -> float | None: ...
    @property
    def offset(self) -> float | None: ...
    @property
    def read_noise(self) -> float | None: ...
    @property
    def impulse_percent(self) -> float | None: ...


@dataclass(frozen=True)
class KnownNoise:
    """Kind and level of the noise of every channel, in the image's units."""

    kind: str
    levels: tuple[NoiseLevel, ...]

    def conditions(self, normalization: Normalization, channels: int) -> Conditions:
        """Return what a network is told: for those together that it sees at once."""
        told = [
            (*NOISES[self.kind].conditions(level, mean, std), DOUBT)
            for level, mean, std in zip(self.levels, normalization.mean, normalization.std, strict=True)
        ]
        if channels == 1:
            return tuple(told)
        groups = [told[start : start + channels] for start in range(0, len(told), channels)]
        joint = [tuple(value for parameter in zip(*group, strict=True) for value in parameter) for group in groups]
        # Several where coils are images of two parts each: found by their first channel.
        return tuple(joint) if len(joint) == 1 else tuple(each for each in joint for _ in range(channels))


def find_noise(
    settings: NoiseSettings,
    views: Sequence[View],
    normalization: Normalization,
    rng: np.random.Generator,
    spacing: tuple[int, int] = (1, 1),
) -> KnownNoise:
    """Complete the settings by what the images show.

    Parameters
    ----------
    settings, views, normalization, rng
        What is known, and where to look.
    spacing
        Of the pixels along Y and X that do not share noise.

    Raises
    ------
    ValueError
        If the noise cannot be estimated; the message says which settings to give instead.
    """
    channels = len(normalization.mean)
    if _is_complete(settings):
        return KnownNoise(settings.noise, (_level(settings, settings.noise),) * channels)
    volumes = list({id(view.volume): view.volume for view in views}.values())[:VOLUMES]
    # The parts of a complex image are channels of a network that sees both, and have the same noise.
    parts = views[0].channels if is_parts(views[0].volume) else 1
    fits = [_estimate(volumes, channel // parts, settings.offset, rng, spacing) for channel in range(channels)]
    kind = settings.noise if settings.noise != "auto" else _common_kind([fit.kind for fit in fits])
    limits = (normalization.low, normalization.high)
    return KnownNoise(kind, tuple(_level(settings, kind, fit, limits) for fit in fits))


def correlated_widths(views: Sequence[View], rng: np.random.Generator) -> tuple[int, int]:
    """Return how wide along Y and X the neighbourhood is that shares a pixel's noise: odd numbers, 1 for none."""
    from napari_ssdenoise.diagnosis import correlated_reach

    volumes = list({id(view.volume): view.volume for view in views}.values())[:VOLUMES]
    fits = [_estimate(volumes, channel, None, rng) for channel in sorted({view.channel for view in views})]
    reach = [correlated_reach(fit.correlation) for fit in fits]
    y, x = (2 * max(axis) + 1 for axis in zip(*reach, strict=True))
    return y, x


def filled_in(known: KnownNoise) -> dict[str, Any]:
    """Return the settings that say the same, for a record of what was found; numbers only if all channels agree."""
    level = known.levels[0]
    found: dict[str, Any] = {"noise": known.kind}
    if len(set(known.levels)) > 1:
        return found
    if known.kind in ("gaussian", "rician"):
        return {**found, "sigma": level.read_noise}
    if known.kind == "impulse":
        return {**found, "impulse_percent": 100 * level.share}
    return {**found, "gain": level.gain, "offset": level.offset, "read_noise": level.read_noise}


def _is_complete(settings: NoiseSettings) -> bool:
    needed = {
        "gaussian": (settings.sigma,),
        "rician": (settings.sigma,),
        "poisson": (settings.gain, settings.offset),
        "poisson-gaussian": (settings.gain, settings.offset, settings.read_noise),
    }
    return settings.noise in needed and None not in needed[settings.noise]


def _estimate(
    volumes: Sequence[Volume],
    channel: int,
    offset: float | None,
    rng: np.random.Generator,
    spacing: tuple[int, int] = (1, 1),
) -> NoiseFit:
    from napari_ssdenoise.diagnosis import estimate_noise
    from napari_ssdenoise.diagnosis._sampling import read_places

    places: list[NDArray[Any]] = []
    for volume in volumes:
        series = next((axis for axis in "TZ" if axis in volume.axes), "")
        places += read_places([volume], channel, series, rng, PIXELS // len(volumes))
    try:
        fit = estimate_noise(places, offset=offset)
        return fit if spacing == (1, 1) else _seen_apart(fit, places, spacing)
    except ValueError as error:
        raise ValueError(
            f"the noise of {volumes[0].name!r} cannot be estimated: {error} Or give it: noise='gaussian' with sigma, "
            "or noise='poisson-gaussian' with gain, offset and read_noise."
        ) from error


def _seen_apart(fit: NoiseFit, places: Sequence[NDArray[Any]], spacing: tuple[int, int]) -> NoiseFit:
    """Correct the strength of noise that neighbours share: their differences, which measure it, hold little of it.

    It is looked at on pixels that are twice as far apart as those that a network sees, since noise hardly ever ends
    where sub-lattices begin.
    """
    from napari_ssdenoise.diagnosis._noise_fit import Estimate
    from napari_ssdenoise.quality._noise import NoiseLine, relative_strength

    y, x = (2 * n if n > 1 else 1 for n in spacing)
    apart = [place[:, i::y, j::x].astype(float) for place in places for i in range(y) for j in range(x)]
    gain, read_noise, sigma = float(fit.gain), float(fit.read_noise), float(fit.sigma)
    if fit.kind not in ("poisson", "poisson-gaussian"):
        gain, read_noise, sigma = 0.0, sigma or 1.0, sigma or 1.0
    strength = relative_strength(apart, NoiseLine(gain, read_noise**2 - gain * float(fit.offset)))
    if strength is None:
        return fit
    gain, read_noise, sigma = strength * gain, strength**0.5 * read_noise, strength**0.5 * sigma
    return replace(fit, gain=Estimate(gain), read_noise=Estimate(read_noise), sigma=Estimate(sigma))


def _common_kind(kinds: Sequence[str]) -> str:
    """Return the kind that describes all channels: cameras' noise has the others of theirs as special cases."""
    return kinds[0] if len(set(kinds)) == 1 else "poisson-gaussian"


def _level(
    settings: NoiseSettings, kind: str, fit: NoiseFit | None = None, limits: tuple[float, float] = (0.0, 0.0)
) -> NoiseLevel:
    """Join what was given and what was found; without a fit, all is given."""

    def given(value: float | None, found: Any) -> float:
        return float(found) if value is None else value

    if kind in ("gaussian", "rician"):
        found = 0.0 if fit is None else fit.sigma if kind == "gaussian" else fit.read_noise
        return NoiseLevel(read_noise=given(settings.sigma, found))
    if kind == "impulse":
        share = given(settings.impulse_percent, 100 * fit.replaced.share if fit else 0.0) / 100
        low, high = (fit.replaced.low, fit.replaced.high) if fit and fit.replaced.share else limits
        return NoiseLevel(share=share, low=float(low), high=float(high))
    level = NoiseLevel(
        gain=given(settings.gain, fit.gain if fit else 0.0),
        offset=given(settings.offset, fit.offset if fit else 0.0),
        read_noise=0.0 if kind == "poisson" else given(settings.read_noise, fit.read_noise if fit else 0.0),
    )
    return replace(level, offset=0.0) if kind == "poisson" and settings.offset is None else level
