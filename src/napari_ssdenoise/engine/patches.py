"""Draw training patches from volumes of any size.

Every draw depends on the seed and the step alone, never on what was drawn before: that makes a resumed training equal
to an uninterrupted one, and reading ahead in a thread safe.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.engine.scenes import Scene
    from napari_ssdenoise.normalize import Normalization

# Normalised float32 data up to this size is kept in memory whole; of larger data, a changing pool of blocks is.
RESIDENT_BYTES = 1 << 28
BLOCK_BYTES = 16 << 20
POOL_BLOCKS = 24
BLOCK_LIFE = 384  # steps that a block of the pool serves
READ_AHEAD = 8  # steps


@dataclass(frozen=True)
class Batch:
    """Normalised patches, and the second view of them where there is one.

    Attributes
    ----------
    noisy : (B, C, *spatial)
    target : (B, C, *spatial)
        The same tensor as ``noisy`` where there is no second view.
    """

    noisy: Tensor
    target: Tensor


@dataclass(frozen=True)
class _Block:
    scene: int
    region: tuple[tuple[int, int], ...]  # (start, stop) per spatial axis; slices are not hashable before Python 3.12


class PatchSampler:
    """Random patches of scenes, augmented by flips and by exchanging Y and X.

    Parameters
    ----------
    scenes
        What to draw from, each voxel equally often.
    normalization
        Applied when a block is read.
    patch
        Patch size per spatial axis.
    batch
        Patches per step.
    symmetries
        As `Algorithm.symmetries` gives them.
    seed
        Of all draws.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        normalization: Normalization,
        patch: Sequence[int],
        batch: int,
        symmetries: Sequence[str],
        seed: int,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.scenes = list(scenes)
        self.normalization = normalization
        self.patch = tuple(patch)
        self.batch = batch
        self.seed = seed
        spatial = scenes[0].views[0].layout.spatial
        self._flips = [d for d, axis in enumerate(spatial) if axis in symmetries]
        yx = tuple(spatial.index(a) for a in "YX")
        square = self.patch[yx[0]] == self.patch[yx[1]]
        self._exchange = yx if square and "YX" in symmetries else None
        first = scenes[0].views[0]
        self._voxel_bytes = 4 * first.channels * len(scenes[0].views)
        self.resident = sum(s.voxels for s in scenes) * self._voxel_bytes <= resident_bytes
        self._weights = np.array([s.voxels for s in scenes], float) / sum(s.voxels for s in scenes)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-read")
        self._blocks: dict[_Block, Future[NDArray[np.float32]]] = {}
        self._picked: dict[tuple[int, int], _Block] = {}

    def draw(self, step: int) -> Batch:
        """Return the batch of a step (on the CPU)."""
        rng = np.random.default_rng([self.seed, 1, step])
        slots = self._slots(step)
        wanted = dict.fromkeys(slots + ([] if self.resident else self._slots(step + READ_AHEAD)))
        self._blocks = {b: self._blocks.get(b) or self._reader.submit(self._read, b) for b in wanted}
        if self.resident:
            chosen = rng.choice(len(slots), self.batch, p=self._weights)
        else:
            chosen = rng.integers(len(slots), size=self.batch)
        patches = np.stack([self._crop(self._blocks[slots[c]].result(), rng) for c in chosen])
        views = torch.from_numpy(patches)
        return Batch(views[:, 0], views[:, -1])

    def close(self) -> None:
        """Stop reading ahead and forget the blocks."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._blocks = {}

    def _slots(self, step: int) -> list[_Block]:
        """Return the blocks that a step may draw from."""
        if self.resident:
            return [_Block(i, tuple((0, n) for n in s.shape)) for i, s in enumerate(self.scenes)]
        # The pool grows from two blocks, so that the first step need not wait for all of them.
        stagger = BLOCK_LIFE // POOL_BLOCKS
        size = min(POOL_BLOCKS, 2 + step // 2)
        keys = [(slot, (step + slot * stagger) // BLOCK_LIFE) for slot in range(size)]
        for key in keys:
            if key not in self._picked:
                self._picked[key] = self._pick(*key)
        return [self._picked[key] for key in keys]

    def _pick(self, slot: int, generation: int) -> _Block:
        rng = np.random.default_rng([self.seed, 2, slot, generation])
        number = int(rng.choice(len(self.scenes), p=self._weights))
        view = self.scenes[number].views[0]
        size = block_shape(
            view.shape, view.layout.sizes(view.layout.spatial, view.volume.chunks), self.patch, self._voxel_bytes
        )
        starts = [int(rng.integers(ceil(n / b))) * b for n, b in zip(view.shape, size, strict=True)]
        # The last block of an axis moves back to be whole.
        region = tuple((max(0, min(s, n - b)), min(s + b, n)) for s, n, b in zip(starts, view.shape, size, strict=True))
        return _Block(number, region)

    def _read(self, block: _Block) -> NDArray[np.float32]:
        return self.scenes[block.scene].read([slice(*span) for span in block.region], self.normalization)

    def _crop(self, block: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        corner = [int(rng.integers(n - p + 1)) for n, p in zip(block.shape[2:], self.patch, strict=True)]
        inside = tuple(slice(c, c + p) for c, p in zip(corner, self.patch, strict=True))
        patch = block[(slice(None), slice(None), *inside)]
        flipped = tuple(2 + d for d in self._flips if rng.random() < 0.5)
        patch = np.flip(patch, flipped)
        if self._exchange and rng.random() < 0.5:
            patch = np.swapaxes(patch, 2 + self._exchange[0], 2 + self._exchange[1])
        return patch


def choose_patch(
    spatial: str, shapes: Sequence[tuple[int, ...]], stride: Sequence[int], size: int = 0
) -> tuple[int, ...]:
    """Choose a patch that fits every image: 64 pixels along Y and X (16 in depth), on the network's grid.

    Raises
    ------
    ValueError
        If an image is too thin for the network.
    """
    thinnest = [min(shape[d] for shape in shapes) for d in range(len(spatial))]
    patch = []
    for axis, limit, grid in zip(spatial, thinnest, stride, strict=True):
        wanted = (size or 64) if axis in "YX" else 16
        fitting = min(max(wanted, grid, 4), limit) // grid * grid
        if fitting < max(grid, 4):
            raise ValueError(
                f"the image has only {limit} pixels along {axis}, too few to learn from. Choose a larger image, "
                "other axes, or 2D training (spatial='YX') for a thin stack."
            )
        patch.append(fitting)
    return tuple(patch)


def choose_batch(patch: Sequence[int]) -> int:
    """Choose a batch of about 65,000 pixels in 2D, four patches at least."""
    return max(4, 65536 // int(np.prod(patch)))


def block_shape(
    shape: Sequence[int], chunks: Sequence[int], patch: Sequence[int], voxel_bytes: int, limit: int = BLOCK_BYTES
) -> tuple[int, ...]:
    """Choose blocks of whole chunks, at least twice the patch where the image allows, within about ``limit`` bytes."""
    if all(c >= n for c, n in zip(chunks, shape, strict=True)):
        chunks = [1] * len(shape)  # memory maps and arrays have none: any part can be read
    size = [min(n, ceil(2 * p / c) * c) for n, c, p in zip(shape, chunks, patch, strict=True)]
    while True:
        # Grow the axis that is shortest against its patch, as long as the block stays small.
        open_axes = [d for d in range(len(shape)) if size[d] < shape[d]]
        if not open_axes:
            return tuple(size)
        axis = min(open_axes, key=lambda d: size[d] / patch[d])
        grown = min(shape[axis], size[axis] + ceil(patch[axis] / chunks[axis]) * chunks[axis])
        if int(np.prod(size)) // size[axis] * grown * voxel_bytes > limit:
            return tuple(size)
        size[axis] = grown
