"""CAREamics' part of ``speed.py``, through its public interface; its own interpreter runs this.

Everything stays at its defaults but what the comparison fixes: patch, batch, tile and overlap.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any

from speed_process import Measured, folder_bytes, since_start, work

AXES = {2: "YX", 3: "ZYX"}


def train(data: str, ndim: int, patch: list[int], batch: int, seconds: float, warmup: int) -> dict[str, Any]:
    """Train for some seconds after a warm-up, and count the steps from the end of one batch to the end of another.

    The image is passed several times, so that an epoch has a hundred steps: validating and saving after each of the
    image's own short epochs would cost more.
    """
    import numpy as np
    from lightning.pytorch import Callback  # type: ignore[import-not-found]  # noqa: TID251

    class Clock(Callback):  # type: ignore[misc]
        """Stops the training, and knows when its batches started and ended."""

        def __init__(self) -> None:
            self.ends: list[float] = []
            self.batches: list[float] = []
            self.first_step = 0.0

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            now = time.perf_counter()
            self.ends.append(now)
            self.batches.append(now - self.started)
            self.first_step = self.first_step or since_start()
            if len(self.ends) > warmup and now - self.ends[warmup - 1] >= seconds:
                trainer.should_stop = True

    image = np.load(data)
    patches = math.prod(n // p for n, p in zip(image.shape, patch, strict=True))
    repeats = math.ceil(100 * batch / patches)
    clock = Clock()
    careamist = _untrained(ndim, patch, batch, Path.cwd(), callbacks=[clock], num_epochs=10**6)
    measured = Measured()
    careamist.train(train_data=[image] * repeats)
    steps, spent = len(clock.ends) - warmup, clock.ends[-1] - clock.ends[warmup - 1]
    return {
        **measured.done(),
        "rate": steps / spent,
        "steps": steps,
        "seconds": round(spent, 3),
        "rate_within_batches": 1 / statistics.median(clock.batches[warmup:]),
        "first_step": round(clock.first_step, 3),
        "parameters": _parameters(careamist),
        "precision": str(careamist.trainer.precision),
    }


def checkpoint(data: str, ndim: int, patch: list[int], batch: int, out: str) -> dict[str, Any]:
    """Train for two steps, which is enough to measure a prediction's speed, and save."""
    import numpy as np

    image = np.load(data)
    careamist = _untrained(ndim, patch, batch, Path.cwd(), num_epochs=1, num_steps=2)
    careamist.train(train_data=image)
    careamist.trainer.save_checkpoint(out)
    return {"parameters": _parameters(careamist)}


def predict(model: str, source: str, ndim: int, out: str, tile: list[int], overlap: list[int]) -> dict[str, Any]:
    """Denoise a zarr array into a zarr array; in 2D every plane is a sample of its own."""
    import zarr
    from careamics import CAREamist  # type: ignore[import-not-found]

    array = zarr.open_array(source, mode="r")
    careamist = CAREamist(checkpoint_path=model, work_dir=Path.cwd(), enable_progress_bar=False)
    measured = Measured()
    careamist.predict_to_disk(
        pred_data=str(array.store_path),
        data_type="zarr",
        axes={2: "SYX", 3: "ZYX"}[ndim],
        prediction_dir=out,
        write_type="zarr",
        tile_size=tuple(tile),
        tile_overlap=tuple(overlap),
        batch_size=1,
        checkpoint=model,
    )
    figures = measured.done()
    voxels = math.prod(array.shape)
    made = folder_bytes(out)
    if not made:
        raise OSError(f"CAREamics left nothing in {out}.")
    return {
        **figures,
        "rate": voxels / figures["seconds"] / 1e6,
        "voxels": voxels,
        "output_bytes": made,
        "parameters": _parameters(careamist),
        "precision": str(careamist.trainer.precision),
    }


def _untrained(ndim: int, patch: list[int], batch: int, folder: Path, *, callbacks: Any = None, **budget: int) -> Any:
    from careamics import CAREamist
    from careamics.config.factories import create_advanced_n2v_config  # type: ignore[import-not-found]

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings = create_advanced_n2v_config(
        experiment_name="speed",
        data_type="array",
        axes=AXES[ndim],
        patch_size=patch,
        batch_size=batch,
        seed=1,
        **budget,
    )
    return CAREamist(settings, work_dir=folder, callbacks=callbacks, enable_progress_bar=False)


def _parameters(careamist: Any) -> int:
    return sum(p.numel() for p in careamist.model.model.parameters())


if __name__ == "__main__":
    work({"train": train, "checkpoint": checkpoint, "predict": predict}, "careamics")
