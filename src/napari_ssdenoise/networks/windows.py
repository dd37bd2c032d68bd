"""Which input planes each layer of a network needs for an output plane.

From this alone follow the exact halo of a tile (`reach`) and how a network can run over a stack slab by slab, every
layer keeping just the planes that the next slab needs (`napari_ssdenoise.engine.flow`). A module with windows of its
own tells them in a method ``window(axis) -> Window``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import fx, nn


@dataclass(frozen=True)
class Window:
    """The input of a layer along one axis.

    Output plane ``i`` needs the inputs ``down * (i // up) - before`` to ``down * (i // up) + down - 1 + after``.

    Attributes
    ----------
    before, after
        Planes further out on either side.
    down, up
        Factors by which the layer shrinks or repeats the axis.
    """

    before: int = 0
    after: int = 0
    down: int = 1
    up: int = 1

    def needs(self, low: int, high: int) -> tuple[int, int]:
        """Return the range of inputs for the range of outputs ``low`` to ``high`` (exclusive)."""
        return low // self.up * self.down - self.before, -(-high // self.up) * self.down + self.after

    def gives(self, end: int) -> int:
        """Return how many outputs the first ``end`` inputs suffice for."""
        return (end - self.after) // self.down * self.up

    def around(self) -> Window:
        """Return the window widened to hold the output plane's own place, for a layer that is called on parts."""
        return Window(max(0, self.before), max(0, self.after), self.down, self.up)

    def length(self, n: int) -> int:
        """Return the number of outputs of ``n`` inputs in all."""
        return n // self.down * self.up


POINTWISE = Window()
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_POINTWISE_MODULES = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Dropout, *NORMS)
_POINTWISE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.getitem),
    *(torch.add, torch.sub, torch.mul, torch.relu, torch.nn.functional.relu, torch.cat, torch.exp),
)


class _Recorded(nn.Module):
    """Stands for a layer while a forward pass is written down."""

    def __init__(self, layer: nn.Module, name: str, tracer: fx.proxy.TracerBase) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not as a submodule
        self._name = name
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)

    def forward(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        return self._tracer.create_proxy("call_module", self._name, args, kwargs)


def _written_down(network: nn.Module) -> fx.GraphModule:
    """Call a copy of the network, in which all layers only record that they are called.

    `torch.fx.symbolic_trace` would replace methods of all modules for a moment, and so disturb a network that runs in
    another thread.
    """
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    layers = {
        name: layer for name, layer in network.named_modules() if name and not any(True for _ in layer.children())
    }
    recorded: dict[int, Any] = {id(layer): _Recorded(layer, name, tracer) for name, layer in layers.items()}
    copy: Any = deepcopy(network, recorded).eval()
    if len(signature(copy.forward).parameters) != 1:
        raise ValueError("the network has several inputs.")
    result = copy.forward(fx.Proxy(graph.placeholder("x"), tracer))
    graph.output(tracer.create_arg(result))
    return fx.GraphModule(network, graph)


def trace(network: nn.Module) -> fx.GraphModule | None:
    """Write down a network's layers in order; None if its forward pass is not a fixed list of known layers."""
    try:
        graph = _written_down(network)
        for node in graph.graph.nodes:
            for axis in range(2):
                window_of(graph, node, axis)
    except Exception:  # whatever a forward pass does to the tracer, such a network runs as a whole
        return None
    results = [node.args[0] for node in graph.graph.nodes if node.op == "output"]
    return graph if all(isinstance(result, fx.Node) for result in results) else None


def window_of(graph: fx.GraphModule, node: fx.Node, axis: int) -> Window:
    """Return the window of one layer along spatial axis ``axis``.

    Raises
    ------
    ValueError
        If the layer is of an unknown kind, or works across the axis.
    """
    if node.op in ("placeholder", "output"):
        return POINTWISE
    if node.op == "call_module":
        layer: Any = graph.get_submodule(str(node.target))
        if hasattr(layer, "window"):
            window: Window = layer.window(axis)
            return window
        if isinstance(layer, CONVOLUTIONS) and max(layer.stride) == 1 and layer.padding_mode != "circular":
            wide = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            if not isinstance(layer.padding, str) and 2 * layer.padding[axis] == wide:
                return Window(wide // 2, wide // 2)
        if isinstance(layer, nn.Upsample) and layer.mode == "nearest" and isinstance(layer.scale_factor, tuple):
            factor = float(layer.scale_factor[axis])
            if factor.is_integer():
                return Window(up=int(factor))
        if isinstance(layer, _POINTWISE_MODULES):
            return POINTWISE
    elif node.op == "call_function" and node.target in _POINTWISE_FUNCTIONS and _only_channels(node):
        return POINTWISE
    raise ValueError(f"the windows of layer {node.name!r} are not known.")


def _only_channels(node: fx.Node) -> bool:
    """Tell whether a function leaves the spatial axes as they are."""
    if node.target is torch.cat:
        dim: Any = node.kwargs.get("dim") if len(node.args) < 2 else node.args[1]
        return bool(dim == 1)
    if node.target is operator.getitem:
        key = node.args[1]
        return isinstance(key, tuple) and len(key) <= 2 and all(isinstance(k, slice) for k in key)
    return True


def reach(network: nn.Module, strides: Sequence[int]) -> tuple[int, ...]:
    """Return how many input pixels on either side an output pixel depends on, per axis: the exact halo.

    The ranges of dependence are followed backwards through the layers, for every phase of the pooling grid, and the
    widest counts.

    Raises
    ------
    ValueError
        If a layer's windows are not known.
    """
    graph = trace(network)
    if graph is None:
        raise ValueError(f"{type(network).__name__} has layers whose windows are not known; let it tell its reach().")
    return tuple(max(_reach(graph, axis, pixel) for pixel in range(stride)) for axis, stride in enumerate(strides))


def _reach(graph: fx.GraphModule, axis: int, pixel: int) -> int:
    needed: dict[fx.Node, tuple[int, int]] = {}
    for node in reversed(graph.graph.nodes):
        low, high = needed.pop(node, (pixel, pixel + 1))
        if node.op == "placeholder":
            return max(pixel - low, high - 1 - pixel)
        window = window_of(graph, node, axis)
        for source in node.all_input_nodes:
            first, last = window.needs(low, high)
            if source in needed:
                first, last = min(first, needed[source][0]), max(last, needed[source][1])
            needed[source] = (first, last)
    raise ValueError("the network has no input.")
