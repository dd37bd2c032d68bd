"""Bring intensities to zero mean and unit variance, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.complex_parts import is_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.engine.scenes import View

# Voxels looked at per channel: more would not change the mean and the deviation that anybody can see.
SAMPLED_VOXELS = 2_000_000
SAMPLED_BLOCK = 128
FINE = 16  # steps of float32 that a deviation should have at least
NOISE_BLOCKS, NOISE_PLANES = 32, 8  # looked at for the noise: blocks, and planes of each


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of every channel, in the input's units.

    Parameters
    ----------
    mean, std
        One entry per channel; a single entry serves any channel.
    low, high
        Smallest and largest value seen; for people, and to warn about images of another range.
    noise
        Standard deviation of what neighbouring pixels do not share, one entry per channel, in typical places; to warn
        about images of other noise. Empty where it was not measured.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: float = -np.inf
    high: float = np.inf
    noise: tuple[float, ...] = ()

    @classmethod
    def fit(cls, views: Sequence[View], rng: np.random.Generator) -> Normalization:
        """Measure the images by sampled blocks; volumes larger than memory stay on disk.

        Raises
        ------
        ValueError
            If an image is constant, or has NaN or infinite values.
        """
        by_channel: dict[int, list[View]] = {}
        for view in views:
            by_channel.setdefault(view.channel, []).append(view)
        moments = [_Moments(view.channels) for view in (by_channel[c][0] for c in sorted(by_channel))]
        for found, channel in zip(moments, sorted(by_channel), strict=True):
            for view, region in _sample(by_channel[channel], rng):
                found.add(view.read(region))
        mean = np.concatenate([found.mean for found in moments])
        std = np.concatenate([found.std for found in moments])
        if is_parts(views[0].volume):
            # One scale for both parts and no offset: what is learnt must not depend on the phase.
            std = np.concatenate([np.full(len(m.mean), np.sqrt((m.std**2 + m.mean**2).mean())) for m in moments])
            mean = np.zeros_like(std)
        low = min(found.low for found in moments)
        high = max(found.high for found in moments)
        if not std.min() > 1e-12 * max(abs(low), abs(high)):
            raise ValueError(
                f"{views[0].volume.name!r} has the same value ({low:g}) everywhere in a channel: there is nothing to "
                "learn. Check that the right image or channel is chosen."
            )
        noise = tuple(float(n) for found in moments for n in found.noise)
        return cls(tuple(mean.tolist()), tuple(std.tolist()), float(low), float(high), noise)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know of the intensities."""
        largest = max(abs(self.low), abs(self.high))
        step = float(np.spacing(np.float32(largest)))
        if step * FINE <= min(self.std):
            return ()
        return (
            f"values near {largest:.3g} vary by {min(self.std):.3g} only, and results, which are float32, have steps "
            f"of {step:.3g} there. Subtract what all pixels have in common first.",
        )

    def apply(self, block: NDArray[Any], channel: int = 0) -> NDArray[np.float32]:
        """Normalise ``(channels, *spatial)``; `channel` is the first one's index."""
        mean, std = self._columns(block.ndim, len(block), channel)
        # Of wide integers and doubles, float32 would lose the small differences if cut before the subtraction.
        wide = block.astype(np.result_type(block.dtype, np.float32))
        wide -= mean.astype(wide.dtype)
        wide /= std.astype(wide.dtype)
        return wide.astype(np.float32, copy=False)

    def undo(self, block: NDArray[np.float32], channel: int = 0) -> NDArray[np.float32]:
        """Return a normalised block to the input's units, as float32."""
        mean, std = self._columns(block.ndim, len(block), channel)
        restored = block * std.astype(np.float32)
        restored += mean.astype(np.float32)
        return restored

    def undo_scale(self, block: NDArray[np.float32], channel: int = 0) -> NDArray[np.float32]:
        """Return normalised differences, such as standard deviations, to the input's units."""
        _, std = self._columns(block.ndim, len(block), channel)
        return block * std.astype(np.float32)

    def _columns(self, ndim: int, channels: int, first: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if len(self.mean) == 1:
            first, channels = 0, 1
        if first + channels > len(self.mean):
            raise ValueError(
                f"the model was trained on {len(self.mean)} channels, but the image has at least {first + channels}. "
                "Choose the channels it was trained on, or train a new model."
            )
        shape = (channels,) + (1,) * (ndim - 1)
        chosen = slice(first, first + channels)
        return np.array(self.mean[chosen]).reshape(shape), np.array(self.std[chosen]).reshape(shape)


class _Moments:
    """Mean and variance, accumulated in double precision and without cancellation (Chan's update)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.low, self.high = np.inf, -np.inf
        self._noises: list[NDArray[np.float64]] = []

    def add(self, block: NDArray[Any]) -> None:
        values = block.reshape(len(block), -1).astype(np.float64)
        count, mean = values.shape[1], values.mean(1)
        total = self.count + count
        self.squares += ((values - mean[:, None]) ** 2).sum(1) + (mean - self.mean) ** 2 * self.count * count / total
        self.mean += (mean - self.mean) * count / total
        self.count = total
        if len(self._noises) < NOISE_BLOCKS and min(block.shape[-2:]) > 1:
            self._noises.append(_noise(block))
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(self.squares / self.count))

    @property
    def noise(self) -> NDArray[np.float64]:
        return np.median(self._noises, axis=0) if self._noises else np.zeros(0)


def _noise(block: NDArray[Any]) -> NDArray[np.float64]:
    """Estimate the noise's deviation of each channel of ``(channels, *spatial)`` by differences within 2 x 2 pixels.

    Smooth structure cancels out of a - b - c + d, and edges are few enough for the median of its size.
    """
    planes = block.reshape(len(block), -1, *block.shape[-2:])
    planes = planes[:, :: -(-planes.shape[1] // NOISE_PLANES)].astype(np.float64)
    left = planes[..., 1:, 1:] - planes[..., 1:, :-1] - planes[..., :-1, 1:] + planes[..., :-1, :-1]
    return np.asarray(np.median(np.abs(left.reshape(len(block), -1)), axis=1) / (2 * 0.6745))


def _sample(views: Sequence[View], rng: np.random.Generator) -> list[tuple[View, tuple[slice, ...]]]:
    """Choose blocks of the images, all of them where they are few, in the order of storage."""
    found: list[tuple[View, tuple[slice, ...]]] = []
    total = sum(int(np.prod(view.shape)) for view in views)
    for_all = total <= SAMPLED_VOXELS
    wanted = max(8, SAMPLED_VOXELS // SAMPLED_BLOCK**2)
    chosen = range(len(views)) if for_all else sorted(rng.integers(len(views), size=wanted).tolist())
    for number in chosen:
        view = views[number]
        if for_all:
            found.append((view, tuple(slice(0, n) for n in view.shape)))
            continue
        sizes = [
            min(n, SAMPLED_BLOCK if axis in "YX" else 1)
            for axis, n in zip(view.layout.spatial, view.shape, strict=True)
        ]
        corner = [int(rng.integers(n - size + 1)) for n, size in zip(view.shape, sizes, strict=True)]
        found.append((view, tuple(slice(c, c + size) for c, size in zip(corner, sizes, strict=True))))
    return found
