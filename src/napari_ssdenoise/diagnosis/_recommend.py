"""Check assumptions one by one, and choose the algorithm that can live with those that do not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from napari_ssdenoise.diagnosis._correlation import lags_reach
from napari_ssdenoise.diagnosis._noise_fit import SHARED
from napari_ssdenoise.diagnosis._report import Assumption

if TYPE_CHECKING:
    from napari_ssdenoise.diagnosis._report import ChannelNoise

# Noise of two frames may go along by this much and still count as independent.
_INDEPENDENT: Final = 2 * SHARED
_DETAIL: Final = (0.1, 0.25)
_LOUD: Final = 40.0  # dB
# Beyond this correlation of neighbours both ways, blurred noise and smooth structure look the same.
_SMOOTH: Final = 0.7
# Sub-lattices that share the pixels among more than so many images lose too much detail.
_COARSEST: Final = 4
# Offsets of whole lines matter from this share of the noise on.
_LINES: Final = 0.2


@dataclass(frozen=True)
class Views:
    """Several views of a scene, as frames of a series or as image and target.

    Attributes
    ----------
    pairs
        Where Noise2Noise finds them: ``"target"`` or ``"frames"``.
    same_scene
        None if it cannot be told.
    change
        Share of the structure that changes from one to the next.
    shared
        Correlation of their noise.
    distance
        How many frames apart two views may be.
    """

    pairs: str
    same_scene: bool | None
    change: float | None
    shared: float
    distance: int = 1

    @property
    def independent(self) -> bool:
        """Whether each view has noise of its own."""
        return abs(self.shared) < _INDEPENDENT

    @property
    def words(self) -> str:
        """What the two views are."""
        return "image and target" if self.pairs == "target" else "neighbouring frames"


def check_assumptions(noise: ChannelNoise, views: Views | None) -> tuple[Assumption, ...]:
    """Check what self-supervised denoising assumes, for the worst channel."""
    found = [_zero_mean(noise), _independent_pixels(noise), _predictable(noise)]
    if views:
        lag = f"a pixel's noise in {views.words} goes along by {views.shared:.2f}"
        found.append(Assumption("noise independent between views", views.independent, f"{lag}."))
        seen = "too little structure can be seen to tell."
        if views.change is not None:
            seen = f"{views.change:.0%} of the structure differs between {views.words}."
        found.append(Assumption("views show the same scene", views.same_scene, seen))
    return tuple(found)


def _zero_mean(noise: ChannelNoise) -> Assumption:
    name = "noise averages to zero"
    if noise.noise == "rician":
        return Assumption(name, False, "magnitudes are never negative, so dark regions come out too bright.")
    if noise.noise == "impulse":
        why = f"{noise.impulse_percent:.2g} % of the pixels have values of their own, not values around the true one."
        return Assumption(name, False, why)
    cut = [f"{noise.saturated:.1%} of the pixels are saturated"] if noise.is_saturated else []
    cut += [f"{noise.clipped:.1%} are cut off at the dark end"] if noise.is_clipped else []
    if cut:
        return Assumption(name, False, " and ".join(cut) + "; there, averages are biased.")
    return Assumption(name, True, "no pixels are saturated or cut off.")


def _independent_pixels(noise: ChannelNoise) -> Assumption:
    name = "noise independent between pixels"
    largest = {axis: values[0] for axis, values in noise.correlation.items() if axis in "YX" and values}
    lags = " and ".join(f"{value:.2f} along {axis}" for axis, value in largest.items()) or "unknown"
    if noise.correlated:
        return Assumption(name, False, f"the noise of neighbouring pixels goes along: correlation {lags}.")
    offsets = (("rows", noise.pattern.rows), ("columns", noise.pattern.columns))
    lines = " and ".join(f"{n} (deviation {v:.3g})" for n, v in offsets if v > _LINES * noise.sigma)
    if lines:
        return Assumption(name, False, f"the camera adds offsets to whole {lines}.")
    if not noise.correlation_certain:
        return Assumption(name, None, f"a correlation of {lags} may come from correlated noise or from fine texture.")
    return Assumption(name, True, f"correlation of neighbours {lags}.")


def _predictable(noise: ChannelNoise) -> Assumption:
    name = "signal predictable from neighbours"
    if noise.detail is None:
        return Assumption(name, None, "too little structure can be seen to tell.")
    why = f"{noise.detail:.0%} of the structure is detail of one or two pixels"
    if noise.detail <= _DETAIL[0]:
        return Assumption(name, True, f"{why}.")
    holds = None if noise.detail <= _DETAIL[1] else False
    return Assumption(name, holds, f"{why}, which looks like noise and may be removed.")


def recommend(
    noise: ChannelNoise, channels: tuple[ChannelNoise, ...], views: Views | None
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Choose an algorithm of those there are.

    Returns
    -------
    key, settings, reasons
    """
    from napari_ssdenoise.algorithms import list_algorithms, settings

    known = list_algorithms()
    key, values, reasons = _choose(noise, channels, views, set(known))
    names = {setting.name for setting in settings(known[key])}
    return key, {name: value for name, value in values.items() if name in names}, (*reasons, *_warnings(noise, views))


