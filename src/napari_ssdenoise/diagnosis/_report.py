"""What a diagnosis says: estimates, assumptions one by one, and what to do, as values and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.diagnosis._noise_fit import Estimate
from napari_ssdenoise.diagnosis._series import Pattern

if TYPE_CHECKING:
    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.diagnosis._noise_fit import Kind

_MARKS = {True: "yes", False: "NO", None: "?"}
# Shares of clipped pixels from which averages are wrong in a way that one sees.
MATTERS = 1e-3


@dataclass(frozen=True)
class Assumption:
    """Something that denoising without clean images takes for granted.

    Attributes
    ----------
    name
        What is assumed.
    holds
        True or False, or None where the image does not tell.
    why
        The evidence, in plain words.
    """

    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True)
class ChannelNoise:
    """Noise of one channel, in the image's units.

    Attributes
    ----------
    name
        Of the channel.
    noise
        The noise model that fits.
    gain
        Growth of the variance with the intensity: variance = gain * (intensity - offset) + read_noise². For cameras
        with electron multiplication it includes the excess noise.
    offset
        Intensity without light; unless it was given, the level of the darkest regions.
    read_noise
        Standard deviation of the noise at the offset; of rician noise, that of the real and the imaginary part. Where
        the noise of the light hides it, its interval begins at 0.
    sigma
        Standard deviation of the noise, root mean square over the image.
    signal_dependent
        Whether bright pixels are noisier.
    saturated, clipped
        Share of the pixels at the upper and at the lower end of the range.
    quantisation
        Step in which intensities are rounded; 0 if they are not.
    correlation
        Autocorrelation of the noise by axis, at distances of 1, 2 and 3 pixels, planes or frames.
    correlated
        Whether neighbouring pixels share noise.
    correlation_certain
        False if what looks like correlated noise may be fine texture.
    pattern
        Offsets of rows, columns and pixels that the camera adds.
    snr
        Signal-to-noise ratio in dB: variance of the structure by that of the noise.
    impulse_percent
        Share of the pixels that were replaced by other values.
    detail
        Share of the structure's power in details of one or two pixels; None where it cannot be told.
    """

    name: str
    noise: Kind
    gain: Estimate
    offset: Estimate
    read_noise: Estimate
    sigma: Estimate
    signal_dependent: bool
    saturated: float
    clipped: float
    quantisation: float
    correlation: Mapping[str, tuple[float, ...]]
    correlated: bool
    correlation_certain: bool
    pattern: Pattern
    snr: float
    impulse_percent: float = 0.0
    detail: float | None = None

    @property
    def is_saturated(self) -> bool:
        """Whether enough pixels are saturated to matter."""
        return self.saturated >= MATTERS

    @property
    def is_clipped(self) -> bool:
        """Whether enough pixels are cut off at the dark end to matter."""
        return self.clipped >= MATTERS


@dataclass(frozen=True)
class Diagnosis(ChannelNoise):
    """What the noise of an image is, whether assumptions hold, and which algorithm fits.

    The fields of the noise are those of the channel with the lowest signal-to-noise ratio; shares of clipped pixels are
    the largest of all channels.

    Attributes
    ----------
    axes
        Of the image, as it should be read for the recommended algorithm.
    offset_given
        Whether the offset was given.
    same_scene
        Whether neighbouring frames, or image and target, show the same scene; None if it cannot be told.
    assumptions
        Checked one by one.
    algorithm, settings
        Recommended: a key for `get_algorithm`, and settings that differ from its defaults.
    reasons
        Why, in plain words.
    channels
        All channels that were looked at.
    """

    axes: str = "YX"
    offset_given: bool = False
    same_scene: bool | None = None
    assumptions: tuple[Assumption, ...] = ()
    algorithm: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    channels: tuple[ChannelNoise, ...] = ()

    @property
    def recommendation(self) -> Algorithm:
        """The recommended algorithm, ready for training."""
        from napari_ssdenoise.algorithms import get_algorithm

        return get_algorithm(self.algorithm, **self.settings)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        found: dict[str, Any] = _plain(self)
        return found

    def describe(self) -> str:
        """Return a report for people."""
        return "\n".join(_describe(self))


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, (ChannelNoise, Assumption, Pattern)):
        found = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, ChannelNoise):
            found |= {"is_saturated": value.is_saturated, "is_clipped": value.is_clipped}
        return found
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _describe(report: Diagnosis) -> list[str]:
    lines = [f"noise of {report.name} ({report.axes})"]
    channels = report.channels if len(report.channels) > 1 else ()
    if channels:
        lines.append(f"of {len(channels)} channels, this is the one with the lowest signal-to-noise ratio:")
    lines += [f"  {name:<24}{text}" for name, text in _facts(report)]
    for channel in channels:
        lines.append(f"  {channel.name}: {channel.noise}, deviation {_interval(channel.sigma)}, {channel.snr:.0f} dB")
    lines.append("what denoising assumes")
    for assumption in report.assumptions:
        lines += _wrapped(f"  {_MARKS[assumption.holds]:<4}", f"{assumption.name}: {assumption.why}")
    shown = "".join(f" --{name.replace('_', '-')} {_short(value)}" for name, value in report.settings.items())
    lines.append(f"recommended: --algorithm {report.algorithm}{shown}")
    for reason in report.reasons:
        lines += _wrapped("  ", reason)
    return lines


def _wrapped(start: str, text: str) -> list[str]:
    return wrap(text, 100, initial_indent=start, subsequent_indent=" " * len(start))


def _facts(report: Diagnosis) -> list[tuple[str, str]]:
    facts = [("noise model", report.noise), ("deviation of the noise", _interval(report.sigma))]
    if report.noise == "impulse":
        facts.append(("replaced pixels", f"{report.impulse_percent:.3g} %"))
    elif report.noise == "rician":
        facts.append(("deviation of the parts", _interval(report.read_noise)))
    elif report.signal_dependent:
        offset = f"{report.offset:.4g} (given)" if report.offset_given else f"{report.offset:.4g} (darkest level)"
        facts += [("gain", _interval(report.gain)), ("offset", offset), ("read noise", _read_noise(report))]
    facts.append(("signal to noise", f"{report.snr:.0f} dB"))
    lags = ", ".join(f"{axis} {' '.join(f'{v:.2f}' for v in values)}" for axis, values in report.correlation.items())
    facts.append(("correlation at 1, 2, 3", lags))
    facts.append(("saturated, clipped", f"{report.saturated:.2%}, {report.clipped:.2%}"))
    facts.append(("rounded to steps of", f"{report.quantisation:.4g}" if report.quantisation else "not rounded"))
    pattern = report.pattern
    found = [("rows", pattern.rows), ("columns", pattern.columns), ("fixed pixels", pattern.pixels)]
    text = ", ".join(f"{name} {value:.3g}" for name, value in found if value)
    return [*facts, ("camera pattern", text or "none found")]


def _interval(value: Estimate) -> str:
    return f"{value:.4g} ({value.low:.4g} to {value.high:.4g})"


def _read_noise(report: ChannelNoise) -> str:
    """Return the read noise, or how large it can be where the noise of the light hides it."""
    noise = report.read_noise
    return _interval(noise) if noise.low > 0 or not noise.high else f"below {noise.high:.4g}, hidden by the light's"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
