"""Choose a few places of an image to look at, and read and denoise them there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.engine.scenes import require_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.quality._noise import NoiseLine
    from napari_ssdenoise.quality._smooth import Floats
    from napari_ssdenoise.volume import Volume

    Region = tuple[slice, ...]
    Run = Callable[[Any, Region], dict[str, NDArray[Any]]]  # all outputs of the algorithm

# Pixels to look at: an image of 512 x 512 is looked at whole, and so are four repeats of it. In stacks, a network takes
# longer for each, and fewer do.
PIXELS: Final = {2: 1 << 19, 3: 1 << 17}
GLANCED: Final = 1 << 22  # only read
REPEATS: Final = 2  # times as many, if there are several views of each scene
MOST_VIEWS: Final = 4
# Size of a place along Y and X, of planes and of stacks, and along the axis of depth.
_PLANE, _STACK, _DEPTH = 256, 96, 16
_MOST_PLACES: Final = 4096
_BLOCK: Final = 8


@dataclass(frozen=True, eq=False)
class View:
    """A part of a volume, in the order of its axes."""

    volume: Volume
    layout: Layout
    region: Region
    denoised: Volume | None = None

    def read(self) -> Floats:
        """Return ``(channels, *spatial)``."""
        block = self._order(self.volume[self.region])
        require_finite(block, self.volume.name)
        return block.astype(np.float64)

    def result(self, run: Run) -> Floats:
        """Return the result to judge, computed if there is none yet, as ``(channels, *spatial)``."""
        return (
            self.denoise(run) if self.denoised is None else self._order(self.denoised[self.region]).astype(np.float64)
        )

    def denoise(self, run: Run, change: Floats | None = None) -> Floats:
        """Return what ``run`` makes of it, or of it with something added, as ``(channels, *spatial)``."""
        return self.outputs(run, change)["mean"]

    def outputs(self, run: Run, change: Floats | None = None) -> dict[str, Floats]:
        """Return the same for all of the algorithm's outputs."""
        source = self.volume if change is None else self._changed(change)
        return {name: self._order(image).astype(np.float64) for name, image in run(source, self.region).items()}

    def _order(self, block: NDArray[Any]) -> NDArray[Any]:
        return self.layout.to_network(np.asarray(block))

    def _changed(self, change: Floats) -> Volume:
        added = np.broadcast_to(self.layout.from_network(change), [s.stop - s.start for s in self.region])
        return replace(self.volume, data=_Changed(self.volume, self.region, added), source=None)


class _Changed:
    """A volume's data with something added in one region; only what is asked for is read."""

    def __init__(self, volume: Volume, region: Region, added: Floats) -> None:
        self._volume = volume
        self._region = region
        self._added = added
        self.shape = volume.shape
        self.dtype = np.result_type(volume.dtype, np.float32)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        block = self._volume[key].astype(self.dtype)
        here, there = [], []
        for asked, mine, length in zip(key, self._region, self.shape, strict=True):
            start, stop, _ = asked.indices(length)
            low, high = max(start, mine.start), min(stop, mine.stop)
            if low >= high:
                return block
            here.append(slice(low - start, high - start))
            there.append(slice(low - mine.start, high - mine.start))
        block[tuple(here)] += self._added[tuple(there)]
        return block


@dataclass(eq=False)
class Place:
    """One place, in one view or several of the same scene, and all that is known about it.

    Attributes
    ----------
    views
        The first one is judged.
    channel
        Index of its first channel.
    noisy, denoised : each (channels, *spatial)
        By view; of some views perhaps not read.
    level
        Of the noise, if it could be measured.
    nudge, response : (channels, *spatial)
        Noise that was added to the first view, and the change of its result per unit of that noise.
    doubt : (channels, *spatial)
        Root mean square error of the first view's result as the model foretells it, if it does.
    """

    views: tuple[View, ...]
    channel: int
    noisy: list[Floats] = field(default_factory=list)
    denoised: list[Floats] = field(default_factory=list)
    level: NoiseLine | None = None
    nudge: Floats | None = None
    response: Floats | None = None
    doubt: Floats | None = None

    @cached_property
    def weights(self) -> Floats:
        """1 for the pixels that count, 0 in blocks of one constant value, such as margins and saturated spots."""
        return np.asarray(np.minimum.reduce([_varied(noisy) for noisy in self.noisy]))