def _choose(
    noise: ChannelNoise, channels: tuple[ChannelNoise, ...], views: Views | None, known: set[str]
) -> tuple[str, dict[str, Any], list[str]]:
    if views and views.same_scene and views.independent and "n2n" in known:
        settings: dict[str, Any] = {"pairs": views.pairs}
        if views.distance > 1:
            settings["frame_distance"] = views.distance
        reason = f"{views.words} show the same scene with noise of their own: Noise2Noise needs nothing else"
        correlated = ", and does not mind that neighbouring pixels share noise" if noise.correlated else ""
        return "n2n", settings, [f"{reason}{correlated}."]
    reasons = []
    if views and views.same_scene and not views.independent:
        reasons.append(f"{views.words} share noise ({views.shared:.2f}), so that they are no pair for Noise2Noise.")
    elif views and views.same_scene is False:
        reasons.append(f"{views.words} differ in what they show, so that they are no pair for Noise2Noise.")
    mask, lattice = struct_mask(noise), sub_lattices(noise)
    if lattice and "blindspot" in known:
        reasons.append(
            "neighbouring pixels share noise, those further apart do not: a blind-spot network that sees every so many "
            "pixels only (sub-lattices) keeps clear of it."
        )
        return "blindspot", {**_blindspot_settings(noise, channels), "lattice": lattice}, reasons
    if mask:
        reasons.append("neighbouring pixels share noise: Noise2Void must hide those neighbours as well (structN2V).")
        return "n2v", {"struct_mask": mask}, reasons
    if "blindspot" not in known:
        return "n2v", {}, [*reasons, "the noise of each pixel is its own, and one image is enough for Noise2Void."]
    words = {
        "gaussian": "is equally strong everywhere",
        "poisson": "is that of counted photons",
        "poisson-gaussian": "grows with the intensity, as that of cameras does",
        "rician": "is that of magnitude images (MRI)",
        "impulse": "replaces single pixels",
    }
    reasons.append(f"the noise {words[noise.noise]} and is independent from pixel to pixel: a blind-spot network uses")
    reasons[-1] += " the noisy pixel itself along with its neighbours, and tells how certain it is."
    return "blindspot", _blindspot_settings(noise, channels), reasons


def _blindspot_settings(noise: ChannelNoise, channels: tuple[ChannelNoise, ...]) -> dict[str, Any]:
    """Give the noise as it was measured, unless channels differ: then each is measured before the training."""
    if len(channels) > 1:
        return {"noise": noise.noise} if len({channel.noise for channel in channels}) == 1 else {}
    values: Mapping[str, Mapping[str, float]] = {
        "gaussian": {"sigma": noise.sigma},
        "poisson": {"gain": noise.gain, "offset": noise.offset},
        "poisson-gaussian": {"gain": noise.gain, "offset": noise.offset, "read_noise": noise.read_noise},
        "rician": {"sigma": noise.read_noise},
        "impulse": {"impulse_percent": noise.impulse_percent},
    }
    rounded = {name: float(f"{value:.4g}") for name, value in values[noise.noise].items()}
    return {"noise": noise.noise, **rounded}


def left_open(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return recommended settings without the measured levels of the noise, for a training that starts right away.

    It measures them by itself, channel by channel, and its record says then that they are estimates.
    """
    measured = ("sigma", "gain", "offset", "read_noise", "impulse_percent")
    return {name: value for name, value in settings.items() if name not in measured}


def sub_lattices(noise: ChannelNoise) -> str:
    """Return the spacing, along Y,X, at which pixels share no noise; ``""`` if it is 1, or too wide to see detail."""
    if not noise.correlated or max(noise.pattern.rows, noise.pattern.columns) > _LINES * noise.sigma:
        return ""
    y, x = (1 + lags_reach(noise.correlation.get(axis, ())) for axis in "YX")
    if not 1 < y * x <= _COARSEST:
        return ""
    return str(y) if y == x else f"{y},{x}"


def struct_mask(noise: ChannelNoise) -> str:
    """Return the mask of structN2V that covers the correlated neighbours, or ``""`` if there are none.

    A rectangle, as wide along each axis as the correlation reaches; offsets of whole lines need long masks.
    """
    reach = dict.fromkeys("YX", 0)
    if noise.correlated:
        for axis in reach:
            reach[axis] = lags_reach(noise.correlation.get(axis, ()))
    for axis, other, offset in (("X", "Y", noise.pattern.rows), ("Y", "X", noise.pattern.columns)):
        if offset > _LINES * noise.sigma:
            reach[axis] = max(reach[axis], 3 if reach[other] else 5)
    if not any(reach.values()):
        return ""
    return "/".join(["1" * (2 * reach["X"] + 1)] * (2 * reach["Y"] + 1))


def _warnings(noise: ChannelNoise, views: Views | None) -> list[str]:
    """Say what no algorithm can mend."""
    found = []
    if noise.is_saturated:
        found.append(f"{noise.saturated:.1%} of the pixels are saturated: what was there cannot be brought back.")
    if noise.is_clipped:
        found.append(f"{noise.clipped:.1%} of the pixels are cut off at the dark end: raise the camera's offset.")
    if noise.quantisation and noise.sigma < 0.5 * noise.quantisation:
        found.append("the noise is smaller than the rounding of the intensities: it may have been removed before.")
    elif noise.snr > _LOUD:
        found.append("there is hardly any noise to remove.")
    if noise.correlated and min(noise.correlation[axis][0] for axis in "YX") > _SMOOTH:
        found.append("the image looks smoothed, scaled or denoised: what counts as noise here may be faint structure.")
    if noise.pattern.pixels:
        found.append("single pixels have fixed offsets, which remain: subtract a dark image of the camera first.")
    if noise.detail is not None and noise.detail > _DETAIL[1] and not views:
        found.append("much of the structure is as fine as a pixel: compare the result with the raw image.")
    return found
