"""Denoise in another thread: into memory, or into a file that a layer shows while it fills."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ssdenoise.axes import Region
from napari_ssdenoise.volume import Volume
from napari_ssdenoise.widgets._layers import contrast_limits, sample_of
from napari_ssdenoise.widgets._stopping import guarded, interruptible
from napari_ssdenoise.widgets._work import Limits, Stage, as_shown

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel

# Small enough that results appear piece by piece, large enough that halos stay cheap.
APPLY_MEMORY = "1 GB+"
LIMITS_INTERVAL = 3.0
SAMPLED_VALUES = 20_000


@dataclass(frozen=True)
class Progress:
    """A share of the work that is done; `region`, in the volume's axes, is what just became visible.

    There are `limits` by output where enough was seen to choose contrast from.
    """

    done: int
    total: int
    remaining: float
    region: Region
    limits: Mapping[str, Limits] = field(default_factory=dict)


@dataclass(frozen=True)
class Filling:
    """Data of one output that can be shown, and fills while the work goes on; complete if there are `levels`."""

    output: str
    data: Any
    limits: Limits | None = None
    levels: tuple[Any, ...] = ()


@dataclass
class ArrayDenoising:
    """Denoise into arrays in memory, one for each output that is wanted; the blocks in view come first."""

    model: TrainedModel
    volume: Volume
    outs: Mapping[str, NDArray[Any]]
    device: str = "auto"
    augment: bool = False
    view: Region | None = None
    memory: str | int = APPLY_MEMORY
    text: str = "Denoising…"

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, then `Progress` after every tile."""
        yield Stage(self.text)
        from napari_ssdenoise.engine.device import describe_device
        from napari_ssdenoise.engine.execute import execute
        from napari_ssdenoise.engine.stream import plan_output

        layout = self.model.geometry.layout(self.volume)
        image = guarded(self.volume, stop)
        model = interruptible(self.model.told(image, layout), stop)
        predictor = model.predictor(device=self.device, augment=self.augment)
        yield Stage(self.text, describe_device(predictor.device, predictor.dtype))
        # As for a file, so that a command makes the same pixels.
        itemsize = sum(out.dtype.itemsize for out in self.outs.values())
        plan, _ = plan_output(predictor, self.volume, layout, itemsize, memory=self.memory)
        units = list(plan.units(layout, self.volume.shape))
        units.sort(key=lambda unit: not any(self._in_view(layout.key(i, unit.tile.target)) for i in unit.indices))
        started, sampled = time.perf_counter(), {name: Sampled() for name in self.outs}
        done, total = 0, int(np.prod(self.volume.shape))
        results = sum(out.nbytes for out in self.outs.values())
        for piece in execute(predictor, plan, image, layout, units, results):
            region = layout.key(piece.index, piece.target)
            blocks = {name: as_shown(layout.from_network(piece.images[name]), self.volume) for name in self.outs}
            done = min(done + next(iter(blocks.values())).size, total)
            found: dict[str, Limits | None] = {}
            for name, block in blocks.items():
                self.outs[name][region] = block
                found[name] = sampled[name].add(block, last=done == total)
            limits = {name: seen for name, seen in found.items() if seen is not None}
            remaining = (time.perf_counter() - started) / done * (total - done)
            yield Progress(done, total, remaining, region, limits)

    def _in_view(self, region: Region) -> bool:
        if self.view is None:
            return True
        return all(
            (a.start or 0) < (b.stop if b.stop is not None else 1 << 62) and (b.start or 0) < (a.stop or 1 << 62)
            for a, b in zip(region, self.view, strict=True)
        )


