"""Run a network over images: tiles in, pixels out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice, product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from napari_ssdenoise.algorithms import Algorithm
from napari_ssdenoise.engine.device import (
    Precision,
    autocast,
    choose_device,
    choose_precision,
    free_memory,
    is_out_of_memory,
)
from napari_ssdenoise.engine.flow import Flow
from napari_ssdenoise.engine.patches import condition_of, with_conditions
from napari_ssdenoise.engine.tiles import MARGIN, TilePlan
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, folded, in_precision, placed
from napari_ssdenoise.networks.windows import CONVOLUTIONS, trace

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.algorithms import Conditions
    from napari_ssdenoise.magnitude import Magnitude
    from napari_ssdenoise.normalize import Normalization

Item = TypeVar("Item")
Made = TypeVar("Made")

# Bytes per input pixel of a whole tile besides the activations: the block as read, normalised, padded, and the result.
BYTES_AROUND = 24


class Predictor:
    """A network ready for inference on one device.

    Parameters
    ----------
    algorithm, network, normalization
        Of the trained model; the network is copied.
    spatial
        Axes that the network convolves over.
    device, precision
        As for `Trainer`.
    augment
        Average over flips and over exchanging Y and X (up to eight-fold): a little better, and that much slower.
    conditions
        What the network is told about the noise, by channel; see `Algorithm.fitted`.
    magnitude
        Noise whose mean is taken off results; see `TrainedModel.for_magnitudes`.
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
        conditions: Conditions = (),
        magnitude: Magnitude | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.normalization = normalization
        self.conditions = conditions
        self.magnitude = magnitude
        self.margin = MARGIN if algorithm.mirrored else 0
        self.spatial = spatial
        self.device = choose_device(device)
        self.dtype = choose_precision(self.device, precision)
        self.stride: tuple[int, ...] = network.stride
        self.halo: tuple[int, ...] = network.reach()
        self._activations: int = network.activations
        self._channels = next((m.in_channels for m in network.modules() if isinstance(m, CONVOLUTIONS)), 1)
        self._channels += len(conditions[0]) if conditions else 0
        self._layout = MEMORY_FORMAT[len(self.halo)]
        network = in_precision(folded(network), self.dtype)
        self._network: Any = placed(network, self.device)
        self._turns = list(_turns(spatial, self.stride, algorithm.symmetries(spatial))) if augment else [((), False)]
        self._yx = (spatial.index("Y") + 2, spatial.index("X") + 2)
        self.augmented = augment
        self._fitting: int | None = None  # pixels that fitted after memory ran out
        self._flow_bytes: dict[tuple[int, int], float] = {}

    @property
    def bytes_per_pixel(self) -> int:
        """Memory that a whole tile takes per input pixel, roughly."""
        bytes_each = 2 if self.dtype is torch.bfloat16 else 4
        return self._activations * bytes_each + BYTES_AROUND

    @cached_property
    def _graph(self) -> torch.fx.GraphModule | None:
        """The network's layers, if the algorithm's prediction is one pass through them."""
        one_pass = type(self.algorithm).predict is Algorithm.predict
        return trace(self._network) if one_pass else None

    @property
    def _layers(self) -> torch.fx.GraphModule:
        if self._graph is None:
            raise RuntimeError("this network can only be run over whole tiles.")
        return self._graph

    @property
    def flow_axes(self) -> list[int]:
        """Axes along which tiles can flow through the network: not the last, where planes are scattered in memory."""
        if self._graph is None:
            return []
        turned = {d - 2 for flips, exchange in self._turns for d in (*flips, *(self._yx if exchange else ()))}
        return [d for d in range(len(self.halo) - 1) if d not in turned]

    def flow_bytes(self, axis: int, slab: int) -> float:
        """Return the memory that flow in slabs along an axis takes per pixel of the cross-section.

        It grows linearly with the slab, and is known from two slabs of a very small image.
        """
        thin, thick = self.stride[axis], 4 * self.stride[axis]
        low, high = self._measured(axis, thin), self._measured(axis, thick)
        return (low + (high - low) * (slab - thin) / (thick - thin)) * len(self._turns)

    def _measured(self, axis: int, slab: int) -> float:
        if (axis, slab) not in self._flow_bytes:
            shape = [1, self._channels, *(4 * s for s in self.stride)]
            shape[axis + 2] = slab
            flow = Flow(self._layers, axis, 1 << 30, slab, counting=True)
            planes = torch.zeros(shape, device=self.device)
            with torch.inference_mode():
                while flow.end < 2 * slab:  # by then every layer has its share
                    flow.push(planes)
            self._flow_bytes[axis, slab] = flow.peak / (math.prod(shape[2:]) / slab)
        return self._flow_bytes[axis, slab]

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
        outputs = self.run(self.normalised([block], [channel]))
        return {name: self.restored(name, image[0].numpy(), channel) for name, image in outputs.items()}

    def normalised(self, blocks: Sequence[NDArray[Any]], channels: Sequence[int]) -> Tensor:
        """Return blocks of equal shape as one normalised batch (on the CPU)."""
        images = [self.normalization.apply(b, c) for b, c in zip(blocks, channels, strict=True)]
        batch = torch.from_numpy(images[0][None] if len(images) == 1 else np.stack(images))
        return with_conditions(batch, [condition_of(self.conditions, c) for c in channels])

    def restored(self, name: str, image: NDArray[np.float32], channel: int) -> NDArray[np.float32]:
        """Return one output in the input's units."""
        if name == "std":
            return self.normalization.undo_scale(image, channel)
        restored = self.normalization.undo(image, channel)
        return self.magnitude.amplitude(restored) if self.magnitude else restored

    def run(self, noisy: Tensor) -> dict[str, Tensor]:
        """Predict whole images; if the device's memory runs out, in halves that overlap by the halo."""
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
            out = self.run(noisy[:, :, *piece.source])
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
    def _forward(self, noisy: Tensor) -> dict[str, Tensor]:
        noisy = noisy.to(self.device)
        total: dict[str, Tensor] = {}
        for turn in self._turns:
            turned = self._turn(noisy, turn).contiguous(memory_format=self._layout)
            with autocast(self.device, self.dtype):
                outputs = self.algorithm.predict(self._network, turned)
            for name, image in outputs.items():
                back = self._turn_back(image.float(), turn)
                total[name] = total[name] + back if name in total else back
        return {name: _mean(image, len(self._turns)).cpu() for name, image in total.items()}

    def flow(
        self, length: int, axis: int, slab: int, start: int = 0, relieve: Callable[[], None] | None = None
    ) -> Stack:
        """Return a tile that will flow through the network; see `Flow`."""
        flows = [Flow(self._layers, axis, length, slab, start, relieve=relieve) for _ in self._turns]
        return Stack(self, flows, axis)

    def _turn(self, image: Tensor, turn: Turn) -> Tensor:
        flips, exchange = turn
        image = image.flip(flips) if flips else image
        return image.transpose(*self._yx) if exchange else image

    def _turn_back(self, image: Tensor, turn: Turn) -> Tensor:
        flips, exchange = turn
        image = image.transpose(*self._yx) if exchange else image
        return image.flip(flips) if flips else image


