"""Noise2Noise (Lehtinen et al. 2018): learn from two noisy views of one scene."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from napari_ssdenoise.algorithms._base import Network, UNetAlgorithm
from napari_ssdenoise.complex_parts import AXIS, is_parts
from napari_ssdenoise.engine.scenes import Scene, View
from napari_ssdenoise.ops.brightness import Brightness
from napari_ssdenoise.ops.registration import middle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.ops.registration import Shift
    from napari_ssdenoise.volume import Volume

PAIRS = 12  # looked at, to see whether frames move
# Views exchange pixels if their difference goes along with that of neighbouring pixels by less than this.
WHITE = 0.15
PLANES = 4  # of stacks that are looked at for that


@dataclass(frozen=True, kw_only=True)
class Noise2Noise(UNetAlgorithm):
    """Learn to predict one noisy view of a scene from another one.

    Assumes that both views show the same scene, registered to the pixel, with noise of zero mean that is independent
    between the views. The views are a second image (``target``), two channels, or neighbouring frames.
    """

    key: ClassVar[str] = "n2n"
    title: ClassVar[str] = "Noise2Noise"
    reference: ClassVar[str] = "Lehtinen et al.: Noise2Noise. ICML 2018."
    doi: ClassVar[str] = "10.48550/arXiv.1803.04189"

    pairs: Annotated[
        Literal["target", "frames", "channels"],
        {"label": "Pairs"},
        "Where the second view is: in a target image, in the neighbouring frames, or in the second channel.",
    ] = "target"
    frame_distance: Annotated[
        int,
        {"min": 1, "max": 1000, "step": 1, "label": "Frame distance"},
        "How many frames apart two views may be, when pairs are frames; large only if nothing moves.",
    ] = 1
    register: Annotated[
        bool,
        {"label": "Align frames"},
        "Move frames onto each other, by whole pixels, before they are paired: for specimens or stages that drift.",
    ] = False
    exchange: Annotated[
        bool,
        {"label": "Exchange pixels", "advanced": True},
        "Let views exchange pixels at random, where that changes nothing but the noise: views that do not move, with "
        "noise of every pixel's own. No noise is seen twice then, and less of it learnt by heart.",
    ] = True
    loss_function: Annotated[
        Literal["l2", "l1"],
        {"label": "Loss", "advanced": True},
        "l2 estimates the mean of the noisy values; l1 their median, for outliers.",
    ] = "l2"

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the error against the other view, which of the two is the input being drawn at random."""
        import torch

        swap = torch.rand((len(batch.noisy),) + (1,) * (batch.noisy.ndim - 1), generator=rng) < 0.5
        swap = swap.to(batch.noisy.device)
        noisy = torch.where(swap, batch.target, batch.noisy)
        target = torch.where(swap, batch.noisy, batch.target)
        error = network(noisy).float() - target
        return error.square().mean() if self.loss_function == "l2" else error.abs().mean()

    def scenes(self, volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
        """Pair the views.

        Raises
        ------
        ValueError
            If the volumes hold no such pairs: no or misshapen target, no time axis, not two channels.
        """
        if self.pairs != "target" and targets:
            raise ValueError(f"pairs={self.pairs!r} finds both views in one image; leave the target out.")
        if self.pairs == "target":
            if len(targets) != len(volumes):
                raise ValueError(
                    f"Noise2Noise needs a second noisy image of the same scene for each of the {len(volumes)} images, "
                    f"but got {len(targets)}. Give target=, or set pairs to 'frames' or 'channels'."
                )
            found = [scene.views for scene in with_targets(volumes, layouts, targets)]
        else:
            find = {"frames": self._frames, "channels": self._channels}[self.pairs]
            images = zip(volumes, layouts, strict=True)
            found = [tuple(views) for volume, layout in images for views in find(volume, layout)]
        return [Pair(views, exchange=self.exchange) for views in found]

    def remarks(self, scenes: Sequence[Scene]) -> tuple[str, ...]:
        """Say how far frames move from one to the next, as far as a few pairs tell; nothing without scikit-image."""
        if self.pairs != "frames" or not find_spec("skimage"):
            return ()
        chosen = scenes[:: max(1, len(scenes) // PAIRS)][:PAIRS]
        shifts = [_shift(*scene.views) for scene in chosen]
        moves = sorted(shift.length for shift in shifts)
        median, most = moves[len(moves) // 2], moves[-1]
        left = "after aligning, " if self.register else ""
        text = f"{left}paired frames move by {median:.1f} pixels (median of {len(moves)} pairs), at most {most:.1f}"
        if most < 0.5 or self.register:
            return (f"{text}.",)
        return (f"{text}: what moves gets blurred. Set register to align them, or reduce frame_distance.",)

    def _frames(self, volume: Volume, layout: Layout) -> Iterator[list[View]]:
        frames = volume.sizes.get("T", 1)
        if frames < 2 or "T" not in layout.batch:
            raise ValueError(
                f"pairs='frames' needs a time axis T of 2 frames or more; {volume.name!r} has {volume.axes}."
            )
        at = layout.batch.index("T")
        for index in layout.indices(volume.shape):
            for distance in range(1, min(self.frame_distance, frames - 1 - index[at]) + 1):
                later = (*index[:at], index[at] + distance, *index[at + 1 :])
                pair = View(volume, layout, index), View(volume, layout, later)
                yield list(_aligned(*pair)) if self.register else list(pair)

    def _channels(self, volume: Volume, layout: Layout) -> Iterator[list[View]]:
        if volume.sizes.get("C") != 2 or "C" not in layout.batch:
            raise ValueError(
                f"pairs='channels' needs an axis C with 2 independent channels; {volume.name!r} has "
                f"{volume.axes} {volume.shape}."
            )
        at = layout.batch.index("C")
        for index in layout.indices(volume.shape):
            if index[at] == 0:
                yield [View(volume, layout, index), View(volume, layout, (*index[:at], 1, *index[at + 1 :]))]


@dataclass(frozen=True, eq=False)
class Pair(Scene):
    """Two views of the same thing, with noise of their own.

    Attributes
    ----------
    exchange
        Whether they may exchange pixels.
    """

    exchange: bool = False
    _known: dict[str, Brightness | None] = field(default_factory=dict, init=False, repr=False)

    def read(self, region: Sequence[slice], normalization: Normalization) -> NDArray[np.float32]:
        """Return both views of a region; the phase of the second, if they are complex, is that of the first."""
        if self.exchange and not self._known:
            first, second = self._read(middle(self.shape, PLANES), normalization)
            line = Brightness.between(first, second)
            self._known["line"] = line if _shared(first - line.apply(second)) < WHITE else None
        return self._read(region, normalization)

    def _read(self, region: Sequence[slice], normalization: Normalization) -> NDArray[np.float32]:
        views = super().read(region, normalization)
        if not is_parts(self.views[0].volume):
            return views
        from napari_ssdenoise.ops.phases import matched

        if len(views[0]) == 2:
            both, part = views, slice(None)
        else:
            at = self.views[0].layout.batch.index(AXIS)
            whole = [[replace(v, index=(*v.index[:at], n, *v.index[at + 1 :])) for n in (0, 1)] for v in self.views]
            both = np.concatenate(
                [Scene(tuple(parts)).read(region, normalization) for parts in zip(*whole, strict=True)], 1
            )
            part = slice(self.views[0].index[at], self.views[0].index[at] + 1)
        views[1] = matched(*both)[part]
        return views

    def varied(self, patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a patch of both views, of which half of the pixels, drawn at random, are exchanged.

        Each takes on the brightness of the view that it comes to, so that one view still tells about the other what it
        told before; only the noise is another. From two views of n pixels come 2^n.
        """
        line = self._known.get("line")
        if line is None:
            return patch
        first, second = patch
        chosen = rng.random(first.shape[1:], np.float32) < 0.5
        return np.stack([np.where(chosen, line.apply(second), first), np.where(chosen, line.undo(first), second)])


def _shared(difference: NDArray[np.float32]) -> float:
    """Return how much a difference of views goes along with that of neighbours: 0 for white noise and a still scene."""
    difference = difference - difference.mean()
    size = float(np.square(difference).mean())
    along = (np.diff(difference, axis=axis) for axis in (-2, -1))
    # Of white noise, neighbours differ by twice the variance.
    return max(abs(1 - float(np.square(d).mean()) / (2 * size)) for d in along) if size else 0.0


def _aligned(first: View, second: View) -> tuple[View, View]:
    """Cut two views of a scene to what both show, moved onto each other by whole pixels.

    Raises
    ------
    ValueError
        If they have little in common, or scikit-image is missing.
    """
    shift = _shift(first, second).whole
    extent = tuple(n - abs(s) for n, s in zip(first.shape, shift, strict=True))
    if any(4 * e < 3 * n for e, n in zip(extent, first.shape, strict=True)):
        raise ValueError(
            f"frames {first.index} and {second.index} of {first.volume.name!r} seem to be {shift} pixels apart, more "
            "than a quarter of the image. Leave register out, or cut the series where the scene changes."
        )
    corners = [tuple(max(0, sign * s) for s in shift) for sign in (-1, 1)]
    return replace(first, origin=corners[0], extent=extent), replace(second, origin=corners[1], extent=extent)


def _shift(first: View, second: View) -> Shift:
    from napari_ssdenoise.ops.registration import find_shift

    region = middle(first.shape)
    try:
        return find_shift(first.read(region).mean(0), second.read(region).mean(0))
    except ImportError as error:
        raise ValueError(
            "to find out how frames move, scikit-image is needed: pip install scikit-image, or leave register out."
        ) from error


def with_targets(volumes: Sequence[Volume], layouts: Sequence[Layout], targets: Sequence[Volume]) -> list[Scene]:
    """Pair every image with that of a target at the same place.

    Raises
    ------
    ValueError
        If a target differs in axes or shape.
    """
    for volume, target in zip(volumes, targets, strict=True):
        if (target.axes, target.shape) != (volume.axes, volume.shape):
            raise ValueError(
                f"the target {target.name!r} ({target.axes} {target.shape}) and {volume.name!r} ({volume.axes} "
                f"{volume.shape}) differ. Both must show the same scene, pixel by pixel."
            )
    return [
        Scene((View(volume, layout, index), View(target, layout, index)))
        for volume, target, layout in zip(volumes, targets, layouts, strict=True)
        for index in layout.indices(volume.shape)
    ]
