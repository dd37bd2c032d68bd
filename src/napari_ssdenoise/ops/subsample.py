"""Make smaller images out of one noisy image, whose noise is independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor


def diagonal_pair(image: Tensor) -> tuple[Tensor, Tensor]:
    """Average the two diagonals of every 2 x 2 cell along Y and X.

    Both halves lie on the cell's centre, so neither is shifted against the other, and each has half the noise
    variance. Other axes stay as they are: planes of a stack are often further apart than its pixels, and halving
    depth as well was 1 dB worse on two stacks.

    Parameters
    ----------
    image : (B, C, [Z,] Y, X)
        A last odd row or column is left out.

    Returns
    -------
    first, second : (B, C, [Z,] Y/2, X/2)

    Notes
    -----
    Their noise is independent if that of diagonal neighbours is (Mansour and Heckel, CVPR 2023, sec. 3).
    """
    rows, columns = (n // 2 * 2 for n in image.shape[-2:])
    image = image[..., :rows, :columns]
    first = image[..., ::2, ::2] + image[..., 1::2, 1::2]
    second = image[..., ::2, 1::2] + image[..., 1::2, ::2]
    return first / 2, second / 2


def neighbour_choice(cells: Sequence[int], rng: Generator) -> tuple[Tensor, Tensor]:
    """Choose, in each cell of 2 x 2 pixels, two that share a side, in either order.

    Parameters
    ----------
    cells : (B, [Z,] Y/2, X/2)
        How many there are.

    Returns
    -------
    first, second : (B, 1, [Z,] Y/2, X/2)
        Places in the cell: 0 and 1 in its first row, 2 and 3 in the second. Each of the eight pairs is as likely.
    """
    import torch

    first = torch.randint(4, tuple(cells), generator=rng)
    along = torch.randint(2, tuple(cells), generator=rng) + 1  # the neighbour in the row, or in the column
    return first[:, None], (first ^ along)[:, None]


def pick(image: Tensor, place: Tensor) -> Tensor:
    """Take one pixel of every 2 x 2 cell along Y and X.

    Parameters
    ----------
    image : (B, C, [Z,] Y, X)
        Of even size along Y and X.
    place : (B, 1, [Z,] Y/2, X/2)
        From `neighbour_choice`.

    Returns
    -------
    (B, C, [Z,] Y/2, X/2)
    """
    import torch

    corners = torch.stack([image[..., y::2, x::2] for y in (0, 1) for x in (0, 1)])
    index = place.to(image.device).expand(corners.shape[1:])[None]
    return corners.gather(0, index)[0]
