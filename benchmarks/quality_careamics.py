"""CAREamics' Noise2Void for ``quality.py``, through its public interface; its own interpreter runs this.

Everything stays at its defaults but patch, batch and tile, which it does not choose by itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from speed_process import work

PATCH, BATCH, TILE, OVERLAP = (64, 64), 16, (128, 128), (48, 48)


def n2v(learn: str, tests: list[str], seconds: float) -> dict[str, Any]:
    """Learn from images (Y, X) or (S, Y, X) for some seconds, and denoise others in place, each of them (Y, X).

    The images are passed several times, so that an epoch has a hundred steps: validating and saving after each of the
    image's own short epochs would cost more.
    """
    import numpy as np
    from careamics import CAREamist  # type: ignore[import-not-found]
    from careamics.config.factories import create_advanced_n2v_config  # type: ignore[import-not-found]
    from lightning.pytorch import Callback  # type: ignore[import-not-found]  # noqa: TID251

    class Clock(Callback):  # type: ignore[misc]
        """Stops the training."""

        def __init__(self) -> None:
            self.steps = 0
            self.started = self.seconds = 0.0

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.steps += 1
            self.seconds = time.perf_counter() - self.started
            trainer.should_stop = self.seconds >= seconds

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    images = np.load(learn)
    axes = "YX" if images.ndim == 2 else "SYX"
    settings = create_advanced_n2v_config(
        experiment_name="quality",
        data_type="array",
        axes=axes,
        patch_size=list(PATCH),
        batch_size=BATCH,
        num_epochs=10**6,
        seed=1,
    )
    clock = Clock()
    careamist = CAREamist(settings, work_dir=Path.cwd(), callbacks=[clock], enable_progress_bar=False)
    patches = images.size // math.prod(PATCH)
    careamist.train(train_data=[images] * math.ceil(100 * BATCH / patches))
    careamist.trainer.save_checkpoint("last.ckpt")
    for test in tests:
        made, _ = careamist.predict(
            np.load(test), axes="YX", tile_size=TILE, tile_overlap=OVERLAP, batch_size=1, checkpoint="last.ckpt"
        )
        np.save(test, np.squeeze(np.asarray(made[0])).astype(np.float32))
    return {"steps": clock.steps, "train_seconds": round(clock.seconds, 1)}


def learnt_and_denoised(python: Path, learn: Any, tests: list[Any], seconds: float) -> tuple[list[Any], dict[str, Any]]:
    """Run `n2v` by another interpreter, in a process of its own; return the images that it makes, and its figures."""
    import numpy as np

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{number}.npy" for number in range(len(tests))]
        for path, image in zip([folder / "learn.npy", *paths], [learn, *tests], strict=True):
            np.save(path, image)
        arguments = {"learn": str(folder / "learn.npy"), "tests": [str(path) for path in paths], "seconds": seconds}
        (folder / "job.json").write_text(json.dumps({"task": "n2v", "arguments": arguments}))
        own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [str(python), str(Path(__file__).resolve()), "job.json", "result.json"]
        subprocess.run(command, cwd=folder, env=own, check=True, stdout=subprocess.DEVNULL)
        found = json.loads((folder / "result.json").read_text())
        facts = {key: found[key] for key in ("steps", "train_seconds", "version")}
        return [np.load(path) for path in paths], {**facts, "algorithm": "n2v of CAREamics"}


if __name__ == "__main__":
    work({"n2v": n2v}, "careamics")
