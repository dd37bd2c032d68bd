"""Run a network over images: tiles in, pixels out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from napari_ssdenoise.engine.device import (
    Precision,
    autocast,
    choose_device,
    choose_precision,
    free_memory,
    is_out_of_memory,
)
from napari_ssdenoise.engine.scenes import View
from napari_ssdenoise.engine.tiles import TilePlan, choose_tile
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, folded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.tiles import Tile
    from napari_ssdenoise.normalize import Normalization
    from napari_ssdenoise.volume import Volume

Item = TypeVar("Item")
Made = TypeVar("Made")

READ_AHEAD = 2  # tiles decoded while one is computed
# Bytes per input pixel besides the activations: the block as read, normalised, padded, and the result, in float32.
BYTES_AROUND = 24


class Predictor:
    """A network ready for inference on one device.

    Parameters
    ----------
    algorithm, network, normalization
        Of the trained model; the network is copied.
    device, precision
        As for `Trainer`.
    augment
        Average over flips and over exchanging Y and X (up to eight-fold): a little better, and that much slower.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        network: Any,
        normalization: Normalization,
        spatial: str,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        augment: bool = False,
    ) -> None:
        self.algorithm = algorithm
        self.normalization = normalization
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        self.stride: tuple[int, ...] = network.stride
        self.halo: tuple[int, ...] = network.reach()
        self._activations: int = network.activations
        self._layout = MEMORY_FORMAT[len(self.halo)]
        self._network: Any = folded(network).to(self.device, memory_format=self._layout)
        self._turns = list(_turns(spatial, self.stride, algorithm.symmetries(spatial))) if augment else [((), False)]
        self._yx = (spatial.index("Y") + 2, spatial.index("X") + 2)
        self.augmented = augment
        self._fitting: int | None = None  # pixels that fitted after memory ran out

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that a tile takes per input pixel, roughly."""
        bytes_each = 2 if self.dtype is torch.bfloat16 else 4
        return self._activations * bytes_each + BYTES_AROUND

    def __call__(self, block: NDArray[Any], channel: int = 0) -> dict[str, NDArray[np.float32]]:
        """Denoise one block.

        Parameters
        ----------
        block : (channels, *spatial)
            In the input's units; sizes on the network's stride grid.
        channel
            Index of the first channel, for the normalisation.

        Returns
        -------
        dict
            An array of the block's shape, in the input's units, for each of the algorithm's outputs.
        """
        noisy = torch.from_numpy(self.normalization.apply(block, channel))[None]
        outputs = self._run(noisy)
        undo = {"std": self.normalization.undo_scale}
        return {k: undo.get(k, self.normalization.undo)(v[0].numpy(), channel) for k, v in outputs.items()}

    def _run(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        """Predict; if the device's memory runs out, in halves that overlap by the halo."""
        pixels = noisy[0, 0].numel()
        halves = self._halves(tuple(noisy.shape[2:]))
        if halves is None or self._fitting is None or pixels <= self._fitting:
            try:
                return self._forward(noisy)
            except RuntimeError as error:
                if halves is None or not is_out_of_memory(error):
                    raise
            free_memory(self.device)
            self._fitting = pixels // 2
        parts = []
        for piece in halves:
            out = self._run(noisy[:, :, *piece.source])
            parts.append({name: image[:, :, *piece.inner] for name, image in out.items()})
        axis = next(d for d, (size, n) in enumerate(zip(halves.tile, halves.shape, strict=True)) if size < n)
        return {name: torch.cat([part[name] for part in parts], axis + 2) for name in parts[0]}

    def _halves(self, shape: tuple[int, ...]) -> TilePlan | None:
        """Cut a tile in two along the axis that saves most; None if it is hardly more than its halo."""
        best: TilePlan | None = None
        for d, (n, grid) in enumerate(zip(shape, self.stride, strict=True)):
            half = -(-n // 2 // grid) * grid
            if half < n:
                plan = TilePlan(shape, (*shape[:d], half, *shape[d + 1 :]), self.halo, self.stride, margin=0)
                best = plan if best is None or plan.largest_input < best.largest_input else best
        return best if best and best.largest_input < 0.9 * math.prod(shape) else None

    @torch.inference_mode()
    def _forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        total: dict[str, torch.Tensor] = {}
        for flips, exchange in self._turns:
            turned = noisy.flip(flips) if flips else noisy
            turned = turned.transpose(*self._yx) if exchange else turned
            turned = turned.to(self.device).contiguous(memory_format=self._layout)
            with autocast(self.device, self.dtype):
                outputs = self.algorithm.predict(self._network, turned)
            for name, image in outputs.items():
                back = image.float().cpu()
                back = back.transpose(*self._yx) if exchange else back
                back = back.flip(flips) if flips else back
                total[name] = total[name] + back if name in total else back
        return {name: image / len(self._turns) for name, image in total.items()}


def _turns(spatial: str, stride: Sequence[int], symmetries: Sequence[str]) -> Iterator[tuple[tuple[int, ...], bool]]:
    """List the flips (as tensor dimensions) of the image plane, without and with exchanging Y and X."""
    y, x = spatial.index("Y"), spatial.index("X")
    choices: list[tuple[tuple[int, ...], ...]] = [
        ((), (d + 2,)) if axis in symmetries else ((),) for d, axis in ((y, "Y"), (x, "X"))
    ]
    exchanges = (False, True) if "YX" in symmetries and stride[y] == stride[x] else (False,)
    for first, second in product(*choices):
        for exchange in exchanges:
            yield first + second, exchange


def plan_tiles(
    predictor: Predictor, shape: Sequence[int], memory_bytes: int, chunks: Sequence[int] | None = None
) -> TilePlan:
    """Choose tiles for images of ``shape`` that stay within the memory.

    Raises
    ------
    MemoryError
        If not even the smallest tile fits, with both numbers.
    """
    pixels = int(memory_bytes // predictor.bytes_per_pixel)
    tile = choose_tile(shape, predictor.halo, predictor.stride, pixels, chunks)
    return TilePlan(tuple(shape), tile, predictor.halo, predictor.stride)


@dataclass(frozen=True)
class TileResult:
    """A finished tile: which image, where, and its pixels by output name, (channels, *target)."""

    index: tuple[int, ...]
    tile: Tile
    images: dict[str, NDArray[np.float32]]


def predict_tiles(
    predictor: Predictor, volume: Volume, layout: Layout, work: Iterable[tuple[tuple[int, ...], Tile]]
) -> Iterator[TileResult]:
    """Compute tiles one after the other, reading the next ones meanwhile."""

    def read(item: tuple[tuple[int, ...], Tile]) -> tuple[tuple[int, ...], Tile, int, NDArray[Any]]:
        index, tile = item
        view = View(volume, layout, index)
        block = view.read(tile.source)
        return index, tile, view.channel, np.pad(block, ((0, 0), *tile.padding), mode="symmetric")

    for index, tile, channel, block in ahead(read, work, READ_AHEAD):
        images = predictor(block, channel)
        yield TileResult(index, tile, {name: image[(slice(None), *tile.inner)] for name, image in images.items()})


def ahead(function: Callable[[Item], Made], items: Iterable[Item], count: int) -> Iterator[Made]:
    """Map a function over items in one other thread, ``count`` items ahead of what is consumed."""
    remaining = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="ssdenoise-read") as pool:
        pending: list[Future[Made]] = [pool.submit(function, item) for item in islice(remaining, count)]
        try:
            while pending:
                made = pending.pop(0).result()
                pending += [pool.submit(function, item) for item in islice(remaining, 1)]
                yield made
        finally:
            for future in pending:
                future.cancel()
