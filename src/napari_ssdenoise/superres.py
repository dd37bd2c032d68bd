"""Super-resolution: give images smaller pixels, in place, with what the images themselves teach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.algorithms._blur import MOST
from napari_ssdenoise.algorithms._super_resolution import METHODS
from napari_ssdenoise.engine.trainer import Trainer, TrainStep
from napari_ssdenoise.enlarged import enlarged
from napari_ssdenoise.ops.kernels import widths
from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.engine.device import Precision
    from napari_ssdenoise.model import TrainedModel

NOISY = 0.03  # standard deviation of the noise, in parts of the image's, from which it spoils the result
PATIENCE = 3  # evaluations without progress after which updates stop helping


class Upscaler(Trainer):
    """Adapt a method to one image, one update per iteration; `model` then enlarges that image, or others like it.

    Parameters
    ----------
    volume
        A volume, array or path.
    method
        ``"mzsr"``, ``"zssr"``, ``"ibp"`` (interpolation with back-projection) or ``"bicubic"``; or an algorithm.
    adapt
        Updates; by default 10 for mzsr, 1000 for zssr. 0 takes mzsr's weights as they come.
    until_best
        Stop, before ``adapt`` updates, when the error on a part that is held out no longer falls, and go back to where
        it was least; for images large enough to spare a part.
    axes
        Of the image; see `open_volume`.
    device, precision, seed
        As for `Trainer`.
    **settings
        Of the algorithm: ``factor``, ``factor_z``, ``kernel``, ``grid`` and others.

    Attributes
    ----------
    volume
        The image.
    adapt
        See above.

    Raises
    ------
    ValueError
        If the image, the blur and the settings do not fit together; the message says why and what to do.
    """

    def __init__(
        self,
        volume: Any,
        method: str | Algorithm = "mzsr",
        *,
        adapt: int | None = None,
        until_best: bool = False,
        axes: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        algorithm, updates = choose_method(method, **settings)
        self.volume = check_image(open_volume(volume, axes=axes), algorithm)
        self.adapt = _checked(updates if adapt is None else adapt, algorithm)
        self.until_best = until_best
        self._least = np.inf
        self._best: TrainedModel | None = None
        self._worse = 0
        spatial = "ZYX" if algorithm.factor_z > 1 else "YX"
        options: dict[str, Any] = {"device": device, "precision": precision, "seed": seed, "spatial": spatial}
        super().__init__(algorithm, self.volume, steps=max(1, self.adapt), **options)
        self.asked |= {"method": method_of(algorithm), "adapt": self.adapt, "until_best": until_best}

    def __next__(self) -> TrainStep:
        if not self.adapt or self._worse >= PATIENCE:
            self.close()
            raise StopIteration
        before = len(self.held_out)
        step = super().__next__()
        if self.until_best and len(self.held_out) > before:
            loss = self.held_out[-1][2]
            better = loss < self._least
            self._worse = 0 if better else self._worse + 1
            if better:
                self._least, self._best = loss, super().model
        return step

    def checkpoint(self) -> dict[str, Any]:
        """Return all that `resume` needs, with the weights that were best so far."""
        best = self._best.network.state_dict() if self._best else {}
        return {**super().checkpoint(), "best": {name: value.clone() for name, value in best.items()}}

    def resume(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; see `Trainer.resume`."""
        super().resume(checkpoint)
        if checkpoint.get("best") and self.until_best:
            losses = [loss for _, _, loss in self.held_out]
            self._least = min(losses)
            self._worse = len(losses) - 1 - losses.index(self._least)
            self._best = super().model
            self._best.network.load_state_dict(checkpoint["best"])

    @property
    def model(self) -> TrainedModel:
        """The method as adapted so far: enlarges images with `TrainedModel.predict` and `predict_into`."""
        return self._best or super().model

    @property
    def kernel(self) -> NDArray[np.float32]:
        """The blur that is undone, in new pixels: a picture to look at."""
        found: NDArray[np.float32] = self.network.degradation.kernel
        return found


def upscale(volume: Any, method: str | Algorithm = "mzsr", **options: Any) -> Volume:
    """Enlarge an image in memory; for larger ones, use `Upscaler` and `TrainedModel.predict_into`.

    Parameters
    ----------
    volume, method, options
        As for `Upscaler`.

    Returns
    -------
    Volume, float32
        With the new pixel size, in the same place as the image.
    """
    upscaler = Upscaler(volume, method, **options)
    for _ in upscaler:
        pass
    computing = {name: options[name] for name in ("device", "precision") if name in options}
    data = upscaler.model.predict(upscaler.volume, **computing)
    return at_new_pixels(upscaler.volume, upscaler.algorithm).like(data)


