"""What an image has that a model was not trained on: axes, pixel size, values, noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume

# A model is believed to be at home within these factors of what it was trained on.
PIXELS, CONTRAST, NOISE = 1.25, 3.0, 1.5
BEYOND = 0.5  # of the training's range of values: this much further out is no outlier any longer


def differences(model: TrainedModel, volume: Volume) -> tuple[str, ...]:
    """Compare an image with those of the training; see `TrainedModel.differences`."""
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.normalize import Normalization

    try:
        opened, layout = model.fit(volume)
        views = [View(opened, layout, index) for index in layout.indices(opened.shape)]
        found = Normalization.fit(views, np.random.default_rng(0))
    except ValueError as error:
        return (str(error),)
    return (*_pixels(model, volume), *_values(model.normalization, found), *_noise(model.normalization, found))


def _pixels(model: TrainedModel, volume: Volume) -> Iterator[str]:
    for data in model.record.get("data", ())[:1]:
        trained = dict(zip(data["axes"], zip(data.get("scale", ()), data.get("units", ()), strict=False), strict=False))
        now = dict(zip(volume.axes, zip(volume.scale, volume.units, strict=True), strict=True))
        for axis in model.geometry.spatial:
            (before, unit), (size, other) = trained.get(axis, (0.0, None)), now.get(axis, (0.0, None))
            before, size = abs(before), abs(size)
            if unit and unit == other and before > 0 and size > 0 and not _alike(size, before, PIXELS):
                yield f"one pixel along {axis} is {size:g} {unit}, but {before:g} {unit} in the training."


def _values(trained: Normalization, now: Normalization) -> Iterator[str]:
    span = trained.high - trained.low
    outside = now.low < trained.low - BEYOND * span or now.high > trained.high + BEYOND * span
    for channel, (mean, std, was, spread) in enumerate(_channels(trained, now, "mean", "std")):
        place = f" in channel {channel}" if len(now.mean) > 1 else ""
        if not _alike(std, spread, CONTRAST) or abs(mean - was) > CONTRAST * spread:
            yield (
                f"values are about {mean:.4g} ± {std:.3g}{place}, but {was:.4g} ± {spread:.3g} in the training: were "
                "they scaled, or exposed otherwise?"
            )
            outside = False  # said already
    if outside and np.isfinite(span):
        yield (
            f"values go from {now.low:.4g} to {now.high:.4g}, but from {trained.low:.4g} to {trained.high:.4g} in the "
            "training."
        )


def _noise(trained: Normalization, now: Normalization) -> Iterator[str]:
    if not trained.noise or not now.noise:
        return
    for channel, (noise, was) in enumerate(_channels(trained, now, "noise")):
        place = f" in channel {channel}" if len(now.noise) > 1 else ""
        if was > 0 and not _alike(noise, was, NOISE):
            result = "some noise may stay" if noise > was else "the result may be too smooth"
            yield f"the noise{place} has a deviation of about {noise:.3g}, but {was:.3g} in the training: {result}."


def _channels(trained: Normalization, now: Normalization, *names: str) -> Iterator[tuple[float, ...]]:
    """Iterate over the channels of an image: its numbers, then those of the training."""
    for channel in range(len(now.mean)):
        known = 0 if len(trained.mean) == 1 else channel
        if known < len(trained.mean):
            yield (
                *(getattr(now, name)[channel] for name in names),
                *(getattr(trained, name)[known] for name in names),
            )


def _alike(one: float, other: float, factor: float) -> bool:
    return other / factor <= one <= other * factor
