"""Run a network along one axis of a stack without ever computing a plane twice.

The stack flows through the network in slabs. Each layer computes what its inputs suffice for and keeps the few planes
that it needs again for the next slab, so there is no halo along that axis, and memory does not grow with its length.
How far every layer is depends on the number of slabs alone: a run can be taken up anywhere, and computes slabs of the
same sizes, hence the same bits, as an uninterrupted one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
from napari_ssdenoise.networks.fused import convolve
from napari_ssdenoise.networks.windows import CONVOLUTIONS, Window, window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Flow:
    """One pass of a network along one axis.

    Parameters
    ----------
    graph
        As `windows.trace` gives it.
    axis
        Spatial axis along which the stack flows.
    length
        Planes of the stack, a multiple of the network's stride.
    slab
        Planes of each slab but the last; a multiple of the stride.
    start
        Number of slabs to skip. What they would have left is taken for zeros, so that only results further than the
        network's reach from there are right.
    counting
        Count the memory.
    relieve
        Called after each convolution, to look after the process's memory.

    Attributes
    ----------
    peak
        Bytes held at most, if they are counted.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        axis: int,
        length: int,
        slab: int,
        start: int = 0,
        *,
        counting: bool = False,
        relieve: Callable[[], None] | None = None,
    ) -> None:
        self.length = length
        self.slab = slab
        self.step = start
        self._dim = axis + 2
        self._nodes = [node for node in graph.graph.nodes if node.op != "output"]
        self._layers: dict[fx.Node, Any] = {
            n: graph.get_submodule(str(n.target)) for n in self._nodes if n.op == "call_module"
        }
        self._windows = {node: window_of(graph, node, axis).around() for node in self._nodes}
        (end,) = (node for node in graph.graph.nodes if node.op == "output")
        (self._last,) = end.all_input_nodes
        self._users = {node: [u for u in node.users if u is not end] for node in self._nodes}
        self._lengths: dict[fx.Node, int] = {}
        for node in self._nodes:
            n = min((self._lengths[s] for s in node.all_input_nodes), default=length)
            self._lengths[node] = self._windows[node].length(n)
        self._done = self._progress(start)
        # A convolution keeps its input in a strip of its own; other layers share the pieces their source left.
        self._strips = {
            node: self._strip(node) for node in self._nodes if _is_wide(self._layers.get(node), self._windows[node])
        }
        self._pieces: dict[fx.Node, list[tuple[int, Tensor]]] = {node: [] for node in self._nodes}
        self._counting = counting
        self._relieve = relieve
        self.peak = 0

    @property
    def end(self) -> int:
        """Planes of the result that are computed."""
        return self._done[self._last]

    def push(self, planes: Tensor | None) -> Tensor | None:
        """Give the next slab (None after the last one), and get the planes of the result that it completes."""
        aims = self._progress(self.step + 1)
        result: Tensor | None = None
        for node in self._nodes:
            low, high = self._done[node], aims[node]
            if low < high:
                made = planes if planes is not None and node.op == "placeholder" else self._compute(node, low, high)
                if self._relieve and node in self._strips:
                    self._relieve()
                if self._counting:
                    self.peak = max(self.peak, self._held() + self._passing(node, made))
                self._done[node] = high
                self._deliver(node, low, made)
                for source in node.all_input_nodes:
                    self._drop(source)
                if node is self._last:
                    result = made
                del made
        self.step += 1
        return result

    def _held(self) -> int:
        """Return the bytes that are kept between layers."""
        pieces = sum(piece.nbytes for kept in self._pieces.values() for _, piece in kept)
        return pieces + sum(strip.nbytes for strip in self._strips.values())

    def _passing(self, node: fx.Node, made: Tensor) -> int:
        """Return the bytes that a layer needs only while it computes: its output, and a converted input."""
        layer = self._layers.get(node)
        if isinstance(layer, CONVOLUTIONS) and node not in self._strips:
            return made.nbytes + made.nbytes * layer.in_channels // layer.out_channels
        return made.nbytes

    def _progress(self, step: int) -> dict[fx.Node, int]:
        """Return how many planes of every layer's output are computed after so many slabs."""
        reached: dict[fx.Node, int] = {}
        for node in self._nodes:
            end = min((reached[s] for s in node.all_input_nodes), default=step * self.slab)
            reached[node] = self._windows[node].gives(end)
        return {node: min(max(end, 0), self._lengths[node]) for node, end in reached.items()}

    def _strip(self, node: fx.Node) -> _Strip:
        (source,) = node.all_input_nodes
        window = self._windows[node]
        per_slab = self.slab * self._lengths[source] // self.length
        capacity = per_slab + window.before + window.after
        return _Strip(self._dim, window, capacity, (self._done[node], self._done[source]))

    def _deliver(self, node: fx.Node, low: int, made: Tensor) -> None:
        """Hand planes to the layers that use them."""
        shared = False
        for user in self._users[node]:
            if user in self._strips:
                self._strips[user].append(made)
            else:
                shared = True
        if shared:
            self._pieces[node].append((low, made))

    def _compute(self, node: fx.Node, low: int, high: int) -> Tensor:
        """Return planes ``low`` to ``high`` of a layer's output, and forget the input that is no longer needed."""
        window, layer = self._windows[node], self._layers.get(node)
        if node in self._strips:
            strip = self._strips[node]
            made: Tensor = _convolve(layer, strip.take(low, high), self._dim)
            strip.forget(high)
            return made
        first, last = _grid(window, low, high)
        first = max(0, first)
        if node.target is torch.cat and (room := self._room(node, high - low)) is not None:
            return self._concatenate(node, low, high, room)
        span = {s: self._gather(s, first, min(last, self._lengths[s])) for s in node.all_input_nodes}
        if isinstance(layer, nn.ReLU) and (room := self._room(node, high - low)) is not None:
            return torch.clamp_min(next(iter(span.values())), 0, out=room)
        if isinstance(layer, CONVOLUTIONS):
            span = {s: planes.to(layer.weight.dtype) for s, planes in span.items()}
        args: Any = fx.node.map_arg(node.args, lambda n: span[n])
        options: Any = fx.node.map_arg(node.kwargs, lambda n: span[n])
        function: Any = layer if layer is not None else node.target
        made = function(*args, **options)
        start = first // window.down * window.up
        return made if made.shape[self._dim] == high - low else made.narrow(self._dim, low - start, high - low)

    def _room(self, node: fx.Node, count: int) -> Tensor | None:
        """Return where a layer's output may be written without a copy, if only one convolution uses it."""
        (user, *others) = self._users[node] or [node]
        return None if others or user not in self._strips else self._strips[user].room(count)

    def _concatenate(self, node: fx.Node, low: int, high: int, room: Tensor) -> Tensor:
        """Join channels, in parts for which every source has one piece: joining along the flow as well is slow."""
        given: Any = node.args[0] if node.args else node.kwargs["tensors"]
        sources: list[fx.Node] = list(given)
        cuts = {low, high}
        for source in sources:
            cuts |= {start for start, _ in self._pieces[source] if low < start < high}
        edges = sorted(cuts)
        for first, last in pairwise(edges):
            parts = [self._gather(s, first, last) for s in sources]
            torch.cat(parts, 1, out=room.narrow(self._dim, first - low, last - first))
        return room

    def _gather(self, node: fx.Node, low: int, high: int) -> Tensor:
        """Join a layer's planes ``low`` to ``high``; zeros for those that a late start skipped."""
        parts: list[Tensor] = []
        begin, like = self._pieces[node][0]
        if low < begin:
            parts.append(_empty(like, self._dim, min(begin, high) - low).zero_())
        for start, piece in self._pieces[node]:
            first, last = max(low, start), min(high, start + piece.shape[self._dim])
            if first < last:
                whole = last - first == piece.shape[self._dim]
                parts.append(piece if whole else piece.narrow(self._dim, first - start, last - first))
        return parts[0] if len(parts) == 1 else torch.cat(parts, self._dim)

    def _drop(self, node: fx.Node) -> None:
        """Forget a layer's pieces of which no plane will be needed again."""
        need = self._lengths[node]
        for user in self._users[node]:
            if user not in self._strips and self._done[user] < self._lengths[user]:
                need = min(need, _grid(self._windows[user], self._done[user], self._done[user] + 1)[0])
        pieces = self._pieces[node]
        while pieces and pieces[0][0] + pieces[0][1].shape[self._dim] <= need:
            del pieces[0]


