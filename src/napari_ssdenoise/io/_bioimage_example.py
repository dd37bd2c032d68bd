"""The image that an exported model is tested with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.engine.scenes import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ssdenoise.model import TrainedModel


def example(model: TrainedModel, sample: Any, shape: Sequence[int], channels: int) -> NDArray[np.float32]:
    """Return an image (C, *spatial): the middle of the sample, mirrored where that is smaller, else a made-up one.

    Raises
    ------
    ValueError
        If the sample does not fit the model.
    """
    if sample is None:
        return _pattern(model, shape, channels)
    volume, layout = model.fit(sample)
    middle = {axis: volume.sizes[axis] // 2 for axis in layout.batch}
    count = 1 if model.geometry.n_channels > 1 else channels
    found = volume.sizes.get(layout.channel_images, 1)
    if found < count:
        raise ValueError(f"the model knows {count} channels, but the sample {volume.name!r} has {found}.")
    region = []
    for n, size in zip(layout.spatial_shape(volume.shape), shape, strict=True):
        first = max(0, n - size) // 2
        region.append(slice(first, min(n, first + size)))
    blocks = []
    for channel in range(count):
        index = tuple(channel if axis == layout.channel_images and count > 1 else middle[axis] for axis in layout.batch)
        blocks.append(View(volume, layout, index).read(region))
    image = np.concatenate(blocks).astype(np.float32)
    missing = [(0, 0), *((0, size - n) for size, n in zip(shape, image.shape[1:], strict=True))]
    return np.pad(image, missing, mode="symmetric")


def _pattern(model: TrainedModel, shape: Sequence[int], channels: int) -> NDArray[np.float32]:
    """Make waves and noise, half of the training images' variance each."""
    waves = np.zeros(tuple(shape))
    for d, (n, period) in enumerate(zip(shape, (23.0, 17.0, 11.0), strict=False)):
        waves = waves + np.sin(np.arange(n) * 2 * np.pi / period).reshape(
            [-1 if e == d else 1 for e in range(len(shape))]
        )
    noise = np.random.default_rng(0).normal(size=(channels, *shape))
    column = (-1,) + (1,) * len(shape)
    mean, std = (np.reshape(getattr(model.normalization, name), column) for name in ("mean", "std"))
    image = mean + std * np.sqrt(0.5) * (waves / waves.std() + noise)
    low, high = model.normalization.low, model.normalization.high
    return np.asarray(np.clip(image, low, high), np.float32)