def _varied(noisy: Floats) -> Floats:
    """Leave out blocks of one single value."""
    weights = np.ones(noisy.shape)
    rows, columns = (n // _BLOCK for n in noisy.shape[-2:])
    inside = (..., slice(rows * _BLOCK), slice(columns * _BLOCK))
    blocks = noisy[inside].reshape(*noisy.shape[:-2], rows, _BLOCK, columns, _BLOCK)
    varied = np.ptp(blocks, (-3, -1)) > 0
    weights[inside] = np.repeat(np.repeat(varied, _BLOCK, -2), _BLOCK, -1)
    return weights


@dataclass(frozen=True)
class Plan:
    """Places, and which share of the volumes they cover.

    Attributes
    ----------
    places
        To look at closely.
    further
        To see the range of intensities by.
    coverage
        Share of the volumes that the places are.
    """

    places: list[Place]
    further: list[Place]
    coverage: float


def choose_places(subjects: Sequence[Subject], seed: int) -> Plan:
    """Spread places over volumes at random; small volumes are looked at whole."""
    cells = [Cells(subject) for subject in subjects]
    bounds = np.cumsum([0, *(c.count for c in cells)])
    total = int(bounds[-1])
    budget = PIXELS[len(subjects[0].layout.spatial)]
    budget *= REPEATS if any(s.series or s.others for s in subjects) else 1
    chosen = np.random.default_rng([seed, 5]).choice(total, min(total, _MOST_PLACES), replace=False)
    places: list[Place] = []
    further: list[Place] = []
    pixels = covered = glanced = 0
    for number in chosen:
        subject = int(np.searchsorted(bounds, number, side="right")) - 1
        place = cells[subject].place(int(number - bounds[subject]))
        size = prod(s.stop - s.start for s in cells[subject].spatial_region(int(number - bounds[subject])))
        # One place at least, and none by halves.
        if further or (places and pixels + len(place.views) * size > budget * 1.1):
            further.append(place)
            glanced += size
            if glanced > GLANCED:
                break
            continue
        places.append(place)
        pixels += len(place.views) * size
        covered += size * (len(place.views) - len(subjects[subject].others))
    whole = sum(prod(s.layout.sizes(s.layout.batch + s.layout.spatial, s.volume.shape)) for s in subjects)
    return Plan(places, further, min(1.0, covered / whole))


@dataclass(frozen=True, eq=False)
class Subject:
    """A volume to judge, and where there are more views of its scene.

    Attributes
    ----------
    volume, layout
        What to look at.
    others
        Volumes that show the same, pixel by pixel.
    series
        A batch axis along which the same scene is seen again and again, or ``""``.
    denoised
        Results for the volume and for the others, or None where there is none yet.
    """

    volume: Volume
    layout: Layout
    others: tuple[Volume, ...] = ()
    series: str = ""
    denoised: tuple[Volume | None, ...] = ()


class Cells:
    """A volume cut into places, which are numbered."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        layout, shape = subject.layout, subject.volume.shape
        stack = len(layout.spatial) == 3
        self._spans = [
            _spans(n, (_STACK if stack else _PLANE) if axis in "YX" else _DEPTH)
            for axis, n in zip(layout.spatial, layout.spatial_shape(shape), strict=True)
        ]
        self._indices: list[list[range]] = [
            _windows(n) if axis == subject.series else [range(i, i + 1) for i in range(n)]
            for axis, n in zip(layout.batch, layout.sizes(layout.batch, shape), strict=True)
        ]
        self._shape = (*map(len, self._indices), *map(len, self._spans))
        self.count = prod(self._shape)

    def spatial_region(self, number: int) -> Region:
        """Return the slices of a place along the spatial axes."""
        at = np.unravel_index(number, self._shape)[len(self._indices) :]
        return tuple(spans[i] for spans, i in zip(self._spans, at, strict=True))

    def place(self, number: int) -> Place:
        """Return a place with its views, nothing read yet."""
        subject, layout = self._subject, self._subject.layout
        at = np.unravel_index(number, self._shape)[: len(self._indices)]
        ranges = [choices[i] for choices, i in zip(self._indices, at, strict=True)]
        region = self.spatial_region(number)
        indices = list(product(*ranges))
        results = subject.denoised or (None,) * (1 + len(subject.others))
        views = []
        for volume, denoised in zip((subject.volume, *subject.others), results, strict=True):
            for index in indices:
                key = tuple(
                    slice(k.start or 0, n if k.stop is None else k.stop)
                    for k, n in zip(layout.key(index, region), volume.shape, strict=True)
                )
                views.append(View(volume, layout, key, denoised))
        by_axis = dict(zip(layout.batch, indices[0], strict=True))
        return Place(tuple(views), by_axis.get("C", 0))


def _spans(length: int, size: int) -> list[slice]:
    """Cut an axis into parts of about a size."""
    bounds = np.linspace(0, length, max(1, round(length / size)) + 1).round().astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _windows(length: int) -> list[range]:
    """Cut a series into groups of neighbours; the last one moves back to be whole."""
    starts = [max(0, min(start, length - MOST_VIEWS)) for start in range(0, length, MOST_VIEWS)]
    return [range(start, min(length, start + MOST_VIEWS)) for start in starts]
