"""Choose a few parts of the images that no training patch touches, to judge the network by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.engine.scenes import Scene

SHARE = 0.02  # of all voxels, at most
SPARED = 15 / 256  # of the pixels, where pixels are spared one by one
MOST = 8
_TRIES = 100

Corner = tuple[int, ...]


def is_learnt(scene: int, corner: Sequence[int], shape: Sequence[int]) -> NDArray[np.float32]:
    """Return 0 for the pixels of a patch that are spared, else 1: by their place in the scene, and as if at random.

    Parameters
    ----------
    corner
        Where in the scene the patch begins.
    shape
        Of the patch.
    """
    number = np.full((1,) * len(shape), scene + 1, np.uint32)
    for d, (start, n) in enumerate(zip(corner, shape, strict=True)):
        place = np.arange(start, start + n, dtype=np.uint32).reshape(-1, *(1,) * (len(shape) - 1 - d))
        number = (number ^ place) * np.uint32(0x9E3779B1)
        number ^= number >> np.uint32(15)
    return ((number >> np.uint32(8)) % np.uint32(256) >= np.uint32(256 * SPARED)).astype(np.float32)


@dataclass(frozen=True)
class HeldOut:
    """Regions of the size of a patch, and which patches touch them.

    Attributes
    ----------
    patch
        Size of the regions, and of the patches that must not touch them.
    places
        Scene number and lowest corner of each region.
    barred
        Lowest corners of the regions that patches of a scene must not touch: those of the scene, and those of other
        scenes that share an image with it, as overlapping pairs of frames do.
    """

    patch: tuple[int, ...]
    places: list[tuple[int, Corner]] = field(default_factory=list)
    barred: dict[int, list[Corner]] = field(default_factory=dict)

    @classmethod
    def choose(cls, scenes: Sequence[Scene], patch: Sequence[int], seed: int) -> HeldOut:
        """Spread regions over the scenes; none where the images are too small to miss a patch."""
        held = cls(tuple(patch))
        wanted = min(MOST, int(SHARE * sum(s.voxels for s in scenes) / np.prod(patch)))
        if not wanted:
            return held
        rng = np.random.default_rng([seed, 4])
        order = rng.permutation(len(scenes))
        shown = _shown_in(scenes)
        for attempt in range(_TRIES):
            number = int(order[attempt % len(order)])
            shape = scenes[number].shape
            corner = tuple(int(rng.integers(n - p + 1)) for n, p in zip(shape, patch, strict=True))
            sharing = {
                (other, tuple(c + own - its for c, own, its in zip(corner, view.corner, place, strict=True)))
                for view in scenes[number].views
                for other, place in shown[id(view.volume), view.index]
            }
            held._hold(number, corner, sharing, scenes)
            if len(held.places) == wanted:
                break
        return held

    def _hold(self, number: int, corner: Corner, sharing: set[tuple[int, Corner]], scenes: Sequence[Scene]) -> None:
        """Hold a region out, if each scene that it lies in (where, is said for each) has room left for a patch."""
        if any(self.touches(other, place) for other, place in sharing):
            return
        for other, place in sharing:
            self.barred.setdefault(other, []).append(place)
        if all(self.leaves_room(other, [(0, n) for n in scenes[other].shape]) for other, _ in sharing):
            self.places.append((number, corner))
            return
        for other, place in sharing:
            self.barred[other].remove(place)

    def touches(self, scene: int, corner: Corner) -> bool:
        """Tell whether a patch at a corner overlaps a region."""
        return any(
            all(abs(a - b) < p for a, b, p in zip(corner, other, self.patch, strict=True))
            for other in self.barred.get(scene, ())
        )

    def leaves_room(self, scene: int, block: Sequence[tuple[int, int]]) -> bool:
        """Tell whether a patch can lie in one of the corners of a block, (start, stop) per axis."""
        return not self.barred.get(scene) or self._free_corner(scene, block) is not None

    def draw(self, scene: int, block: Sequence[tuple[int, int]], rng: np.random.Generator) -> Corner:
        """Draw the lowest corner of a patch in a block that leaves room for one."""
        for _ in range(_TRIES):
            corner = tuple(
                start + int(rng.integers(stop - start - p + 1))
                for (start, stop), p in zip(block, self.patch, strict=True)
            )
            if not self.touches(scene, corner):
                return corner
        free = self._free_corner(scene, block)
        if free is None:
            raise RuntimeError(f"block {tuple(block)} of scene {scene} has no room for a patch.")
        return free

    def _free_corner(self, scene: int, block: Sequence[tuple[int, int]]) -> Corner | None:
        ends = [(start, stop - p) for (start, stop), p in zip(block, self.patch, strict=True)]
        return next((corner for corner in product(*ends) if not self.touches(scene, corner)), None)


def _shown_in(scenes: Sequence[Scene]) -> dict[tuple[int, tuple[int, ...]], list[tuple[int, Corner]]]:
    """List the scenes that each image is a view of, and where in the image that view begins."""
    shown: dict[tuple[int, tuple[int, ...]], list[tuple[int, Corner]]] = {}
    for number, scene in enumerate(scenes):
        for view in scene.views:
            shown.setdefault((id(view.volume), view.index), []).append((number, view.corner))
    return shown
