"""Hide pixels from a network, so that it must predict them from their neighbours (Noise2Void).

All functions take images ``(B, C, *spatial)`` in 2D or 3D and draw from an explicit generator, on the CPU: masked
pixels are few, and the same seed then gives the same masks on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

    from napari_ssdenoise.ops.struct_mask import Offsets

Replacement = Literal["uniform", "median"]


@dataclass(frozen=True)
class MaskedImage:
    """An image with hidden pixels, and where they are.

    Attributes
    ----------
    noisy : (B, C, *spatial)
        The image with the chosen pixels replaced.
    batch, pixel : (M,)
        For every masked pixel, its image and its flat spatial index.
    """

    noisy: Tensor
    batch: Tensor
    pixel: Tensor

    def at(self, image: Tensor) -> Tensor:
        """Return an image's values at the masked pixels, (M, C)."""
        return image.flatten(2)[self.batch, :, self.pixel]


def stratified_pixels(
    batch: int, spatial: Sequence[int], masked_percent: float, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Choose one random pixel in every box of side ``(100 / masked_percent) ** (1 / d)``.

    Boxes that stick out of the image keep their pixel only if it lies inside, so that every pixel is masked with
    the same probability, ``masked_percent / 100``, in any number of dimensions d.

    Parameters
    ----------
    batch
        Number of images; each gets its own pixels.
    spatial
        Size of the images.
    masked_percent
        Share of the pixels to mask.
    rng
        Source of randomness.

    Returns
    -------
    image : (M,)
        Index of the image in the batch.
    coordinates : (M, d)
        Pixel coordinates.
    """
    side = (100 / masked_percent) ** (1 / len(spatial))
    corners = torch.cartesian_prod(*(torch.arange(ceil(n / side)) for n in spatial)).reshape(-1, len(spatial))
    positions = (corners + torch.rand((batch, *corners.shape), generator=rng)) * side
    coordinates = positions.floor().long()
    inside = (coordinates < torch.tensor(spatial)).all(-1)
    if not inside.any():  # a patch smaller than a box: still learn from one pixel
        coordinates[:, :1] = torch.stack([torch.randint(n, (batch, 1), generator=rng) for n in spatial], -1)
        inside[:, 0] = True
    image = torch.arange(batch)[:, None].expand_as(inside)[inside]
    return image, coordinates[inside]


def uniform_neighbours(coordinates: Tensor, spatial: Sequence[int], radius: int, rng: Generator) -> Tensor:
    """Draw, for every pixel, another one uniformly from the window around it.

    The window is ``(2 radius + 1) ** d`` wide, cropped at the image border, without its centre. The centre alone is
    left out: a pixel's own row and column stay in.

    Parameters
    ----------
    coordinates : (M, d)
        Pixels.
    spatial
        Size of the image.
    radius
        Half-width of the window.
    rng
        Source of randomness.

    Returns
    -------
    (M, d)
        Coordinates of the drawn pixels.
    """
    size = torch.tensor(spatial)
    low = (coordinates - radius).clamp_min(0)
    width = torch.minimum(coordinates + radius + 1, size) - low
    centre = torch.zeros(len(coordinates), dtype=torch.long)
    for d in range(len(spatial)):
        centre = centre * width[:, d] + (coordinates - low)[:, d]
    # Number the window's pixels without the centre, draw one, and step over the centre.
    others = width.prod(-1) - 1
    drawn = (torch.rand(len(coordinates), generator=rng, dtype=torch.float64) * others).long().clamp_max(others - 1)
    drawn += drawn >= centre
    offsets = []
    for d in reversed(range(len(spatial))):
        offsets.append(drawn % width[:, d])
        drawn = drawn // width[:, d]
    return low + torch.stack(offsets[::-1], -1)


def window_medians(noisy: Tensor, image: Tensor, coordinates: Tensor, radius: int) -> Tensor:
    """Return the median, (M, C), of the window around every pixel, centre and outside left out (N2V2)."""
    spatial = torch.tensor(noisy.shape[2:])
    offsets = torch.tensor([o for o in product(range(-radius, radius + 1), repeat=len(spatial)) if any(o)])
    neighbours = coordinates[:, None] + offsets
    outside = ((neighbours < 0) | (neighbours >= spatial)).any(-1)
    neighbours = torch.minimum(neighbours.clamp_min(0), spatial - 1)
    pixels = ravel(neighbours, noisy.shape[2:]).to(noisy.device)
    values = noisy.flatten(2)[image.to(noisy.device)[:, None], :, pixels].float()
    values[outside.to(noisy.device)] = torch.nan
    return values.nanmedian(1).values.to(noisy.dtype)


def ravel(coordinates: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return flat indices, (...), of coordinates, (..., d)."""
    strides = torch.tensor([prod(spatial[d + 1 :]) for d in range(len(spatial))])
    return (coordinates * strides).sum(-1)


def hide_neighbours(noisy: Tensor, image: Tensor, coordinates: Tensor, offsets: Offsets, rng: Generator) -> None:
    """Overwrite, in place, the structured neighbours of masked pixels with random values of the image's range."""
    spatial = noisy.shape[2:]
    neighbours = (coordinates[:, None] + torch.tensor(offsets)).flatten(0, 1)
    inside = ((neighbours >= 0) & (neighbours < torch.tensor(spatial))).all(-1)
    image = image[:, None].expand(-1, len(offsets)).flatten()[inside].to(noisy.device)
    pixels = ravel(neighbours[inside], spatial).to(noisy.device)
    flat = noisy.flatten(2)
    low, high = flat.amin(2)[image], flat.amax(2)[image]
    random = torch.rand(low.shape, generator=rng).to(noisy)
    noisy.view(*flat.shape)[image, :, pixels] = low + random * (high - low)


def mask_pixels(
    noisy: Tensor,
    rng: Generator,
    *,
    masked_percent: float,
    radius: int,
    replacement: Replacement = "uniform",
    struct: Offsets = (),
) -> MaskedImage:
    """Hide a stratified random choice of pixels.

    Parameters
    ----------
    noisy : (B, C, *spatial)
        Images; not modified. All channels of a masked pixel are hidden.
    rng
        Source of randomness (CPU).
    masked_percent
        Share of the pixels to hide.
    radius
        Half-width of the window that replacements come from.
    replacement
        ``"uniform"``: the value of a random other pixel of the window; ``"median"``: the window's median.
    struct
        Offsets of neighbours to hide along with each pixel (structN2V, Broaddus et al. 2020).

    Returns
    -------
    MaskedImage
    """
    spatial = noisy.shape[2:]
    image, coordinates = stratified_pixels(len(noisy), spatial, masked_percent, rng)
    batch, pixel = image.to(noisy.device), ravel(coordinates, spatial).to(noisy.device)
    if replacement == "median":
        values = window_medians(noisy, image, coordinates, radius)
    else:
        drawn = ravel(uniform_neighbours(coordinates, spatial, radius, rng), spatial).to(noisy.device)
        values = noisy.flatten(2)[batch, :, drawn]
    hidden = noisy.clone(memory_format=torch.contiguous_format)
    if struct:
        hide_neighbours(hidden, image, coordinates, struct, rng)
    hidden.view(*hidden.shape[:2], -1)[batch, :, pixel] = values
    return MaskedImage(hidden, batch, pixel)
