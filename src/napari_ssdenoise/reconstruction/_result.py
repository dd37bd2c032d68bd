"""What a reconstruction returns: images, how far they can be trusted, and what they were made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_ssdenoise.io.kspace import KSpace


@dataclass(frozen=True, eq=False)
class SliceResult:
    """One reconstructed slice.

    Parameters
    ----------
    image : (Y, X) complex64
        In the units of k-space.
    method
        That made it; with ``"auto"``, the one of the least error.
    error
        The relative error of this method on acquired lines that it was not shown: the norm of the difference over that
        of the lines. None where there were too few lines to hold any out.
    errors
        Of every method that was tried.
    settings
        Strengths that were chosen, per method.
    mask : (Y, X) bool
        The samples that were acquired.
    maps : (sets, coils, Y, X) complex64
        Coil sensitivities.
    wrapped
        The part of the image's energy that lies where parts of the object lie over one another.
    """

    image: NDArray[np.complex64]
    method: str
    error: float | None
    errors: Mapping[str, float]
    settings: Mapping[str, float]
    mask: NDArray[np.bool_]
    maps: NDArray[np.complex64]
    wrapped: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """The reconstructed slices of k-space, with the error of each on lines that were held out."""

    kspace: KSpace
    slices: tuple[SliceResult, ...]

    @property
    def image(self) -> NDArray[np.complex64]:
        """Complex images (slices, Y, X), in the units of k-space."""
        return np.stack([s.image for s in self.slices])

    @property
    def error(self) -> float | None:
        """The root mean square, over slices, of the relative error on held-out lines."""
        found = [s.error for s in self.slices if s.error is not None]
        return float(np.sqrt(np.mean(np.square(found)))) if found else None

    @property
    def methods(self) -> tuple[str, ...]:
        """The method of every slice."""
        return tuple(s.method for s in self.slices)

    def volume(self, part: str = "magnitude") -> Volume:
        """Return the images as a volume: YX for one slice, ZYX for several.

        Parameters
        ----------
        part
            ``"magnitude"``, ``"phase"`` (radians) or ``"complex"``.
        """
        parts: Mapping[str, Any] = {"magnitude": np.abs, "phase": np.angle, "complex": np.asarray}
        if part not in parts:
            raise ValueError(f"part={part!r} must be one of {', '.join(parts)}.")
        data = parts[part](self.image)
        return self._volume(data, f"{self.kspace.name} {part}")

    def mask_volume(self) -> Volume:
        """Return which samples of k-space were acquired, 1 or 0."""
        data = np.stack([s.mask for s in self.slices]).astype(np.uint8)
        return Volume(data[0] if len(data) == 1 else data, "YX" if len(data) == 1 else "ZYX", name="sampling mask")

    def maps_volume(self) -> Volume:
        """Return the magnitudes of the coil sensitivities (first set), coils along C."""
        data = np.stack([np.abs(s.maps[0]) for s in self.slices])
        axes = "CYX" if len(data) == 1 else "ZCYX"
        return Volume(data[0] if len(data) == 1 else data, axes, name="coil maps")

    def _volume(self, data: NDArray[Any], name: str) -> Volume:
        single = len(data) == 1
        scale = self.kspace.scale or (1.0, 1.0)
        unit = "millimeter" if self.kspace.scale else None
        return Volume(
            data[0] if single else data,
            "YX" if single else "ZYX",
            scale=scale if single else (1.0, *scale),
            units=(unit, unit) if single else (None, unit, unit),
            name=name,
            metadata={"reconstruction": self.summary()},
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return method, errors and strengths per slice, as numbers and words."""
        return [
            {
                "method": s.method,
                "held_out_error": s.error,
                "errors": dict(s.errors),
                "settings": dict(s.settings),
                "wrapped": s.wrapped,
            }
            for s in self.slices
        ]
