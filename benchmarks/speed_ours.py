"""Our part of ``speed.py``, and the bare network's: one task per process."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from speed_process import Measured, folder_bytes, since_start, work

from napari_ssdenoise._threads import share_processor

# Inputs of the bare forward pass: images x shape. Its rate is that of the fastest.
FORWARD = {
    2: ((1, (128, 128)), (4, (128, 128)), (1, (256, 256)), (1, (512, 512))),
    3: ((1, (16, 128, 128)), (1, (32, 128, 128)), (1, (8, 256, 256)), (1, (32, 256, 256))),
}


def plan_of(model: Any, volume: Any, memory: str) -> Any:
    """Return how the model would compute the volume: ``.work``, computed per resulting voxel, and ``.describe()``."""
    return model.plan(volume, memory=memory)


def train(data: str, ndim: int, patch: list[int], batch: int, seconds: float, warmup: int) -> dict[str, Any]:
    """Train Noise2Void with its default settings for some seconds after a warm-up; count the steps."""
    import napari_ssdenoise as ssd
    from napari_ssdenoise.engine.device import describe_device

    trainer = ssd.Trainer(ssd.Noise2Void(), ssd.open_volume(data), steps=10**9)
    if (list(trainer.sampler.patch), trainer.sampler.batch) != (patch, batch):
        raise ValueError(f"the default is {trainer.sampler.batch} x {trainer.sampler.patch}, not {batch} x {patch}.")
    next(trainer)
    first_step = since_start()
    for _ in range(1, warmup):
        next(trainer)
    _wait(trainer.device)
    measured = Measured()
    steps = 0
    while measured.seconds < seconds:
        next(trainer)
        steps += 1
    _wait(trainer.device)
    figures = measured.done()
    trainer.close()
    return {
        **figures,
        "rate": steps / figures["seconds"],
        "steps": steps,
        "first_step": round(first_step, 3),
        "parameters": _parameters(trainer.network),
        "precision": describe_device(trainer.device, trainer.dtype),
    }


def train_bare(ndim: int, patch: list[int], batch: int, seconds: float, warmup: int) -> dict[str, Any]:
    """Repeat the same network's steps on one batch that is there: no patches drawn, none masked, nothing averaged."""
    import torch

    from napari_ssdenoise.engine.device import autocast, choose_device, choose_precision, describe_device
    from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
    from napari_ssdenoise.networks.unet import UNet

    device = choose_device()
    dtype = choose_precision(device)
    torch.manual_seed(0)
    network: Any = UNet(ndim)
    network = network.to(device, memory_format=MEMORY_FORMAT[ndim])
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    noisy = torch.randn(batch, 1, *patch, device=device).contiguous(memory_format=MEMORY_FORMAT[ndim])
    target = torch.randn_like(noisy)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            loss: Any = torch.nn.functional.mse_loss(network(noisy).float(), target)
        loss.backward()
        optimizer.step()

    for _ in range(warmup):
        step()
    steps, spent = _repeat(step, seconds, device)
    return {
        "rate": steps / spent,
        "steps": steps,
        "seconds": round(spent, 3),
        "parameters": _parameters(network),
        "precision": describe_device(device, dtype),
    }


def prepare(data: str, ndim: int, shape: list[int], source: str, out: str, part: str) -> dict[str, Any]:
    """Make what predictions need: a model of two steps, and the part of the volume that all tools denoise.

    In 2D its chunks hold parts of one plane, as the files of microscopes do; those of the volume hold 64 planes, all
    of which would be decoded for each.
    """
    import numpy as np
    import zarr

    import napari_ssdenoise as ssd

    volume = zarr.open_array(source, mode="r")
    if any(n > m for n, m in zip(shape, volume.shape, strict=True)):
        raise ValueError(f"the part {tuple(shape)} is larger than the volume {volume.shape}. Choose a smaller one.")
    crop = np.asarray(volume[tuple(slice(n) for n in shape)])
    chunks = tuple(min(n, c) for n, c in zip(shape, (1, 256, 256) if ndim == 2 else volume.chunks, strict=True))
    if not Path(part).exists():
        unfinished = zarr.open_group(f"{part}.partial", mode="w")
        unfinished.create_array("vol", shape=crop.shape, chunks=chunks, dtype=crop.dtype)[...] = crop
        Path(f"{part}.partial").rename(part)
    spatial = "ZYX"[3 - ndim :]
    small = crop[tuple(slice(256) for _ in shape)]
    model = ssd.train(ssd.Volume(small, "ZYX", name="part"), "n2v", steps=2, spatial=spatial)
    model.save(out)
    return {"parameters": _parameters(model.network)}


