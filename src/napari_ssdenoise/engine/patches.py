"""Draw training patches from volumes of any size.

Every draw depends on the seed and the step alone, never on what was drawn before: that makes a resumed training equal
to an uninterrupted one, and reading ahead in a thread safe.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ssdenoise.engine.held_out import HeldOut, is_learnt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.algorithms import Conditions
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
        With the algorithm's conditions, if it has some, as further channels.
    target : (B, C, *spatial)
        The same tensor as ``noisy`` where there is no second view.
    learnt : (B, *spatial), optional
        0 where a pixel is spared: nothing may be learnt from it, so that it can tell later how well the network does.
    progress
        Share of the training that is done, for losses that change on the way.
    """

    noisy: Tensor
    target: Tensor
    learnt: Tensor | None = None
    progress: float = 1.0

    def part(self, pixels: int) -> Batch:
        """Return at most so many pixels: the first patches, or the first part of one."""
        count, *patch = len(self.noisy), *self.noisy.shape[2:]
        while prod(patch) > max(1, pixels):
            longest = patch.index(max(patch))
            patch[longest] = (patch[longest] + 1) // 2
        count = max(1, min(count, pixels // prod(patch)))
        inner: tuple[Any, ...] = (slice(count), ..., *map(slice, patch))
        learnt = None if self.learnt is None else self.learnt[inner]
        return Batch(self.noisy[inner], self.target[inner], learnt, self.progress)


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
    conditions
        For each scene, what the network is told about its noise.
    spares
        Whether some pixels are spared; see `Batch`.
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
        conditions: Sequence[Conditions] = (),
        spares: bool = False,
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
        self._conditions = list(conditions) or [()] * len(self.scenes)
        self._spares = spares
        self._held = HeldOut.choose(self.scenes, self.patch, seed)
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
        patches = np.stack([self._crop(slots[c], rng) for c in chosen])
        learnt = torch.from_numpy(patches[:, 0, -1]) if self._spares else None
        return self._batch(patches[:, :, :-1] if self._spares else patches, [slots[c].scene for c in chosen], learnt)

    @property
    def held_out_patches(self) -> int:
        """How many patches `held_out` returns."""
        return len(self._held.places)

    def held_out(self) -> Batch | None:
        """Read the patches that no training patch overlaps; None where the images are too small to miss any."""
        if not self._held.places:
            return None
        spans = [[(c, c + p) for c, p in zip(corner, self.patch, strict=True)] for _, corner in self._held.places]
        scenes = [scene for scene, _ in self._held.places]
        blocks = [_Block(scene, tuple(span)) for scene, span in zip(scenes, spans, strict=True)]
        return self._batch(np.stack([self._read(block) for block in blocks]), scenes)

    def close(self) -> None:
        """Stop reading ahead and forget the blocks."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._blocks = {}

    def _batch(self, patches: NDArray[np.float32], scenes: Sequence[int], learnt: Tensor | None = None) -> Batch:
        """Make a batch of ``(B, views, C, *spatial)`` patches of these scenes."""
        views = torch.from_numpy(patches)
        told = [condition_of(self._conditions[s], self.scenes[s].views[0].channel) for s in scenes]
        return Batch(with_conditions(views[:, 0], told), views[:, -1], learnt)

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
        block = self._random_block(rng)
        while not self._held.leaves_room(block.scene, block.region):
            block = self._random_block(rng)
        return block

    def _random_block(self, rng: np.random.Generator) -> _Block:
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

    def _crop(self, block: _Block, rng: np.random.Generator) -> NDArray[np.float32]:
        corner = self._held.draw(block.scene, block.region, rng)
        inside = tuple(slice(c - s, c - s + p) for c, (s, _), p in zip(corner, block.region, self.patch, strict=True))
        patch = self._blocks[block].result()[(slice(None), slice(None), *inside)]
        patch = self.scenes[block.scene].varied(patch, rng)
        if self._spares:
            learnt = np.broadcast_to(is_learnt(block.scene, corner, self.patch), (len(patch), 1, *self.patch))
            patch = np.concatenate([patch, learnt], 1)
        flipped = tuple(2 + d for d in self._flips if rng.random() < 0.5)
        patch = np.flip(patch, flipped)
        if self._exchange and rng.random() < 0.5:
            patch = np.swapaxes(patch, 2 + self._exchange[0], 2 + self._exchange[1])
        return patch


def condition_of(conditions: Conditions, channel: int) -> tuple[float, ...]:
    """Return what is told about a channel; a single entry serves any."""
    return conditions[channel if len(conditions) > 1 else 0] if conditions else ()


def with_conditions(images: Tensor, told: Sequence[tuple[float, ...]]) -> Tensor:
    """Append, to a batch of images, constant channels that tell each image's conditions."""
    if not told[0]:
        return images
    planes = torch.tensor(told, dtype=images.dtype).reshape(len(images), -1, *(1,) * (images.ndim - 2))
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], 1)


def choose_patch(
    spatial: str, shapes: Sequence[tuple[int, ...]], stride: Sequence[int], side: int = 64
) -> tuple[int, ...]:
    """Choose a patch that fits every image: ``side`` pixels along Y and X (16 in depth), on the network's grid.

    Raises
    ------
    ValueError
        If an image is too thin for the network.
    """
    thinnest = [min(shape[d] for shape in shapes) for d in range(len(spatial))]
    patch = []
    for axis, limit, grid in zip(spatial, thinnest, stride, strict=True):
        wanted = side if axis in "YX" else 16
        fitting = min(max(wanted, grid, 4), limit) // grid * grid
        if fitting < max(grid, 4):
            raise ValueError(
                f"the image has only {limit} pixels along {axis}, too few to learn from. Choose a larger image, "
                "other axes, or 2D training (spatial='YX') for a thin stack."
            )
        patch.append(fitting)
    return tuple(patch)


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
