"""Small pictures that are kept with a model: a part of an image before and after."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.model import TrainedModel

SIDE = 96  # pixels of the image, and of each half of the picture
CONTEXT = 8  # a picture this small needs no more of the surroundings


def thumbnail(model: TrainedModel, sample: Any) -> bytes:
    """Return a PNG: the middle of an image's middle plane, noisy beside denoised.

    Raises
    ------
    ValueError
        If the image does not fit the model.
    """
    volume, layout = model.fit(sample)
    region = []
    for axis, n in volume.sizes.items():
        size = min(n, SIDE) if axis in "YX" else n if axis == layout.channel else 1
        first = (n - size) // 2
        region.append(slice(first, first + size))
    noisy = layout.to_network(np.asarray(volume.data[tuple(region)]))
    denoised = layout.to_network(model.predict_part(volume, region, context=CONTEXT))
    planes = [block[0].reshape(block.shape[-2:]).astype(np.float64) for block in (noisy, denoised)]
    return beside(planes[0], planes[1], SIDE)


def beside(noisy: NDArray[Any], denoised: NDArray[Any], side: int) -> bytes:
    """Return a PNG, twice as wide as high, of the squares in the middle of two planes, with equal contrast."""
    from PIL import Image

    shorter = min(noisy.shape)
    low, high = np.percentile(noisy, (0.5, 99.5))
    squares = []
    for plane in (noisy, denoised):
        y, x = ((n - shorter) // 2 for n in plane.shape)
        grey = np.clip((plane[y : y + shorter, x : x + shorter] - low) / max(high - low, 1e-12), 0, 1)
        square = Image.fromarray((255 * grey).round().astype(np.uint8))
        squares.append(np.asarray(square.resize((side, side), Image.Resampling.NEAREST)))
    file = BytesIO()
    Image.fromarray(np.hstack(squares)).save(file, "png")
    return file.getvalue()
