"""Judge a result without the truth: what is left of the noise, and what of the structure was lost with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_ssdenoise.complex_parts import complex_view, real_view
from napari_ssdenoise.quality._look import Look
from napari_ssdenoise.quality._places import choose_places
from napari_ssdenoise.quality._report import PsnrEstimate, Quality, Resolution
from napari_ssdenoise.quality._residual import Whiteness
from napari_ssdenoise.quality._series import find_subjects, single_subjects
from napari_ssdenoise.volume import Volume, open_volume

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

__all__ = ["PsnrEstimate", "Quality", "Resolution", "Whiteness", "assess"]


def assess(
    model: TrainedModel,
    volume: Any,
    *,
    denoised: Any = None,
    target: Any = None,
    data_range: float | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Quality:
    """Judge what a model makes of an image, without knowing the truth.

    A few places are looked at, so that it takes seconds for images of any size. The estimate of the PSNR rests on
    other noisy views of the same scene where there are some: ``target``, frames of a series in which nothing moves, or
    several images of one scene. Otherwise it rests on the level of the noise, as measured in the image or given to the
    algorithm, and its interval allows for what that is uncertain by.

    Parameters
    ----------
    model
        A trained model.
    volume
        The noisy image, or several: volumes, arrays or paths.
    denoised
        What the model made of it (of each), if that is to be judged; by default it is computed where it is looked at.
    target
        Another noisy image of the same scene; for several images, one for each. For one image, also a list of them.
    data_range
        For the PSNR; by default 255 for 8-bit images, else what `choose_data_range` finds in the result.
    seed
        Of the choice of places.
    device
        As for `TrainedModel.predict`.

    Returns
    -------
    Quality

    Raises
    ------
    ValueError
        If the images do not fit the model, or each other.
    """
    opened = [model.fit(v) for v in _several(volume)]
    volumes, layouts = [v for v, _ in opened], [layout for _, layout in opened]
    results: list[Volume | None] = [None] * len(volumes)
    if denoised is not None:
        results = [_like(d, v, "denoised image") for d, v in _pairs(_several(denoised), volumes, "denoised images")]
    targets: list[list[Volume]] = [[] for _ in volumes]
    if target is not None and len(volumes) == 1:
        targets = [[_like(t, volumes[0], "target") for t in _several(target)]]
    elif target is not None:
        targets = [[_like(t, v, "target")] for t, v in _pairs(_several(target), volumes, "targets")]
    subjects, kind = find_subjects(volumes, layouts, targets, results, model.algorithm)
    look = Look(model, device, choose_places(subjects, seed), kind, seed)
    look.read()
    if kind == "images" and not look.one_scene:
        look = Look(model, device, choose_places(single_subjects(volumes, layouts, results), seed), "single", seed)
        look.read()
    look.measure()
    look.denoise()
    return look.report(data_range)


def _several(images: Any) -> list[Any]:
    return list(images) if isinstance(images, (list, tuple)) else [images]


def _pairs(images: Sequence[Any], volumes: Sequence[Volume], name: str) -> list[tuple[Any, Volume]]:
    if len(images) != len(volumes):
        raise ValueError(f"there are {len(volumes)} images, but {len(images)} {name}. Give one for each image.")
    return list(zip(images, volumes, strict=True))


def _like(image: Any, volume: Volume, name: str) -> Volume:
    """Open an image that shows the same as a volume, pixel by pixel; an unnamed array has the volume's axes."""
    named = isinstance(image, (str, Volume)) or not hasattr(image, "shape")
    opened = real_view(open_volume(image, axes=None if named else complex_view(volume).axes))
    if opened.shape != volume.shape:
        raise ValueError(
            f"the {name} has axes {opened.axes} {opened.shape}, but {volume.name!r} has {volume.axes} {volume.shape}. "
            "Give the same field of view, pixel by pixel."
        )
    return opened