class Sampled:
    """Contrast limits of all values seen so far, from a few of each block."""

    def __init__(self) -> None:
        self._values: list[NDArray[Any]] = []
        self._share = 1  # every how many-th of the values of a block to keep
        self._looked = -LIMITS_INTERVAL

    def add(self, block: NDArray[Any], last: bool = False) -> Limits | None:
        """Look at a block; return limits now and then, and for the last block."""
        values = block.reshape(-1)
        self._values.append(values[:: self._share * max(1, values.size // SAMPLED_VALUES)].copy())
        if sum(kept.size for kept in self._values) > 50 * SAMPLED_VALUES:
            self._values, self._share = [np.concatenate(self._values)[::2].copy()], 2 * self._share
        now = time.perf_counter()
        if not last and now - self._looked < LIMITS_INTERVAL:
            return None
        self._looked = now
        return contrast_limits(np.concatenate(self._values))


@dataclass
class FileDenoising:
    """Denoise into OME-Zarr files, one for each output that is wanted; a stopped one goes on where it was."""

    model: TrainedModel
    volume: Volume
    paths: Mapping[str, Path]  # the denoised image, "mean", first
    device: str = "auto"
    augment: bool = False
    overwrite: bool = False
    view: Callable[[], Region | None] | None = None  # what is looked at, now: that comes first

    def reports(self, stop: Event) -> Generator[Any, None, None]:
        """Yield `Stage`, a `Filling` of each output, `Progress` after every tile, and finished `Filling`s."""
        yield Stage("Denoising into the file…")
        from napari_ssdenoise.engine.device import choose_device, describe_device

        yield Stage("Denoising into the file…", describe_device(choose_device(self.device)))
        (_, path), *also = self.paths.items()
        tiles = interruptible(self.model, stop).predict_into(
            guarded(self.volume, stop),
            path,
            also=dict(also),
            memory=APPLY_MEMORY,
            device=self.device,
            augment=self.augment,
            overwrite=self.overwrite,
            view=self.view,
        )
        started = False
        try:
            for tile in tiles:
                places = dict(zip(self.paths, (tile.path, *tile.also), strict=True))
                if tile.region is None:
                    for output, place in places.items():
                        levels = open_levels(place)
                        yield Filling(output, levels[0], contrast_limits(sample_of(levels[-1])), levels)
                    continue
                if not started:
                    started = True
                    for output, place in places.items():
                        filling = open_partial(place, self.volume)
                        seen = np.asarray(filling[thin(tile.region)], dtype=np.float64)
                        yield Filling(output, filling, contrast_limits(seen))
                yield Progress(tile.done, tile.total, tile.remaining, tile.region)
                if tile.done == tile.total:
                    yield Stage("Writing lower resolutions…")
        finally:
            tiles.close()


def thin(region: Region) -> Region:
    """Return the middle plane of a region."""
    return tuple(
        slice((s.start + s.stop) // 2, (s.start + s.stop) // 2 + 1) if s.stop is not None and d < len(region) - 2 else s
        for d, s in enumerate(region)
    )


def open_partial(path: Path, volume: Volume) -> Any:
    """Open the full resolution of an OME-Zarr that is being written, in the volume's axes."""
    import zarr

    from napari_ssdenoise.io._lazy import present

    array = zarr.open_array(str(path / "0"), mode="r")
    metadata: Any = array.metadata
    names = "".join(metadata.dimension_names).upper()
    return present(array, names.replace("C", "S") if "S" in volume.axes else names, volume.axes)


def open_levels(path: Path) -> tuple[Any, ...]:
    """Open all resolutions of a finished OME-Zarr, the full one first."""
    from napari_ssdenoise.io import read_volume

    count = 1
    while (path / str(count)).is_dir():
        count += 1
    return tuple(read_volume(path / str(level)).data for level in range(count))


def require_memory(
    volume: Volume, itemsize: int, instead: str = "Use “Apply to file…”, which needs little memory."
) -> None:
    """Refuse a result, of so many bytes per value, that would not fit beside everything else.

    Parameters
    ----------
    instead
        What to do then.

    Raises
    ------
    MemoryError
        With both numbers, and what to do.
    """
    import psutil

    needed, free = int(np.prod(volume.shape, dtype=np.int64)) * itemsize, psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise MemoryError(
            f"the result takes {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free. {instead}"
        )