Turn = tuple[tuple[int, ...], bool]


class Stack:
    """A tile on its way through the network, in slabs; once for each of the augmentation's turns."""

    def __init__(self, predictor: Predictor, flows: list[Flow], axis: int) -> None:
        self._predictor = predictor
        self._flows = flows
        self._dim = axis + 2
        self._waiting: list[Tensor] = []  # noisy planes whose result is still to come
        self._missing = flows[0].step * flows[0].slab - flows[0].end  # of those, skipped by a late start

    @property
    def end(self) -> int:
        """Planes of the result that are computed."""
        return self._flows[0].end

    @torch.inference_mode()
    def push(self, noisy: Tensor | None) -> dict[str, Tensor]:
        """Give the next slab, on the device, and get the planes of each output that it completes."""
        predictor = self._predictor
        total: dict[str, Tensor] = {}
        if noisy is not None:
            self._waiting.append(noisy)
        before = self.end
        results = []
        for flow, turn in zip(self._flows, predictor._turns, strict=True):
            raw = flow.push(None if noisy is None else predictor._turn(noisy, turn))
            if raw is not None:
                results.append(predictor._turn_back(raw.float(), turn))
        if not results:
            return {}
        seen = self._take(self.end - before)
        for raw in results:
            for name, image in predictor.algorithm.read_out(raw, seen).items():
                total[name] = total[name] + image if name in total else image
        return {name: _mean(image, len(self._flows)) for name, image in total.items()}

    def _take(self, count: int) -> Tensor:
        """Return the noisy planes of the next results, and let go of them; zeros for skipped ones."""
        parts: list[Tensor] = []
        if self._missing:
            shape = list(self._waiting[0].shape)
            shape[self._dim] = min(count, self._missing)
            parts.append(self._waiting[0].new_zeros(shape))
            self._missing -= shape[self._dim]
            count -= shape[self._dim]
        while count:
            first = self._waiting.pop(0)
            n = first.shape[self._dim]
            if n > count:
                self._waiting.insert(0, first.narrow(self._dim, count, n - count))
            parts.append(first.narrow(self._dim, 0, min(n, count)))
            count -= min(n, count)
        return parts[0] if len(parts) == 1 else torch.cat(parts, self._dim)


def _mean(total: Tensor, count: int) -> Tensor:
    """Divide a sum; that of a single image is it already."""
    return total if count == 1 else total / count


def _turns(spatial: str, stride: Sequence[int], symmetries: Sequence[str]) -> Iterator[Turn]:
    """List the flips (as tensor dimensions) of the image plane, without and with exchanging Y and X."""
    y, x = spatial.index("Y"), spatial.index("X")
    choices: list[tuple[tuple[int, ...], ...]] = [
        ((), (d + 2,)) if axis in symmetries else ((),) for d, axis in ((y, "Y"), (x, "X"))
    ]
    exchanges = (False, True) if "YX" in symmetries and stride[y] == stride[x] else (False,)
    for first, second in product(*choices):
        for exchange in exchanges:
            yield first + second, exchange


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