def choose_method(method: str | Algorithm, **settings: Any) -> tuple[Any, int]:
    """Return the algorithm of a method, and how many updates it takes by default.

    Raises
    ------
    ValueError
        If there is no such method or setting.
    """
    if not isinstance(method, str):
        algorithm = get_algorithm(method, **settings)
        if algorithm.purpose != "upscale":
            raise ValueError(f"{algorithm.title} does not make pixels smaller; choose one of {', '.join(METHODS)}.")
        learnt = {known.key: known.updates for known in METHODS.values()}
        return algorithm, learnt.get(algorithm.key, 1000)
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    key, own, updates = METHODS[method]
    return get_algorithm(key, **{**own, **settings}), updates


def method_of(algorithm: Any) -> str:
    """Return what people call an algorithm with its settings, of `METHODS`."""
    if algorithm.learns:
        return next(name for name, method in METHODS.items() if method.key == algorithm.key)
    return "ibp" if algorithm.back_projections else "bicubic"


def _checked(adapt: int, algorithm: Any) -> int:
    """Return the number of updates, if there can be that many."""
    if adapt < 0:
        raise ValueError(f"adapt={adapt} must be a number of updates, 0 or more.")
    if adapt and not algorithm.learns:
        raise ValueError(f"{algorithm.title} learns nothing, so adapt={adapt} is not possible. Leave it out.")
    return adapt


def at_new_pixels(volume: Volume, algorithm: Any) -> Volume:
    """Return the volume as the result will be: of its shape, scale and place; each pixel repeated."""
    return enlarged(volume, algorithm.along, algorithm.grid == "registered")


def check_image(volume: Volume, algorithm: Any) -> Volume:
    """Refuse images that cannot be enlarged, in words that say what to do.

    Raises
    ------
    ValueError
        If there are too few pixels, or no axis Z where one is to be enlarged.
    """
    require_intensities(volume)
    if algorithm.factor_z > 1 and "Z" not in volume.axes:
        raise ValueError(
            f"{volume.name!r} has axes {volume.axes} and no Z to enlarge. Name its axes, as in axes='ZYX'."
        )
    planes = -(-4 // algorithm.factor_z) * algorithm.factor_z
    if algorithm.factor_z > 1 and volume.sizes["Z"] < planes:
        raise ValueError(
            f"{volume.name!r} has only {volume.sizes['Z']} planes: too few to enlarge along Z by {algorithm.factor_z}, "
            f"which takes at least {planes}."
        )
    for axis in "YX":
        factor = max(algorithm.factor, algorithm.factor_z)
        if volume.sizes[axis] < 8 * factor:
            raise ValueError(
                f"{volume.name!r} has only {volume.sizes[axis]} pixels along {axis}: too few to learn from at factor "
                f"{factor}, which takes at least {8 * factor}."
            )
    return volume


def noise_warning(volume: Volume) -> str | None:
    """Say so if an image is so noisy that its noise would be enlarged and sharpened with it."""
    from napari_ssdenoise.diagnosis import diagnose

    if min(volume.sizes["Y"], volume.sizes["X"]) < 64:
        return None
    noise = 10 ** (-diagnose(volume).snr / 20)
    if not noise > NOISY:
        return None
    return (
        f"the image is noisy: its noise is about {noise:.0%} of its contrast, and would be sharpened with it. Denoise "
        "it first (ssdenoise upscale --denoise does both)."
    )


def blur_warning(upscaler: Upscaler) -> str | None:
    """Say so if the blur was measured as wide as is believed at all: the image may simply have no fine detail."""
    algorithm: Any = upscaler.algorithm
    if algorithm.kernel.strip().lower() != "auto" or algorithm.factor == 1:
        return None
    width = max(widths(upscaler.kernel)[-2:]) / algorithm.factor
    if width < 0.95 * MOST:
        return None
    return (
        f"the blur was measured as {width:.1f} pixels of the image, the most that is believed. Either the image is not "
        "sharp enough to be worth enlarging, or it shows nothing fine: give the blur (kernel) if you know it."
    )
