"""Find out where an image shows the same scene more than once, which is the best way to judge a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_ssdenoise.diagnosis import estimate_noise
from napari_ssdenoise.diagnosis._blocks import cut_places
from napari_ssdenoise.diagnosis._series import STATIC, scene_change
from napari_ssdenoise.quality._places import Subject

if TYPE_CHECKING:
    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.quality._places import Place
    from napari_ssdenoise.volume import Volume

# What the views of a place are: second exposures that the user named, frames of a series, channels, or whole images.
Kind = Literal["target", "frames", "channels", "images", "single"]
_LOOKED_AT = 4  # places


def find_subjects(
    volumes: Sequence[Volume],
    layouts: Sequence[Layout],
    targets: Sequence[Sequence[Volume]],
    denoised: Sequence[Volume | None],
    algorithm: Any,
) -> tuple[list[Subject], Kind]:
    """Say what to judge, and where there may be other views of the same scenes."""
    pairs = list(zip(volumes, layouts, denoised, strict=True))
    if any(targets):
        subjects = [
            Subject(volume, layout, tuple(views), "", (result, *(None for _ in views)))
            for (volume, layout, result), views in zip(pairs, targets, strict=True)
        ]
        return subjects, "target"
    if getattr(algorithm, "pairs", None) == "channels" and all("C" in layout.batch for layout in layouts):
        return [Subject(v, layout, (), "C", (result,)) for v, layout, result in pairs], "channels"
    if all("T" in layout.batch and volume.sizes["T"] > 1 for volume, layout, _ in pairs):
        return [Subject(v, layout, (), "T", (result,)) for v, layout, result in pairs], "frames"
    first = volumes[0]
    if len(volumes) > 1 and all((v.axes, v.shape) == (first.axes, first.shape) for v in volumes):
        return [Subject(first, layouts[0], tuple(volumes[1:4]), "", tuple(denoised[:4]))], "images"
    return single_subjects(volumes, layouts, denoised), "single"


def single_subjects(
    volumes: Sequence[Volume], layouts: Sequence[Layout], denoised: Sequence[Volume | None]
) -> list[Subject]:
    """Take every volume by itself."""
    parts = zip(volumes, layouts, denoised, strict=True)
    return [Subject(volume, layout, denoised=(result,)) for volume, layout, result in parts]


def show_one_scene(places: Sequence[Place], kind: Kind) -> bool:
    """Tell, from a few places that are read, whether their views show the same scene.

    Of a series, frames far apart must do so as well: a scene that moves slowly is another one in every frame.
    """
    looked_at = places[:_LOOKED_AT]
    if len(looked_at[0].noisy) < 2:
        return False
    if not _alike([np.stack([view[0] for view in place.noisy]) for place in looked_at]):
        return False
    return kind != "frames" or _alike([_far_apart(place) for place in looked_at])


def _alike(places: Sequence[Any]) -> bool:
    planes = [
        place.reshape(len(place), -1, *place.shape[-2:])[:, place.shape[1] // 2 if place.ndim > 3 else 0]
        for place in places
    ]
    try:
        fit = estimate_noise(planes)
    except ValueError:
        return False
    if fit.line is None:
        return False
    change = scene_change(cut_places(planes), fit.line, fit.correlation.spectrum)
    return change is not None and change <= STATIC


def _far_apart(place: Place) -> Any:
    """Read two frames that half the series lies between."""
    view = place.views[0]
    axis = view.volume.axes.index("T")
    frames = view.volume.shape[axis]
    start = view.region[axis].start
    other = (start + frames // 2) % frames
    moved = tuple(slice(other, other + 1) if d == axis else s for d, s in enumerate(view.region))
    return np.stack([view.read()[0], replace(view, region=moved).read()[0]])