class _Strip:
    """The input of a convolution: the planes kept from before, then the new ones, in one piece of memory.

    Planes that nobody gave, before the first and after the last, are zeros.

    Parameters
    ----------
    dim
        Of the tensors, along which the stack flows.
    window
        Of the convolution.
    capacity
        Planes to hold.
    done
        Planes of the convolution's output, and of its input, that count as computed at the start.
    """

    def __init__(self, dim: int, window: Window, capacity: int, done: tuple[int, int]) -> None:
        self._dim = dim
        self._window = window
        self._capacity = capacity
        self._base = done[0] - window.before
        self._end = done[1]
        self._planes: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return 0 if self._planes is None else self._planes.nbytes

    def room(self, count: int) -> Tensor | None:
        """Return where the next planes will be, to write them there; None before the first are there."""
        return None if self._planes is None else self._part(self._planes, self._end, count)

    def append(self, made: Tensor) -> None:
        """Take new planes, which may be in their room already."""
        count = made.shape[self._dim]
        planes = self._planes
        if planes is None:
            self._planes = planes = _empty(made, self._dim, self._capacity)
            self._part(planes, self._base, self._end - self._base).zero_()
        room = self._part(planes, self._end, count)
        if room.data_ptr() != made.data_ptr():
            room.copy_(made)
        self._end += count

    def take(self, low: int, high: int) -> Tensor:
        """Return the input for output planes ``low`` to ``high``."""
        first, last = self._window.needs(low, high)
        planes = self._given()
        if last > self._end:
            self._part(planes, self._end, last - self._end).zero_()
        return self._part(planes, first, last - first)

    def forget(self, done: int) -> None:
        """Keep only what outputs from plane ``done`` on need."""
        planes, base = self._given(), done - self._window.before
        count = self._end - base
        kept = self._part(planes, base, count)
        overlapping = base - self._base < count
        self._part(planes, self._base, count).copy_(kept.clone() if overlapping else kept)
        self._base = base

    def _given(self) -> Tensor:
        if self._planes is None:
            raise RuntimeError("no planes were given yet.")
        return self._planes

    def _part(self, planes: Tensor, first: int, count: int) -> Tensor:
        return planes.narrow(self._dim, first - self._base, count)


def _is_wide(layer: Any, window: Window) -> bool:
    """Tell whether a layer is a convolution that looks at neighbouring planes."""
    return isinstance(layer, CONVOLUTIONS) and layer.padding_mode == "zeros" and window.before + window.after > 0


def _convolve(layer: Any, planes: Tensor, dim: int) -> Tensor:
    """Convolve without padding along the axis of flow."""
    padding = [0 if d + 2 == dim else p for d, p in enumerate(layer.padding)]
    planes, slope = planes.to(layer.weight.dtype), getattr(layer, "slope", None)
    return convolve(planes, layer.weight, layer.bias, padding, layer.dilation, layer.groups, slope)


def _grid(window: Window, low: int, high: int) -> tuple[int, int]:
    """Return the range of inputs for a range of outputs, widened to the grid of the layer's stride."""
    first, last = window.needs(low, high)
    return first // window.down * window.down, -(-last // window.down) * window.down


def _empty(like: Tensor, dim: int, count: int) -> Tensor:
    """Return a tensor of ``count`` planes, in the memory order that convolutions are fastest with."""
    shape = list(like.shape)
    shape[dim] = count
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=MEMORY_FORMAT[like.ndim - 2])
