"""Look at an image's noise in seconds, and say which algorithm fits it, and why."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.complex_parts import AXIS, is_parts, real_view
from napari_ssdenoise.diagnosis._blocks import cut_places
from napari_ssdenoise.diagnosis._correlation import along_series, correlated_reach
from napari_ssdenoise.diagnosis._noise_fit import Estimate, NoiseFit, estimate_noise
from napari_ssdenoise.diagnosis._recommend import Views, check_assumptions, left_open, recommend
from napari_ssdenoise.diagnosis._report import Assumption, ChannelNoise, Diagnosis
from napari_ssdenoise.diagnosis._sampling import channel_axis, choose_channels, read_places
from napari_ssdenoise.diagnosis._series import STATIC, Pattern, find_line_pattern, fine_detail
from napari_ssdenoise.volume import Volume, open_volume, renamed, require_intensities

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from napari_ssdenoise.volume import ArrayLike

__all__ = [
    "Assumption",
    "ChannelNoise",
    "Diagnosis",
    "Estimate",
    "NoiseFit",
    "Pattern",
    "correlated_reach",
    "diagnose",
    "estimate_noise",
    "left_open",
]

# Decibels beyond which a signal-to-noise ratio says nothing more.
_DECIBELS = (-30.0, 100.0)
# Pixels read to see the correlation along a second axis.
_FEWER = 500_000


def diagnose(
    volume: Volume | ArrayLike | str | PathLike[str],
    *,
    target: Volume | ArrayLike | str | PathLike[str] | None = None,
    axes: str | None = None,
    offset: float | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Measure the noise of an image, check what denoising assumes, and recommend an algorithm.

    A few places are read, so that it takes seconds for images of any size.

    Parameters
    ----------
    volume
        What `open_volume` takes: a path, an array or a volume.
    target
        A second noisy image of the same scene, if there is one.
    axes
        One letter of ``TCZYXS`` per dimension, if the image names none.
    offset
        Intensity without light, if it is known: the camera's. An image cannot tell it.
    seed
        Of the choice of places.

    Returns
    -------
    Diagnosis

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the image is no image of intensities, is too small, constant or has NaN or infinite values; or if the target
        does not fit to it.

    Examples
    --------
    >>> report = diagnose(noisy)  # doctest: +SKIP
    >>> print(report.describe())  # doctest: +SKIP
    >>> trainer = Trainer(report.recommendation, noisy)  # doctest: +SKIP
    """
    opened = real_view(open_volume(volume, axes=axes))
    require_intensities(opened)
    other = None if target is None else _open_target(target, opened, axes)
    series = next((axis for axis in "TZ" if opened.sizes.get(axis, 1) > 1), "")
    rng = np.random.default_rng(seed)
    looked = [_look(opened, other, channel, series, offset, rng) for channel in choose_channels(opened)]
    found = [entry for entry in looked if entry]
    if not found:
        raise ValueError(f"{opened.name!r} has the same value everywhere: it shows no noise. Choose another image.")
    if series == "Z" and axes is None and not isinstance(volume, Volume) and all(_repeats(f, opened) for _, f in found):
        # Nobody said that this axis is depth, and its planes show the same: they are exposures.
        opened, series = renamed(opened, opened.axes.replace("Z", "T")), "T"
        found = [(replace(noise, correlation=_relabelled(noise.correlation)), fit) for noise, fit in found]
    return _conclude(opened, found, _views(found, "target" if other else series), offset_given=offset is not None)


def _open_target(target: Volume | ArrayLike | str | PathLike[str], volume: Volume, axes: str | None) -> Volume:
    other = real_view(open_volume(target, axes=axes))
    if sorted(other.axes) == sorted(volume.axes) and other.axes != volume.axes:
        raise ValueError(f"the target has axes {other.axes!r}, the image {volume.axes!r}. Give both in one order.")
    if other.shape != volume.shape:
        raise ValueError(
            f"the target {other.name!r} {other.shape} and {volume.name!r} {volume.shape} differ in shape. Both must "
            "show the same scene, pixel by pixel."
        )
    require_intensities(other)
    return other


