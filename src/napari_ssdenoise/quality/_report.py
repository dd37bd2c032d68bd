"""What an assessment says, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, log10
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from napari_ssdenoise.metrics import RingCorrelation
    from napari_ssdenoise.quality._error import MeanSquare
    from napari_ssdenoise.quality._residual import Whiteness

Method = Literal["repeats", "noise level"]
SATURATED = 0.005  # share of the pixels that is worth a warning
LOST = 0.05  # correlation of the residual with detail, from which on it is a warning


@dataclass(frozen=True)
class PsnrEstimate:
    """An estimate of the PSNR that a comparison with the truth would give.

    Attributes
    ----------
    value, low, high
        In dB; 19 times in 20 it lies between low and high.
    noisy
        The same for the noisy image.
    data_range
        What it is relative to.
    method
        ``"repeats"``: from independent noisy views of the same scene. ``"noise level"``: from a single view and the
        level of its noise.
    """

    value: float
    low: float
    high: float
    noisy: float
    data_range: float
    method: Method

    @classmethod
    def of(cls, error: MeanSquare, data_range: float, method: Method) -> PsnrEstimate | None:
        """Turn a mean squared error into decibels; None if there is none."""
        lowest, highest = error.bounds
        values = (error.expected, highest, lowest, error.noisy)
        if not all(isfinite(v) for v in values) or error.expected <= 0 or error.noisy <= 0:
            return None
        value, low, high, noisy = (10 * log10(data_range**2 / max(v, 1e-30)) for v in values)
        return cls(value, low, high, noisy, data_range, method)


@dataclass(frozen=True)
class Resolution:
    """How fine the detail is that the result shares with the truth.

    Attributes
    ----------
    frequencies, correlation
        Estimate of the squared correlation of result and truth, by spatial frequency in cycles per ``unit``. It stands
        for the Fourier ring (in stacks: shell) correlation of two results, and is free of what the network makes up.
    pixels, distance
        Period where it falls below 1/7, in pixels along X and in ``unit``; None if it is below from the start.
    unit
        Of the image's pixel sizes; ``"pixel"`` where they are not known.
    method
        ``"views"``: from other noisy views. ``"halves"``: from the two colours of a chessboard laid over the image; a
        little cautious, since each half has half of the light.
    """

    frequencies: tuple[float, ...]
    correlation: tuple[float, ...]
    pixels: float | None
    distance: float | None
    unit: str
    method: Literal["views", "halves"]

    @classmethod
    def of(cls, curve: RingCorrelation, pixel: float, unit: str, method: Literal["views", "halves"]) -> Resolution:
        distance = curve.resolution()
        pixels = None if distance is None else distance / pixel
        return cls(curve.frequencies, curve.correlation, pixels, distance, unit, method)


@dataclass(frozen=True)
class Quality:
    """How good a result is, as far as that can be said without the truth.

    Attributes
    ----------
    psnr
        Estimate of the true PSNR; None where the image does not tell.
    frc
        Resolution, by Fourier ring or shell correlation; None for images too small or with correlated noise.
    whiteness
        Whether what was removed is noise alone; None where the noise could not be measured.
    residual_signal_correlation
        Correlation of what was wrongly removed with the detail of the result; 0 is best. Positive values tell of
        structure that was removed, negative ones of noise that is left.
    held_out_loss
        Loss at the end of the training, on patches that it never saw; None if the model holds none.
    warnings
        In plain words.
    pixels
        How many were looked at.
    """

    psnr: PsnrEstimate | None
    frc: Resolution | None
    whiteness: Whiteness | None
    residual_signal_correlation: float | None
    held_out_loss: float | None
    warnings: tuple[str, ...] = ()
    pixels: int = 0

    def rows(self) -> list[tuple[str, str]]:
        """Return names and values for people, without the warnings."""
        rows = [("PSNR, estimated", _psnr(self.psnr)), ("resolution", _resolution(self.frc))]
        if self.whiteness is not None:
            score = f"autocorrelation off by {self.whiteness.score:.2f}"
            rows.append(("removed noise", f"{self.whiteness.verdict} ({score})"))
        if self.residual_signal_correlation is not None:
            rows.append(("structure in it", f"correlation {self.residual_signal_correlation:.2f}"))
        if self.held_out_loss is not None:
            rows.append(("held-out loss", f"{self.held_out_loss:.4g}"))
        return rows

    def describe(self) -> str:
        """Return a short text for people."""
        width = max(len(name) for name, _ in self.rows())
        lines = [f"{name:{width}}  {value}" for name, value in self.rows()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Return plain values; curves as lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _psnr(estimate: PsnrEstimate | None) -> str:
    if estimate is None:
        return "unknown"
    return f"{estimate.value:.1f} dB ({estimate.low:.1f} to {estimate.high:.1f}); noisy {estimate.noisy:.1f} dB"


def _resolution(found: Resolution | None) -> str:
    if found is None or found.pixels is None or found.distance is None:
        return "unknown"
    text = f"{found.pixels:.1f} pixels"
    return text if found.unit == "pixel" else f"{text}, {found.distance:.3g} {found.unit}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else None
    return value


def find_warnings(
    quality: Quality, *, noise: Sequence[Any], repeats: bool, one_scene: bool, curve: Sequence[Sequence[float]]
) -> list[str]:
    """Say in plain words what speaks against a result.

    Parameters
    ----------
    quality
        Without warnings.
    noise
        `NoiseLine` of each channel.
    repeats
        Whether several views of a scene were used.
    one_scene
        Whether the views, if there are some, show the same.
    curve
        Held-out loss during the training: step, seconds, loss.
    """
    found = []
    psnr, lost, white = quality.psnr, quality.residual_signal_correlation, quality.whiteness
    if not one_scene:
        found.append("the target does not seem to show the same scene: the PSNR is that against the target's scene.")
    if any(level.correlated for level in noise):
        advice = "" if repeats else " The error cannot be estimated from one view; give a second exposure as target."
        found.append(
            f"the noise of neighbouring pixels is correlated: what remains of it may look like detail.{advice}"
        )
    elif psnr is None:
        found.append("the image is too small, or shows too little noise, to estimate the error.")
    if any(level.kind in ("rician", "impulse") for level in noise) and not repeats:
        found.append(
            "the noise is not that of a camera (Rician or replaced pixels): the estimated PSNR is not reliable."
        )
    saturated = max((level.saturated for level in noise), default=0.0)
    if saturated > SATURATED:
        found.append(f"{saturated:.1%} of the pixels are saturated: what they should be, no estimate here knows.")
    if psnr is not None and psnr.value < psnr.noisy + 0.5:
        found.append(
            "the result is hardly closer to the truth than the noisy image. Train longer, or check the settings."
        )
    if lost is not None and lost > LOST:
        found.append("structure was removed along with the noise: the result is too smooth. Train longer.")
    elif white is not None and white.verdict == "correlated" and not any(level.correlated for level in noise):
        found.append("what was removed is not white: structure was removed, or the noise is correlated.")
    if _rises([loss for *_, loss in curve]):
        found.append("the loss on held-out patches rose towards the end: the network learnt these images by heart.")
    return found


def _rises(losses: Sequence[float]) -> bool:
    """Tell whether a curve ends clearly above its lowest point."""
    if len(losses) < 5:
        return False
    end = sum(losses[-2:]) / 2
    return end - min(losses) > 0.1 * (losses[0] - min(losses))
