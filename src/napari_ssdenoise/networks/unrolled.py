"""A network for MRI that alternates between improving an image and making it fit the measured k-space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from napari_ssdenoise.ops.kspace import conjugate_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from napari_ssdenoise.ops.kspace import Sense

# Weight of the last image against the data.
FINAL = 0.1


class Unrolled(nn.Module):
    """Some rounds of a shared U-Net and data consistency (MoDL: Aggarwal et al., 2019).

    Parameters
    ----------
    sets
        Complex images it works on at once, one per set of coil maps.
    width
        Filters of the U-Net's first level; doubled at every level below.
    depth
        How many times the U-Net halves the image.
    rounds
        How often both follow one another.
    weight
        Of the U-Net's image against the data, at first; the noisier the data, the larger.

    Notes
    -----
    Without normalisation layers, as the data are normalised and one image is a batch. The last layer begins at 0, so
    that the untrained network returns the image that fits the data and is nearest to the first one.
    """

    def __init__(self, sets: int = 1, *, width: int = 16, depth: int = 3, rounds: int = 3, weight: float = 0.5) -> None:
        super().__init__()
        self.settings = {"sets": sets, "width": width, "depth": depth, "rounds": rounds, "weight": weight}
        self.rounds, self.depth = rounds, depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(_block(i, o) for i, o in zip([4 * sets, *widths[:-1]], widths, strict=True))
        self.decoder = nn.ModuleList(_block(3 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2 * sets, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        # The weight of the network's image against the data, as its logarithm.
        self.log_weight = nn.Parameter(torch.tensor(math.log(weight)))

    def forward(self, start: Tensor, operator: Sense, data: Tensor, cg_steps: int = 6) -> Tensor:
        """Reconstruct.

        Parameters
        ----------
        start : (sets, Y, X) complex
            The first image.
        operator, data
            What was measured.
        cg_steps
            Iterations of each data consistency.
        """
        right = operator.adjoint(data)
        weight = self.log_weight.exp()
        image = start
        for _ in range(self.rounds):
            # Where the data disagree with the image is shown to the network beside the image.
            slope = right - operator.normal(image)
            improved = image + self._improve(torch.cat([image, slope]))
            image = _Consistent.apply(improved, weight, operator, right, cg_steps)  # type: ignore[no-untyped-call]
        # Losses are of lines that are not given, so that nothing but this keeps the given ones as they were measured.
        final = torch.full_like(weight, FINAL)
        found: Tensor = _Consistent.apply(image, final, operator, right, 2 * cg_steps)  # type: ignore[no-untyped-call]
        return found

    def _improve(self, images: Tensor) -> Tensor:
        """Return what the U-Net adds to the images (sets, Y, X), of which twice as many come in."""
        x = torch.view_as_real(images).permute(0, 3, 1, 2).flatten(0, 1)[None]
        rows, columns = x.shape[-2:]
        stride = 2**self.depth
        x = F.pad(x, (0, -columns % stride, 0, -rows % stride), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        out = self.head(x.float())[0, :, :rows, :columns]
        return torch.view_as_complex(out.unflatten(0, (-1, 2)).permute(0, 2, 3, 1).contiguous())


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


class _Consistent(torch.autograd.Function):
    """The image that minimises the misfit to the data plus ``weight`` times the squared distance to another image.

    Its derivative is the solution of the same equations with another right side, so that no iteration has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, operator: Sense, right: Tensor, steps: int) -> Tensor:
        w = weight.detach()
        found = conjugate_gradients(
            lambda x: operator.normal(x) + w * x, right + w * image.detach(), image.detach(), steps=steps
        )
        ctx.save_for_backward(image, weight, found)
        ctx.operator, ctx.steps = operator, steps
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, found = ctx.saved_tensors
        operator, g = ctx.operator, gradients[0]
        w = weight.detach()
        # Begin at 0, where the gradient of the data's null space is found at once.
        solved = conjugate_gradients(lambda x: operator.normal(x) + w * x, g, torch.zeros_like(g), steps=ctx.steps)
        away = image - found
        by_weight = (solved.real * away.real + solved.imag * away.imag).sum()
        return w * solved, by_weight, None, None, None