def _look(
    volume: Volume, other: Volume | None, channel: int, series: str, offset: float | None, rng: np.random.Generator
) -> tuple[ChannelNoise, NoiseFit] | None:
    """Measure one channel; None if it is constant."""
    places = read_places([volume], channel, series, rng)
    if all((place == place.flat[0]).all() for place in places):
        return None
    fit = estimate_noise(places, offset=offset)
    along = {series: fit.along} if fit.along else {}
    if series == "T" and volume.sizes.get("Z", 1) > 1 and fit.line:
        along["Z"] = along_series(cut_places(read_places([volume], channel, "Z", rng, _FEWER)), fit.line)
    if other is not None:
        pairs = read_places([volume, other], channel, "", rng)
        if all(np.array_equal(place[0], place[1]) for place in pairs):
            raise ValueError("the target is the same as the image. Give a second exposure, or leave it out.")
        joint = estimate_noise(pairs, offset=offset)
        fit = joint if joint.is_static else replace(fit, along=joint.along, change=joint.change)
    names = volume.channel_names
    name = names[channel] if names and channel_axis(volume) == "C" else f"channel {channel}"
    return _summary(name, fit, along, find_line_pattern(places)), fit


def _summary(name: str, fit: NoiseFit, along: dict[str, tuple[float, ...]], lines: tuple[float, float]) -> ChannelNoise:
    sigma = float(fit.sigma)
    lags = next(iter(along.values()), ())
    fixed = len(lags) > 1 and lags[-1] > 0.1 and lags[-1] > 0.7 * lags[0]
    # Faint lines are certain in a large image, but nobody sees them.
    rows, columns = (offset if offset > 0.1 * sigma else 0.0 for offset in lines)
    line = fit.line
    return ChannelNoise(
        name,
        fit.kind,
        fit.gain,
        fit.offset,
        fit.read_noise,
        fit.sigma,
        signal_dependent=fit.gain > 0,
        saturated=fit.clipping.bright,
        clipped=fit.clipping.dark,
        quantisation=fit.step,
        correlation={"Y": fit.correlation.y, "X": fit.correlation.x, **along},
        correlated=fit.correlation.correlated,
        correlation_certain=fit.correlation.certain,
        pattern=Pattern(rows, columns, sigma * lags[-1] ** 0.5 if fixed else 0.0 if len(lags) > 1 else None),
        snr=float(np.clip(10 * np.log10(max(fit.signal, 1e-30) / max(sigma**2, 1e-30)), *_DECIBELS)),
        impulse_percent=100 * fit.replaced.share,
        detail=fine_detail(fit.cuts, line, fit.correlation.spectrum) if line else None,
    )


def _repeats(fit: NoiseFit, volume: Volume) -> bool:
    """Whether the planes along an axis of unknown meaning are exposures of one scene, and no depths of it."""
    if volume.units[volume.axes.index("Z")] is not None or not fit.is_static:
        return False
    first, last = fit.change[0], fit.change[-1]
    # From depth to depth, structure changes more and more.
    return first is not None and last is not None and last <= STATIC and last <= 4 * first + 0.05


def _relabelled(correlation: Any) -> dict[str, tuple[float, ...]]:
    return {"T" if axis == "Z" else axis: lags for axis, lags in correlation.items()}


def _views(found: Sequence[tuple[ChannelNoise, NoiseFit]], pairs: str) -> Views | None:
    """Say what image and target, or neighbouring frames, have in common."""
    fits = [fit for _, fit in found if fit.along]
    if pairs not in ("target", "T") or not fits:
        return None
    changes = [fit.change[0] for fit in fits if fit.change[0] is not None]
    change = max(changes, default=None)
    shared = max((fit.along[0] for fit in fits), key=abs)
    lags = [max(fit.change[n] or 0.0 for fit in fits) for n in range(min(len(fit.change) for fit in fits))]
    distance = next((n for n, value in enumerate(lags) if value > STATIC / 2), len(lags))
    where = "target" if pairs == "target" else "frames"
    return Views(where, None if change is None else change <= STATIC, change, shared, max(1, distance))


def _conclude(
    volume: Volume, found: Sequence[tuple[ChannelNoise, NoiseFit]], views: Views | None, *, offset_given: bool
) -> Diagnosis:
    channels = tuple(noise for noise, _ in found)
    lowest = min(channels, key=lambda noise: noise.snr)
    worst = replace(
        lowest,
        name=volume.name,
        saturated=max(c.saturated for c in channels),
        clipped=max(c.clipped for c in channels),
        correlated=any(c.correlated for c in channels),
    )
    algorithm, settings, reasons = recommend(worst, channels, views)
    return Diagnosis(
        **{f.name: getattr(worst, f.name) for f in fields(worst)},
        axes=volume.axes.replace(AXIS, "") if is_parts(volume) else volume.axes,
        offset_given=offset_given,
        same_scene=views.same_scene if views else None,
        assumptions=check_assumptions(worst, views),
        algorithm=algorithm,
        settings=settings,
        reasons=reasons,
        channels=channels,
    )