def predict(model: str, source: str, ndim: int, out: str, memory: str, cut: float = 0.0) -> dict[str, Any]:
    """Denoise a zarr array into an OME-Zarr; give up after ``cut`` seconds, if there is such a limit.

    The volume is planned before the clock starts, which loads what is imported late: starting a process is not part of
    the comparison. `predict_into` plans it once more, within the time.
    """
    import torch

    import napari_ssdenoise as ssd
    from napari_ssdenoise.engine.device import choose_device, choose_precision, describe_device

    trained = ssd.TrainedModel.load(model)
    volume = ssd.open_volume(source, axes="ZYX")
    device = choose_device()
    precision = describe_device(device, choose_precision(device))
    began = time.perf_counter()
    plan = plan_of(trained, volume, memory)
    planning = time.perf_counter() - began
    measured = Measured()
    tiles = trained.predict_into(volume, out, memory=memory, overwrite=True)
    voxels, stopped = 0, False
    for done in tiles:
        if done.region is not None:
            voxels += prod(s.stop - s.start for s in done.region)
            stopped = 0 < cut < measured.seconds
        if stopped:
            break
    figures = measured.done()
    tiles.close()
    return {
        **figures,
        "rate": voxels / figures["seconds"] / 1e6,
        "voxels": voxels,
        "shape": list(volume.shape),
        "cut": stopped,
        "work": float(plan.work),
        "plan": plan.describe(),
        "plan_seconds": round(planning, 3),
        "output_bytes": folder_bytes(Path(out).parent),
        "parameters": _parameters(trained.network),
        "precision": precision,
        "cuda_peak": torch.cuda.max_memory_allocated() if device.type == "cuda" else 0,
    }


def forward(ndim: int, seconds: float) -> dict[str, Any]:
    """Run the bare network at inference, batch norm folded, in some ways and sizes; the rate is the best one's."""
    import torch

    from napari_ssdenoise.engine.device import autocast, choose_device, choose_precision, describe_device
    from napari_ssdenoise.networks.blocks import MEMORY_FORMAT, folded
    from napari_ssdenoise.networks.unet import UNet

    device = choose_device()
    dtype = choose_precision(device)
    torch.manual_seed(0)
    network = folded(UNet(ndim)).to(device, memory_format=MEMORY_FORMAT[ndim])
    ways = [("autocast", network, torch.float32, dtype)]
    if dtype is not torch.float32:  # weights converted once; the last layer stays in float32, as ever
        converted = folded(UNet(ndim)).to(device, dtype, memory_format=MEMORY_FORMAT[ndim])
        converted.head.float()
        ways.append(("converted", converted, dtype, torch.float32))
    rates = {}
    with torch.inference_mode():
        for way, body, kind, cast in ways:
            for images, shape in FORWARD[ndim]:
                noisy = torch.randn(images, 1, *shape).to(device, kind).contiguous(memory_format=MEMORY_FORMAT[ndim])

                def run(body: Any = body, noisy: Any = noisy, cast: Any = cast) -> None:
                    with autocast(device, cast):
                        body(noisy)

                run()
                passes, spent = _repeat(run, seconds / len(ways) / len(FORWARD[ndim]), device)
                rates[f"{way} {images}x{'x'.join(map(str, shape))}"] = passes * noisy.numel() / spent / 1e6
    best = max(rates, key=lambda name: rates[name])
    return {
        "rate": rates[best],
        "best": best,
        "rates": rates,
        "parameters": _parameters(UNet(ndim)),
        "precision": describe_device(device, dtype),
    }


def _repeat(step: Callable[[], None], seconds: float, device: Any) -> tuple[int, float]:
    """Return how often something was done, and in how many seconds."""
    _wait(device)
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < seconds or not count:
        step()
        count += 1
    _wait(device)
    return count, time.perf_counter() - started


def _wait(device: Any) -> None:
    """Let a GPU finish what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parameters(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


if __name__ == "__main__":
    share_processor()  # as the command line and the widget do, before torch is imported
    tasks: dict[str, Callable[..., dict[str, Any]]] = {
        "train": train,
        "train_bare": train_bare,
        "prepare": prepare,
        "predict": predict,
        "forward": forward,
    }
    work(tasks, "")
