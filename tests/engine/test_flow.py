"""A stack that flows through a network slab by slab gives what the whole network gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine.flow import Flow
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, folded, in_precision
from napari_ssdenoise.networks.unet import UNet
from napari_ssdenoise.networks.windows import trace

if TYPE_CHECKING:
    from napari_ssdenoise.model import TrainedModel


def lively(network: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.data.normal_(0.2, 0.3)
    return network.eval()


def ready(network: Any, ndim: int, dtype: torch.dtype = torch.float32) -> Any:
    """Prepare a network as a predictor does."""
    return in_precision(folded(lively(network)), dtype).to(memory_format=MEMORY_FORMAT[ndim])


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def flow_through(network: Any, noisy: Tensor, axis: int, slab: int, start: int = 0) -> tuple[Tensor, int]:
    """Push a stack through, and return the result and where it begins."""
    graph = trace(network)
    assert graph is not None
    length, dim = noisy.shape[axis + 2], axis + 2
    parts = []
    with torch.inference_mode():
        flow = Flow(graph, axis, length, slab, start)
        first = flow.end
        slabs = iter(noisy.split(slab, dim)[start:])
        while flow.end < length:
            before = flow.end
            part = flow.push(next(slabs, None))
            assert (0 if part is None else part.shape[dim]) == flow.end - before
            if part is not None:
                parts.append(part.clone())
    assert next(slabs, None) is None
    return torch.cat(parts, dim), first


NETWORKS = {
    "2D": (2, {}),
    "2D residual": (2, {"residual": True}),
    "2D blurpool": (2, {"blurpool": True}),
    "2D deep": (2, {"depth": 3}),
    "2D joint channels": (2, {"channels_in": 3, "channels_out": 3, "residual": True}),
    "2D flat along Y": (2, {"pooled": (False, True)}),
    "3D": (3, {}),
    "3D blurpool": (3, {"blurpool": True, "depth": 1}),
    "3D residual, few planes": (3, {"pooled": (False, True, True), "residual": True}),
}


@pytest.mark.parametrize(("name", "axis"), [(name, d) for name, (ndim, _) in NETWORKS.items() for d in range(ndim)])
@pytest.mark.parametrize("strides", [1, 2, 5], ids=lambda n: f"slabs of {n} strides")
def test_flow_equals_the_whole_network(name: str, axis: int, strides: int) -> None:
    ndim, settings = NETWORKS[name]
    network = ready(UNet(ndim, width=4, **settings), ndim)
    stride = network.stride
    shape = [2 * s if s > 1 else 4 for s in stride]
    # Long enough that the halo lies well inside, and no multiple of the slab.
    shape[axis] = stride[axis] * (11 if ndim == 2 or stride[axis] == 1 else 7)
    noisy = noise(2, settings.get("channels_in", 1), *shape)
    with torch.inference_mode():
        whole = network(noisy.contiguous(memory_format=MEMORY_FORMAT[ndim]))
    result, first = flow_through(network, noisy, axis, stride[axis] * strides)
    assert first == 0
    assert float((result - whole).abs().max()) <= 1e-5 * float(whole.max() - whole.min())
    assert whole.std() > 0.1


def test_a_slab_longer_than_the_stack() -> None:
    network = ready(UNet(2, width=4), 2)
    noisy = noise(1, 1, 8, 8)
    with torch.inference_mode():
        whole = network(noisy)
    result, _ = flow_through(network, noisy, 0, 32)
    torch.testing.assert_close(result, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "axis", "slab"), [("2D", 0, 4), ("2D blurpool", 1, 8), ("2D residual", 0, 16), ("3D", 0, 4)], ids=str
)
def test_taken_up_anywhere_it_computes_the_same_bits(name: str, axis: int, slab: int, dtype: torch.dtype) -> None:
    ndim, settings = NETWORKS[name]
    network = ready(UNet(ndim, width=4, **settings), ndim, dtype)
    shape = [8] * ndim
    shape[axis] = 76 if ndim == 2 else 64
    noisy = noise(1, 1, *shape)
    reach = UNet(ndim, width=4, **settings).reach()[axis]
    whole, _ = flow_through(network, noisy, axis, slab)
    for start in range(1, shape[axis] // slab):
        tail, first = flow_through(network, noisy, axis, slab, start)
        sure = min(start * slab + reach, shape[axis])
        assert first <= sure
        later = tail.narrow(axis + 2, sure - first, shape[axis] - sure)
        assert torch.equal(later, whole.narrow(axis + 2, sure, shape[axis] - sure))


def test_bfloat16_flows_close_to_float32() -> None:
    network = UNet(2, width=4)
    noisy = noise(1, 1, 48, 16)
    exact, _ = flow_through(ready(network, 2), noisy, 0, 8)
    rough, _ = flow_through(ready(network, 2, torch.bfloat16), noisy, 0, 8)
    assert rough.dtype is torch.float32
    assert float((rough - exact).square().mean().sqrt()) < 0.05 * float(exact.std())


def test_the_end_is_padded_with_zeros_as_in_the_whole_network() -> None:
    """With a bias that makes padding visible: the last planes differ from those of a longer stack."""
    network = ready(UNet(2, width=4), 2)
    noisy = noise(1, 1, 64, 8)
    short, _ = flow_through(network, noisy[:, :, :32], 0, 8)
    long, _ = flow_through(network, noisy, 0, 8)
    with torch.inference_mode():
        torch.testing.assert_close(short, network(noisy[:, :, :32]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(short[:, :, -1], long[:, :, 31], atol=1e-2)


class Straight(nn.Module):
    """One line of layers, and a `line` that says how they are used."""

    def __init__(self, line: Any, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.line = line

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.line(self, x)
        return out


def conv(channels_in: int = 1, channels_out: int = 1, width: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, width, padding=width // 2, **options)


ODD = {
    "unused branch": Straight(lambda self, x: (self.a(x), self.b(x))[0], a=conv(), b=conv()),
    "the same image twice": Straight(lambda self, x: self.b(torch.cat([x, x], 1)), b=conv(2)),
    "three times in turn": Straight(lambda self, x: self.b(torch.cat([x, self.a(x), x], 1)), a=conv(), b=conv(3)),
    "arguments by name": Straight(lambda self, x: torch.add(self.a(x), other=self.b(x)), a=conv(), b=conv()),
    "joined by name": Straight(lambda self, x: self.b(torch.cat(tensors=[self.a(x), x], dim=1)), a=conv(), b=conv(2)),
    "pointwise first": Straight(lambda self, x: self.b(self.a(x)), a=conv(1, 3, 1), b=conv(3)),
    "dilated": Straight(lambda self, x: self.a(x), a=nn.Conv2d(1, 2, 3, padding=3, dilation=3)),
    "grouped": Straight(lambda self, x: self.b(self.a(x)), a=conv(1, 4), b=conv(4, 4, groups=2)),
    "mirrored padding": Straight(lambda self, x: self.b(self.a(x)), a=conv(padding_mode="reflect"), b=conv()),
    "replicated padding": Straight(lambda self, x: self.a(self.a(x)), a=conv(padding_mode="replicate")),
    "wide": Straight(lambda self, x: self.a(x), a=conv(width=9)),
    "nothing but a sum": Straight(lambda self, x: x + 1),
    "result used inside as well": Straight(lambda self, x: self.b(self.a(x)) + self.a(x), a=conv(), b=conv()),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("slab", [1, 4, 16])
def test_networks_of_other_kinds(name: str, axis: int, slab: int) -> None:
    network = lively(ODD[name])
    noisy = noise(2, 1, 21, 21)
    with torch.inference_mode():
        whole = network(noisy)
    result, _ = flow_through(network, noisy, axis, slab)
    torch.testing.assert_close(result, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ODD)
def test_networks_of_other_kinds_in_bfloat16(name: str) -> None:
    """Layers get what they want, as under autocast."""
    exact, _ = flow_through(lively(ODD[name]), noise(1, 1, 21, 12), 0, 4)
    network = in_precision(folded(lively(ODD[name])), torch.bfloat16)
    result, _ = flow_through(network, noise(1, 1, 21, 12), 0, 4)
    assert float((result - exact).abs().max()) < 0.1 * float(exact.max() - exact.min())


def test_memory_does_not_grow_with_the_stack(make_model: Any) -> None:
    """What a flow holds stays below the projection, however long it gets."""
    model: TrainedModel = make_model("ZYX", width=8)
    predictor = model.predictor(precision="float32", device="cpu")
    side, axis = 16, 0
    for slab in (4, 8):
        projected = predictor.flow_bytes(axis, slab) * side**2
        held = []
        with torch.inference_mode():
            stack = predictor.flow(40 * slab, axis, slab)
            (flow,) = stack._flows
            while stack.end < 40 * slab:
                stack.push(noise(1, 1, slab, side, side) if flow.step < 40 else None)
                held.append(flow._held())
        assert 0.3 * projected < max(held) <= projected
        assert max(held[20:]) <= max(held[:20])


def test_augmentation_takes_a_flow_for_every_turn(make_model: Any) -> None:
    plain = make_model("ZYX").predictor(precision="float32", device="cpu")
    turned = make_model("ZYX").predictor(precision="float32", device="cpu", augment=True)
    assert turned.flow_bytes(0, 4) == 8 * plain.flow_bytes(0, 4)
    assert turned.flow_axes == [0]  # Y and X are flipped
    assert plain.flow_axes == [0, 1]
    assert make_model("YX").predictor(device="cpu", augment=True).flow_axes == []


def test_an_algorithm_with_a_prediction_of_its_own_cannot_flow(make_model: Any) -> None:
    class Own(type(get_algorithm("n2v"))):  # type: ignore[misc]
        def predict(self, network: Any, noisy: Tensor) -> dict[str, Tensor]:
            return {"mean": network(noisy).float() - noisy.mean()}

    predictor = make_model("ZYX", algorithm=Own(width=4)).predictor(device="cpu")
    assert predictor.flow_axes == []
    with pytest.raises(RuntimeError, match="whole tiles"):
        predictor.flow(32, 0, 4)


def test_planes_that_were_skipped_are_zeros_for_the_read_out(make_model: Any) -> None:
    """`read_out` sees the noisy planes that belong to its result, also after a late start."""
    seen: list[Tensor] = []

    class Watching(type(get_algorithm("n2v"))):  # type: ignore[misc]
        def read_out(self, raw: Tensor, noisy: Tensor) -> dict[str, Tensor]:
            assert raw.shape == noisy.shape
            seen.append(noisy.clone())
            return {"mean": raw}

    predictor = make_model("YX", algorithm=Watching(width=4)).predictor(device="cpu", precision="float32")
    noisy = noise(1, 1, 80, 8)
    for start in (0, 3, 7):
        seen.clear()
        stack = predictor.flow(80, 0, 8, start)
        first = stack.end
        slabs = iter(noisy.split(8, 2)[start:])
        while stack.end < 80:
            stack.push(next(slabs, None))
        expected = noisy.clone()
        expected[:, :, : 8 * start] = 0
        np.testing.assert_array_equal(torch.cat(seen, 2), expected[:, :, first:])
