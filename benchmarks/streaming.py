"""Compare the rate of a streamed 2D prediction with the bare network's on the same tiles, in turns, in one process.

    python benchmarks/streaming.py --data FOLDER/big.zarr/vol --planes 96

A network is trained for a few steps on some planes (speed does not depend on its weights), streamed from zarr to
OME-Zarr, and run over a tile of the plan's size that is in memory already. Halos count as work. The machine should do
nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from napari_ssdenoise._threads import share_processor

share_processor()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import napari_ssdenoise as ssd  # noqa: E402
from napari_ssdenoise.engine.memory import reused_memory  # noqa: E402

if TYPE_CHECKING:
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.volume import Volume


class FirstPlanes:
    """The first planes of an array, read from it as they are asked for."""

    def __init__(self, array: Any, count: int) -> None:
        self._array = array
        self.shape = (min(count, array.shape[0]), *array.shape[1:])
        self.dtype, self.chunks = array.dtype, array.chunks

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]


def bare(predictor: Predictor, plan: Plan, seconds: float) -> float:
    """Return the pixels per second of passes over one tile in memory."""
    shape = [plan.tiles.largest(d) for d in range(len(plan.tiles.shape))]
    tile = torch.randn(plan.batch, 1, *shape)
    with reused_memory(plan.bytes):
        predictor.run(tile)
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            predictor.run(tile)
            count += 1
        return count * tile.numel() / (time.perf_counter() - began)


def stream(model: ssd.TrainedModel, volume: Volume, plan: Plan, memory: str, folder: Path) -> float:
    """Return the pixels per second, halos with them, from the zarr to a finished file."""
    began = time.perf_counter()
    for _ in model.predict_into(volume, folder / "out.ome.zarr", memory=memory, overwrite=True):
        pass
    pixels = float(np.prod(volume.shape))
    return pixels * plan.work / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a zarr array of planes (ZYX)")
    parser.add_argument("--planes", type=int, default=96, help="as many of them (default: 96)")
    parser.add_argument("--memory", default="4 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of bare passes in each round")
    arguments = parser.parse_args()

    opened = ssd.open_volume(arguments.data, axes="ZYX")
    volume = replace(opened, data=FirstPlanes(opened.data, arguments.planes))
    part = ssd.Volume(np.asarray(opened.data[:4]), "ZYX", name="part")
    model = ssd.train(part, "n2v", steps=2, spatial="YX")
    plan, predictor = model.plan(volume, memory=arguments.memory), model.predictor()
    print(plan.describe(), flush=True)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            alone = bare(predictor, plan, arguments.seconds)
            streamed = stream(model, volume, plan, arguments.memory, Path(folder))
            ratios.append(streamed / alone)
            print(f"bare {alone / 1e6:.2f}, streamed {streamed / 1e6:.2f} MPix/s: {ratios[-1]:.0%}", flush=True)
    print(f"median {median(ratios):.0%}")


if __name__ == "__main__":
    main()
