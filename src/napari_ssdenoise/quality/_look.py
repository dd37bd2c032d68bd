"""Look at a few places of an image, step by step: read, measure the noise, denoise, judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise.metrics import choose_data_range
from napari_ssdenoise.quality._error import error_of_repeats, error_of_single_views
from napari_ssdenoise.quality._noise import known_noise, measure_noise
from napari_ssdenoise.quality._report import PsnrEstimate, Quality, Resolution, find_warnings
from napari_ssdenoise.quality._residual import signal_correlation, whiteness
from napari_ssdenoise.quality._resolution import compare_halves, compare_views
from napari_ssdenoise.quality._series import Kind, show_one_scene
from napari_ssdenoise.quality._smooth import smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.quality._places import Place, Plan, Run, View

# Added noise is this much weaker than the image's own: what the result makes of it is its response to a small change.
_NUDGE = 0.1
# Voxels around a place that a network may look at in 3D: all of its reach would cost many times the place itself.
CONTEXT = 16


class Look:
    """What is seen at a few places.

    Parameters
    ----------
    model, device
        What denoises.
    plan
        The places.
    kind
        What their views are.
    seed
        Of the noise that is added.

    Attributes
    ----------
    one_scene
        Whether the views of a place show the same.
    """

    def __init__(self, model: TrainedModel, device: str, plan: Plan, kind: Kind, seed: int) -> None:
        self._model = model
        self._device = device
        self._predictors: dict[int, Predictor] = {}
        self._places = plan.places
        self._further = plan.further
        self._coverage = plan.coverage
        self._kind: Kind = kind
        self._rng = np.random.default_rng([seed, 6])
        self.one_scene = False
        self._repeats = False

    def read(self) -> None:
        """Read all views, and find out whether they show the same scene."""
        for place in self._places:
            place.noisy = [view.read() for view in place.views]
        self.one_scene = show_one_scene(self._places, self._kind)
        self._repeats = self.one_scene or self._kind in ("target", "channels")

    def measure(self) -> None:
        """Measure the noise of every channel, or take what the user told the algorithm."""
        # Models that do not say what was chosen for them may have chosen all.
        chosen = self._model.record.get("chosen", ("sigma", "gain", "offset", "read_noise"))
        told = known_noise(self._model.algorithm, chosen)
        # Frames of a scene that moves slowly differ by less structure than each of them has.
        frames = self._repeats or self._kind == "frames"
        for channel in {place.channel for place in self._places}:
            places = [place for place in self._places if place.channel == channel]
            stacks = [stack for place in places for stack in _stacks(place, frames=frames)]
            level = measure_noise(stacks, frames=frames)
            if level is not None and told is not None:
                level = replace(level, gain=told.gain, floor=told.floor, error=told.error)
            for place in places:
                place.level = level

    def denoise(self) -> None:
        """Denoise all that is needed, and the first views once more with a little noise added."""
        for place in self._places:
            if not self._repeats:
                del place.noisy[1:]
            first, *others = place.views[: len(place.noisy)]
            run = self._runner(first)
            made = first.outputs(run) if first.denoised is None or place.level is not None else {}
            judged = made["mean"] if first.denoised is None else first.result(run)
            place.denoised = [judged, *(view.result(self._runner(view)) for view in others)]
            if "std" in made:
                place.doubt = made["std"] / self._model.algorithm.tails
            if place.level is not None:
                place.nudge = place.level.draw(judged, self._rng)
                place.response = (first.denoise(run, _NUDGE * place.nudge) - made["mean"]) / _NUDGE

    def report(self, data_range: float | None) -> Quality:
        """Judge what was seen."""
        layout = self._places[0].views[0].layout
        levels = list({place.channel: place.level for place in self._places if place.level is not None}.values())
        # Chessboard and noise level need noise that is independent from pixel to pixel, other views do not.
        told_apart = self._repeats or (bool(levels) and not any(level.correlated for level in levels))
        record = self._model.record
        curve = record.get("held_out", ())
        quality = Quality(
            psnr=self._psnr(data_range) if told_apart else None,
            frc=self._resolution() if told_apart else None,
            whiteness=whiteness(self._places, layout.spatial),
            residual_signal_correlation=signal_correlation(self._places),
            held_out_loss=float(curve[-1][-1]) if curve else None,
            pixels=sum(place.noisy[0][0].size * len(place.noisy) for place in self._places),
        )
        one_scene = self.one_scene or self._kind != "target"
        warnings = find_warnings(quality, noise=levels, repeats=self._repeats, one_scene=one_scene, curve=curve)
        return replace(quality, warnings=tuple(warnings))

    def _runner(self, view: View) -> Run:
        """Return a function that denoises a region of the view's volume, or of that volume changed."""
        key = id(view.volume)
        if key not in self._predictors:
            told = self._model.told(view.volume, view.layout)
            self._predictors[key] = told.predictor(device=self._device, precision="float32")
        predictor = self._predictors[key]
        context = CONTEXT if len(view.layout.spatial) == 3 else None
        return lambda volume, region: self._model.outputs_of(volume, region, predictor=predictor, context=context)

    def _psnr(self, data_range: float | None) -> PsnrEstimate | None:
        estimate = error_of_repeats if self._repeats else error_of_single_views
        error = estimate(self._places, self._coverage)
        if error is None:
            return None
        if data_range is None:
            data_range = self._range()
        return PsnrEstimate.of(error, data_range, "repeats" if self._repeats else "noise level")

    def _range(self) -> float:
        """Return the range that the truth would have, as `choose_data_range` finds it.

        It depends on the brightest places. More of them are read than denoised, and compared by their blurred images.
        """
        dtype = self._places[0].views[0].volume.dtype
        if dtype == np.uint8:
            return choose_data_range(np.zeros(1, np.uint8))
        results = np.concatenate([result.ravel() for place in self._places for result in place.denoised])
        if not self._further:
            return choose_data_range(results)
        here = [smooth(place.noisy[0], 1.0).ravel() for place in self._places]
        there = [smooth(place.views[0].read(), 1.0).ravel() for place in self._further]
        relative = choose_data_range(np.concatenate(here + there)) / choose_data_range(np.concatenate(here))
        return relative * choose_data_range(results)

    def _resolution(self) -> Resolution | None:
        view = self._places[0].views[0]
        volume, spatial = view.volume, view.layout.spatial
        at = [volume.axes.index(axis) for axis in spatial]
        units = {volume.units[d] for d in at}
        unit = units.pop() if len(units) == 1 else None
        spacing = [volume.scale[d] if unit else 1.0 for d in at]
        if min(min(place.noisy[0].shape[-2:]) for place in self._places) < 32:
            return None
        if self._repeats:
            curve = compare_views(self._places, spacing)
        else:
            curve = compare_halves(self._places, spacing, self._runner)
        return Resolution.of(curve, spacing[-1], unit or "pixel", "views" if self._repeats else "halves")


def _stacks(place: Place, *, frames: bool) -> Sequence[NDArray[np.float64]]:
    """Return the planes of a place: views of the same plane together, or the planes of the first view's stack."""
    if not frames:
        return [channel.reshape(-1, *channel.shape[-2:]) for channel in place.noisy[0]]
    views = np.stack(place.noisy)  # (V, channels, *spatial)
    planes = views.reshape(len(views), -1, *views.shape[-2:])
    return list(planes.swapaxes(0, 1))
